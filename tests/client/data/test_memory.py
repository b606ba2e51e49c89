"""Large files are read in memory that does not grow with them."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

_ROWS = 50_000
_CLASSES = 1_000

_READ = """
import os, sys
import pyarrow.compute, pyarrow.dataset, pyarrow.parquet
from pyarrow.fs import LocalFileSystem, SubTreeFileSystem
from losswire.client._data.read import read_batches
from losswire.client._data.wanted import ColumnsWanted

def peak():
    # Not getrusage, which counts what this process was before it started the program.
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))

data = sys.argv[1]
if sys.argv[2] == "remote":
    folder, name = os.path.split(data)
    store = SubTreeFileSystem(folder, LocalFileSystem())
    data = pyarrow.dataset.dataset(name, filesystem=store)
wanted = ColumnsWanted(inputs={"input": "logits", "target": "target"})
before = peak()
rows = largest = 0
for batch in read_batches(data, wanted):
    rows += batch.rows
    largest = max(largest, batch.nbytes)
print(rows, largest, (peak() - before) >> 10)
"""


@pytest.mark.parametrize(("where", "row_groups"), [("local", 1), ("remote", 10)])
def test_a_file_of_200_mb_takes_a_few_batches(where: str, row_groups: int, tmp_path: Path) -> None:
    """The peak is far below the size of the file.

    Even if a local file is one row group; of files elsewhere a row group is fetched at a time.
    """
    logits = np.zeros((_ROWS, _CLASSES), np.float32)
    rows = pa.table(
        {
            "logits": pa.FixedSizeListArray.from_arrays(logits.reshape(-1), _CLASSES),
            "target": np.zeros(_ROWS, np.int64),
        }
    )
    path = tmp_path / "rows.parquet"
    pa.parquet.write_table(
        rows, path, row_group_size=_ROWS // row_groups, compression="none", use_dictionary=False
    )
    assert path.stat().st_size > 200_000_000
    done = subprocess.run(
        [sys.executable, "-c", _READ, str(path), where], capture_output=True, text=True, check=True
    )
    path.unlink()
    read, largest, grown = map(int, done.stdout.split())
    assert read == _ROWS
    assert largest < 8 << 20
    assert grown < 150
