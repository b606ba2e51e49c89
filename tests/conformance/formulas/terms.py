"""The terms of a loss, and operations on arrays of exact numbers."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.conformance.exact import Array, Number, objects


@dataclass(frozen=True, kw_only=True)
class Terms:
    """The parts of a loss before it is reduced."""

    values: Array
    denominators: Array | None = None
    """The part of each value in the mean's denominator; 1 where this is None."""
    counted: Array | None = None
    """Which values take part; all where there is none."""
    numerators: Array | None = None
    """The part of each value in the mean's numerator; the value where this is None."""


def where(condition: Array, yes: Array, no: Array) -> Array:
    """Choose, and keep a 0-d array an array."""
    triples = zip(condition.ravel(), yes.ravel(), no.ravel(), strict=True)
    return objects((left if chosen else right for chosen, left, right in triples), yes.shape)


def as_array(values: Any) -> Array:  # noqa: ANN401 (numpy returns a scalar where it had a 0-d array)
    """Return an array of objects, also for a single number."""
    return np.asarray(values, object)


def zeros(shape: tuple[int, ...]) -> Array:
    """Return an array of exact zeros."""
    return objects((Number(0) for _ in np.ndindex(shape)), shape)


def hinge(values: Array) -> Array:
    """Return max(0, x); the derivative at 0 is 0."""
    return objects((each if each > 0 else Number(0) for each in values.ravel()), values.shape)
