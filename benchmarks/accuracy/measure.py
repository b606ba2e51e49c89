"""Measures the errors of one form: the same inputs to every path and to torch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, Literal, NamedTuple

import ml_dtypes
import numpy as np
import torch

from benchmarks.accuracy.forms import DISTRIBUTIONS, Form
from benchmarks.accuracy.formulas import Array, Exact
from losswire.client import Client

DTYPES: Final = ("float32", "float64", "bfloat16", "float16")
_HALVES: Final = ("bfloat16", "float16")
_Reduction = Literal["none", "sum", "mean"]
REDUCTIONS: Final[tuple[_Reduction, ...]] = ("none", "sum", "mean")

SIZES: Final = (1, 30, 1000, 10_007, 210_000, 1_000_003, 4_000_000)
"""Elements of the input; over classes, cut to whole rows."""
_LARGEST_OF_FLOAT64: Final = 10_007
"""Long double is computed without vectors."""
_LARGEST_OF_ALL: Final = 1_000_003
"""Larger ones are drawn from the first distribution alone."""
_MOST_DRAWS, _DRAWN = 8, 60_000
"""The draws of one size: so many, or as many as have so many elements together."""
_FEWEST_DRAWS: Final = 1


class Key(NamedTuple):
    """What an error is of."""

    form: str
    path: str
    dtype: str
    distribution: str
    size: int
    quantity: str


@dataclass
class Errors:
    """Mean squared errors of pairs of results, each pair of the same draw.

    The excess of a draw is `(o - t) / (o + t)` for our error `o` and torch's `t`: -1 to 1, 0 if
    both err alike, whatever their size. So that no draw outweighs the others.
    """

    draws: int = 0
    excess: float = 0.0
    """The sum of the excesses."""
    squares: float = 0.0
    ours: float = 0.0
    torchs: float = 0.0

    def add(self, ours: float, torchs: float) -> None:
        """Add the mean squared errors of a draw."""
        excess = 0.0 if ours == torchs else (ours - torchs) / (ours + torchs)
        self.include(Errors(1, excess, excess**2, ours, torchs))

    def include(self, other: "Errors") -> None:
        """Add other draws."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))

    @property
    def ratio(self) -> float:
        """Our root-mean-square error in torch's; 1 where neither errs."""
        mean = self.excess / self.draws
        return math.sqrt((1 + mean) / (1 - mean)) if mean < 1 else math.inf

    @property
    def scatter(self) -> float:
        """The standard error of the mean excess, and about that of a ratio near 1."""
        return math.sqrt(self.squares) / self.draws

    @property
    def deviation(self) -> float:
        """By how many standard errors of the mean excess it is above 0, were it 0."""
        return self.excess / math.sqrt(self.squares) if self.squares else 0.0

    @property
    def is_above(self) -> bool:
        """Whether we err more than torch, and more than the scatter of the draws explains."""
        return self.ratio > _LEAST_RATIO and self.deviation > _LEAST_DEVIATION


_LEAST_RATIO, _LEAST_DEVIATION = 1.0005, 4.0
"""A ratio that is printed as 1.000 is one; four standard errors are exceeded once in 30 000."""


@dataclass
class Measured:
    """All errors."""

    cells: dict[Key, Errors] = field(default_factory=dict)

    def add(self, key: Key, found: Array, torchs: Array, exact: Array) -> None:
        """Add the errors of one result, relative to the root mean square of the exact one."""
        wide = exact.dtype
        scale = (exact**2).mean() or wide.type(1)
        ours, others = (
            float(((each.astype(wide) - exact) ** 2).mean() / scale) for each in (found, torchs)
        )
        self.cells.setdefault(key, Errors()).add(ours, others)


def sizes_of(dtype: str, most: int) -> list[int]:
    """Return the sizes that a type is measured in."""
    largest = min(most, _LARGEST_OF_FLOAT64) if dtype == "float64" else most
    return [size for size in SIZES if size <= largest]


def draws_of(size: int, draws: int) -> int:
    """Return how often inputs of a size are drawn."""
    return max(min(draws, _DRAWN // size), min(draws, _FEWEST_DRAWS))


def measure(
    form: Form,
    dtype: str,
    paths: Mapping[str, Client],
    *,
    most: int = SIZES[-1],
    draws: int = _MOST_DRAWS,
) -> Measured:
    """Measure a form in one type by some paths: a server for each."""
    measured = Measured()
    for size in sizes_of(dtype, most):
        few = DISTRIBUTIONS[:1] if size > _LARGEST_OF_ALL else DISTRIBUTIONS
        for position, distribution in enumerate(few):
            for draw in range(draws_of(size, draws)):
                rng = np.random.default_rng([size, position, draw])
                # No two draws have one count: its reciprocal rounds to another number.
                count = size - int(rng.integers(0, max(size // 4, 1)))
                inputs = form.inputs(rng, count, distribution, dtype)
                key = Key(form.name, "", dtype, distribution, size, "")
                _Draw(key, form, inputs, paths).measure(measured, rng)
    return measured


@dataclass(frozen=True)
class _Draw:
    """Inputs, and where they are evaluated."""

    key: Key
    """What it is of; path and quantity are empty."""
    form: Form
    inputs: Mapping[str, torch.Tensor]
    paths: Mapping[str, Client]

    def measure(self, measured: Measured, rng: np.random.Generator) -> None:
        """Measure it in all reductions."""
        double = self.key.dtype == "float64"
        arrays = {name: _array(tensor) for name, tensor in self.inputs.items()}
        exact = self._exact(arrays, np.dtype(np.longdouble if double else np.float64))
        output = rng.standard_normal(exact.values.shape)
        output = output.astype(np.float64 if double else np.float32)
        for reduction in REDUCTIONS:
            given = output if reduction == "none" else None
            ask = _Ask(self.form, reduction, self.key.dtype, given)
            torchs, truth = ask.by_torch(self.inputs), ask.exact(exact)
            for path, client in self.paths.items():
                for quantity, found in ask.by_server(client, arrays).items():
                    key = self.key._replace(path=path, quantity=quantity)
                    measured.add(key, found, torchs[quantity], truth[quantity])

    def _exact(self, arrays: Mapping[str, Array], wide: np.dtype[Any]) -> Exact:
        """Compute by the formula, in a wide type."""
        inputs = {
            name: each if each.dtype.kind == "i" else each.astype(wide)
            for name, each in arrays.items()
        }
        return self.form.formula(inputs, self.form.options)


@dataclass(frozen=True)
class _Ask:
    """One evaluation, and its results by each."""

    form: Form
    reduction: _Reduction
    dtype: str
    output: Array | None
    """The gradient with respect to each value; None: 1."""

    @property
    def gradient_dtype(self) -> str:
        """The type of gradients: rounding to 16 bits would hide errors, but that of the mean."""
        return "float32" if self.dtype in _HALVES and self.reduction != "mean" else self.dtype

    def _named(self, loss: Array, gradients: Mapping[str, Array]) -> dict[str, Array]:
        name = "values" if self.reduction == "none" else self.reduction
        return {name: loss} | {
            f"gradient of {name}, {each}": gradient for each, gradient in gradients.items()
        }

    def by_server(self, client: Client, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Ask a server."""
        result = client.evaluate(
            self.form.loss,
            arrays,
            self.form.options,
            reduction=self.reduction,
            gradients=self.form.gradients,
            grad_output=self.output,
            gradient_dtype=self.gradient_dtype,
            engine="auto",
        )
        return self._named(result.loss, result.gradients)

    def by_torch(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, Array]:
        """Ask torch, in float32 where the inputs have 16 bits."""
        half = self.dtype in _HALVES
        taken = {
            name: tensor.float() if half and tensor.is_floating_point() else tensor.detach().clone()
            for name, tensor in inputs.items()
        }
        for name in self.form.gradients:
            taken[name].requires_grad_()
        loss = self.form.by_torch(taken, self.reduction)
        output = None if self.output is None else torch.from_numpy(self.output)
        found = torch.autograd.grad(loss, [taken[name] for name in self.form.gradients], output)
        wanted: torch.dtype = getattr(torch, self.gradient_dtype)
        gradients = {
            name: _array(each.to(wanted))
            for name, each in zip(self.form.gradients, found, strict=True)
        }
        return self._named(_array(loss.detach()), gradients)

    def exact(self, exact: Exact) -> dict[str, Array]:
        """Reduce the results of the formula."""
        wide = exact.values.dtype.type
        divisor = wide(exact.denominator if self.reduction == "mean" else 1)
        loss = exact.values if self.reduction == "none" else exact.values.sum() / divisor
        derivatives = exact.derivatives / divisor
        if self.output is not None:
            more = (1,) * (derivatives.ndim - self.output.ndim)
            derivatives = derivatives * self.output.reshape(self.output.shape + more)
        signs = {"input": 1, "target": -1}
        return self._named(
            np.asarray(loss), {name: derivatives * signs[name] for name in self.form.gradients}
        )


def _array(tensor: torch.Tensor) -> Array:
    """Return a tensor as an array."""
    if tensor.dtype == torch.bfloat16:
        found: Array = tensor.contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
        return found
    return np.asarray(tensor.detach().numpy())


def joined(cells: Mapping[Key, Errors], **anything: object) -> dict[Key, Errors]:
    """Return the errors of cells that differ in the fields given alone, together."""
    found: dict[Key, Errors] = {}
    for key, errors in cells.items():
        found.setdefault(key._replace(**anything), Errors()).include(errors)  # type: ignore[arg-type]
    return found


def above(cells: Mapping[Key, Errors]) -> dict[Key, Errors]:
    """Return what is above torch: all draws of a row, those of a distribution, or of a size."""
    every = {**cells, **joined(cells, size=0), **joined(cells, distribution="all")}
    every |= joined(cells, distribution="all", size=0)
    return {key: errors for key, errors in every.items() if errors.is_above}
