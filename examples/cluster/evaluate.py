"""Evaluates 64 Parquet files on a Ray cluster of this machine, while a worker of it is killed.

Each file is a task of Ray, which evaluates in its own process. The result has the bits of one
process that does all files by itself, although a worker is lost on the way.

Run it by `make demo-cluster`. The exit status is 1 when the bits differ.
"""

import argparse
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
from tqdm import tqdm

from losswire.client import Summary
from losswire.client import ray as losswire_ray
from losswire.client.distributed import (
    DistributedProgress,
    Plan,
    merge,
    partitions_of,
    summarize_partition,
)

FoundT = TypeVar("FoundT")

FILES = 64
CLASSES = 10
COUNTRIES = ("AT", "CH", "DE", "ES", "FR", "IT", "NL", "PL")
ARGUMENTS: dict[str, Any] = {
    "columns": {"input": "logits", "target": "label"},
    "slices": ["country"],
    "worst": 10,
}
PLAN = Plan.of("cross_entropy", target="local:?threads=1", **ARGUMENTS)
PROCESSES = 2
KILL_AFTER = 16  # files


def write(folder: Path, rows: int) -> None:
    """Write files with logits, labels that they hint at, and a country for each row."""
    draw = np.random.default_rng(0)
    for number in range(FILES):
        logits = draw.standard_normal((rows, CLASSES), dtype=np.float32)
        labels = draw.integers(0, CLASSES, rows)
        logits[np.arange(rows), labels] += 2
        countries = pa.array(draw.integers(0, len(COUNTRIES), rows), pa.int32())
        columns = {
            "logits": pa.FixedSizeListArray.from_arrays(pa.array(logits.ravel()), CLASSES),
            "label": labels,
            "country": pa.DictionaryArray.from_arrays(countries, pa.array(COUNTRIES)),
        }
        pq.write_table(pa.table(columns), folder / f"part-{number:03}.parquet")


def busy_workers() -> Iterator[int]:
    """Yield the processes of this program's own Ray that evaluate a file."""
    parents: dict[int, int] = {}
    busy: set[int] = set()
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            process = int(entry.name)
            parents[process] = int(
                (entry / "stat").read_text("utf-8").rpartition(")")[2].split()[1]
            )
            if (entry / "cmdline").read_bytes().startswith(b"ray::evaluate_partition"):
                busy.add(process)
    own = {os.getpid()}
    while more := {each for each, parent in parents.items() if parent in own} - own:
        own |= more
    yield from busy & own


def by_ray(folder: Path) -> Summary:
    """Evaluate by the cluster, with a bar; a worker is killed on the way."""
    killed: list[int] = []
    with tqdm(total=FILES, unit="file", desc="Ray") as bar:

        def progress(state: DistributedProgress) -> None:
            bar.update(state.partitions - bar.n)
            if not killed and state.partitions >= KILL_AFTER:
                for process in busy_workers():
                    os.kill(process, signal.SIGKILL)
                    killed.append(process)
                    bar.write(f"killed worker {process} after {state.partitions} files")
                    break

        return losswire_ray.summarize("cross_entropy", folder, progress=progress, **ARGUMENTS)


@ray.remote  # type: ignore[untyped-decorator]
def plain(file: Path) -> tuple[Any, Any]:
    """Do much of the same by hand, in one task: moments by country, and a histogram."""
    import torch  # noqa: PLC0415 - in the workers only

    torch.set_num_threads(1)
    table = pq.read_table(file).combine_chunks()
    logits = table["logits"].chunk(0).flatten().to_numpy().reshape(-1, CLASSES)
    losses = torch.nn.functional.cross_entropy(
        torch.from_numpy(logits.copy()),
        torch.from_numpy(table["label"].to_numpy()),
        reduction="none",
    ).numpy()
    codes = table["country"].chunk(0).indices.to_numpy()
    moments = [np.bincount(codes, losses.astype(np.float64) ** power) for power in range(3)]
    buckets = np.floor(np.log2(np.maximum(losses, 1e-9)) * 64).astype(np.int64) + 64 * 32
    return np.stack(moments), np.bincount(buckets, minlength=64 * 64)


def by_plain_tasks(files: list[Path]) -> float:
    """Evaluate by tasks of Ray without this package; returns the mean."""
    states = ray.get([plain.remote(file) for file in files])
    moments = sum(state[0] for state in states)
    return float(moments[1].sum() / moments[0].sum())


def timed(name: str, work: Callable[[], FoundT]) -> FoundT:
    """Do some work, and print its time."""
    started = time.perf_counter()
    found = work()
    print(f"{name:30} {time.perf_counter() - started:6.2f} s", flush=True)
    return found


def compare(folder: Path) -> int:
    """Evaluate the files in each way; returns the exit status."""
    evaluate = partial(summarize_partition, plan=PLAN)
    parts = partitions_of(folder)
    evaluate(parts[0])  # starts the evaluator in this process
    alone = timed("one process, one thread", lambda: merge(map(evaluate, parts)))
    with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
        pool.map(evaluate, parts[: 2 * PROCESSES], chunksize=1)
        timed(f"a pool of {PROCESSES} processes", lambda: merge(pool.imap(evaluate, parts)))
    ray.init(num_cpus=PROCESSES, include_dashboard=False, log_to_driver=False)
    summary = timed("Ray, from the start, one killed", lambda: by_ray(folder))
    timed(
        "Ray, undisturbed",
        lambda: losswire_ray.summarize("cross_entropy", folder, progress=None, **ARGUMENTS),
    )
    files = sorted(folder.iterdir())
    by_plain_tasks(files[: 2 * PROCESSES])  # imports torch in the workers
    timed("Ray, without this package", lambda: by_plain_tasks(files))
    ray.shutdown()
    low, high = summary.interval(0.95)
    print(f"mean {summary.mean:.5f}, 95 % interval {low:.5f} to {high:.5f}, {summary.count:,} rows")
    if alone != summary.to_bytes():
        print("the bits differ from those of one process", file=sys.stderr)
        return 1
    print("all bits equal those of one process")
    return 0


def main() -> int:
    """Write the files and evaluate them; returns the exit status."""
    parser = argparse.ArgumentParser(description="Evaluate 64 files on a local Ray cluster.")
    parser.add_argument("--rows", type=int, default=50_000, help="of each of the 64 files")
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as name:
        write(Path(name), rows)
        print(f"{FILES} files with {rows:,} rows of {CLASSES} logits each")
        return compare(Path(name))


if __name__ == "__main__":
    sys.exit(main())
