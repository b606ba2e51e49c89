"""Large files are read in memory that does not grow with them."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

_ROWS = 50_000
_CLASSES = 1_000

_READ = """
import resource, sys
import pyarrow.compute, pyarrow.parquet
from losswire.client._data.read import read_batches
from losswire.client._data.wanted import ColumnsWanted

wanted = ColumnsWanted(inputs={"input": "logits", "target": "target"})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
rows = largest = 0
for batch in read_batches(sys.argv[1], wanted):
    rows += batch.rows
    largest = max(largest, batch.nbytes)
print(rows, largest, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""


def test_a_file_of_200_mb_takes_a_few_batches(tmp_path: Path) -> None:
    """Even if it is one row group: the peak is far below the size of the file."""
    logits = np.random.default_rng(0).random((_ROWS, _CLASSES), np.float32)
    rows = pa.table(
        {
            "logits": pa.FixedSizeListArray.from_arrays(logits.reshape(-1), _CLASSES),
            "target": np.zeros(_ROWS, np.int64),
        }
    )
    path = tmp_path / "rows.parquet"
    pa.parquet.write_table(
        rows, path, row_group_size=_ROWS, compression="none", use_dictionary=False
    )
    assert path.stat().st_size > 200_000_000
    done = subprocess.run(
        [sys.executable, "-c", _READ, str(path)], capture_output=True, text=True, check=True
    )
    read, largest, grown = map(int, done.stdout.split())
    assert read == _ROWS
    assert largest < 8 << 20
    assert grown < 150
