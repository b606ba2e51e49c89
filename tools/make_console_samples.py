"""Makes the example data of the console, in console/lib/samples.js, from examples/evaluate_digits.

Every fifth of the UCI digits, as predicted by models that were not trained on it: the digit, its
picture, how much ink it has, and the logits of both models. Run train.py there first, then
`python -m tools.make_console_samples`.
"""

import base64
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.datasets import load_digits

Array = npt.NDArray[Any]

ROOT = Path(__file__).resolve().parent.parent
PREDICTIONS = ROOT / "examples" / "evaluate_digits" / "predictions.parquet"
TARGET = ROOT / "server" / "src" / "losswire" / "server" / "console" / "lib" / "samples.js"
EVERY = 5
STEPS = 8
"""Logits are rounded to one in so many, after the largest of a row was taken from all of them,
which leaves losses as they are. A byte then reaches down to -31.9."""
GREYS = 4
WIDTH = 95


def main() -> None:
    """Write the data into the file, and print how large it is."""
    data = load_digits()
    rows = np.arange(0, len(data.target), EVERY)
    table = pq.read_table(PREDICTIONS)
    parts = [
        (data.target + 10 * thirds(data.data.sum(1)))[rows].astype(np.uint8),
        *(logit_bytes(table, f"logits_{name}")[rows] for name in ("small", "large")),
        pixel_bytes(data.data)[rows],
    ]
    packed = base64.b64encode(zlib.compress(b"".join(each.tobytes() for each in parts), 9)).decode()
    lines = [f'  "{packed[at : at + WIDTH]}",' for at in range(0, len(packed), WIDTH)]
    text, found = re.subn(
        r"(?<=const DATA = \[\n).*?(?=\];)",
        "\n".join([*lines, ""]),
        TARGET.read_text(),
        count=1,
        flags=re.DOTALL,
    )
    if found != 1:
        raise SystemExit(f"{TARGET.name} has no lines `const DATA = [` and `];`")
    TARGET.write_text(text)
    print(f"wrote {TARGET.name}: {len(rows)} digits, {len(packed)} bytes of data")


def thirds(ink: Array) -> Array:
    """Return 0, 1 or 2 for the lightest, the middle and the heaviest third."""
    found: Array = np.searchsorted(np.quantile(ink, [1 / 3, 2 / 3]), ink)
    return found


def logit_bytes(table: pa.Table, column: str) -> Array:
    """Return how far each logit is below the largest of its row, in steps."""
    logits = np.stack(table[column].to_numpy())
    below = np.rint((logits.max(1, keepdims=True) - logits) * STEPS)
    found: Array = below.clip(0, 255).astype(np.uint8)
    return found


def pixel_bytes(images: Array) -> Array:
    """Return pixels in four greys, four in a byte, the first in the upper bits."""
    levels = np.rint(images * (GREYS - 1) / 16).astype(np.uint8)
    quarters = [levels[:, at::4] << (6 - 2 * at) for at in range(4)]
    found: Array = quarters[0] | quarters[1] | quarters[2] | quarters[3]
    return found


if __name__ == "__main__":
    main()
