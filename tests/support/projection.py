"""Evaluations of linear_cross_entropy, and limits that cut their logits in different ways."""

import ml_dtypes
import numpy as np
import pytest

from losswire.server.compute import thresholds
from losswire.server.compute.work import Work
from losswire.server.losses import builtin_registry
from losswire.server.pipeline.decode import decode
from losswire.server.pipeline.validate import validate
from tests.support.caller import Array, Ask
from tests.support.sampling import generator

RECORD = builtin_registry().find("linear_cross_entropy")
ROWS, CLASSES, FEATURES = 60, 150, 16
DTYPES = {
    "float32": np.dtype(np.float32),
    "float64": np.dtype(np.float64),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}
WAYS = {
    "whole": {},
    "rows": {
        "KEPT_LOGITS_BYTES": 4 * 20 * CLASSES,
        "KEPT_MIN_ROWS": 8,
        "LOGITS_TILE_BYTES": 4 * 20 * 40,
        "HEAD_TILE_BYTES": 4 * 40 * FEATURES,
        "TILE_MIN_CLASSES": 40,
    },
    "classes": {
        "KEPT_LOGITS_BYTES": 0,
        "LOGITS_TILE_BYTES": 4 * 20 * 40,
        "HEAD_TILE_BYTES": 0,
        "TILE_MIN_CLASSES": 40,
    },
}
"""Limits that make one tile of everything, tiles of rows, and tiles of rows and classes."""


def take(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the limits of one of the ways."""
    for name, value in WAYS[way].items():
        monkeypatch.setattr(thresholds, name, value)


def ask_for(
    layout: str,
    dtype: str = "float32",
    *,
    heads: tuple[int, ...] = (),
    classes: int = CLASSES,
    weight: bool = True,
    bias: bool = True,
    smoothing: float = 0.0,
) -> Ask:
    """Draw an evaluation in one layout, with all its gradients."""
    rng = generator("tiles", layout, dtype, str(heads))
    rows = () if layout.startswith("unbatched") else (ROWS,)
    inputs: dict[str, Array] = {
        "input": rng.standard_normal((*rows, FEATURES)),
        "linear_weight": rng.standard_normal((classes, *heads, FEATURES)) / 2,
    }
    options: dict[str, int | float] = {"label_smoothing": smoothing}
    if layout.endswith("probabilities"):
        drawn = rng.random((*rows, classes, *heads))
        inputs["target"] = drawn / drawn.sum(len(rows), keepdims=True)
    else:
        inputs["target"] = rng.integers(0, classes, (*rows, *heads))
        options["ignore_index"] = 7
        if rows:
            inputs["target"][::5] = 7
    if bias:
        inputs["linear_bias"] = rng.standard_normal((classes, *heads))
    if weight:
        inputs["weight"] = rng.uniform(0.5, 2.0, classes)
    own = DTYPES[dtype]
    return Ask(
        loss=RECORD.name,
        inputs={
            name: each if each.dtype.kind == "i" else each.astype(own)
            for name, each in inputs.items()
        },
        options=options,
        gradients_for=tuple(name for name in inputs if layout in RECORD.differentiable_in(name)),
        engine="auto",
    )


def work_of(ask: Ask) -> Work:
    """Return the validated evaluation."""
    return validate(decode(ask.message()), RECORD)
