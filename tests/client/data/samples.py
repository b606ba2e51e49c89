"""One small table, in every form that callers have, and what reading it must give."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa

from losswire.client._data.batch import Batch
from losswire.client._data.wanted import ColumnsWanted
from losswire.summaries import Column

LOGITS = np.arange(21, dtype=np.float32).reshape(7, 3) / 4
TARGET = np.array([0, 1, 2, 2, 1, 0, 1])
WEIGHT = np.array([1.0, 2.0, 0.5, 0.0, 1.0, 1.0, 3.0])
COUNTRY = ["DE", "FR", "DE", "PL", "FR", "DE", "DE"]
MOBILE = [True, False, True, True, False, False, True]
NAMES = ["a", "b", "c", "d", "e", "f", "g"]
DOCUMENT = [5, 5, 5, 6, 6, 9, 9]

WANTED = ColumnsWanted(
    inputs={"input": "logits", "target": "target"},
    slices=("country", ("country", "mobile")),
    ids="name",
    sample_weight="w",
    cluster="doc",
)

NULL = 'is null or has a null; fill it, or leave such rows out with nulls="skip"'
"""The error of a null, behind its row."""

INPUT = ColumnsWanted(inputs={"input": "x"})
"""One input, from the column `x`."""


def table() -> pa.Table:
    """Return the table, with a column that nobody wants and that could not be read."""
    return pa.table(
        {
            "logits": pa.FixedSizeListArray.from_arrays(LOGITS.reshape(-1), 3),
            "target": TARGET,
            "w": WEIGHT,
            "country": COUNTRY,
            "mobile": MOBILE,
            "name": NAMES,
            "doc": pa.array(DOCUMENT, pa.int32()),
            "comment": pa.array([None] * 7, pa.binary()),
        }
    )


def values_of(column: Column | None) -> list[Any]:
    """Return the value of each row of a column."""
    assert column is not None
    return [column.key(row) for row in range(len(column.codes))]


def rows_of(batches: Iterable[Batch]) -> dict[str, Any]:
    """Return all rows of batches, column by column."""
    batches = list(batches)
    return {
        "input": np.concatenate([batch.inputs["input"] for batch in batches]).tolist(),
        "target": np.concatenate([batch.inputs["target"] for batch in batches]).tolist(),
        "w": [w for batch in batches for w in np.asarray(batch.sample_weight).tolist()],
        "country": [v for batch in batches for v in values_of(batch.columns["country"])],
        "mobile": [v for batch in batches for v in values_of(batch.columns["mobile"])],
        "name": [v for batch in batches for v in values_of(batch.ids)],
        "doc": [v for batch in batches for v in values_of(batch.clusters)],
    }


EXPECTED: dict[str, Any] = {
    "input": LOGITS.tolist(),
    "target": TARGET.tolist(),
    "w": WEIGHT.tolist(),
    "country": COUNTRY,
    "mobile": ["true" if each else "false" for each in MOBILE],
    "name": NAMES,
    "doc": DOCUMENT,
}
