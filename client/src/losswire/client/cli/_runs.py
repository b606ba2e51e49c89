"""`losswire runs`: lists, shows, compares and deletes the runs that a server keeps."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from losswire.client import Run, RunFigures
from losswire.client.cli._common import (
    Exit,
    Parser,
    UsageError,
    add_connection,
    level,
    open_client,
    printable,
    say,
    to_json,
)
from losswire.client.cli._run_diff import diff_facts, diff_lines
from losswire.client.cli._run_names import RUN_HELP, find_run, find_summary
from losswire.client.cli._run_page import show_facts, show_lines
from losswire.client.cli._table import number, table
from losswire.summaries.statistics import Estimate

_DESCRIPTION = f"""\
The runs that a server keeps: summaries with a name, labels and times. {RUN_HELP}"""
_SHORT_ID = 12


def add_parser(commands: Any) -> None:
    """Add the command and its own commands."""
    parser = commands.add_parser(
        "runs", help="list, show, compare and delete runs", description=_DESCRIPTION
    )
    own = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    _add_list(own)
    run = "RUN"
    show = own.add_parser("show", help="tell everything about a run", description=RUN_HELP)
    show.add_argument("name", metavar=run, help="what is shown")
    _finish(show, _show)
    diff = own.add_parser(
        "diff",
        help="compare two runs side by side",
        description=f"Compare two runs, which are taken as unpaired. {RUN_HELP}",
    )
    diff.add_argument("names", nargs=2, metavar=run, help="a run, or a file with a summary")
    diff.add_argument("--level", type=level, default=0.95, help="of the intervals; default: 0.95")
    _finish(diff, _diff)
    delete = own.add_parser("delete", help="delete runs", description=RUN_HELP)
    delete.add_argument("names", nargs="+", metavar=run, help="what is deleted")
    delete.add_argument("--yes", action="store_true", help="do not ask")
    _finish(delete, _delete)


def _add_list(commands: Any) -> None:
    listing = commands.add_parser(
        "list", help="list runs, the newest first", description="List runs, the newest first."
    )
    add = listing.add_argument
    add("--loss", default="", help="only runs of this loss")
    add("--name", default="", help="only runs of this name")
    add(
        "--label",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="only runs with this label; may be repeated",
    )
    add("--limit", type=_count, default=50, metavar="N", help="the most runs to list; default: 50")
    _finish(listing, _list)


def _finish(parser: argparse.ArgumentParser, run: Any) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_connection(parser)
    parser.set_defaults(run=run)


def _list(arguments: argparse.Namespace) -> Exit:
    labels = dict(_pair(each) for each in arguments.label)
    with open_client(arguments) as client:
        runs = list(
            client.runs.list(
                loss=arguments.loss, name=arguments.name, labels=labels, limit=arguments.limit
            )
        )
    if arguments.json:
        say(to_json([run_facts(each) for each in runs]))
        return Exit.OK
    titles = ("ID", "NAME", "LOSS", "SAVED", "ROWS", "MEAN", "LABELS")
    for line in table(titles, [_row(each) for each in runs], ""):
        say(line)
    return Exit.OK


def _row(run: Run) -> tuple[str, ...]:
    labels = ", ".join(f"{key}={value}" for key, value in sorted(run.labels.items()))
    return (
        # The beginning of an id is enough for the other commands, unless it is not the only one.
        run.run_id[:_SHORT_ID],
        run.name or "-",
        run.loss,
        moment(run.saved),
        "; ".join(str(each.count) for each in run.figures),
        "; ".join(map(_mean, run.figures)),
        labels or "-",
    )


def _mean(figures: RunFigures) -> str:
    low, high = Estimate(figures.mean, figures.standard_error, figures.count).interval()
    name = f"{figures.candidate} " if figures.candidate else ""
    return f"{name}{number(figures.mean)} ± {number((high - low) / 2)}"


def moment(time: datetime | None) -> str:
    """Write a time, in UTC, to the second; `-` where there is none."""
    return f"{time:%Y-%m-%d %H:%M:%S}" if time else "-"


def run_facts(run: Run) -> dict[str, Any]:
    """Return the facts of a list, for JSON."""
    return {
        "run_id": run.run_id,
        "name": run.name,
        "labels": dict(run.labels),
        "loss": run.loss,
        "started": run.started.isoformat() if run.started else None,
        "ended": run.ended.isoformat() if run.ended else None,
        "saved": run.saved.isoformat(),
        "creator": run.creator,
        "figures": [
            {
                "candidate": each.candidate,
                "count": each.count,
                "mean": each.mean,
                "standard_error": each.standard_error,
            }
            for each in run.figures
        ],
    }


def _show(arguments: argparse.Namespace) -> Exit:
    with open_client(arguments) as client:
        run = find_run(client, arguments.name)
    if arguments.json:
        say(to_json({**run_facts(run), **show_facts(run.message.summary)}))
        return Exit.OK
    for line in (*_head(run), *show_lines(run.message.summary)):
        say(line)
    return Exit.OK


def _head(run: Run) -> Iterator[str]:
    yield f"id        {run.run_id}"
    yield f"name      {printable(run.name) or '-'}"
    for key, value in sorted(run.labels.items()):
        yield f"label     {printable(f'{key}={value}')}"
    yield f"saved     {moment(run.saved)} UTC"
    if run.started or run.ended:
        yield f"from      {moment(run.started)} to {moment(run.ended)} UTC"


def _diff(arguments: argparse.Namespace) -> Exit:
    with open_client(arguments) as client:
        sides = [find_summary(client, each) for each in arguments.names]
    if arguments.json:
        say(to_json(diff_facts(sides[0], sides[1], arguments.level)))
        return Exit.OK
    for line in diff_lines(sides[0], sides[1], arguments.level):
        say(line)
    return Exit.OK


def _delete(arguments: argparse.Namespace) -> Exit:
    with open_client(arguments) as client:
        runs = {each.run_id: each for each in (find_run(client, one) for one in arguments.names)}
        if not arguments.yes:
            _ask(list(runs.values()))
        deleted = {run_id: client.runs.delete(run_id) for run_id in runs}
    if arguments.json:
        say(to_json([{"run_id": each, "deleted": done} for each, done in deleted.items()]))
    else:
        for each, done in deleted.items():
            say(f"{each} {'deleted' if done else 'was gone'}")
    return Exit.OK


def _ask(runs: Sequence[Run]) -> None:
    """Ask the person at the terminal; UsageError when there is none, or the answer is not yes."""
    if not sys.stdin.isatty():
        message = "--yes: without a terminal to ask at, runs are deleted with this option only"
        raise UsageError(message)
    for each in runs:
        sys.stderr.write(f"{printable(f'{each.run_id} {each.name}')}\n")
    sys.stderr.write("Delete? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        message = "nothing was deleted"
        raise UsageError(message)


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        message = f"--label {text}: expected KEY=VALUE"
        raise UsageError(message)
    return key, value


def _count(text: str) -> int:
    if not text.isdecimal():
        message = f"{text!r} is not a number of runs"
        raise argparse.ArgumentTypeError(message)
    return int(text)
