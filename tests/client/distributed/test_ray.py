"""Summaries by the tasks of a Ray cluster on this machine: equal bits, whatever is lost."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from losswire.client import NotFoundError
from losswire.client import ray as losswire_ray
from tests.client.distributed.conftest import (
    CANDIDATES,
    FIELDS,
    FILES,
    Expected,
    descendants,
    require,
    run_example,
    with_input,
)

_STARTS = 4
"""Ray gives itself 30 s to start, which are not enough where a machine has much else to do."""


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """A Ray of two CPUs with a small store."""
    require("ray")
    import ray  # noqa: PLC0415 - not everywhere

    for left in reversed(range(_STARTS)):
        try:
            ray.init(
                num_cpus=2,
                object_store_memory=80 << 20,
                include_dashboard=False,
                log_to_driver=False,
            )
            break
        except Exception:
            ray.shutdown()
            if not left:
                raise
    yield
    ray.shutdown()


def _kill_a_worker() -> bool:
    """Kill a worker of the cluster that evaluates a file; returns whether there was one."""
    for process, (_, command) in descendants():
        if command.startswith(b"ray::evaluate_partition"):
            os.kill(process, signal.SIGKILL)
            return True
    return False


def _killing(after: set[int]) -> tuple[Callable[[Any], None], list[int]]:
    """Return a callable for `progress` that kills a worker after some files, and its diary."""
    killed: list[int] = []
    waiting = sorted(after)

    def progress(state: losswire_ray.DistributedProgress) -> None:
        if waiting and state.partitions >= waiting[0] and _kill_a_worker():
            killed.append(waiting.pop(0))

    return progress, killed


def test_the_bits_are_those_of_one_process(folder: Path, expected: Expected) -> None:
    """Summary and comparison, and every file is counted by `progress`."""
    seen: list[losswire_ray.DistributedProgress] = []
    summary = losswire_ray.summarize("cross_entropy", folder, progress=seen.append, **with_input())
    assert summary.to_bytes() == expected.summary.to_bytes()
    assert [each.partitions for each in seen] == list(range(1, FILES + 1))
    assert seen[-1].rows == summary.rows
    comparison = losswire_ray.compare(
        "cross_entropy", folder, candidates=CANDIDATES, progress=None, **FIELDS
    )
    assert comparison.to_bytes() == expected.comparison.to_bytes()


@pytest.mark.parametrize("function", [losswire_ray.summarize, losswire_ray.compare])
def test_the_examples_run(folder: Path, function: object) -> None:
    """As they are shown."""
    run_example(function, losswire_ray=losswire_ray, folder=folder)


def test_three_lost_workers_change_nothing(folder: Path, expected: Expected) -> None:
    """Each is killed while it evaluates a file, and the file is evaluated again."""
    progress, killed = _killing({5, 20, 40})
    summary = losswire_ray.summarize(
        "cross_entropy", folder, progress=progress, max_in_flight=5, **with_input()
    )
    assert killed == [5, 20, 40]
    assert summary.to_bytes() == expected.summary.to_bytes()


def test_what_is_missing_is_named_and_resumed(
    folder: Path, expected: Expected, tmp_path: Path
) -> None:
    """Without retries a lost worker costs its files; the next call evaluates only those."""
    progress, killed = _killing({10})
    with pytest.raises(losswire_ray.IncompleteError) as caught:
        losswire_ray.summarize(
            "cross_entropy",
            folder,
            progress=progress,
            max_retries=0,
            state_dir=tmp_path,
            **with_input(),
        )
    assert killed == [10]
    missing = caught.value.missing
    assert 1 <= len(missing) <= 2
    assert f"{FILES - len(missing)} of {FILES} partitions are included; missing: part-" in str(
        caught.value
    )
    seen: list[losswire_ray.DistributedProgress] = []
    again = losswire_ray.summarize(
        "cross_entropy", folder, progress=seen.append, state_dir=tmp_path, **with_input()
    )
    assert len(seen) == len(missing)
    assert again.to_bytes() == expected.summary.to_bytes()
    assert caught.value.summary is not None
    resumed = losswire_ray.summarize(
        "cross_entropy", folder, progress=None, resume_from=[caught.value.summary], **with_input()
    )
    assert resumed.count == expected.summary.count
    assert resumed.mean == pytest.approx(expected.summary.mean, rel=1e-12)


def test_errors_of_the_evaluation_are_raised(folder: Path, tmp_path: Path) -> None:
    """As by `Client`, once, and not as errors of Ray."""
    with pytest.raises(NotFoundError, match="no_such_loss"):
        losswire_ray.summarize("no_such_loss", folder, progress=None)
    with pytest.raises(ValueError, match='no column "nothing"'):
        losswire_ray.summarize(
            "cross_entropy", folder, progress=None, columns={"input": "nothing", "target": "label"}
        )
    wrong = pa.table({"input": np.zeros(3), "target": ["a", "b", "c"]})
    pq.write_table(wrong, tmp_path / "wrong.parquet")
    with pytest.raises(TypeError, match="target"):
        losswire_ray.summarize("mse_loss", tmp_path, progress=None)
