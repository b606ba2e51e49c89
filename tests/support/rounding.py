"""Errors of results, compared with exact ones."""

from collections.abc import Mapping

import numpy as np

from tests.support.caller import Array

STATISTICAL_MARGIN = 1.05
"""Two sequences of as many roundings differ by so much in root-mean-square error."""


def in_double(inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Return inputs with all floats in float64."""
    return {
        name: array if array.dtype.kind in "iu" else array.astype(np.float64)
        for name, array in inputs.items()
    }


def rms(found: Array, exact: Array) -> float:
    """Return the root-mean-square error, relative to the largest exact number."""
    difference = found.astype(exact.dtype) - exact
    return float(np.sqrt(np.mean(difference**2)) / np.abs(exact).max())
