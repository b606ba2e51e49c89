"""The path of native rows: evaluations of any size in host memory, cut over threads when large."""

import math
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import Final

import numpy as np
import torch

from losswire.server.closed_forms.block import ClosedForm, Factors, RowBlock
from losswire.server.records import Reduction
from losswire.server.reduce import MEANS, Computed, Totals, loss_of, of_rows, quotient
from losswire.server.tensors import numpy_type
from losswire.server.values import Array
from losswire.server.work import SMALL_BYTES, Work

_THREAD_BYTES: Final = 1 << 20
"""A thread that has fewer bytes of the inputs to itself costs more than it gains."""

_FACTORS: Final = len(Factors._fields)


def compute_rows(form: ClosedForm, work: Work, threads: int) -> Computed:
    """Evaluate by native rows, with a dense gradient or a factored one."""
    # What is too large for its type is infinite, here as in torch.
    with np.errstate(all="ignore"):
        return _compute(form, work, threads)


def _compute(form: ClosedForm, work: Work, threads: int) -> Computed:
    dtype = numpy_type(work.compute_dtype)
    weight = _sample_weight(work)
    known = work.record.denominators.get(work.layout.name)
    terms = known.terms(work.inputs, work.options) if known else None
    # Terms that are conditions say what counts, and need not be found twice.
    conditions = terms is not None and terms.dtype == bool
    counted = terms if conditions else form.counted(work.inputs, work.options)
    denominator = work.normalizer
    if denominator is None:
        denominator = of_rows(work, _sum_of(terms, weight, work.values_shape))
    wanted = bool(work.gradients_for)
    listed = weight is not None or work.reduction is Reduction.NONE
    block = RowBlock(
        inputs=work.inputs,
        options=work.options,
        coefficients=_coefficients(work, weight, denominator) if wanted else None,
        removed=None if weight is None else (weight == 0).view(np.uint8),
        gradient=_place(work, dtype) if wanted and not work.factored else None,
        factors=np.empty((_FACTORS, *work.values_shape)) if work.factored else None,
        values=np.empty(work.values_shape, dtype) if listed else None,
        small=work.input_bytes < SMALL_BYTES,
    )
    total = _run(form, block, work, threads)
    values = block.values
    if values is not None and weight is not None:
        values = np.where(weight == 0, 0.0, values * weight)
        total = float(values.sum())
    totals = Totals(total, total, _count(counted, weight, work.values_shape))
    if values is not None and work.reduction is Reduction.NONE:
        loss = values.astype(dtype, copy=False)
    else:
        loss = np.array(loss_of(work, totals, denominator), dtype)
    return Computed(
        loss=loss,
        sum=total,
        mean_numerator=total,
        mean_denominator=denominator,
        count=totals.count,
        gradients=_gradients(work, block),
        factors=_factors(work, block),
    )


def threads_of(work: Work, threads: int) -> int:
    """Tell over how many threads the rows are cut, of those that there are; 0 and 1 cut nothing."""
    return min(threads, work.input_bytes // _THREAD_BYTES, work.values_shape[0])


def _sample_weight(work: Work) -> Array | None:
    """Give the weight of each value, in float64; None: 1."""
    weight = work.sample_weight
    if weight is None:
        return None
    return np.broadcast_to(weight, work.values_shape).astype(np.float64)


def _sum_of(terms: Array | None, weight: Array | None, shape: tuple[int, ...]) -> float:
    """Add up the mean's denominators: 1 each without terms."""
    if weight is None:
        if terms is None:
            return float(math.prod(shape))
        return float(np.count_nonzero(terms) if terms.dtype == bool else terms.sum(dtype=float))
    if terms is None:
        return float(weight.sum())
    return float(np.where(weight == 0, 0.0, terms * weight).sum())


def _count(counted: Array | None, weight: Array | None, shape: tuple[int, ...]) -> int:
    """Count the values that torch does not ignore and that have a weight."""
    if weight is None:
        return math.prod(shape) if counted is None else int(np.count_nonzero(counted))
    kept = weight != 0
    return int(np.count_nonzero(kept if counted is None else kept & counted))


def _coefficients(work: Work, weight: Array | None, denominator: float) -> Array:
    """Give the gradient with respect to each value, its weight included, in float64."""
    if work.grad_output is None:
        upstream = np.array(quotient(1.0, denominator) if work.reduction in MEANS else 1.0)
    else:
        upstream = work.grad_output.astype(np.float64)
        if work.reduction in MEANS:
            # Python's numbers would raise where this divides by 0.
            upstream = np.asarray(upstream / np.float64(denominator))
    return upstream if weight is None else np.asarray(weight * upstream)


def _place(work: Work, dtype: np.dtype[np.generic]) -> Array:
    """Give the place of the gradient: the caller's, if its type is one that can be written."""
    [name] = work.gradients_for
    given = work.inputs[name]
    wanted = numpy_type(work.gradient_type(name))
    # What is neither the input's type nor the compute type is converted at the end.
    direct = wanted if wanted in (given.dtype, dtype) else dtype
    if name in work.destinations and direct == wanted:
        return work.destinations[name].array
    return np.empty(given.shape, direct)


def _gradients(work: Work, block: RowBlock) -> dict[str, Array]:
    """Give the gradient in the type asked for."""
    if block.gradient is None:
        return {}
    [name] = work.gradients_for
    return {name: block.gradient.astype(numpy_type(work.gradient_type(name)), copy=False)}


def _factors(work: Work, block: RowBlock) -> dict[str, Factors]:
    if block.factors is None:
        return {}
    return dict.fromkeys(work.gradients_for, Factors(*torch.from_numpy(block.factors)))


def _run(form: ClosedForm, block: RowBlock, work: Work, threads: int) -> float:
    """Compute all rows, a share of them on each of some threads."""
    rows = form.native
    if rows is None:
        message = "a closed form that has no native rows was chosen for them"
        raise TypeError(message)
    count = work.values_shape[0]
    shares = threads_of(work, threads)
    if shares <= 1:
        return rows(block)
    ends = [count * share // shares for share in range(shares + 1)]
    first, *others = [_rows_of(block, work, slice(*each)) for each in pairwise(ends)]
    pending: list[Future[float]] = []
    try:
        for each in others:
            pending.append(_helpers(threads - 1).submit(rows, each))  # noqa: PERF401 (one may fail)
        return _sum([rows(first), *(share.result() for share in pending)])
    finally:
        # Whatever fails, nobody may still write when the memory is given back.
        wait(pending)


def _sum(totals: list[float]) -> float:
    """Add up what each thread found, in one rounding; as float64 does where that is infinite."""
    try:
        return math.fsum(totals)
    except (OverflowError, ValueError):
        return sum(totals)


def _rows_of(block: RowBlock, work: Work, part: slice) -> RowBlock:
    """Give some rows of a block; they share its memory."""
    coefficients = block.coefficients
    if coefficients is not None and coefficients.ndim:
        coefficients = coefficients[part]
    return replace(
        block,
        inputs={
            name: array[part] if name in work.row_inputs else array
            for name, array in block.inputs.items()
        },
        coefficients=coefficients,
        removed=_cut(block.removed, part),
        gradient=_cut(block.gradient, part),
        factors=None if block.factors is None else block.factors[:, part],
        values=_cut(block.values, part),
    )


def _cut(array: Array | None, part: slice) -> Array | None:
    return None if array is None else array[part]


@cache
def _helpers(count: int) -> ThreadPoolExecutor:
    """Give the threads that take shares of large evaluations; they begin with the first one."""
    return ThreadPoolExecutor(count, thread_name_prefix="losswire-rows")
