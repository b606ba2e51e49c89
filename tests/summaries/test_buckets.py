"""Bucket indices are exact: rational arithmetic agrees with them for every float64."""

import struct
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from losswire.summaries import (
    MAX_SCALE,
    MIN_SCALE,
    accuracy_of,
    bucket_bounds,
    bucket_indices,
    scale_for,
)

_SCALES = range(MIN_SCALE, MAX_SCALE + 1)
_MAGNITUDES = st.floats(min_value=5e-324, max_value=1.7976931348623157e308)


def _is_in(value: float, index: int, scale: int) -> bool:
    """Return whether 2^(index / 2^s) < value <= 2^((index + 1) / 2^s), by exact powers."""
    power = Fraction(value) ** (1 << max(scale, 0))
    step = 1 << max(-scale, 0)
    return Fraction(2) ** (index * step) < power <= Fraction(2) ** ((index + 1) * step)


@pytest.mark.parametrize("scale", _SCALES)
@given(value=_MAGNITUDES)
def test_each_magnitude_is_in_its_bucket(scale: int, value: float) -> None:
    """Bucket i has (b^i, b^(i+1)], in exact arithmetic."""
    assert _is_in(value, int(bucket_indices([value], scale)[0]), scale)


@pytest.mark.parametrize("scale", _SCALES)
def test_bounds_and_their_neighbours_are_on_the_right_side(scale: int) -> None:
    """The float64 beside each bound between 1 and 2, and at the ends of the range."""
    bounds = [bucket_bounds(index, scale)[1] for index in range(1 << max(scale, 0))]
    near = [np.nextafter(each, way) for each in bounds for way in (0.0, np.inf)]
    ends = [5e-324, 2.2250738585072014e-308, 2.225073858507201e-308, 1.7976931348623157e308]
    for value in (*bounds, *map(float, near), *ends):
        assert _is_in(value, int(bucket_indices([value], scale)[0]), scale), value


@pytest.mark.parametrize(
    ("value", "scale", "index"),
    [
        (1.0, 0, -1),
        (2.0, 0, 0),
        (3.0, 0, 1),
        (4.0, 0, 1),
        (4.0, 1, 3),
        (1.4142135623730951, 1, 1),
        (1.414213562373095, 1, 0),
        (1.0, 8, -1),
        (1.0000000000000002, 8, 0),
        (5e-324, 0, -1075),
        (5e-324, -4, -68),
    ],
)
def test_known_indices(value: float, scale: int, index: int) -> None:
    """Indices that were worked out by hand."""
    assert bucket_indices([value], scale).tolist() == [index]


@given(values=st.lists(_MAGNITUDES, min_size=1))
def test_a_coarser_scale_joins_two_neighbours(values: list[float]) -> None:
    """Lowering a scale is exact: the index is halved."""
    for scale in _SCALES[1:]:
        finer, coarser = (bucket_indices(values, each) for each in (scale, scale - 1))
        assert (finer >> 1).tolist() == coarser.tolist()


@pytest.mark.parametrize(
    ("accuracy", "scale"), [(0.01, 6), (0.0055, 6), (0.0054, 7), (0.0014, 8), (0.5, 0), (0.34, 0)]
)
def test_the_coarsest_scale_that_is_accurate_enough(accuracy: float, scale: int) -> None:
    """The default of 1 % takes scale 6, whose error is 0.54 %."""
    assert scale_for(accuracy) == scale
    assert accuracy_of(scale) <= accuracy


@pytest.mark.parametrize("accuracy", [0.0, -1.0, 0.001, 1.0, float("nan")])
def test_an_accuracy_that_no_scale_has_is_refused(accuracy: float) -> None:
    """It is not rounded to the nearest one."""
    with pytest.raises(ValueError, match=r"accuracy: expected a number in \[0.0014, 0.5\]"):
        scale_for(accuracy)


def test_the_index_follows_from_the_bits_alone() -> None:
    """All float64 of a random sample of bit patterns, as rational numbers."""
    bits = np.random.default_rng(5).integers(1, 0x7FF0000000000000, 2000)
    values = [struct.unpack("<d", struct.pack("<q", int(each)))[0] for each in bits]
    indices = bucket_indices(values, 8)
    assert all(_is_in(value, int(at), 8) for value, at in zip(values, indices, strict=True))
