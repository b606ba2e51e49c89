"""An evaluation in parts, by an engine that ends them in any order: equal bits, nothing lost."""

import pickle
import random
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from losswire.client import Client, Comparison, Summary
from losswire.client import ray as losswire_ray
from losswire.client import spark as losswire_spark
from losswire.client._distributed.drive import PartLostError, drive
from losswire.client._distributed.job import Job
from losswire.client._distributed.progress import ProgressReport
from losswire.client._distributed.states import merge_in_order
from losswire.client._distributed.work import evaluate_partition
from losswire.client.distributed import (
    DistributedProgress,
    IncompleteError,
    Partition,
    Plan,
    merge,
    partitions_of,
    summarize_partition,
)
from tests.client.distributed.conftest import (
    CANDIDATES,
    FIELDS,
    run_example,
    with_input,
    write_files,
)

FILES = 9


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nine files."""
    path = tmp_path_factory.mktemp("nine")
    write_files(path, FILES)
    return path


class Shuffled:
    """An engine in this process that ends parts in any order, and loses some."""

    def __init__(self, job: Job, seed: int, lost: Sequence[str] = ()) -> None:
        self._job = job
        self._draw = random.Random(seed)  # noqa: S311 - no secret
        self._lost = lost
        self._ends: dict[int, tuple[Partition, list[bytes]]] = {}
        self.most_at_once = 0
        self.under_way = 0
        self.cancelled: list[int] = []

    def start(self, partition: Partition) -> tuple[list[bytes], int]:
        """Remember a part."""
        number = len(self._ends)
        state: list[bytes] = []
        self._ends[number] = partition, state
        self.under_way += 1
        self.most_at_once = max(self.most_at_once, self.under_way)
        return state, number

    def put(self, state: bytes) -> list[bytes]:
        """Return a handle."""
        return [state]

    def wait(self, ends: Sequence[int]) -> Sequence[int]:
        """End some parts."""
        return self._draw.sample(list(ends), self._draw.randint(1, len(ends)))

    def rows(self, end: int) -> int:
        """Evaluate a part."""
        partition, state = self._ends[end]
        self.under_way -= 1
        if partition.key in self._lost:
            raise PartLostError(partition.key)
        found, rows = evaluate_partition(partition, self._job.plan, self._job.folder)
        state.append(found)
        return rows

    def merge(self, states: Sequence[list[bytes]]) -> list[bytes]:
        """Merge at once."""
        return [merge_in_order([state for [state] in states])]

    def result(self, state: list[bytes]) -> bytes:
        """Return the bytes."""
        return state[0]

    def cancel(self, ends: Sequence[int]) -> None:
        """Remember it."""
        self.cancelled += ends


def _run(
    job: Job, engine: Shuffled, progress: Callable[[DistributedProgress], object] | None = None
) -> Summary | Comparison:
    report = ProgressReport(progress, len(job.parts), 0)
    return drive(engine, job, report=report, fan_in=4, max_in_flight=3)


def _expected(plan: Plan, data: object, rows_per_partition: int | None = None) -> bytes:
    parts = partitions_of(data, rows_per_partition)
    return merge((summarize_partition(each, plan) for each in parts), fan_in=4)


def test_shuffled_schedules_give_equal_bits(server: str, files: Path) -> None:
    """Summaries and comparisons, by files and by row groups, and never too many at once."""
    single = Plan.of("cross_entropy", target=server, **with_input())
    both = Plan.of("cross_entropy", target=server, candidates=CANDIDATES, **FIELDS)
    for plan, rows, parts in ((single, None, 9), (both, 300, 18)):
        expected = _expected(plan, files, rows)
        for seed in range(3):
            job = Job(plan, files, rows_per_partition=rows)
            assert len(job.parts) == parts
            engine = Shuffled(job, seed)
            found = _run(job, engine)
            assert isinstance(found, plan.kind)
            assert found.to_bytes() == expected
            assert engine.most_at_once == 3


def test_the_sums_are_those_of_one_call(server: str, files: Path) -> None:
    """Counts, extremes and worst rows are equal, sums but for their last bits."""
    plan = Plan.of("cross_entropy", target=server, **with_input())
    merged = Summary.from_bytes(_expected(plan, files))
    with Client(server) as client:
        whole = client.summarize("cross_entropy", files, **with_input())
    assert merged.included == whole.included
    assert (merged.count, merged.maximum) == (whole.count, whole.maximum)
    assert merged.worst == whole.worst
    assert merged.mean == pytest.approx(whole.mean, rel=1e-12)
    assert merged.quantile(0.9) == whole.quantile(0.9)


def test_a_plan_can_be_pickled(server: str) -> None:
    """With the arrays that all parts share; resident tensors stay where they are."""
    weight = np.linspace(1, 2, 10)
    plan = Plan.of("cross_entropy", target=server, shared={"weight": weight}, **with_input())
    again = pickle.loads(pickle.dumps(plan))  # noqa: S301 - its own
    assert again.digest() == plan.digest()
    assert again.request.shared["weight"].tolist() == weight.tolist()
    other = Plan.of("cross_entropy", target=server, shared={"weight": 2 * weight}, **with_input())
    assert other.digest() != plan.digest()
    with Client(server) as client, pytest.raises(TypeError, match="shared: a resident tensor"):
        Plan.of("cross_entropy", shared={"weight": client.put(weight)})


def test_states_that_are_there_are_taken(server: str, files: Path, tmp_path: Path) -> None:
    """From a folder, from an earlier summary, and not for another plan."""
    plan = Plan.of("cross_entropy", target=server, **with_input())
    expected = _expected(plan, files)
    job = Job(plan, files, state_dir=tmp_path)
    _run(job, Shuffled(job, 1))
    # Torn by a crash.
    min(tmp_path.rglob("*.state")).write_bytes(b"\x0a\xff")
    seen: list[DistributedProgress] = []
    job = Job(plan, files, state_dir=tmp_path)
    assert _run(job, Shuffled(job, 2), progress=seen.append).to_bytes() == expected
    assert len(seen) == 1
    other = Plan.of("cross_entropy", target=server, **with_input() | {"worst": 1})
    assert all(part.state is None for part in Job(other, files, state_dir=tmp_path).parts)


def test_an_earlier_summary_is_continued(server: str, files: Path) -> None:
    """Only what it does not cover is evaluated; a part of a file is refused."""
    plan = Plan.of("cross_entropy", target=server, **with_input())
    states = [summarize_partition(each, plan) for each in partitions_of(files)]
    earlier = Summary.from_bytes(merge(states[:4]))
    job = Job(plan, files, resume_from=[earlier, states[6]])
    assert sum(part.state is None for part in job.parts) == 4
    found = _run(job, Shuffled(job, 3))
    whole = Summary.from_bytes(merge(states))
    assert found.included == whole.included
    assert found.message.total.distributions[0].count == whole.count
    piece = summarize_partition(partitions_of(files, 300)[0], plan)
    with pytest.raises(ValueError, match=r"resume_from: 300 of the 400 rows of part-000\.parquet"):
        Job(plan, files, resume_from=[piece])


def test_missing_partitions_are_named(server: str, files: Path) -> None:
    """With the summary of the others, which is continued later."""
    plan = Plan.of("cross_entropy", target=server, **with_input())
    job = Job(plan, files)
    with pytest.raises(IncompleteError) as caught:
        _run(job, Shuffled(job, 4, lost=["part-002.parquet", "part-007.parquet"]))
    assert str(caught.value) == (
        "7 of 9 partitions are included; missing: part-002.parquet, part-007.parquet"
    )
    assert caught.value.missing == ("part-002.parquet", "part-007.parquet")
    partial = caught.value.summary
    assert partial is not None
    job = Job(plan, files, resume_from=[partial])
    assert [part.position[0] for part in job.parts if part.state is None] == [
        "part-002.parquet",
        "part-007.parquet",
    ]
    assert _run(job, Shuffled(job, 5)).rows == sum(each.rows or 0 for each in partitions_of(files))


def test_the_first_error_stops_the_rest(server: str, files: Path) -> None:
    """What is under way is cancelled."""
    job = Job(Plan.of("cross_entropy", target=server, columns={"input": "gone"}), files)
    engine = Shuffled(job, 6)
    with pytest.raises(ValueError, match='no column "gone"'):
        _run(job, engine)
    assert len(engine.cancelled) == 2


def test_files_without_rows_are_not_missing(server: str, tmp_path: Path) -> None:
    """Whether this is known before or found by reading."""
    schema = pa.schema({"input": pa.float32(), "target": pa.float32()})
    pq.write_table(schema.empty_table(), tmp_path / "a.parquet")
    (tmp_path / "b.csv").write_text("input,target\n", "utf-8")
    (tmp_path / "c.csv").write_text("input,target\n3.0,1.0\n", "utf-8")
    plan = Plan.of("mse_loss", target=server)
    job = Job(plan, tmp_path)
    found = _run(job, Shuffled(job, 7))
    assert isinstance(found, Summary)
    assert (found.count, found.mean) == (1, 4.0)
    only = tmp_path / "a.parquet"
    job = Job(plan, only)
    with pytest.raises(ValueError, match="data: no partition has a row"):
        _run(job, Shuffled(job, 8))


def test_gaps_of_nulls_are_not_missing(server: str, tmp_path: Path) -> None:
    """Batches that have nothing but nulls are left out of what a summary covers."""
    values = pa.array([None] * 70_000 + [3.0], pa.float32())
    table = pa.table({"input": values, "target": pa.array(np.ones(70_001, np.float32))})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=10_000)
    plan = Plan.of("mse_loss", target=server, nulls="skip")
    job = Job(plan, tmp_path)
    found = _run(job, Shuffled(job, 9))
    assert isinstance(found, Summary)
    assert (found.count, found.mean) == (1, 4.0)
    assert found.rows < 70_001
    assert [part.state is None for part in Job(plan, tmp_path, resume_from=[found]).parts] == [
        False
    ]


def test_what_does_not_fit_is_refused(server: str, files: Path) -> None:
    """Rows that would count twice, states of other evaluations, other bytes, and nothing."""
    plan = Plan.of("cross_entropy", target=server, **with_input())
    first = summarize_partition(partitions_of(files)[0], plan)
    with pytest.raises(ValueError, match=r"part-000\.parquet"):
        merge([first, first])
    other = Plan.of("mse_loss", target=server)
    with pytest.raises(ValueError, match="mse_loss"):
        merge([first, summarize_partition({"input": [1.0], "target": [0.0]}, other)])
    with pytest.raises(ValueError, match="these bytes are no summary"):
        merge([b"\xff\xff"])
    with pytest.raises(ValueError, match="there is no state to merge"):
        merge([])
    with pytest.raises(TypeError, match="only files have partitions"):
        Job(plan, {"input": [1.0], "target": [0.0]})


@pytest.mark.parametrize(
    "documented",
    [Plan, Plan.of, merge, summarize_partition, IncompleteError, DistributedProgress],
    ids=lambda each: each.__qualname__,
)
def test_the_examples_run(server: str, documented: object) -> None:
    """As they are shown."""
    with Client(server) as client:
        names = {
            "DistributedProgress": DistributedProgress,
            "IncompleteError": IncompleteError,
            "Plan": Plan,
            "Summary": Summary,
            "address": server,
            "client": client,
            "merge": merge,
            "summarize_partition": summarize_partition,
        }
        run_example(documented, **names)


@pytest.mark.parametrize("engine", ["ray", "spark"])
def test_without_the_engine_the_error_names_the_extra(
    engine: str, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The modules can be imported; the functions say what to install."""
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "pyspark", None)
    run = {
        "ray": partial(losswire_ray.summarize, "mse_loss"),
        "spark": partial(losswire_spark.summarize, None, "mse_loss"),
    }[engine]
    with pytest.raises(ModuleNotFoundError, match=rf"pip install 'losswire\[{engine}\]'"):
        run(files)
