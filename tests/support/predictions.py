"""Predictions of 2,000 rows as files that a person drops, and what numpy and torch say of them."""

import io
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.nn import functional as F

ROWS = 2000
COUNTRIES = ("DE", "FR", "JP")

Floats = npt.NDArray[np.float64]


@cache
def columns() -> Mapping[str, npt.NDArray[Any]]:
    """Return the columns: two models' numbers and logits, what they should be, and a country."""
    draw = np.random.default_rng(23)
    target = draw.normal(size=ROWS).astype(np.float32)
    country = draw.choice(3, ROWS, p=[0.5, 0.3, 0.2])
    noise = draw.normal(size=ROWS) * np.where(country == 2, 0.9, 0.5)
    logits = draw.normal(size=(ROWS, 5)).astype(np.float32)
    return {
        "id": np.array([f"row-{i}" for i in range(ROWS)]),
        "prediction": (target + noise).astype(np.float32),
        "better": (target + noise * 0.9).astype(np.float32),
        "target": target,
        "logits": logits,
        "label": draw.integers(0, 5, ROWS),
        "country": np.array(COUNTRIES)[country],
    }


@cache
def squared(column: str = "prediction") -> Floats:
    """Return torch's mse_loss of each row."""
    one, other = (torch.from_numpy(columns()[each]) for each in (column, "target"))
    found: Floats = F.mse_loss(one, other, reduction="none").double().numpy()
    return found


@cache
def entropies() -> Floats:
    """Return torch's cross_entropy of each row."""
    logits, label = (torch.from_numpy(columns()[each]) for each in ("logits", "label"))
    found: Floats = F.cross_entropy(logits, label, reduction="none").double().numpy()
    return found


def interval_of(losses: Floats) -> tuple[float, float, float]:
    """Return the mean and its 95 % interval."""
    mean, half = losses.mean(), 1.959964 * losses.std(ddof=1) / np.sqrt(len(losses))
    return float(mean), float(mean - half), float(mean + half)


def csv(*names: str) -> bytes:
    """Return some columns as CSV with a head."""
    chosen = [columns()[each] for each in names]
    lines = [",".join(str(each) for each in row) for row in zip(*chosen, strict=True)]
    return "\n".join([",".join(names), *lines, ""]).encode()


def npy(name: str) -> bytes:
    """Return a column as .npy."""
    file = io.BytesIO()
    np.save(file, columns()[name])
    return file.getvalue()


def parquet(*names: str) -> bytes:
    """Return some columns as Parquet, compressed as pyarrow does by default."""
    file = io.BytesIO()
    arrays = {each: columns()[each] for each in names}
    table = pa.table({k: list(v) if v.ndim > 1 else v for k, v in arrays.items()})
    pq.write_table(table, file)
    return file.getvalue()
