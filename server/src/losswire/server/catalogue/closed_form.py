"""Closed forms: loss and gradient of some rows without autograd, in torch or in C++."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from losswire.server.catalogue.value_rules import Array

Options = Mapping[str, Any]
"""The options of an evaluation, each of the type in its record."""


class Factors(NamedTuple):
    """A gradient over a softmax as numbers of each row: `scale * (exp(x - lse) - q)`.

    All in the values' shape and in float64. The message FactoredGradient describes them.
    """

    lse: Tensor
    scale: Tensor
    lse_tail: Tensor
    """The part of `lse` that rounding to float64 removed."""

    def each(self, change: Callable[[Tensor], Tensor]) -> "Factors":
        """Return factors that are all changed in the same way."""
        return Factors(*map(change, self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Some whole rows of an evaluation, all in the compute dtype and on one device."""

    inputs: Mapping[str, Tensor]
    """The rows of the inputs that have rows, and the whole of those that do not."""
    options: Options
    coefficients: Tensor | None
    """The gradient with respect to each value, in the values' shape and in float64;
    None: loss only."""
    gradients: Mapping[str, Tensor]
    """Where to write the gradients asked for, each in the shape of its input's rows. Never
    read before they are written."""
    factors: Factors | None
    """Where to write the factored gradient; None: it is not asked for."""
    scratch: Callable[[str, Tensor], Tensor]
    """Returns a reused buffer of this name, in the shape and dtype of a tensor."""
    quotient: tuple[float, float] | None = None
    """Numerator and divisor of the coefficient that all values share, where it is a mean's: a
    gradient that is divided at the end lacks the rounding of the quotient."""


Rows = Any
"""Tensors on the host, or numpy arrays, which cost less where they are small; the result is of
the same kind."""

PerValueTerms = Callable[[Mapping[str, Rows], Options], Rows | None]
"""A function of inputs and options that returns a number or a condition for each value, without
computing the values; None: the same for all."""


def _always(inputs: Mapping[str, Any], options: Options) -> bool:
    del inputs, options
    return True


# Not frozen: that would make constructing one, which every small evaluation does, take longer.
@dataclass(slots=True, kw_only=True)
class RowBlock:
    """Some whole rows of an evaluation in host memory, each input in its own dtype."""

    inputs: Mapping[str, Array]
    """The rows of the inputs that have rows, and the whole of those that do not."""
    options: Options
    coefficients: Array | None
    """The gradient with respect to each value times the divisor, or the one that all share
    (shape ()), in float64; None: loss only."""
    removed: Array | None
    """Which rows contribute nothing, as bytes; None: none."""
    gradients: Mapping[str, Array]
    """Where to write the gradients asked for: all in the input's dtype or the compute dtype."""
    factors: Array | None
    """Where to write the factored gradient, (3, rows) in float64; None: nowhere."""
    values: Array | None
    """Where to write the values, in the compute dtype; None: nowhere."""
    small: bool
    """Whether this takes a moment only, so that the interpreter's lock may be kept."""
    divisor: float = 1.0
    """The divisor of all coefficients, such as the mean's denominator: a quotient that is rounded
    before it multiplies a derivative would add an error to each gradient."""


class Native(Protocol):
    """A loss that C++ computes, in one of its layouts."""

    def rows(self, block: RowBlock) -> float:
        """Compute rows of any number: fill the arrays given, return the sum of the values."""

    def fits(self, inputs: Mapping[str, Any], options: Options) -> bool:
        """Return whether it computes such inputs; it looks at dtypes and shapes only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Denominators:
    """How the mean's denominator follows from some inputs alone."""

    inputs: tuple[str, ...]
    """The inputs that it follows from, as far as they are given."""
    terms: PerValueTerms
    """Returns the term that each value adds to it, from inputs in their own dtypes;
    None: 1 each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedForm:
    """How to compute a loss, in one of its layouts, without autograd."""

    block: Callable[[Block], Tensor]
    """Computes one block: returns its values and fills its gradients."""
    gradients: tuple[str, ...] = ("input",)
    """The inputs it can differentiate; others take autograd."""
    stacked: Callable[[Block], Tensor] | None = None
    """Computes small evaluations of one skeleton together, on a GPU, by the operators that
    torch's function and its gradient are made of; None: they take autograd. A row gets the same
    bits whatever rows are beside it."""
    fits_stacked: Callable[[Mapping[str, Any], Options], bool] = _always
    """Whether `stacked` computes these inputs with these options; it may look at dtypes and
    shapes only."""
    factored: str | None = None
    """The input whose gradient it can also return as factors; None: none."""
    native: Native | None = None
    """The loss in C++, taken on a CPU wherever it fits."""
    single: str | None = None
    """The layout of one row without its batch axis, if there is one. Factors of it are
    computed as those of a batch of one row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiled:
    """A whole evaluation, on one device, whose closed form makes large intermediate results."""

    inputs: Mapping[str, Tensor]
    """Each in its own dtype."""
    options: Options
    dtype: torch.dtype
    """The compute dtype."""
    coefficients: Tensor | None
    """The gradient with respect to each value, in the values' shape and in float64, 0 where the
    value is removed; None: loss only."""
    removed: Tensor | None
    """Which values contribute nothing, whatever their rows hold; None: none."""
    gradients: Mapping[str, Tensor]
    """Where to write the gradients asked for, each in the shape of its input and in the dtype
    that is returned. Never read before they are written."""
    pause: Callable[[], None]
    """To be called after each tile: other work may be done meanwhile. It may raise an exception,
    which ends the evaluation."""


class TiledCost(NamedTuple):
    """The memory and work of a tiled evaluation."""

    scratch_bytes: int
    """The bytes of all buffers, beside the inputs and the gradients that are returned."""
    steps: int
    """The work, in steps of about a nanosecond on a CPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TiledForm:
    """How to compute a loss, in one of its layouts, without its large intermediate results.

    They are made in tiles, on any device and for evaluations of any size.
    """

    compute: Callable[[Tiled], Tensor]
    """Computes an evaluation: returns its values in float64 and fills its gradients."""
    cost: Callable[[Mapping[str, Array], Mapping[str, int], int], TiledCost]
    """Returns the cost of inputs (of which it looks at dtypes and shapes only), from the bytes of
    a number of each gradient and of one of the compute dtype."""
    gradients: tuple[str, ...]
    """The inputs it can differentiate; others take autograd."""
