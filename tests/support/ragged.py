"""Batches of squared errors whose rows differ in number."""

from collections.abc import Mapping
from typing import Any

import numpy as np

ROWS = (700, 1, 33, 1201, 64, 500)
"""The rows of the batches: ragged, and more than one message each, or less."""


def _batches() -> list[dict[str, Any]]:
    rng = np.random.default_rng(7)
    start = 0
    found = []
    for rows in ROWS:
        found.append(
            {
                "input": rng.standard_normal(rows).astype(np.float32),
                "target": np.zeros(rows, np.float32),
                "country": [("DE", "FR", "PL")[each % 3] for each in range(rows)],
                "id": [f"row {start + each}" for each in range(rows)],
                "w": rng.random(rows),
            }
        )
        start += rows
    return found


BATCHES = _batches()
FIELDS: Mapping[str, Any] = {
    "slices": ["country"],
    "ids": "id",
    "sample_weight": "w",
    "partition": "data",
    "worst": 5,
}
