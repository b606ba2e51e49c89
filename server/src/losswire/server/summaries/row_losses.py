"""Row losses: from the unreduced values of an evaluation to what each row adds to a summary.

A row is an element of the first axis of the values; a scalar is one row. What a row adds is such
that the sum of all numerators over the sum of all denominators is the mean of the evaluation.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from losswire.server.catalogue.shapes import Shape
from losswire.server.catalogue.value_rules import Array
from losswire.server.compute.dispatch import Outcome
from losswire.server.compute.reduce import counted_values, denominator_terms
from losswire.server.compute.tensors import to_array
from losswire.server.compute.work import Work
from losswire.v1.evaluation_pb2 import ENGINE_AUTOGRAD

Floats = npt.NDArray[np.float64]
Conditions = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class RowLosses:
    """What N rows add, each array of shape (N)."""

    values: Floats
    """The loss of each row; of rows that do not take part: anything."""
    numerators: Floats | None = None
    """The share of each row in the mean's numerator; None: weight times value."""
    denominators: Floats | None = None
    """The share of each row in the mean's denominator; None: its weight."""
    counted: Conditions | None = None
    """Which rows take part; None: all."""


@dataclass(frozen=True, slots=True)
class _Table:
    """The values of N rows with K values each, and how their mean is formed: all (N, K)."""

    values: Array
    scale: Array | None
    """The factor of each value in the mean's numerator; None: 1."""
    denominators: Array | None
    """The share of each value in the mean's denominator; None: 1."""
    counted: Conditions | None
    """Which values take part: not ignored, and not of weight 0; None: all."""
    weights: Floats | None
    """The sample weight of each value, (N, K) or (N, 1); None: 1."""

    def weighted(self, numbers: Array) -> Floats:
        """Return numbers times their weights, and 0 where a value does not take part."""
        product = numbers.astype(np.float64, copy=False)
        if self.weights is not None:
            product = product * self.weights
        # Selected, not multiplied: 0 x infinity is NaN.
        return product if self.counted is None else np.where(self.counted, product, 0.0)


def row_count(values_shape: Shape) -> int:
    """Return the number of rows of values of this shape."""
    return values_shape[0] if values_shape else 1


def row_weights(weight: Array | None) -> Floats | None:
    """Return the weight of each row: the mean of those of its values that are not 0.

    `weight` has the shape (N), that of the values, or () for one row; None: 1 each.
    """
    if weight is None:
        return None
    if weight.ndim <= 1:
        return weight.reshape(-1).astype(np.float64)
    table = weight.reshape(len(weight), -1)
    counts = np.count_nonzero(table, axis=1)
    return np.asarray(table.sum(axis=1, dtype=np.float64) / np.maximum(counts, 1))


def row_losses(
    work: Work, outcome: Outcome, weight: Array | None, *, batchmean: bool = False
) -> RowLosses:
    """Return what each row of an unreduced evaluation without sample weight adds.

    `weight` is the sample weight, of shape (N) or that of the values. With `batchmean`, the value
    of a row is the sum of its values instead of their mean.
    """
    with np.errstate(all="ignore"):
        table = _table(work, outcome, weight)
        columns = table.values.shape[1]
        if columns == 1:
            return _single(table)
        return _several(table, row_weights(weight), batchmean=batchmean)


def _table(work: Work, outcome: Outcome, weight: Array | None) -> _Table:
    """Return the values and terms of an evaluation, and which values take part."""
    rows = row_count(work.values_shape)
    shape = (rows, math.prod(work.values_shape[1:]))
    scale = counted = None
    if outcome.terms is not None:
        # Before they were rounded to the dtype of the loss: sums are of these.
        values = to_array(outcome.terms.values)
        scale, denominators, counted = (
            None if each is None else to_array(each)
            for each in (
                outcome.terms.numerator_scale,
                outcome.terms.denominators,
                outcome.terms.counted,
            )
        )
    else:
        values, denominators = outcome.loss, denominator_terms(work, work.inputs)
    if denominators is not None and denominators.dtype == bool:
        # Terms of bool are the values that count, which need not be found twice.
        counted, denominators = denominators, None
    elif work.engine != ENGINE_AUTOGRAD and counted is None:
        counted = counted_values(work, work.inputs)
    weights = None
    if weight is not None:
        weights = weight.reshape(rows, -1).astype(np.float64)
        kept = np.broadcast_to(weights != 0, shape)
        counted = kept if counted is None else kept & counted.reshape(shape)
    return _Table(
        values.reshape(shape),
        None if scale is None else scale.reshape(shape),
        None if denominators is None else denominators.reshape(shape),
        None if counted is None or counted.all() else counted.reshape(shape),
        weights,
    )


def _single(table: _Table) -> RowLosses:
    """Return what rows of one value add."""
    values, scale, denominators = table.values, table.scale, table.denominators
    return RowLosses(
        values=values[:, 0].astype(np.float64),
        numerators=None if scale is None else table.weighted(values * scale)[:, 0],
        denominators=None if denominators is None else table.weighted(denominators)[:, 0],
        counted=None if table.counted is None else table.counted[:, 0],
    )


def _several(table: _Table, weights: Floats | None, *, batchmean: bool) -> RowLosses:
    """Return what rows of several values, or of none, add; `weights` are those of the rows."""
    values = table.values
    rows, columns = values.shape
    if not columns:
        return _empty(rows, weights, batchmean=batchmean)
    if table.weights is None and table.counted is None:
        sums, total = values.sum(axis=1, dtype=np.float64), np.full(rows, float(columns))
    else:
        sums = table.weighted(values).sum(axis=1)
        total = table.weighted(np.broadcast_to(1.0, values.shape)).sum(axis=1)
    denominators = total
    if table.denominators is not None:
        denominators = table.weighted(table.denominators).sum(axis=1)
    numerators = sums
    if table.scale is not None:
        numerators = table.weighted(values * table.scale).sum(axis=1)
    if batchmean:
        means, denominators = sums if weights is None else sums / weights, denominators / columns
    else:
        means = sums / total
    return RowLosses(
        values=means,
        numerators=numerators,
        denominators=denominators,
        counted=None if table.counted is None else np.asarray(table.counted.any(axis=1)),
    )


def _empty(rows: int, weights: Floats | None, *, batchmean: bool) -> RowLosses:
    """Return what rows without values add: nothing, or to a batchmean a row each."""
    nothing = np.zeros(rows)
    if not batchmean:
        return RowLosses(values=nothing, counted=np.zeros(rows, bool))
    counted = None if weights is None else weights != 0
    return RowLosses(
        values=nothing, numerators=nothing, denominators=np.ones(rows), counted=counted
    )
