"""Bucket indices of sketches: exact, from the bits of a float64, the same on every machine.

Bucket i of scale s holds the magnitudes in (b^i, b^(i+1)], where b = 2^(2^-s): those of
OpenTelemetry's exponential histograms and Prometheus' native histograms.
"""

import math
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

MIN_SCALE: Final = -4
MAX_SCALE: Final = 8
"""The scales of Prometheus' native histograms."""

_MANTISSA_BITS: Final = 52
_MANTISSA: Final = (1 << _MANTISSA_BITS) - 1
_EXPONENT_BIAS: Final = 1023


def accuracy_of(scale: int) -> float:
    """Return the largest relative error of a magnitude that is known by its bucket.

    `scale` is in [-4, 8]. Bucket bounds differ by the factor b = 2^(2^-scale), and the value that
    represents a bucket is off by at most (b - 1) / (b + 1).
    """
    growth = 2.0 ** (2.0**-scale)
    return float((growth - 1) / (growth + 1))


def scale_for(accuracy: float) -> int:
    """Return the smallest scale, in [-4, 8], whose error is at most `accuracy`.

    Raises ValueError when none is: the finest has an error of 0.136 %.
    """
    if not accuracy < 1:
        raise ValueError(f"accuracy: expected a number in [0.0014, 0.5], got {accuracy}")
    for scale in range(MIN_SCALE, MAX_SCALE + 1):
        if accuracy_of(scale) <= accuracy:
            return scale
    raise ValueError(f"accuracy: expected a number in [0.0014, 0.5], got {accuracy}")


@dataclass(frozen=True, slots=True)
class _Cells:
    """Divides the mantissas of one scale into equal cells with at most one bucket bound each."""

    shift: int
    """The bits of a mantissa behind those that number its cell."""
    below: Integers
    """How many bounds lie below each cell, less what indices and exponents begin with."""
    bound: Integers
    """The bound inside of each cell, as a mantissa; the largest integer where there is none."""


@cache
def _cells(scale: int) -> _Cells:
    count = 1 << scale
    bounds = [_bound(position, scale) for position in range(count)]
    # Bounds are at least 2^(2^-8) - 1 = 0.0027 apart: more than a cell of 2^-9.
    bits = scale + 1
    shift = _MANTISSA_BITS - bits
    below = np.zeros(1 << bits, np.int64)
    bound = np.full(1 << bits, np.iinfo(np.int64).max)
    for each in bounds:
        bound[each >> shift] = each
        below[(each >> shift) + 1 :] += 1
    return _Cells(shift, below - (_EXPONENT_BIAS << scale) - 1, bound)


def _bound(position: int, scale: int) -> int:
    """Return floor(2^52 * 2^(position / 2^scale)) - 2^52, exactly.

    No mantissa is equal to an irrational bound, so that comparing with its floor is exact.
    """
    root = 1 << (position + (_MANTISSA_BITS << scale))
    for _ in range(scale):
        root = math.isqrt(root)
    return root - (1 << _MANTISSA_BITS)


def bucket_indices(magnitudes: npt.ArrayLike, scale: int) -> Integers:
    """Return the index of the bucket of each magnitude, int64 of the same shape.

    `magnitudes` are finite and greater than 0, subnormals included; `scale` is in [-4, 8].
    """
    values = np.ascontiguousarray(magnitudes, np.float64)
    bits = values.view(np.int64)
    exponents = bits >> _MANTISSA_BITS
    if values.size and not exponents.all():
        small = exponents == 0
        normal = values * np.where(small, 2.0**_MANTISSA_BITS, 1.0)
        bits = normal.view(np.int64)
        exponents = (bits >> _MANTISSA_BITS) - np.where(small, _MANTISSA_BITS, 0)
    mantissas = bits & _MANTISSA
    if scale <= 0:
        whole: Integers = (exponents - _EXPONENT_BIAS - (mantissas == 0)) >> -scale
        return whole
    cells = _cells(scale)
    at = mantissas >> cells.shift
    exponents <<= scale
    exponents += cells.below[at]
    exponents += mantissas > cells.bound[at]
    return exponents


def bucket_cells(scale: int) -> tuple[int, Integers, Integers]:
    """Return the tables by which `bucket_indices` finds an index, for native code.

    The bits of a mantissa behind those that number its cell; and by cell: the bounds below it,
    less what indices and exponents begin with, and the bound inside of it. `scale` is in [1, 8].
    """
    cells = _cells(scale)
    return cells.shift, cells.below, cells.bound


def bucket_bounds(index: int, scale: int) -> tuple[float, float]:
    """Return the bounds of a bucket: it has the magnitudes above the first, up to the second.

    The second is infinite for the bucket that has the largest float64.
    """
    return _power(index, scale), _power(index + 1, scale)


def _power(index: int, scale: int) -> float:
    if scale <= 0:
        exponent, fraction = index << -scale, 0.0
    else:
        exponent = index >> scale
        fraction = (index - (exponent << scale)) / (1 << scale)
    try:
        return math.ldexp(2.0**fraction, exponent)
    except OverflowError:
        return math.inf


def representatives(indices: Integers, scale: int) -> Floats:
    """Return the value that represents each bucket: off by at most `accuracy_of(scale)`.

    It is the harmonic mean of the bounds, whose relative distance from both is the same.
    """
    growth = 2.0 ** (2.0**-scale)
    lower = np.array([_power(int(each), scale) for each in indices], np.float64)
    with np.errstate(over="ignore"):
        return np.asarray(lower * (2 * growth / (1 + growth)))
