"""`losswire gate`: an exit status that says whether a loss has become worse."""

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from losswire.client import Client
from losswire.client.cli._common import (
    Exit,
    UsageError,
    add_connection,
    finite,
    level,
    open_client,
    printable,
    say,
    to_json,
)
from losswire.client.cli._increase import (
    Group,
    Increase,
    Pairing,
    of_comparison,
    single,
)
from losswire.client.cli._run_diff import SAME_ROWS, covers_same_rows
from losswire.client.cli._run_names import RUN_HELP, Evaluation, find_summary
from losswire.client.cli._table import interval, number
from losswire.summaries import statistics

_DESCRIPTION = f"""\
Compare the mean of a candidate with that of a baseline. The exit status is 1 only when the increase
is surely more than --max-increase: when the lower end of its interval is above it. Without enough
evidence the gate passes, and says so. A mean that has become NaN or infinite fails. With --slice,
each slice of the column is checked, too, with Holm's correction for their number. {RUN_HELP} A FILE
has the bytes that Summary.to_bytes() writes."""

FAILED, PASSED, UNDECIDED = "fail", "pass", "not enough evidence"


@dataclass(frozen=True, slots=True)
class _Check:
    """The outcome in some rows."""

    where: str
    """`total`, or COLUMN=LABEL."""
    increase: Increase
    bounds: tuple[float, float]
    p_value: float
    """Of an increase of at most the limit; of slices, with Holm's correction."""
    verdict: str


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "gate", help="fail when a loss has become worse", description=_DESCRIPTION
    )
    add = parser.add_argument
    run = "RUN|FILE"
    add("--baseline", required=True, metavar=run, help="what it must not be worse than")
    add("--candidate", required=True, metavar=run, help="what is checked")
    add(
        "--comparison",
        metavar=run,
        help="both are candidates of this comparison, and are compared row by row",
    )
    add(
        "--max-increase",
        required=True,
        type=finite,
        metavar="X",
        help="how much the mean may increase; may be negative, to ask for a decrease",
    )
    add(
        "--relative",
        action="store_true",
        help="X is a fraction of the baseline's mean, such as 0.01",
    )
    add(
        "--slice",
        action="append",
        default=[],
        dest="slices",
        metavar="COLUMN",
        help="check each slice of this column, too; may be repeated; A,B is a cross of two",
    )
    add("--level", type=level, default=0.95, help="of the intervals; default: 0.95")
    add("--json", action="store_true", help="print a JSON object")
    add_connection(parser)
    parser.set_defaults(run=run_gate)


def run_gate(arguments: argparse.Namespace) -> Exit:
    """Check, and say what was found."""
    with open_client(arguments) as client:
        pairing = _pairing(client, arguments)
    before, after = pairing.totals
    _check_rows(pairing, before, after, relative=arguments.relative)
    checks = [
        _check(arguments, "total", pairing.increase(before, after, relative=arguments.relative))
    ]
    slices, notes = _check_slices(arguments, pairing)
    checks += slices
    if not pairing.paired and covers_same_rows(
        pairing.baseline.evaluation, pairing.candidate.evaluation
    ):
        notes.append(SAME_ROWS)
    failed = any(each.verdict == FAILED for each in checks)
    if arguments.json:
        say(to_json(_facts(arguments, pairing, checks, notes)))
    else:
        for line in (*_lines(arguments, checks), *notes):
            say(printable(line))
        how = "row by row" if pairing.paired else "as unpaired evaluations"
        say(f"{'FAILED' if failed else 'passed'}, compared {how}")
    return Exit.CHECK_FAILED if failed else Exit.OK


def _pairing(client: Client, arguments: argparse.Namespace) -> Pairing:
    if arguments.comparison is None:
        sides = [single(find_summary(client, getattr(arguments, each))) for each in _SIDES]
        return Pairing(sides[0], sides[1], paired=False)
    comparison: Evaluation = find_summary(client, arguments.comparison)
    sides = [of_comparison(comparison, getattr(arguments, each)) for each in _SIDES]
    return Pairing(sides[0], sides[1], paired=True)


_SIDES = ("baseline", "candidate")


def _check_rows(pairing: Pairing, before: Group, after: Group, *, relative: bool) -> None:
    """Refuse what no increase follows from, instead of passing it."""
    for side, group in ((pairing.baseline, before), (pairing.candidate, after)):
        if not side.count(group):
            message = f"{side.evaluation.text}: no row takes part"
            raise UsageError(message)
    mean = pairing.baseline.mean(before).mean
    if not math.isfinite(mean):
        message = f"the mean of the baseline is {mean}; nothing can be compared with it"
        raise UsageError(message)
    if relative and mean <= 0:
        message = f"--relative: the mean of the baseline is {number(mean)}, and not above 0"
        raise UsageError(message)


def _check_slices(
    arguments: argparse.Namespace, pairing: Pairing
) -> tuple[list[_Check], list[str]]:
    """Check all slices together; returns what cannot be checked as lines."""
    found: list[tuple[str, Increase]] = []
    notes: list[str] = []
    for column in dict.fromkeys(arguments.slices):
        if column not in pairing.columns:
            known = ", ".join(pairing.columns) or "none"
            message = f"--slice {column}: both must have slices of it; both have: {known}"
            raise UsageError(message)
        for label, before, after in pairing.slices(column):
            where = f"{column}={label}"
            if not (before and pairing.baseline.count(before)):
                notes.append(f"{where}: not checked, the baseline has no such rows")
            elif not (after and pairing.candidate.count(after)):
                notes.append(f"{where}: not checked, the candidate has no such rows")
            elif arguments.relative and not pairing.baseline.mean(before).mean > 0:
                notes.append(f"{where}: not checked, the mean of the baseline is not above 0")
            else:
                increase = pairing.increase(before, after, relative=arguments.relative)
                found.append((where, increase))
    p_values = statistics.holm([each.p_above(arguments.max_increase) for _, each in found])
    checks = [
        _check(arguments, where, increase, p_value)
        for (where, increase), p_value in zip(found, p_values, strict=True)
    ]
    return checks, notes


def _check(
    arguments: argparse.Namespace, where: str, increase: Increase, p_value: float | None = None
) -> _Check:
    limit: float = arguments.max_increase
    bounds = increase.interval(arguments.level)
    if p_value is None:
        p_value = increase.p_above(limit)
    if math.isfinite(increase.baseline.mean) and not math.isfinite(increase.candidate.mean):
        verdict = FAILED
    elif p_value < (1 - arguments.level) / 2:
        # Of one check, this is the same as: the lower end of the interval is above the limit.
        verdict = FAILED
    else:
        verdict = PASSED if bounds[1] <= limit else UNDECIDED
    return _Check(where, increase, bounds, p_value, verdict)


def _lines(arguments: argparse.Namespace, checks: Sequence[_Check]) -> Iterator[str]:
    unit = " of the baseline's mean" if arguments.relative else ""
    for each in checks:
        found = each.increase
        line = f"{each.where}: {each.verdict}: mean {number(found.baseline.mean)} -> "
        line += _mean(found.candidate.mean)
        if math.isfinite(found.mean):
            line += f", increase {number(found.mean)} {interval(each.bounds)}{unit}"
        if found.small:
            line += " (few rows: the interval may be too narrow)"
        yield line


def _mean(value: float) -> str:
    return number(value) if math.isfinite(value) else str(value)


def _facts(
    arguments: argparse.Namespace,
    pairing: Pairing,
    checks: Sequence[_Check],
    notes: Sequence[str],
) -> dict[str, Any]:
    return {
        "passed": all(each.verdict != FAILED for each in checks),
        "baseline": arguments.baseline,
        "candidate": arguments.candidate,
        "paired": pairing.paired,
        "max_increase": arguments.max_increase,
        "relative": arguments.relative,
        "level": arguments.level,
        "checks": [
            {
                "where": each.where,
                "verdict": each.verdict,
                "baseline_mean": each.increase.baseline.mean,
                "candidate_mean": each.increase.candidate.mean,
                "increase": each.increase.mean,
                "interval": each.bounds,
                "p_value": each.p_value,
                "small": each.increase.small,
            }
            for each in checks
        ],
        "notes": list(notes),
    }
