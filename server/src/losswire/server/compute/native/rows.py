"""The path of native rows: evaluations of any size in host memory, split over threads if large."""

import math
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cache, cached_property
from itertools import pairwise
from typing import Final

import numpy as np
import torch

from losswire.server.catalogue.closed_form import ClosedForm, Factors, Native, RowBlock
from losswire.server.catalogue.record import Reduction
from losswire.server.catalogue.value_rules import Array
from losswire.server.compute import thresholds
from losswire.server.compute.paths import is_small
from losswire.server.compute.reduce import (
    MEANS,
    Computed,
    Sums,
    batchmean_denominator,
    counted_values,
    denominator_terms,
    loss_of,
)
from losswire.server.compute.tensors import numpy_type, sum_of
from losswire.server.compute.work import Work

_FACTORS: Final = len(Factors._fields)


def compute_rows(
    form: ClosedForm, work: Work, threads: int, pause: Callable[[], None] | None = None
) -> Computed:
    """Compute by native rows, with dense gradients or a factored one.

    `pause` is called between two slices of a long evaluation, and may raise an exception.
    """
    if form.native is None:
        message = "a closed form that has no native rows was chosen for them"
        raise TypeError(message)
    # A number too large for its dtype is infinite, here as in torch.
    with np.errstate(all="ignore"):
        return _compute(form.native, work, threads, pause)


def _compute(
    native: Native, work: Work, threads: int, pause: Callable[[], None] | None
) -> Computed:
    terms = denominator_terms(work, work.inputs)
    # Terms of bool are the rows that count, and need not be found twice.
    conditions = terms is not None and terms.dtype == bool
    counted = terms if conditions else counted_values(work, work.inputs)
    denominator = work.normalizer
    if denominator is None:
        denominator = batchmean_denominator(work, _sum_of(terms, work))
    rows = _Rows(native, work, denominator)
    total = _run(rows, work, threads, pause)
    totals = Sums(total, total, _count(counted, work))
    if rows.values is None:
        loss = np.array(loss_of(work, totals, denominator), numpy_type(work.compute_dtype))
    else:
        loss = rows.values.reshape(work.values_shape)
    return Computed(
        loss=loss,
        sum=total,
        mean_numerator=total,
        mean_denominator=denominator,
        count=totals.count,
        gradients=rows.gradients_asked_for(),
        factors=rows.factors_asked_for(),
    )


def threads_of(work: Work, threads: int) -> int:
    """Return the number of threads over which rows are split; 0 and 1: they are not split."""
    most = min(threads, work.input_bytes // thresholds.THREAD_BYTES)
    return most if most <= 1 else min(most, _length(work))


def _length(work: Work) -> int:
    """Return how many parts can be split: elements if each is a row, else rows."""
    return math.prod(work.values_shape) if _is_flat(work) else work.values_shape[0]


def _is_flat(work: Work) -> bool:
    """Return whether every element is a row: all arrays have the values' shape."""
    weight = work.sample_weight
    return (weight is None or weight.shape == work.values_shape) and all(
        array.shape == work.values_shape for array in work.inputs.values()
    )


def _sum_of(terms: Array | None, work: Work) -> float:
    """Return the sum of the mean's denominators: 1 each without terms."""
    weight, count = work.sample_weight, float(math.prod(work.values_shape))
    if terms is None:
        # Broadcast to the values, each weight occurs equally often.
        return count if weight is None else sum_of(weight) * (count / weight.size)
    if weight is None:
        return float(np.count_nonzero(terms)) if terms.dtype == bool else sum_of(terms)
    weight = weight.astype(float)
    return sum_of(np.where(weight == 0, 0.0, terms * weight))


def _count(counted: Array | None, work: Work) -> int:
    """Return how many values torch does not ignore and have a weight other than 0."""
    weight, count = work.sample_weight, math.prod(work.values_shape)
    if weight is None:
        return count if counted is None else int(np.count_nonzero(counted))
    kept = weight != 0
    if counted is None:
        return int(np.count_nonzero(kept)) * (count // weight.size)
    return int(np.count_nonzero(kept & counted))


class _Rows:
    """One evaluation, whose rows can be computed in parts, by several threads at once."""

    def __init__(self, native: Native, work: Work, denominator: float) -> None:
        """Allocate the results of all rows."""
        self._native, self._work = native, work
        wanted = bool(work.gradients_for)
        dtype = numpy_type(work.compute_dtype)
        self.small = is_small(work)
        flat = not self.small and len(work.values_shape) > 1 and _is_flat(work)
        self.shape = (math.prod(work.values_shape),) if flat else work.values_shape
        """The shape of the values, or that shape flattened."""
        self._inputs = _flattened(work.inputs) if flat else dict(work.inputs)
        self._weight: Array | None = None
        if work.sample_weight is not None:
            self._weight = np.broadcast_to(work.sample_weight, work.values_shape)
            self._weight = self._weight.reshape(self.shape)
        self._grad_output = _grad_output_of(work, self.shape) if wanted else None
        self._divisor = denominator if work.reduction in MEANS else 1.0
        self._asked: dict[str, Array] = {}
        if not work.factored:
            self._asked = {name: _place(work, name, dtype) for name in work.gradients_for}
        self._gradients = _flattened(self._asked) if flat else self._asked
        self._factors = np.empty((_FACTORS, *work.values_shape)) if work.factored else None
        self._dtype = dtype
        self.values = np.empty(self.shape, dtype) if work.reduction is Reduction.NONE else None
        """The values, if they are the loss; None: they are reduced."""

    @cached_property
    def _rows(self) -> dict[str, Array]:
        """The inputs that have rows."""
        return {name: self._inputs[name] for name in self._work.row_inputs}

    def run(self, start: int, stop: int) -> float:
        """Compute some rows; returns the sum of their values."""
        if self._weight is None and (self._grad_output is None or not self._grad_output.ndim):
            return self._block(slice(start, stop))
        # The caller's settings, which new threads do not inherit.
        with np.errstate(all="ignore"):
            return _sum([self._block(part) for part in self._blocks(start, stop)])

    def _blocks(self, start: int, stop: int) -> Iterator[slice]:
        step = max(thresholds.WEIGHTED_VALUES // max(math.prod(self.shape[1:]), 1), 1)
        for first in range(start, stop, step):
            yield slice(first, min(first + step, stop))

    def _block(self, part: slice) -> float:
        """Compute rows by one call."""
        whole = part.stop - part.start == self.shape[0]
        coefficients = self._grad_output
        if coefficients is not None and coefficients.ndim:
            coefficients = coefficients[part].astype(np.float64, order="C")
        values = None if self.values is None else self.values[part]
        weight = removed = None
        if self._weight is not None:
            weight = self._weight[part].astype(np.float64, order="C")
            removed = (weight == 0).view(np.uint8)
            if coefficients is not None:
                coefficients = weight * coefficients
            if values is None:
                values = np.empty(weight.shape, self._dtype)
        total = self._native.rows(
            RowBlock(
                inputs=self._inputs if whole else self._inputs | _cut(self._rows, part),
                options=self._work.options,
                coefficients=coefficients,
                removed=removed,
                gradients=self._gradients if whole else _cut(self._gradients, part),
                factors=None if self._factors is None else self._factors[:, part],
                values=values,
                small=self.small,
                divisor=self._divisor,
            )
        )
        if weight is None or values is None:
            return total
        weighted = np.where(weight == 0, 0.0, values * weight)
        values[...] = weighted
        return sum_of(weighted)

    def gradients_asked_for(self) -> dict[str, Array]:
        """Return the gradients in the dtypes asked for."""
        return {
            name: array.astype(numpy_type(self._work.gradient_type(name)), copy=False)
            for name, array in self._asked.items()
        }

    def factors_asked_for(self) -> dict[str, Factors]:
        """Return the factors of the gradient, if it is factored."""
        if self._factors is None:
            return {}
        factors = Factors(*torch.from_numpy(self._factors))
        return dict.fromkeys(self._work.gradients_for, factors)


def _cut(arrays: Mapping[str, Array], part: slice) -> dict[str, Array]:
    return {name: array[part] for name, array in arrays.items()}


def _flattened(arrays: Mapping[str, Array]) -> dict[str, Array]:
    return {name: array.reshape(-1) for name, array in arrays.items()}


def _grad_output_of(work: Work, shape: tuple[int, ...]) -> Array:
    """Return the gradient with respect to each value, or one number for all.

    Before its weight, and before the division by the mean's denominator.
    """
    if work.grad_output is None:
        return np.array(1.0)
    if work.reduction is Reduction.NONE:
        return work.grad_output.reshape(shape)
    return np.asarray(work.grad_output.astype(np.float64))


def _place(work: Work, name: str, dtype: np.dtype[np.generic]) -> Array:
    """Return the memory of a gradient: the caller's, if C++ can write its dtype."""
    given = work.inputs[name]
    wanted = numpy_type(work.gradient_type(name))
    # Dtypes other than the input's and the compute dtype are converted at the end.
    direct = wanted if wanted in (given.dtype, dtype) else dtype
    if name in work.destinations and direct == wanted:
        return work.destinations[name].array
    return np.empty(given.shape, direct)


def _run(rows: _Rows, work: Work, threads: int, pause: Callable[[], None] | None) -> float:
    """Compute all rows, split over threads; this one makes room for others between slices."""
    count = rows.shape[0]
    shares = max(threads_of(work, threads), 1)
    first, *others = pairwise([count * share // shares for share in range(shares + 1)])
    pending: list[Future[float]] = []
    try:
        for each in others:
            pending.append(_helpers(threads - 1).submit(rows.run, *each))  # noqa: PERF401 (one may fail)
        totals = _run_slices(rows, first, work.input_bytes // shares, pause)
        for share, part in zip(pending, others, strict=True):
            # One that no thread has begun, because they compute for another, is computed here.
            totals.append(rows.run(*part) if share.cancel() else share.result())
        return _sum(totals)
    finally:
        # After an error, too, no thread may still write when the memory is freed.
        wait([share for share in pending if not share.cancelled()])


def _run_slices(
    rows: _Rows, part: tuple[int, int], size_bytes: int, pause: Callable[[], None] | None
) -> list[float]:
    """Compute some rows, slice by slice; returns the sum of each."""
    start, stop = part
    count = min(size_bytes // thresholds.SLICE_BYTES, stop - start) if pause else 1
    if count <= 1 or pause is None:
        return [rows.run(start, stop)]
    totals = [rows.run(start, start + (stop - start) // count)]
    for each in range(1, count):
        pause()
        ends = [start + (stop - start) * end // count for end in (each, each + 1)]
        totals.append(rows.run(*ends))
    return totals


def _sum(totals: list[float]) -> float:
    """Return the sum of the totals, rounded once; as float64 where it is infinite."""
    try:
        return math.fsum(totals)
    except (OverflowError, ValueError):
        return sum(totals)


@cache
def _helpers(count: int) -> ThreadPoolExecutor:
    """Return the threads that compute shares of large evaluations; they start with the first."""
    return ThreadPoolExecutor(count, thread_name_prefix="losswire-rows")
