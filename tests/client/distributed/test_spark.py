"""Summaries by the tasks of a Spark session on this machine: equal bits, whatever is lost."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from losswire.client import Comparison
from losswire.client import spark as losswire_spark
from losswire.client.distributed import Plan, merge, partitions_of, summarize_partition
from tests.client.distributed.conftest import (
    CANDIDATES,
    FIELDS,
    FILES,
    LOCAL,
    Expected,
    descendants,
    require,
    run_example,
    with_input,
)

# Tests of other folders need a newer pandas than this pyspark likes.
pytestmark = pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas")


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    """A session with two threads, in which a task may fail three times."""
    require("pyspark")
    from pyspark.sql import SparkSession  # noqa: PLC0415 - not everywhere

    os.environ["PYSPARK_PYTHON"] = sys.executable
    session = (
        SparkSession.builder.master("local[2,4]")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.memory", "1g")
        .config("spark.sql.shuffle.partitions", "4")
        .getOrCreate()
    )
    session.sparkContext.setLogLevel("OFF")
    yield session
    session.stop()


def _workers() -> list[int]:
    """Return the processes in which Spark runs Python: the children of its daemon."""
    commands = dict(descendants())
    parents = {
        each: parent for each, (parent, command) in commands.items() if b"pyspark.daemon" in command
    }
    return [each for each, parent in parents.items() if parent in parents]


class _Killer(threading.Thread):
    """Kills a worker each time that so many states are in a folder."""

    def __init__(self, folder: Path, after: list[int]) -> None:
        super().__init__()
        self._folder = folder
        self._after = after
        self.done = threading.Event()
        self.killed: list[int] = []

    def run(self) -> None:
        """Watch the folder until all is done."""
        while self._after and not self.done.is_set():
            states = len(list(self._folder.rglob("*.state")))
            if states >= self._after[0] and (workers := _workers()):
                os.kill(workers[0], signal.SIGKILL)
                self.killed.append(self._after.pop(0))
            time.sleep(0.05)


def test_three_lost_workers_change_nothing(
    spark: object, folder: Path, expected: Expected, tmp_path: Path
) -> None:
    """The bits are those of one process, and every state is in the folder."""
    killer = _Killer(tmp_path, [3, 20, 40])
    killer.start()
    try:
        summary = losswire_spark.summarize(
            spark, "cross_entropy", folder, state_dir=tmp_path, **with_input()
        )
    finally:
        killer.done.set()
        killer.join()
    assert killer.killed == [3, 20, 40]
    assert summary.to_bytes() == expected.summary.to_bytes()
    assert len(list(tmp_path.rglob("*.state"))) == FILES


def test_candidates_are_compared(spark: object, folder: Path) -> None:
    """A comparison, of a part of the files, each cut at its row groups, with three levels."""
    files = sorted(folder.iterdir())[:3]
    plan = Plan.of("cross_entropy", target=LOCAL, candidates=CANDIDATES, **FIELDS)
    states = [summarize_partition(each, plan) for each in partitions_of(files, 1)]
    assert len(states) == 6
    found = losswire_spark.compare(
        spark,
        "cross_entropy",
        files,
        candidates=CANDIDATES,
        rows_per_partition=1,
        fan_in=2,
        **FIELDS,
    )
    assert isinstance(found, Comparison)
    assert found.to_bytes() == merge(states, fan_in=2)


def test_errors_of_the_evaluation_are_in_those_of_spark(spark: object, folder: Path) -> None:
    """A task that fails says why."""
    with pytest.raises(Exception, match="no_such_loss"):
        losswire_spark.summarize(spark, "no_such_loss", sorted(folder.iterdir())[:1])


@pytest.mark.parametrize("function", [losswire_spark.summarize, losswire_spark.compare])
def test_the_examples_run(spark: object, folder: Path, function: object) -> None:
    """As they are shown."""
    files = sorted(folder.iterdir())
    run_example(function, losswire_spark=losswire_spark, spark=spark, files=files)
