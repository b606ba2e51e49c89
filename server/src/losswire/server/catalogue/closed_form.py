"""What a closed form computes: one block of rows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy.typing as npt
from torch import Tensor

if TYPE_CHECKING:
    from losswire.server.compute.work import Work
    from losswire.v1.tensor_pb2 import Region

Array = npt.NDArray[Any]

Options = Mapping[str, Any]
"""The options of an evaluation, each of the type that its record says."""


class Factors(NamedTuple):
    """A gradient over a softmax as numbers of each row: `scale * (exp(x - lse) - q)`.

    All in the values' shape and in float64. The message FactoredGradient says more.
    """

    lse: Tensor
    scale: Tensor
    lse_tail: Tensor
    """What rounding took from `lse`."""

    def each(self, change: Callable[[Tensor], Tensor]) -> "Factors":
        """Change all of them in the same way."""
        return Factors(*map(change, self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Some whole rows of an evaluation, all in the compute type and on one device."""

    inputs: Mapping[str, Tensor]
    """The rows of the inputs that have rows, and the whole of those that do not."""
    options: Options
    coefficients: Tensor | None
    """The gradient with respect to each value, in the values' shape and in float64;
    None: loss only."""
    gradients: Mapping[str, Tensor]
    """Where to put the gradients asked for, each in the shape of its input's rows. Written
    only, never read before it is written."""
    factors: Factors | None
    """Where to put the factored gradient, if it is asked for."""
    scratch: Callable[[str, Tensor], Tensor]
    """Gives a kept buffer of this name, as large as a tensor."""


Rows = Any
"""Tensors on the host, or numpy arrays, which cost less where they are small: what is made
of one kind is of the same kind."""

SideTerm = Callable[[Mapping[str, Rows], Options], Rows | None]


def _nothing(inputs: Mapping[str, Tensor], options: Options) -> None:
    del inputs, options


def _always(inputs: Mapping[str, Any], options: Options) -> bool:
    del inputs, options
    return True


# Not frozen: that would make constructing one, which every small evaluation does, take longer.
@dataclass(slots=True, kw_only=True)
class RowBlock:
    """Some whole rows of an evaluation in host memory, each input in its own type."""

    inputs: Mapping[str, Array]
    """The rows of the inputs that have rows, and the whole of those that do not."""
    options: Options
    coefficients: Array | None
    """The gradient with respect to each value, or the one that all have (shape ()), in
    float64; None: loss only."""
    removed: Array | None
    """Which rows to select away, as bytes; None: none."""
    gradients: Mapping[str, Array]
    """Where to put the gradients asked for: all of the input's type or of the compute type."""
    factors: Array | None
    """Where to put the factored gradient, (3, rows) in float64; None: nowhere."""
    values: Array | None
    """Where to put the values, in the compute type; None: nowhere."""
    small: bool
    """Whether this takes a moment only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageOffsets:
    """Where the tensors of an evaluation lie: in its message, and in its answer."""

    work: "Work"
    """An evaluation of the same form."""
    inputs: Mapping[str, int]
    """Where the elements of inputs begin in the message of the evaluation."""
    shared: Mapping[str, "Region"]
    """Where the other inputs lie in regions."""
    gradients: Mapping[str, int]
    """Where those of gradients begin in the answer; others go to regions."""
    loss: int
    """Where the loss begins there, a number of the compute type."""
    numbers: int
    """Where the other numbers of a result begin there."""
    small: bool
    """Whether this takes a moment only."""


InMessage = Callable[[bytes, int, int, int], bool]
"""Computes the evaluation that lies in a message, from a place on, into the answer at an address,
after so many nanoseconds of waiting, with the same bits as where it lies alone. False when a value
is not what the loss accepts, or there is no memory: then the answer is not to be used. By one
thread at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Native:
    """How code of our own computes a loss, in one of its layouts."""

    rows: Callable[[RowBlock], float]
    """Computes rows of any number: fills what there is a place for and gives the sum of the
    values."""
    fits: Callable[[Mapping[str, Any], Options], bool]
    """Whether it computes these inputs with these options; of the inputs, it may look at types
    and shapes."""
    in_message: Callable[[MessageOffsets], InMessage]
    """Prepares to compute, as `rows` does on one thread, evaluations of one form where their
    messages lie."""
    fits_message: Callable[["Work"], bool]
    """Whether `in_message` computes evaluations of this one's form."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Denominators:
    """How what each value adds to the mean's denominator follows from some inputs alone."""

    inputs: tuple[str, ...]
    """The inputs that it follows from, as far as they are given."""
    terms: SideTerm
    """Gives it before any value is known, from inputs in their own types; None: 1 each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedForm:
    """How to compute a loss, in one of its layouts, without autograd."""

    block: Callable[[Block], Tensor]
    """Computes one block: gives its values and fills its gradients."""
    gradients: tuple[str, ...] = ("input",)
    """The inputs it can differentiate; for others, autograd is taken."""
    counted: SideTerm = _nothing
    """Gives which values torch does not ignore; None: all."""
    small: Callable[[Block], Tensor] | None = None
    """Computes a whole evaluation that is small, by the operators that torch's function and
    its gradient are made of, so that not one bit differs; None: autograd is taken."""
    fits: Callable[[Mapping[str, Any], Options], bool] = _always
    """Whether `small` computes these inputs with these options; of the inputs, it may look
    at types and shapes."""
    row_stable_on: tuple[str, ...] = ("cuda",)
    """The types of devices on which `small` gives a row the same bits whatever rows stand
    beside it. On a CPU, an element's place in a vector may tell in its last bit."""
    factored: str | None = None
    """The input whose gradient it can also give as factors; None: none."""
    native: Native | None = None
    """Code of our own. On a CPU it is taken wherever it fits."""
    single: str | None = None
    """The layout of one row without its batch axis, if there is one. Factors of it are
    computed as those of a batch of one row."""
