"""Files to evaluate in parts, and the engines that evaluate them."""

import doctest
import inspect
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from losswire.client import Comparison, Summary
from losswire.client.distributed import Plan, merge, partitions_of, summarize_partition
from tests.client.distributed.engines import is_required, missing

FILES: Final = 64
FIELDS: Final[dict[str, Any]] = {
    "columns": {"target": "label"},
    "slices": ["country"],
    "ids": "id",
    "worst": 5,
}
"""The arguments of all evaluations."""
CANDIDATES: Final = {"new": {"input": "new"}, "old": {"input": "old"}}
LOCAL: Final = "local:?threads=1"


def write_files(folder: Path, files: int) -> None:
    """Write Parquet files of two models' logits, with labels, countries and ids."""
    draw = np.random.default_rng(64)
    first = 0
    for number in range(files):
        rows = 400 + 7 * number
        new, old = (draw.standard_normal((rows, 10), dtype=np.float32) for _ in range(2))
        columns = {
            "new": pa.FixedSizeListArray.from_arrays(pa.array(new.ravel()), 10),
            "old": pa.FixedSizeListArray.from_arrays(pa.array(old.ravel()), 10),
            "label": draw.integers(0, 10, rows),
            "country": np.array(["DE", "FR", "IT"])[draw.integers(0, 3, rows)],
            "id": np.arange(first, first + rows),
        }
        pq.write_table(pa.table(columns), folder / f"part-{number:03}.parquet", row_group_size=300)
        first += rows


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with 64 files."""
    path = tmp_path_factory.mktemp("files")
    write_files(path, FILES)
    return path


@dataclass(frozen=True)
class Expected:
    """The results of one process."""

    summary: Summary
    comparison: Comparison


@pytest.fixture(scope="session")
def expected(folder: Path) -> Expected:
    """Evaluate all files in this process, one after the other."""
    single = Plan.of("cross_entropy", target=LOCAL, **with_input())
    both = Plan.of("cross_entropy", target=LOCAL, candidates=CANDIDATES, **FIELDS)
    states = [
        merge(summarize_partition(each, plan) for each in partitions_of(folder))
        for plan in (single, both)
    ]
    return Expected(Summary.from_bytes(states[0]), Comparison.from_bytes(states[1]))


def with_input() -> dict[str, Any]:
    """Return the arguments of a summary of the new model."""
    return {**FIELDS, "columns": {"input": "new", "target": "label"}}


def descendants() -> Iterator[tuple[int, tuple[int, bytes]]]:
    """Yield the processes that this one and its children started: parent and command line."""
    found: dict[int, tuple[int, bytes]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                fields = (entry / "stat").read_text("utf-8").rpartition(")")[2].split()
                found[int(entry.name)] = int(fields[1]), (entry / "cmdline").read_bytes()
    own = {os.getpid()}
    while more := {each for each, (parent, _) in found.items() if parent in own} - own:
        own |= more
    yield from ((each, found[each]) for each in own - {os.getpid()})


def require(engine: str) -> None:
    """Skip a test whose engine is not there, or fail where it has to be."""
    reason = missing(engine)
    if reason and is_required():
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)


def run_example(documented: object, **names: object) -> None:
    """Run the example of a docstring, which must be there."""
    text = inspect.getdoc(documented) or ""
    test = doctest.DocTestParser().get_doctest(text, names, str(documented), None, 0)
    assert test.examples, f"{documented} has no example"
    shown: list[str] = []
    result = doctest.DocTestRunner(verbose=False).run(test, out=shown.append)
    assert result.failed == 0, "".join(shown)
