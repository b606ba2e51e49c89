"""Calls of the native rows, and their results by the formula."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from losswire.server.catalogue.closed_form import RowBlock
from losswire.server.catalogue.record import LossRecord, Reduction
from losswire.server.compute.native.softmax import CROSS_ENTROPY
from tests.support.caller import Array, Ask
from tests.support.sampling import NUMPY, convert

WIDTHS = (16, 32, 64)
"""The widths of registers, in bytes."""

IGNORED = -100
_GUARD = 64
_PATTERN = 0xA5


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Some rows, and how their cross entropy is asked for."""

    logits: Array
    target: Array
    coefficients: Array
    weight: Array | None = None
    smoothing: float = 0.0
    removed: Array | None = None
    gradient_dtype: str | None = None

    @property
    def dtype(self) -> npt.DTypeLike:
        """The type computed in."""
        return np.float64 if self.logits.dtype == np.float64 else np.float32

    def part(self, rows: slice) -> "Rows":
        """Return some of the rows."""
        return replace(
            self,
            logits=self.logits[rows],
            target=self.target[rows],
            coefficients=self.coefficients[rows],
            removed=None if self.removed is None else self.removed[rows],
        )


@dataclass(frozen=True, kw_only=True)
class Found:
    """The results of a call."""

    total: float
    values: Array
    gradient: Array
    factors: Array

    @property
    def arrays(self) -> tuple[Array, ...]:
        """All that there is of each row."""
        return self.values, self.gradient, *self.factors


class Guarded:
    """Memory for an array at any address, between bytes that must stay as they are."""

    def __init__(self, shape: Sequence[int], dtype: npt.DTypeLike, offset: int = 0) -> None:
        """Allocate it at an offset in bytes from an address that is aligned for every type."""
        kind = np.dtype(dtype)
        size = int(np.prod(shape)) * kind.itemsize
        self.memory = np.full(size + 2 * _GUARD + offset, _PATTERN, np.uint8)
        self._start, self._stop = _GUARD + offset, _GUARD + offset + size
        self.array: Array = self.memory[self._start : self._stop].view(kind).reshape(shape)

    @property
    def intact(self) -> bool:
        """Whether nothing around it was written."""
        outside = (self.memory[: self._start], self.memory[self._stop :])
        return all(bool((each == _PATTERN).all()) for each in outside)

    @property
    def untouched(self) -> bool:
        """Whether nothing was written at all."""
        return bool((self.memory == _PATTERN).all())


def draw_rows(
    rng: np.random.Generator,
    rows: int,
    classes: int,
    dtype: str,
    **given: Any,  # noqa: ANN401 (a field's)
) -> Rows:
    """Draw rows of logits; the third row, if there is one, is ignored."""
    target = rng.integers(0, classes, rows)
    target[2:3] = IGNORED
    return Rows(
        logits=convert(rng.standard_normal((rows, classes)) * 3, dtype),
        target=target,
        coefficients=rng.standard_normal(rows),
        **given,
    )


def variants(rng: np.random.Generator, rows: Rows) -> Iterator[Rows]:
    """Return rows with and without smoothing and class weights; the last one with removed rows."""
    weight = np.asarray(rng.uniform(0.5, 2.0, rows.logits.shape[1]), rows.dtype)
    removed = np.zeros(len(rows.target), np.uint8)
    removed[1::3] = 1
    yield rows
    yield replace(rows, weight=weight)
    yield replace(rows, smoothing=0.1)
    yield replace(rows, smoothing=0.3, weight=weight, removed=removed)


def run(rows: Rows, width: int = 64, offset: int = 0) -> Found:
    """Compute all results, written `offset` bytes after aligned addresses."""
    count = len(rows.target)
    gradient = Guarded(
        rows.logits.shape, NUMPY[rows.gradient_dtype or rows.logits.dtype.name], offset
    )
    values = Guarded((count,), rows.dtype, offset)
    factors = Guarded((3, count), np.float64, offset)
    block = block_of(rows, gradient.array, values.array, factors.array)
    total = CROSS_ENTROPY.rows(block, width)
    assert gradient.intact
    assert values.intact
    assert factors.intact
    return Found(
        total=total,
        values=values.array.copy(),
        gradient=gradient.array.copy(),
        factors=factors.array.copy(),
    )


def block_of(
    rows: Rows, gradient: Array | None, values: Array | None = None, factors: Array | None = None
) -> RowBlock:
    """Return the block that the driver would make."""
    inputs = {"input": rows.logits, "target": rows.target}
    if rows.weight is not None:
        inputs["weight"] = rows.weight
    wanted = gradient is not None or factors is not None
    return RowBlock(
        inputs=inputs,
        options={"label_smoothing": rows.smoothing, "ignore_index": IGNORED},
        coefficients=rows.coefficients if wanted else None,
        removed=rows.removed,
        gradients={} if gradient is None else {"input": gradient},
        factors=factors,
        values=values,
        small=False,
    )


def exact(rows: Rows, kind: type[np.floating[Any]] = np.float64) -> tuple[Array, Array]:
    """Return values and gradient by the formula, in another dtype than the compute dtype."""
    logits: Array = rows.logits.astype(kind)
    count, classes = logits.shape
    highest = logits.max(1, keepdims=True)
    power = np.exp(logits - highest)
    log_p = logits - highest - np.log(power.sum(1, keepdims=True))
    weight = np.ones(classes, kind) if rows.weight is None else rows.weight.astype(kind)
    share: Array = np.full(logits.shape, kind(rows.smoothing) / classes)
    share[np.arange(count), np.maximum(rows.target, 0)] += 1 - kind(rows.smoothing)
    share *= weight
    share[rows.target == IGNORED] = 0
    if rows.removed is not None:
        share[rows.removed != 0] = 0
    values: Array = -(share * log_p).sum(1)
    derivatives = np.exp(log_p) * share.sum(1, keepdims=True) - share
    return values, derivatives * rows.coefficients.astype(kind)[:, None]


def reduced(
    ask: Ask,
    record: LossRecord,
    weight: Array,
    shape: tuple[int, ...],
    rng: np.random.Generator,
) -> Iterator[Ask]:
    """Ask by every reduction of a loss, with and without weights, and for gradients in all ways.

    `weight` are the weights of the values, whose shape is given.
    """
    for weights in (None, weight):
        for reduction in record.reductions:
            none = reduction is Reduction.NONE
            output = rng.standard_normal(shape if none else ()).astype(np.float32)
            one = replace(ask, reduction=reduction, sample_weight=weights)
            yield replace(one, grad_output=np.asarray(output))
            if not none:
                yield one
            if reduction is Reduction.MEAN:
                yield replace(one, normalizer=3.5)
