"""The common part of `eval` and `check-gradient`: from arguments to an evaluation.

Which inputs and options there are is known only to the server. So arguments are read twice: first
for the loss and the server, then, with the loss's description at hand, for everything.
"""

import argparse
import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from losswire.client import Client, Evaluation, EvaluationResult, LossInfo
from losswire.client._messages.weights import WEIGHTS, number_dtype
from losswire.client.cli._arrays import Array, Wanted, cast, dtype_named, read
from losswire.client.cli._common import Parser, UsageError, add_connection, refusals
from losswire.wire import OptionScalar

VALUES_HELP = """\
A VALUE is a file (.npy, .npz, .csv) or JSON: a number or nested lists, such as [[2.0, 1.0]]. Of an
.npz file the array with the input's name is taken, or the only one, or KEY in file.npz:KEY. In a
.csv file commas separate numbers; one number a line makes a vector, else lines are rows. Numbers in
text become float32 (see --dtype), those of a weight the type of its input, or int64 where the loss
wants indices and all are written as integers: 1 is an index, 1.0 a probability. JSON may hold NaN,
Infinity and -Infinity. Weights may be masks of bools or integers.
"""

_INPUT = "input:{}"


def add_arguments(parser: argparse.ArgumentParser, loss: LossInfo | None) -> None:
    """Add the last arguments of both commands; with a loss, its inputs by name."""
    parser.add_argument("loss", metavar="LOSS", help="its name; `losswire losses` lists all")
    inputs = parser.add_argument_group("inputs (`losswire describe LOSS` lists them)")
    if loss is None:
        inputs.add_argument("--NAME", dest="_", metavar="VALUE", help="an input, such as --input")
    inputs.add_argument(
        "--tensor",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an input whose name is also an option here",
    )
    inputs.add_argument(
        "--sample-weight",
        metavar="VALUE",
        help="a weight for each value or row; 0 or false removes it",
    )
    add_connection(parser)
    taken = set(parser._option_string_actions)  # noqa: SLF001 (argparse has no other way to ask)
    for name in [each.name for each in loss.inputs] if loss else ():
        flags = {f"--{name}", f"--{name.replace('_', '-')}"} - taken
        if flags:
            parser.add_argument(*flags, dest=_INPUT.format(name), metavar="VALUE")


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the evaluation itself."""
    group = parser.add_argument_group("evaluation")
    group.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an option of the loss, such as label_smoothing=0.1; may be repeated",
    )
    group.add_argument("--reduction", help="none, mean, sum or batchmean; default: the loss's own")
    group.add_argument("--normalizer", type=float, metavar="NUMBER", help="the mean's denominator")
    group.add_argument("--grad-output", metavar="VALUE", help="the gradient of the loss's output")
    group.add_argument("--engine", choices=["auto", "autograd"], default="auto", help="the path")


def describe(client: Client, name: str) -> LossInfo:
    """Return the description of a loss; NotFoundError when there is none."""
    found = [each for each in client.losses() if each.name == name]
    if not found:
        client.evaluate(name, {})  # the server's error names the nearest losses
        message = f'the server lists no loss "{name}"'
        raise UsageError(message)
    return found[0]


def evaluate_one(client: Client, evaluation: Evaluation) -> EvaluationResult:
    """Evaluate; raises LosswireError, and UsageError for arguments that cannot be sent."""
    fields = {each.name: getattr(evaluation, each.name) for each in dataclasses.fields(evaluation)}
    with refusals():
        return client.evaluate(**fields)


def inputs_of(arguments: argparse.Namespace, loss: LossInfo, dtypes: "DTypes") -> dict[str, Array]:
    """Read all inputs that were given, in the loss's order."""
    texts: dict[str, str | None] = {
        each.name: getattr(arguments, _INPUT.format(each.name), None) for each in loss.inputs
    }
    for name, value in pairs(arguments.tensor, "--tensor"):
        if name not in texts:
            known = ", ".join(texts)
            message = f"--tensor {name}: {loss.name} has no such input; it has {known}"
            raise UsageError(message)
        texts[name] = value
    dtypes.check(texts)
    arrays: dict[str, Array] = {}
    for info in loss.inputs:
        text = texts[info.name]
        if text is not None:
            indices = not info.dtypes[0].startswith(("float", "bfloat"))
            wanted = Wanted(info.name, indices, dtypes.floating)
            if info.name in WEIGHTS and "input" in arrays:
                number = number_dtype(loss.name, arrays["input"].dtype)
                wanted = dataclasses.replace(wanted, number=number)
            array = read(text, wanted)
            own = dtypes.own.get(info.name)
            arrays[info.name] = array if own is None else cast(array, own)
    return arrays


def array_of(text: str | None, name: str, floating: np.dtype[Any] | None) -> Array | None:
    """Read an argument that is an array but not an input."""
    return None if text is None else read(text, Wanted(name, floating=floating))


def options_of(arguments: argparse.Namespace, loss: LossInfo) -> dict[str, OptionScalar]:
    """Read the options in their own types; unknown ones stay text, for the server to refuse."""
    types = {each.name: each.type for each in loss.options}
    return {
        name: _typed(name, text, types.get(name) or str)
        for name, text in pairs(arguments.option, "--option")
    }


@dataclass(frozen=True, slots=True)
class DTypes:
    """The data types that were asked for."""

    floating: np.dtype[Any] | None
    """The type of all floating numbers; None: as they come."""
    own: dict[str, np.dtype[Any]]
    """The types of single inputs, by name."""

    @classmethod
    def read(cls, texts: Iterable[str]) -> "DTypes":
        """Read `TYPE` and `NAME=TYPE`."""
        floating: np.dtype[Any] | None = None
        own: dict[str, np.dtype[Any]] = {}
        for text in texts:
            name, equals, dtype = text.rpartition("=")
            if equals:
                own[name] = dtype_named(dtype)
            elif "float" in dtype:
                floating = dtype_named(dtype)
            else:
                message = f"--dtype {text}: expected a floating type, or NAME=TYPE for one input"
                raise UsageError(message)
        return cls(floating, own)

    def check(self, names: Iterable[str]) -> None:
        """Refuse types of inputs that are not there."""
        for name in self.own.keys() - set(names):
            message = f"--dtype {name}=...: there is no such input; there are {', '.join(names)}"
            raise UsageError(message)


def pairs(texts: Sequence[str], flag: str) -> Iterator[tuple[str, str]]:
    """Split texts of the form NAME=VALUE; UsageError for others."""
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            message = f"{flag} {text}: expected NAME=VALUE"
            raise UsageError(message)
        yield name, value


def _typed(name: str, text: str, kind: type[OptionScalar]) -> OptionScalar:
    try:
        return {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        expected = {bool: "true or false", int: "an integer", float: "a number"}[kind]
        message = f'options["{name}"]: {text!r} is not {expected}'
        raise UsageError(message) from None


def second_parser(command: str, loss: LossInfo) -> Parser:
    """Return the parser of a command for one loss; its caller adds the arguments."""
    return Parser(prog=f"losswire {command} {loss.name}", add_help=False)
