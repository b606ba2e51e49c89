"""Which inputs the SDK takes for those that can stream."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from losswire.client import Client, LossInfo
from losswire.client._messages.rows import row_inputs

Array = npt.NDArray[Any]

_LOGITS = np.zeros((1500, 500), np.float32)
_CLASSES = np.zeros(1500, np.int64)
_BATCH: Mapping[str, Array] = {"input": _LOGITS, "target": _CLASSES}

_SHAPES: Mapping[str, tuple[str, Mapping[str, Array], list[str]]] = {
    "classes": ("cross_entropy", _BATCH, ["input", "target"]),
    "positions": (
        "cross_entropy",
        {
            "input": np.zeros((4, 3, 5), "f4"),
            "target": np.zeros((4, 5), int),
            "weight": np.zeros(3, "f4"),
        },
        ["input", "target"],
    ),
    "a matrix": (
        "linear_cross_entropy",
        {
            "input": np.zeros((4, 2), "f4"),
            "linear_weight": np.zeros((4, 2), "f4"),
            "target": np.zeros(4, int),
        },
        ["input", "target"],
    ),
    "one variance": (
        "gaussian_nll_loss",
        {"input": _LOGITS, "target": _LOGITS, "var": np.array(1, np.float32)},
        ["input", "target"],
    ),
    "a variance for each row": (
        "gaussian_nll_loss",
        {"input": _LOGITS, "target": _LOGITS, "var": _LOGITS[:, 0]},
        ["input", "target", "var"],
    ),
    "a target for all rows": (
        "gaussian_nll_loss",
        {"input": _LOGITS, "target": _LOGITS[:1], "var": _LOGITS[:, :1]},
        ["input", "var"],
    ),
    "a weight for all rows": (
        "binary_cross_entropy",
        {"input": _LOGITS, "target": _LOGITS, "weight": _LOGITS[0]},
        ["input", "target"],
    ),
    "a weight of each": (
        "binary_cross_entropy",
        {"input": _LOGITS, "target": _LOGITS, "weight": _LOGITS},
        ["input", "target", "weight"],
    ),
    "rows elsewhere": ("ctc_loss", {"log_probs": _LOGITS, "targets": _CLASSES[:2]}, ["log_probs"]),
    "no axes": (
        "mse_loss",
        {"input": np.array(1, np.float32), "target": np.array(1, np.float32)},
        [],
    ),
    "no such loss": ("nothing", {"input": _LOGITS, "other": _LOGITS[:3]}, ["input"]),
}


@pytest.fixture(scope="module")
def catalogue(server: str) -> dict[str, LossInfo]:
    """The losses of a server, by name."""
    with Client(server) as client:
        return {each.name: each for each in client.losses()}


@pytest.mark.parametrize("case", _SHAPES)
def test_inputs_with_rows_are_found(catalogue: Mapping[str, LossInfo], case: str) -> None:
    """By the layouts of the loss; else those as long as the largest, for the server to check."""
    loss, inputs, expected = _SHAPES[case]
    assert row_inputs(catalogue.get(loss), inputs) == expected
