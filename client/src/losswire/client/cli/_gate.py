"""`losswire gate`: an exit status that says whether a loss has become worse."""

import argparse
from typing import Any

from losswire.client import Client
from losswire.client.cli._common import (
    Exit,
    UsageError,
    add_connection,
    comparing,
    finite,
    level,
    open_client,
    printable,
    say,
    to_json,
)
from losswire.client.cli._run_names import RUN_HELP, find_summary
from losswire.summaries.figures.gate import Limit, decide
from losswire.summaries.figures.increase import Evaluation, Pairing, Side, of_comparison

_DESCRIPTION = f"""\
Compare the mean of a candidate with that of a baseline. The exit status is 1 only when the increase
is surely more than --max-increase: when the lower end of its interval is above it. Without enough
evidence the gate passes, and says so. A mean that has become NaN or infinite fails. With --slice,
each slice of the column is checked, too, with Holm's correction for their number. {RUN_HELP} A FILE
has the bytes that Summary.to_bytes() writes."""


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
    limit = Limit(
        max_increase=arguments.max_increase, relative=arguments.relative, level=arguments.level
    )
    with open_client(arguments) as client, comparing():
        decision = decide(_pairing(client, arguments), limit, arguments.slices)
    if arguments.json:
        say(to_json(decision.to_dict(arguments.baseline, arguments.candidate)))
    else:
        for line in (*decision.lines, *decision.notes, decision.outcome):
            say(printable(line))
    return Exit.OK if decision.passed else Exit.CHECK_FAILED


def _pairing(client: Client, arguments: argparse.Namespace) -> Pairing:
    if arguments.comparison is None:
        sides = [_single(find_summary(client, getattr(arguments, each))) for each in _SIDES]
        return Pairing(sides[0], sides[1], paired=False)
    comparison = find_summary(client, arguments.comparison)
    sides = [of_comparison(comparison, getattr(arguments, each), each) for each in _SIDES]
    return Pairing(sides[0], sides[1], paired=True)


def _single(evaluation: Evaluation) -> Side:
    """Return the only candidate of an evaluation; UsageError for a comparison."""
    names = evaluation.message.candidates
    if names:
        message = (
            f"{evaluation.text} is a comparison of {', '.join(names)}: write --comparison "
            f"{evaluation.text} --baseline {names[0]} --candidate {names[1]}"
        )
        raise UsageError(message)
    return Side(evaluation)


_SIDES = ("baseline", "candidate")
