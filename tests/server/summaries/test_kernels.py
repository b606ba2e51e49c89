"""Reductions in C++ are those of numpy: the same buckets and counts, sums in the last bits."""

import numpy as np
import pytest

from losswire.server.compute.native.summary_rows import KERNELS
from losswire.summaries import Column, Kernels, Settings, SummaryState
from tests.support.prepared_forms import NEEDS_NATIVE
from tests.support.summarized import Data, exact, sums

pytestmark = NEEDS_NATIVE

_DRAW = np.random.default_rng(4)
_COUNT = 5000


def _values(kind: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    match kind:
        case "gamma":
            return _DRAW.gamma(2.0, 1.0, _COUNT)
        case "far from 0":
            return 1e6 + 1e-3 * _DRAW.standard_normal(_COUNT)
        case "all magnitudes":
            return np.exp2(_DRAW.uniform(-1074, 900, _COUNT))
        case "zeros and signs":
            return np.round(_DRAW.standard_normal(_COUNT), 1)
        case "moves away":
            return np.linspace(1.0, 1e6, _COUNT)
        case "not finite":
            return np.where(_DRAW.random(_COUNT) < 0.1, np.inf, _DRAW.gamma(2.0, 1.0, _COUNT))
    raise AssertionError(kind)


def _state(data: Data, kernels: Kernels, scale: int) -> SummaryState:
    settings = Settings(loss="mse_loss", tables=(("c",),), worst=5, scale=scale)
    state = SummaryState(settings, kernels=kernels)
    for first in range(0, _COUNT, 700):
        state.add(data.between(first, min(first + 700, _COUNT)))
    return state


@pytest.mark.parametrize("slices", [1, 7, 900])
@pytest.mark.parametrize("scale", [-1, 1, 6, 8])
@pytest.mark.parametrize(
    "kind",
    ["gamma", "far from 0", "all magnitudes", "zeros and signs", "moves away", "not finite"],
)
def test_native_and_numpy_agree(kind: str, scale: int, slices: int) -> None:
    """Over few and many slices, at coarse and fine scales."""
    columns = {"c": Column(_DRAW.integers(0, slices, _COUNT))}
    data = Data(values=_values(kind)[None], columns=columns)
    with np.errstate(all="ignore"):
        ours = _state(data, KERNELS, scale).message()
        theirs = _state(data, Kernels(), scale).message()
    assert exact(ours) == exact(theirs)
    if kind != "all magnitudes":
        assert sums(ours) == pytest.approx(sums(theirs), rel=1e-12, nan_ok=True)
