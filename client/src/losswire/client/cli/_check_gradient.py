"""`losswire check-gradient`: a server's gradient against differences of its loss."""

import argparse
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from losswire.client import (
    Client,
    Evaluation,
    EvaluationResult,
    InvalidArgumentError,
    LossInfo,
    LosswireError,
)
from losswire.client.cli._common import Exit, UsageError, lines_of, open_client, say, to_json
from losswire.client.cli._differences import Comparison, Objective, compare
from losswire.client.cli._request import (
    VALUES_HELP,
    DTypes,
    add_arguments,
    add_settings,
    array_of,
    describe,
    evaluate_one,
    inputs_of,
    options_of,
    second_parser,
)

_FLOAT64 = np.dtype(np.float64)
_SECONDS_BEFORE_PROGRESS = 1.0
_MOST_AT_ONCE = 256

_DESCRIPTION = f"""\
Compare a server's gradient with central differences of its loss, in float64. The exit status is 0
when the largest difference is within --tolerance times the largest gradient of the input, plus what
rounding of the loss explains; else 1. Where the loss has a corner, such as l1_loss at 0, no
difference can agree; so move the point. The gradient of ctc_loss holds only in composition with
log_softmax, so there log_probs are taken through log_softmax and the composition is checked.
{VALUES_HELP}"""


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "check-gradient",
        help="compare a gradient with differences of the loss",
        description=_DESCRIPTION,
    )
    _add_arguments(parser, None)
    parser.set_defaults(run=run, takes_inputs=True)


def _add_arguments(parser: argparse.ArgumentParser, loss: LossInfo | None) -> None:
    add_settings(parser)
    group = parser.add_argument_group("check")
    group.add_argument(
        "--grad",
        action="append",
        metavar="NAME",
        help="an input to check; may be repeated; default: all that have a gradient",
    )
    group.add_argument(
        "--tolerance",
        type=_positive,
        default=1e-6,
        metavar="NUMBER",
        help="the largest relative difference; default: 1e-6",
    )
    group.add_argument(
        "--step",
        type=_positive,
        default=1e-5,
        metavar="NUMBER",
        help="how far to move each element, relative to its size above 1; default: 1e-5",
    )
    group.add_argument(
        "--elements",
        type=int,
        default=1000,
        metavar="N",
        help="how many elements of each input to check, the same ones each time; 0: all; "
        "default: 1000",
    )
    group.add_argument("--json", action="store_true", help="print one JSON object")
    add_arguments(parser, loss)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        message = f"{text!r} is not a number greater than 0"
        raise argparse.ArgumentTypeError(message)
    return value


def run(first: argparse.Namespace) -> Exit:
    """Check and report."""
    with open_client(first) as client:
        loss = describe(client, first.loss)
        parser = second_parser("check-gradient", loss)
        _add_arguments(parser, loss)
        arguments = parser.parse_args(first.words)
        objective = _objective(client, loss, arguments)
        names, result = _gradients(client, loss, objective, arguments.grad)
        evaluate = _Evaluator(client)
        comparisons = [
            compare(objective, name, result.gradients[name], evaluate, arguments) for name in names
        ]
    evaluate.progress.clear()
    passed = all(each.passed for each in comparisons)
    if arguments.json:
        facts = [each.facts() for each in comparisons]
        engine = result.receipt.engine
        say(to_json({"passed": passed, "loss": loss.name, "engine": engine, "inputs": facts}))
    else:
        for each in comparisons:
            _report(each)
        say(f"{'passed' if passed else 'failed'}: {loss.name} by {result.receipt.engine}")
    return Exit.OK if passed else Exit.CHECK_FAILED


def _objective(client: Client, loss: LossInfo, arguments: argparse.Namespace) -> Objective:
    """Return the function to differentiate, all in float64."""
    objective = Objective(
        loss=loss.name,
        inputs=inputs_of(arguments, loss, DTypes(_FLOAT64, {})),
        options=options_of(arguments, loss),
        fields={
            "reduction": arguments.reduction,
            "normalizer": arguments.normalizer,
            "engine": arguments.engine,
            "sample_weight": array_of(arguments.sample_weight, "sample_weight", _FLOAT64),
        },
        grad_output=array_of(arguments.grad_output, "grad_output", _FLOAT64),
    )
    if objective.grad_output is None and _is_unreduced(loss, arguments.reduction):
        values = evaluate_one(client, objective.at({})).loss
        objective.grad_output = np.random.default_rng(0).standard_normal(values.shape)
    return objective


def _is_unreduced(loss: LossInfo, reduction: str | None) -> bool:
    return (reduction or loss.default_reduction) == "none"


def _gradients(
    client: Client, loss: LossInfo, objective: Objective, asked: Sequence[str] | None
) -> tuple[list[str], EvaluationResult]:
    """Ask for the gradients that were named, or for all that there are at this point."""
    names = list(asked or ())
    if asked is None:
        floating = [name for name, array in objective.inputs.items() if array.dtype == _FLOAT64]
        possible = {each.name for each in loss.inputs if each.differentiable_in}
        names = [name for name in floating if name in possible]
        # The server decides on the layout of the inputs, and so on inputs without a gradient.
        refused = _refused(client, objective, names)
        names = [name for place, name in enumerate(names) if place not in refused]
    if not names:
        message = f"no input of {loss.name} that was given has a gradient"
        raise UsageError(message)
    return names, evaluate_one(client, objective.with_gradients(names))


def _refused(client: Client, objective: Objective, names: Sequence[str]) -> set[int]:
    """Return the inputs for which the server has no gradient, by their places."""
    fields = {f"gradients_for[{place}]": place for place in range(len(names))}
    try:
        evaluate_one(client, objective.with_gradients(names))
    except InvalidArgumentError as error:
        found = {each.field for each in error.violations}
        if not found <= set(fields):
            raise
        return {fields[each] for each in found}
    return set()


class _Evaluator:
    """Evaluates many points with few calls."""

    def __init__(self, client: Client) -> None:
        self.progress = _Progress()
        self._client = client
        self._limits = client.server_info().limits

    def __call__(
        self, evaluations: Iterator[Evaluation], name: str, total: int
    ) -> Iterator[EvaluationResult]:
        """Return the results in order."""
        done = 0
        while batch := self._next(evaluations):
            for outcome in self._client.evaluate_many(batch):
                if isinstance(outcome, InvalidArgumentError):
                    problem = "; ".join(lines_of(outcome))
                    message = f"beside the point that was given, by --step: {problem}"
                    raise UsageError(message) from outcome
                if isinstance(outcome, LosswireError):
                    raise outcome
                yield outcome
            done += len(batch)
            self.progress.show(f"{name}: {done} of {total} evaluations")

    def _next(self, evaluations: Iterator[Evaluation]) -> list[Evaluation]:
        """Return as many as fit into half a message."""
        first = list(islice(evaluations, 1))
        if not first:
            return []
        size = 1024 + sum(np.asarray(each).nbytes for each in first[0].inputs.values())
        most = min(_MOST_AT_ONCE, self._limits.max_evaluations_per_call)
        fitting = min(most, self._limits.max_message_bytes // 2 // size)
        return first + list(islice(evaluations, max(0, fitting - 1)))


class _Progress:
    """A line on the terminal, once it takes long."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._shown = False

    def show(self, text: str) -> None:
        """Replace the line."""
        late = time.monotonic() - self._started > _SECONDS_BEFORE_PROGRESS
        if late and sys.stderr.isatty():
            sys.stderr.write(f"\r\x1b[K{text}")
            sys.stderr.flush()
            self._shown = True

    def clear(self) -> None:
        """Remove the line."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            self._shown = False


def _report(each: Comparison) -> None:
    """Write one input as lines."""
    facts: Mapping[str, str] = {
        "elements": f"{each.checked} of {each.elements}",
        "largest difference": f"{each.difference:.2g}",
        "relative to gradient": f"{each.relative:.2g}",
        "allowed": f"{each.allowed:.2g}",
        "at": f"{list(each.where)}: the server says {each.server:.10g}, "
        f"differences {each.numeric:.10g}",
    }
    through = " through log_softmax" if each.composed else ""
    say(f"{each.name}{through}: {'ok' if each.passed else 'DIFFERS'}")
    for title, text in facts.items():
        say(f"  {title:22}{text}")
