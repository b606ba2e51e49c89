"""`losswire eval`: the loss and the gradients of one batch."""

import argparse
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from losswire.client import Evaluation, EvaluationResult, LossInfo
from losswire.client.cli import _arrays
from losswire.client.cli._common import Exit, UsageError, open_client, say, to_json
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

_DESCRIPTION = f"Evaluate a loss. {VALUES_HELP}"


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "eval", help="evaluate a loss and its gradients", description=_DESCRIPTION
    )
    _add_arguments(parser, None)
    parser.set_defaults(run=run, takes_inputs=True)


def _add_arguments(parser: argparse.ArgumentParser, loss: LossInfo | None) -> None:
    add_settings(parser)
    group = parser.add_argument_group("types and results")
    group.add_argument(
        "--dtype",
        action="append",
        default=[],
        metavar="TYPE",
        help="the type to convert floating numbers to; NAME=TYPE converts one input",
    )
    group.add_argument("--compute-dtype", metavar="TYPE", help="the type to compute in")
    group.add_argument(
        "--grad",
        action="append",
        default=[],
        metavar="NAME[=FILE]",
        help="a gradient to print, or to write to a .npy or .csv file; may be repeated",
    )
    group.add_argument("--output", metavar="FILE", help="where to write the loss too")
    group.add_argument("--json", action="store_true", help="print one JSON object")
    add_arguments(parser, loss)


def run(first: argparse.Namespace) -> Exit:
    """Evaluate and report."""
    with open_client(first) as client:
        loss = describe(client, first.loss)
        parser = second_parser("eval", loss)
        _add_arguments(parser, loss)
        arguments = parser.parse_args(first.words)
        dtypes = DTypes.read(arguments.dtype)
        files = dict(_gradient(text) for text in arguments.grad)
        evaluation = Evaluation(
            loss.name,
            inputs_of(arguments, loss, dtypes),
            options_of(arguments, loss),
            reduction=arguments.reduction,
            gradients=list(files),
            grad_output=array_of(arguments.grad_output, "grad_output", dtypes.floating),
            sample_weight=array_of(arguments.sample_weight, "sample_weight", dtypes.floating),
            normalizer=arguments.normalizer,
            compute_dtype=arguments.compute_dtype,
            engine=arguments.engine,
        )
        result = evaluate_one(client, evaluation)
    for name, file in files.items():
        if file:
            _arrays.write(file, result.gradients[name])
    if arguments.output:
        _arrays.write(arguments.output, result.loss)
    if arguments.json:
        say(to_json(_facts(result, files)))
    else:
        _report(loss, result, files)
    return Exit.OK


def _gradient(text: str) -> tuple[str, str]:
    name, equals, file = text.partition("=")
    if equals and not file:
        message = f"--grad {text}: expected NAME or NAME=FILE"
        raise UsageError(message)
    return name, file


def _facts(result: EvaluationResult, files: Mapping[str, str]) -> dict[str, object]:
    return {
        "loss": _numbers(result.loss),
        "loss_dtype": result.loss.dtype.name,
        "sum": result.sum,
        "mean_numerator": result.mean_numerator,
        "mean_denominator": result.mean_denominator,
        "count": result.count,
        "gradients": {
            name: _numbers(result.gradients[name]) for name, file in files.items() if not file
        },
        "gradient_files": {name: file for name, file in files.items() if file},
        "queue_nanoseconds": result.queue_nanoseconds,
        "compute_nanoseconds": result.compute_nanoseconds,
        "receipt": asdict(result.receipt),
    }


def _numbers(array: _arrays.Array) -> object:
    """Return the numbers of an array exactly; float64 holds every other floating type."""
    return array.astype(np.float64).tolist()


def _report(loss: LossInfo, result: EvaluationResult, files: Mapping[str, str]) -> None:
    if result.loss.ndim:
        say(f"loss, {_spec(result.loss)}")
        say(str(result.loss))
    else:
        say(f"loss              {result.loss[()]!s}")
    if loss.kind == "loss":
        say(f"sum               {result.sum!r}")
        say(f"mean numerator    {result.mean_numerator!r}")
        say(f"mean denominator  {result.mean_denominator!r}")
        say(f"count             {result.count}")
    receipt = result.receipt
    say(f"computed          in {receipt.compute_dtype} by {receipt.engine} on {receipt.device}")
    for name, file in files.items():
        array = result.gradients[name]
        where = f" in {file}" if file else ""
        say(f"gradient of {name}, {_spec(array)}{where}")
        if not where:
            say(str(array))


def _spec(array: _arrays.Array) -> str:
    return f"{array.dtype.name} {list(array.shape)}"
