"""Factored gradients: from two numbers a row, and logits that the caller holds, to dense ones.

The comments of the message FactoredGradient have the formulas. Blocks are small enough to
stay in the cache. They are computed in float64, and rounded once at the end. Where there
are many classes, they are computed in float32, which is faster, except for the large
probabilities: these decide how exact a gradient is, and numpy's float32 exp is not as
exact as torch's.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from losswire.client._errors import InternalError, LosswireError
from losswire.client._messages import thresholds
from losswire.client._messages.arrays import ArrayInput, to_numpy
from losswire.client._messages.evaluation import Evaluation
from losswire.client._messages.request import float_type
from losswire.client._messages.resident import StoredTensor
from losswire.client._messages.response import EvaluationResult
from losswire.client._messages.weights import with_float_weights
from losswire.v1 import tensor_pb2
from losswire.wire import DATA_TYPES, TensorSpec

Array = npt.NDArray[Any]
Doubles = npt.NDArray[np.float64]
Outcome = EvaluationResult | LosswireError

_LOSSES: Final = ("cross_entropy",)
_LOGITS: Final = "input"
"""The input whose gradient comes as factors."""

_LARGE: Final = 2.0**-6
"""The largest probability that is made in float32; at most 63 of a row are larger."""

_PLAIN_LSE: Final = (-1.0, 80.0)
"""Between these, float32 holds exp(x) where it holds exp(x - lse): it is no more than exp(lse)."""

_PLAIN_FACTOR: Final = (2.0**-120, 2.0**120)
"""Between these, float32 holds the factor of exp(x)."""

_LEAST_NORMAL: Final = 2.0**-14
"""The least normal number of float16."""

_LAST_BIT: Final = -24
"""The exponent of its least subnormal number."""

_CLASSES: Final = 1
"""The axis of the classes, behind that of the batch."""


class Rebuild:
    """Rebuilds the dense gradient of some logits, a few rows at a time."""

    def __init__(self, logits: Array, target: "_Target", *, double: bool) -> None:
        """Store logits (N, C, ...) or (C), which are read when rows are rebuilt.

        `double` is whether the gradient is computed in float64.
        """
        self.values_shape = _values_shape(logits)
        """The shape of the factors."""
        self._logits = logits if logits.ndim > 1 else logits[np.newaxis]
        self._target = target
        self._classes = self._logits.shape[_CLASSES]
        self._positions = math.prod(self._logits.shape[2:])
        self._narrow = not double and self._classes >= thresholds.REBUILD_FLOAT32_CLASSES
        self._scratch = np.empty(0, np.float32 if self._narrow else np.float64)
        wire_type = DATA_TYPES[tensor_pb2.DATA_TYPE_FLOAT64]
        self.specs = (TensorSpec(wire_type, self.values_shape),) * 3
        """The factors, in the order in which chunks pack them."""

    def rows(self, out: Array, factors: Sequence[Array], start: int = 0) -> None:
        """Write the gradient of the rows from `start` on, as many as there are factors.

        `out` is the gradient of all rows, contiguous in C order. `factors` are `lse`, `scale`
        and `lse_tail`, each with the values of these rows.
        """
        count = len(factors[0]) if self.values_shape else 1
        flat = [np.asarray(each, np.float64).reshape(count, self._positions) for each in factors]
        whole = out.reshape(self._logits.shape[0], self._classes, self._positions)
        row = self._classes * self._positions
        if not count * row:
            return
        most = thresholds.REBUILD_BLOCK_BYTES // self._scratch.dtype.itemsize
        step, width = max(1, most // row), max(1, most // self._classes)
        with np.errstate(all="ignore"):
            for first in range(0, count, step):
                last = min(first + step, count)
                logits = self._logits[start + first : start + last]
                logits = logits.reshape(last - first, self._classes, self._positions)
                for left in range(0, self._positions, width):
                    part = slice(left, left + width)
                    self._block(
                        logits[:, :, part],
                        whole[start + first : start + last, :, part],
                        [each[first:last, np.newaxis, part] for each in flat],
                        start + first,
                        left,
                    )

    def _block(
        self, logits: Array, out: Array, factors: Sequence[Doubles], row: int, position: int
    ) -> None:
        """Rebuild a block that begins at this row and position of the values."""
        lse, scale, tail = factors
        # Where possible, the gradient itself is the scratch memory.
        direct = out.dtype == self._scratch.dtype and out.flags.c_contiguous
        if not direct and self._scratch.size < logits.size:
            self._scratch = np.empty(logits.size, self._scratch.dtype)
        flat = out.reshape(-1) if direct else self._scratch[: logits.size]
        dense = flat.reshape(logits.shape)
        numbers = logits
        if logits.dtype != dense.dtype or not logits.flags.c_contiguous:
            np.copyto(dense, logits)
            numbers = dense
        if self._narrow:
            _scaled_exp_narrow(dense, numbers, logits, lse, scale * np.exp(-tail))
        else:
            np.subtract(numbers, lse, out=dense)
            np.subtract(dense, tail, out=dense)
            # numpy's exp is several times as fast over one axis as over several.
            np.exp(flat, out=flat)
            np.multiply(dense, scale, out=dense)
        self._target.subtract(dense, logits, factors, row, position)
        removed = np.isposinf(lse)
        if removed.any():
            np.copyto(dense, 0.0, where=removed)
        if out.dtype == np.float16:
            _round_small(flat)
        if not direct:
            np.copyto(out, dense, casting="unsafe")


def _scaled_exp_narrow(
    dense: Array, numbers: Array, logits: Array, lse: Doubles, scale: Doubles
) -> None:
    """Compute a block `scale * exp(x - lse)` in float32, from the logits as numbers of that type.

    A subtraction from x before exp costs a pass and a rounding; where possible, all of lse goes
    into the factor, and elsewhere the part that float32 does not hold. numpy's exp errs by 2 or
    3 units in the last place, which shows only in large probabilities; these are few, and are
    made in float64.
    """
    flat = dense.reshape(-1)
    shift = np.where(_is_plain(lse, scale), 0.0, lse).astype(np.float32)
    if shift.any():
        numbers = _by_row(np.subtract, numbers, shift, dense)
    # numpy's exp is several times as fast over one axis as over several.
    np.exp(numbers.reshape(-1), out=flat)
    factor = np.exp(shift - lse)
    bound = (_LARGE / factor).astype(np.float32)
    is_large = _by_row(np.greater, dense, bound, None)
    large = np.flatnonzero(is_large)
    _by_row(np.multiply, dense, (scale * factor).astype(np.float32), dense)
    if len(large):
        row, _, position = where = np.unravel_index(large, dense.shape)
        exact = np.exp(logits[where].astype(np.float64) - lse[row, 0, position])
        flat[large] = exact * scale[row, 0, position]


def _is_plain(lse: Doubles, scale: Doubles) -> npt.NDArray[np.bool_]:
    """Return the rows for which float32 holds exp(x) and its factor."""
    (least, most), (smallest, largest) = _PLAIN_LSE, _PLAIN_FACTOR
    factor = np.abs(scale * np.exp(-lse))
    holds = (lse >= least) & (lse <= most)
    holds &= (scale == 0) | (factor >= smallest) & (factor <= largest)
    # A removed row becomes 0 in the end, whatever it is before.
    return holds | np.isposinf(lse)


def _by_row(operation: np.ufunc, dense: Array, numbers: Array, out: Array | None) -> Array:
    """Apply an operation with one number for each row."""
    before = np.setbufsize(thresholds.REBUILD_BUFFER_ELEMENTS)
    try:
        found: Array = operation(dense, numbers, out=out)
    finally:
        np.setbufsize(before)
    return found


class _Target(Protocol):
    """A target distribution."""

    def subtract(
        self, dense: Array, logits: Array, factors: Sequence[Doubles], row: int, position: int
    ) -> None:
        """Subtract `scale * q` from a block of `scale * exp(x - lse)`, in place.

        The block and its logits have the shape (rows, classes, positions), `factors` have one
        class; the block begins at this row and position of the values.
        """


class _ClassIndices:
    """A class for each row, of which label smoothing spreads a part over all classes."""

    def __init__(self, target: Array, weight: Doubles | None, smoothing: float) -> None:
        self._target = target
        self._weight = weight
        self._smoothing = smoothing

    def subtract(
        self, dense: Array, logits: Array, factors: Sequence[Doubles], row: int, position: int
    ) -> None:
        count, _, width = dense.shape
        lse, scale, tail = (each[:, 0] for each in factors)
        flat = self._target[row : row + count].reshape(count, -1)[:, position : position + width]
        # An ignored value has scale 0, and its index may be no class.
        chosen = np.where(scale != 0, flat, 0).astype(np.intp)
        where = np.arange(count)[:, np.newaxis], chosen, np.arange(width)
        # p - 1 is computed by expm1: near 1, p itself has lost the digits.
        own = scale * np.expm1(logits[where].astype(np.float64) - lse - tail)
        if self._smoothing:
            own += scale - self._spread(dense, factors[1], chosen)
        dense[where] = own

    def _spread(self, dense: Array, scale: Doubles, chosen: npt.NDArray[np.intp]) -> Doubles:
        """Subtract the share of all classes by smoothing; returns `scale * q` of the targets."""
        classes = dense.shape[_CLASSES]
        even, share = self._smoothing / classes, 1.0 - self._smoothing
        if self._weight is None:
            np.subtract(dense, scale * even, out=dense)
            spread: Doubles = scale[:, 0] * (share + even)
            return spread
        weight = self._weight[chosen]
        unit = _quotient(scale, (weight * share + self._weight.sum() * even)[:, np.newaxis])
        np.subtract(dense, unit * even * self._weight[:, np.newaxis], out=dense)
        own: Doubles = weight * (share + even)
        return np.multiply(unit[:, 0], own)


class _Probabilities:
    """A probability for each class."""

    def __init__(self, target: Array, weight: Doubles | None, smoothing: float) -> None:
        self._target = target
        self._weight = weight
        self._smoothing = smoothing
        self._scratch = np.empty(0)

    def subtract(
        self, dense: Array, logits: Array, factors: Sequence[Doubles], row: int, position: int
    ) -> None:
        del logits
        count, classes, width = dense.shape
        rows = self._target[row : row + count].reshape(count, classes, -1)
        if self._scratch.size < dense.size:
            self._scratch = np.empty(dense.size)
        share = self._scratch[: dense.size].reshape(dense.shape)
        np.copyto(share, rows[:, :, position : position + width])
        if self._smoothing:
            np.multiply(share, 1.0 - self._smoothing, out=share)
            np.add(share, self._smoothing / classes, out=share)
        if self._weight is not None:
            np.multiply(share, self._weight[:, np.newaxis], out=share)
        total = share.sum(axis=_CLASSES, keepdims=True)
        np.multiply(share, _quotient(factors[1], total), out=share)
        np.subtract(dense, share, out=dense)


def _round_small(numbers: Array) -> None:
    """Round numbers that are subnormal in float16 to float16's precision, in place.

    numpy rounds these in the same way, but raises a flag for each, which takes 70 ns.
    """
    # The last digit of this number is that of subnormal numbers: adding it rounds to there.
    end = 1.5 * 2.0 ** (int(np.finfo(numbers.dtype).nmant) + _LAST_BIT)
    rounded = numbers + end
    np.subtract(rounded, end, out=rounded)
    np.copyto(numbers, rounded, where=np.abs(numbers) < _LEAST_NORMAL)


def _quotient(scale: Doubles, total: Doubles) -> Doubles:
    """Divide; 0 / 0 is 0: a row without a target has no gradient."""
    return np.divide(scale, total, out=np.zeros_like(scale), where=scale != 0)


def rebuild_of(evaluation: Evaluation, arrays: Mapping[str, Array]) -> Rebuild | None:
    """Return how the gradient that an evaluation asks for in factored form is rebuilt.

    `arrays` are its inputs. None when it asks for dense gradients, or for inputs without factors;
    the server checks its shapes and values.
    """
    logits, target = arrays.get(_LOGITS), arrays.get("target")
    if (
        evaluation.gradient_form != "factored"
        or evaluation.loss not in _LOSSES
        or set(evaluation.gradients) != {_LOGITS}
        or logits is None
        or target is None
        or not logits.ndim
    ):
        return None
    by_class = target.dtype.kind in "iu"
    values_shape = _values_shape(logits)
    if target.shape != (values_shape if by_class else logits.shape):
        return None
    weight = arrays.get("weight")
    distribution = (_ClassIndices if by_class else _Probabilities)(
        target if logits.ndim > 1 else target[np.newaxis],
        None if weight is None else weight.astype(np.float64),
        float(evaluation.options.get("label_smoothing", 0.0)),
    )
    asked = DATA_TYPES.get(float_type(evaluation.compute_dtype, "compute_dtype"))
    # The server computes in the widest type there is.
    wide = {asked.numpy} if asked else {each.dtype.newbyteorder("=") for each in arrays.values()}
    return Rebuild(logits, distribution, double=np.dtype(np.float64) in wide)


def complete(
    evaluation: Evaluation, result: EvaluationResult, out: Mapping[str, Array] | None = None
) -> None:
    """Rebuild the gradient that came as factors, into the array of `out` where there is one.

    Raises InternalError when the factors are not those of the evaluation.
    """
    factors = result.factored_gradients.get(_LOGITS)
    if factors is None or _LOGITS in result.gradients:
        return
    inputs = with_float_weights(evaluation).inputs
    arrays = {name: _array_of(value) for name, value in inputs.items()}
    rebuild = rebuild_of(evaluation, arrays)
    if rebuild is None:
        return
    if any(each.shape != rebuild.values_shape for each in factors.arrays):
        text = "the server's answer is malformed: factors have not the shape of the values"
        raise InternalError(text, reason="MALFORMED_RESPONSE")
    dense = (out or {}).get(_LOGITS)
    if dense is None:
        asked = DATA_TYPES.get(float_type(evaluation.gradient_dtype, "gradient_dtype"))
        logits = arrays[_LOGITS]
        dense = np.empty(logits.shape, asked.numpy if asked else logits.dtype.newbyteorder("="))
    rebuild.rows(dense, factors.arrays)
    result.gradients[_LOGITS] = dense


def completed(evaluation: Evaluation, outcome: Outcome) -> Outcome:
    """Complete the outcome of one item of many; a failure becomes its outcome."""
    if isinstance(outcome, EvaluationResult):
        try:
            complete(evaluation, outcome)
        except InternalError as error:
            return error
    return outcome


def completing(
    evaluation: Evaluation, done: Callable[[Outcome], None]
) -> Callable[[Outcome], None]:
    """Return a callback that completes an outcome and passes it to `done`."""
    if evaluation.gradient_form != "factored":
        return done
    return lambda outcome: done(completed(evaluation, outcome))


def _values_shape(logits: Array) -> tuple[int, ...]:
    """Leave out the axis of the classes: the second, or the only one."""
    return logits.shape[:1] + logits.shape[2:] if logits.ndim > 1 else ()


def _array_of(value: ArrayInput) -> Array:
    return value.array if isinstance(value, StoredTensor) else to_numpy(value)
