"""`losswire summarize` and `losswire compare`: a loss over files of any size."""

import argparse
import csv
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from typing import Any

from losswire.client import Client, Comparison, LossInfo, Summary
from losswire.client.cli._arrays import Wanted, read
from losswire.client.cli._common import (
    Exit,
    UsageError,
    add_connection,
    open_client,
    refusals,
    say,
    to_json,
)
from losswire.client.cli._request import describe, options_of, pairs
from losswire.client.cli._run_page import show_lines
from losswire.client.cli._table import number, table
from losswire.summaries import statistics
from losswire.v1 import summary_pb2

_DATA_HELP = """\
DATA are files or folders of Parquet, Arrow, CSV or JSON lines, patterns such as 'part-*.parquet',
or addresses such as s3://bucket/folder. Each input of the loss is the column of its name, unless
--column says otherwise, or --shared gives one array for all rows. A summary says its mean with a
95 % interval, quantiles, slices and the rows with the largest losses."""

_CSV_TITLES = (
    "table",
    "labels",
    "candidate",
    "count",
    "ignored_count",
    "nan_count",
    "infinite_count",
    "mean",
    "low",
    "high",
    "std",
    "minimum",
    "median",
    "p99",
    "maximum",
)


def add_parser(commands: Any) -> None:
    """Add both commands."""
    summarize = commands.add_parser(
        "summarize",
        help="summarize a loss over files",
        description=f"Summarize a loss over a data set of any size. {_DATA_HELP}",
    )
    _add_arguments(summarize)
    summarize.set_defaults(run=_summarize)
    compare = commands.add_parser(
        "compare",
        help="compare models over the same rows",
        description=f"Compare 2 to 8 models over the same rows, row by row. {_DATA_HELP}",
    )
    compare.add_argument(
        "--candidate",
        action="append",
        default=[],
        metavar="NAME:INPUT=COLUMN[,...]",
        help="a model and its own inputs, such as new:input=logits_new; at least two",
    )
    _add_arguments(compare)
    compare.set_defaults(run=_compare)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("loss", metavar="LOSS", help="its name; `losswire losses` lists all")
    parser.add_argument("data", metavar="DATA", nargs="+", help="files, folders or addresses")
    _add_columns(parser.add_argument_group("columns"))
    _add_settings(parser.add_argument_group("evaluation"))
    group = parser.add_argument_group("results")
    group.add_argument("--json", action="store_true", help="print one JSON object")
    group.add_argument(
        "--csv", action="store_true", help="print a line for all rows and each slice"
    )
    group.add_argument("--html", metavar="FILE", help="write a report for a browser")
    group.add_argument("--output", metavar="FILE", help="write the summary, for `losswire gate`")
    group.add_argument("--save", metavar="NAME", help="keep the summary on the server, as a run")
    group.add_argument("--run-id", metavar="ID", help="the id of the run; default: a new one")
    group.add_argument(
        "--label",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a label of the run, such as commit=1f2e; may be repeated",
    )
    group.add_argument("--quiet", action="store_true", help="show no progress on the terminal")
    add_connection(parser)


def _add_columns(group: Any) -> None:
    add = group.add_argument
    repeated: dict[str, Any] = {"action": "append", "default": []}
    add(
        "--column",
        **repeated,
        metavar="INPUT=COLUMN",
        help="the column of an input, such as input=logits; may be repeated",
    )
    add(
        "--shared",
        **repeated,
        metavar="INPUT=VALUE",
        help="an input that all rows share: a file or JSON, such as weight=[1.0, 2.0]",
    )
    add(
        "--slice",
        **repeated,
        metavar="COLUMN[,COLUMN]",
        help="a column whose values make slices, or the cross of several; may be repeated",
    )
    add("--id", metavar="COLUMN", help="the column of each row's id")
    add("--sample-weight", metavar="COLUMN", help="the column of each row's weight")
    add("--cluster", metavar="COLUMN", help="rows that belong together, such as a document's")
    add("--clusters-grouped", action="store_true", help="the rows of a cluster are neighbours")
    add("--nulls", choices=["refuse", "skip"], default="refuse", help="rows with nulls")


def _add_settings(group: Any) -> None:
    add = group.add_argument
    add(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an option of the loss, such as label_smoothing=0.1; may be repeated",
    )
    add("--reduction", choices=["mean", "batchmean"], help="default: mean")
    add("--engine", choices=["auto", "autograd"], help="the path; default: auto")
    add("--worst", type=int, default=20, metavar="N", help="how many worst rows; default: 20")
    add("--accuracy", type=float, default=0.01, help="of quantiles, relative; default: 0.01")
    add("--max-slices", type=int, default=4096, metavar="N", help="of a column; default: 4096")
    add("--overflow", choices=["refuse", "other"], default="refuse", help="of further slices")


def _summarize(arguments: argparse.Namespace) -> Exit:
    _check_places(arguments)
    with open_client(arguments) as client:
        loss = describe(client, arguments.loss)
        started = datetime.now(UTC)
        with _refusals():
            summary = client.summarize(loss.name, arguments.data, **_fields(arguments, loss))
        _finish(client, arguments, summary, started)
    return Exit.OK


def _compare(arguments: argparse.Namespace) -> Exit:
    _check_places(arguments)
    candidates = dict(map(_candidate, arguments.candidate))
    if len(candidates) < 2:  # noqa: PLR2004
        message = (
            f"--candidate: {len(candidates)} given; a comparison is of 2 to 8, such as "
            "--candidate old:input=logits_old --candidate new:input=logits_new"
        )
        raise UsageError(message)
    with open_client(arguments) as client:
        loss = describe(client, arguments.loss)
        started = datetime.now(UTC)
        with _refusals():
            comparison = client.compare(
                loss.name, arguments.data, candidates=candidates, **_fields(arguments, loss)
            )
        _finish(client, arguments, comparison, started)
    return Exit.OK


@contextmanager
def _refusals() -> Iterator[None]:
    """Convert errors of data that cannot be read to UsageError."""
    try:
        with refusals():
            yield
    except (OSError, ModuleNotFoundError) as error:
        raise UsageError(str(error)) from error


def _candidate(text: str) -> tuple[str, dict[str, str]]:
    name, colon, inputs = text.partition(":")
    if not colon or not name:
        message = f"--candidate {text}: expected NAME:INPUT=COLUMN"
        raise UsageError(message)
    return name, dict(pairs(inputs.split(","), f"--candidate {name}:"))


def _fields(arguments: argparse.Namespace, loss: LossInfo) -> dict[str, Any]:
    """Return the arguments of `summarize` and `compare`."""
    slices = [tuple(each.split(",")) for each in arguments.slice]
    return {
        "options": options_of(arguments, loss),
        "columns": dict(pairs(arguments.column, "--column")),
        "shared": {
            name: _shared(name, value, loss) for name, value in pairs(arguments.shared, "--shared")
        },
        "slices": [each[0] if len(each) == 1 else each for each in slices],
        "ids": arguments.id,
        "sample_weight": arguments.sample_weight,
        "cluster": arguments.cluster,
        "clusters_grouped": arguments.clusters_grouped,
        "nulls": arguments.nulls,
        "reduction": arguments.reduction,
        "engine": arguments.engine,
        "worst": arguments.worst,
        "accuracy": arguments.accuracy,
        "max_slices": arguments.max_slices,
        "overflow": arguments.overflow,
        "progress": not arguments.quiet,
    }


def _shared(name: str, text: str, loss: LossInfo) -> Any:
    """Read an input that all rows share: numbers in text take the type of the other inputs."""
    known = {each.name: each for each in loss.inputs}
    if name not in known:
        message = f"--shared {name}: {loss.name} has no such input; it has {', '.join(known)}"
        raise UsageError(message)
    array = read(text, Wanted(name, indices=not known[name].dtypes[0].startswith(("float", "bf"))))
    return json.loads(text) if text.startswith("[") else array


def _finish(
    client: Client,
    arguments: argparse.Namespace,
    found: Summary | Comparison,
    started: datetime,
) -> None:
    """Write files, keep the run, and print: also where the others fail, after a long run."""
    try:
        _keep(client, arguments, found, started)
    finally:
        _print(arguments, found)


def _check_places(arguments: argparse.Namespace) -> None:
    """Refuse before a long run what cannot be kept after it."""
    dict(pairs(arguments.label, "--label"))
    for name in ("output", "html"):
        place = getattr(arguments, name)
        if place and not Path(place).parent.is_dir():
            message = f"--{name} {place}: there is no such folder"
            raise UsageError(message)


def _keep(
    client: Client,
    arguments: argparse.Namespace,
    found: Summary | Comparison,
    started: datetime,
) -> None:
    with _refusals():
        if arguments.output:
            Path(arguments.output).write_bytes(found.to_bytes())
        if arguments.html:
            found.report(arguments.html)
    if arguments.save is not None:
        with refusals():
            run = client.runs.save(
                found,
                name=arguments.save,
                labels=dict(pairs(arguments.label, "--label")),
                run_id=arguments.run_id,
                started=started,
                ended=datetime.now(UTC),
            )
        # Results are on the standard output, which another program may read.
        sys.stderr.write(f"run {run.run_id}\n")


def _print(arguments: argparse.Namespace, found: Summary | Comparison) -> None:
    if arguments.json:
        say(to_json(found.to_dict()))
    elif arguments.csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(_CSV_TITLES)
        writer.writerows(_csv_rows(found.message))
    else:
        for line in show_lines(found.message):
            say(line)
        for line in _worst_lines(found.message):
            say(line)


def _csv_rows(message: summary_pb2.LossSummary) -> Iterator[tuple[object, ...]]:
    yield from _csv_group(message, "", "", message.total)
    for each in message.tables:
        columns = ",".join(each.columns)
        for group in each.slices:
            yield from _csv_group(message, columns, ",".join(group.labels), group)
        if each.HasField("other"):
            yield from _csv_group(message, columns, "(other)", each.other)


def _csv_group(
    message: summary_pb2.LossSummary,
    columns: str,
    labels: str,
    group: summary_pb2.GroupSummary,
) -> Iterator[tuple[object, ...]]:
    for index, name in enumerate(message.candidates or [""]):
        found, estimate = group.distributions[index], statistics.estimate(group, index)
        yield (
            columns,
            labels,
            name,
            found.count,
            found.ignored_count,
            found.nan_count,
            statistics.infinite_count(found),
            estimate.mean,
            *estimate.interval(),
            statistics.std(found),
            found.minimum if found.HasField("minimum") else "",
            statistics.quantile(found, 0.5),
            statistics.quantile(found, 0.99),
            found.maximum if found.HasField("maximum") else "",
        )


def _worst_lines(message: summary_pb2.LossSummary) -> Iterator[str]:
    """Write the rows with the largest losses, and those that differ most."""
    names = list(message.candidates)
    for index, found in enumerate(message.total.distributions):
        title = f"WORST ROWS OF {names[index]}" if names else "WORST ROWS"
        yield from _rows(title, found.worst, names)
    for (first, second), pair in zip(combinations(names, 2), message.total.pairs, strict=True):
        yield from _rows(f"{first} AND {second} DIFFER MOST", pair.most_different, names)


def _rows(title: str, rows: Sequence[summary_pb2.RowLoss], names: Sequence[str]) -> Iterator[str]:
    if not rows:
        return
    yield ""
    titles = (title, *(names or ["LOSS"]), "WHERE", "SLICES")
    yield from table(titles, [_row(each) for each in rows[:10]], "")
    if len(rows) > 10:  # noqa: PLR2004 (as many as above)
        yield f"... and {len(rows) - 10} more, with --json"


def _row(row: summary_pb2.RowLoss) -> tuple[str, ...]:
    given: Mapping[str, object] = {"name": row.name, "number": row.number}
    kind = row.WhichOneof("id")
    where = f"{row.partition} row {row.row}" if row.partition else f"row {row.row}"
    labels = ", ".join(f"{key}={value}" for key, value in sorted(row.labels.items()))
    return (
        str(given[kind]) if kind else f"row {row.row}",
        *map(number, row.values),
        where,
        labels or "-",
    )
