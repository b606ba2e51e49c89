"""`python -m benchmarks.summaries`: a summary of many rows beside what else gives its numbers.

All get the same rows, which are in memory, by turns: a summary over TCP, on the same machine and in
this process (`local:`), with a table of slices and worst rows; `evaluate`, which gives the mean
only, over TCP in chunks and on the same machine; and torch with numpy in this process, which finds
row losses, sums and squares, a histogram, slices and worst rows part by part, or keeps all losses
and asks numpy for mean, deviation, quantiles, slices and worst rows.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.processes import Server
from losswire.client import Client

Array = npt.NDArray[Any]

_TIMEOUT = 300.0
_LOSS = "cross_entropy"
_SERVER = ("serve", "--listen", "127.0.0.1:0", "--store", "none", "--threads", "2")
_OVER_TCP = ("--region-quota-mib", "0")
_BUCKETS = 64
"""The buckets for each factor of 2: as fine as those of the summary."""
_HERE = 1 << 18
"""The rows that torch and numpy take at a time, which is the fastest."""


class Rows:
    """Logits, classes, and the slice of each row."""

    def __init__(self, rows: int, columns: int, slices: int, batch: int) -> None:
        """Draw them."""
        rng = np.random.default_rng(1)
        self.logits = rng.standard_normal((rows, columns), np.float32)
        self.classes = rng.integers(0, columns, rows)
        self.slices = rng.integers(0, slices, rows, np.uint8)
        self.count = slices
        self._batch = batch

    def batches(self) -> Iterator[dict[str, Array]]:
        """Yield all rows, some at a time."""
        for start in range(0, len(self.logits), self._batch):
            rows = slice(start, start + self._batch)
            yield {
                "input": self.logits[rows],
                "target": self.classes[rows],
                "slice": self.slices[rows],
            }


def _summarize(client: Client, rows: Rows, worst: int) -> float:
    found = client.summarize(_LOSS, rows.batches(), slices=["slice"], worst=worst, timeout=_TIMEOUT)
    return found.mean


def _evaluate(client: Client, rows: Rows) -> float:
    inputs: dict[str, Any] = {"input": rows.logits, "target": rows.classes}
    result = client.evaluate(_LOSS, inputs, timeout=_TIMEOUT)
    return result.mean_numerator / result.mean_denominator


def _here(rows: Rows, worst: int) -> float:
    """Compute the same by torch and numpy in this process."""
    import torch  # noqa: PLC0415 (the other ways do without)
    from torch.nn import functional as F  # noqa: PLC0415

    sums = np.zeros((3, rows.count))
    buckets: dict[int, int] = {}
    largest = np.zeros(0)
    low, high = np.inf, -np.inf
    for start in range(0, len(rows.logits), _HERE):
        part = slice(start, start + _HERE)
        logits, classes = torch.from_numpy(rows.logits[part]), torch.from_numpy(rows.classes[part])
        values = F.cross_entropy(logits, classes, reduction="none").numpy().astype(np.float64)
        groups = rows.slices[part].astype(np.int64)
        sums[0] += np.bincount(groups, minlength=rows.count)
        sums[1] += np.bincount(groups, values, minlength=rows.count)
        sums[2] += np.bincount(groups, values * values, minlength=rows.count)
        low, high = min(low, values.min()), max(high, values.max())
        index = np.floor(np.log2(values) * _BUCKETS).astype(np.int64) + 64 * _BUCKETS
        for counts in (index, groups * (128 * _BUCKETS) + index):
            found = np.bincount(counts)
            for each in np.flatnonzero(found).tolist():
                buckets[each] = buckets.get(each, 0) + int(found[each])
        both = np.concatenate([largest, values[np.argpartition(values, -worst)[-worst:]]])
        largest = np.sort(both)[-worst:]
    return float(sums[1].sum() / sums[0].sum())


def _at_once(rows: Rows, worst: int) -> float:
    """Do the same as most people would: keep all losses, then ask numpy for each figure."""
    import torch  # noqa: PLC0415 (the other ways do without)
    from torch.nn import functional as F  # noqa: PLC0415

    parts = []
    for start in range(0, len(rows.logits), _HERE):
        part = slice(start, start + _HERE)
        logits, classes = torch.from_numpy(rows.logits[part]), torch.from_numpy(rows.classes[part])
        parts.append(F.cross_entropy(logits, classes, reduction="none").numpy())
    values = np.concatenate(parts).astype(np.float64)
    values.std(ddof=1)
    np.quantile(values, (0.5, 0.9, 0.99))
    for number in range(rows.count):
        chosen = values[rows.slices == number]
        chosen.mean(), chosen.std(ddof=1)
    np.argpartition(values, -worst)[-worst:]
    return float(values.mean())


def _measure(calls: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Make the calls by turns; returns their seconds, without those of the first round."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + 1):
        for name, call in calls.items():
            begun = time.perf_counter()
            mean = call()
            seconds[name].append(time.perf_counter() - begun)
            print(f"{name:28} {seconds[name][-1]:6.2f} s, mean {mean:.15g}", flush=True)
    return {name: each[1:] for name, each in seconds.items()}


def main() -> None:
    """Measure and print rows per second, ratios and the server's memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--columns", type=int, default=10)
    parser.add_argument("--slices", type=int, default=8)
    parser.add_argument("--worst", type=int, default=20)
    parser.add_argument("--batch", type=int, default=100_000, help="rows in each batch")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    rows = Rows(given.rows, given.columns, given.slices, given.batch)
    remote = Server("losswire.server", *_SERVER, *_OVER_TCP)
    near = Server("losswire.server", *_SERVER)
    with remote, near, Client(remote.address) as tcp, Client(near.address) as same:
        with Client("local:?threads=2") as local:
            calls: dict[str, Callable[[], float]] = {
                "evaluate over TCP": lambda: _evaluate(tcp, rows),
                "summarize over TCP": lambda: _summarize(tcp, rows, given.worst),
                "evaluate, same machine": lambda: _evaluate(same, rows),
                "summarize, same machine": lambda: _summarize(same, rows, given.worst),
                "summarize, local:": lambda: _summarize(local, rows, given.worst),
                "torch and numpy here": lambda: _here(rows, given.worst),
                "the same, all at once": lambda: _at_once(rows, given.worst),
            }
            seconds = _measure(calls, given.rounds)
        peak = remote.peak_bytes / 2**20
    median = {name: statistics.median(each) for name, each in seconds.items()}
    for name, each in median.items():
        print(f"{name:28} {each:6.2f} s {given.rows / each / 1e6:6.2f} million rows/s")
    for ours, theirs in (
        ("summarize over TCP", "evaluate over TCP"),
        ("summarize, same machine", "torch and numpy here"),
        ("summarize, local:", "torch and numpy here"),
        ("summarize, same machine", "the same, all at once"),
        ("summarize, local:", "the same, all at once"),
    ):
        print(f"{ours} / {theirs}, rows/s: {median[theirs] / median[ours]:.2f}")
    print(f"peak memory of the server over TCP: {peak:.0f} MiB")


if __name__ == "__main__":
    main()
