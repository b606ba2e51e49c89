"""Replays the vectors of summaries with losswire.summaries; README.md says the same in words."""

import json
import math
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from losswire.summaries import MergeError, bucket_indices, merge, statistics
from losswire.v1 import summary_pb2
from tests.conformance.summaries.compare import differences

FOLDER = Path(__file__).parent
_RELATIVE = {"p_value": 1e-10, "p_adjusted": 1e-10}
_TOLERANCE = 1e-12

Entry = Mapping[str, Any]
Found = Iterator[tuple[str, float, Entry, float]]
"""Paths, numbers found, the expected ones, and the size of the terms that they are made of."""


def entries(kind: str) -> list[Entry]:
    """Read `merges` or `refusals` of the index."""
    found: list[Entry] = json.loads((FOLDER / "index.json").read_text())[kind]
    return found


def summary(stem: str) -> summary_pb2.LossSummary:
    """Read a message."""
    return summary_pb2.LossSummary.FromString((FOLDER / f"vectors/{stem}.binpb").read_bytes())


def expected_figures(name: str) -> Entry:
    """Read the figures of a merge."""
    found: Entry = json.loads((FOLDER / "figures.json").read_text())[name]
    return found


def wrong_buckets() -> list[str]:
    """Return the entries of both files of buckets whose index is another."""
    texts = json.loads((FOLDER / "buckets.json").read_text())
    records = list(struct.iter_unpack("<dii", (FOLDER / "buckets.bin").read_bytes()))
    wrong = []
    for (bits, text, *rest), (value, scale, index) in zip(texts, records, strict=True):
        same = struct.unpack(">d", bytes.fromhex(bits)) == (value,) == (float(text),)
        found = int(bucket_indices(np.array([value]), scale)[0])
        if not same or rest != [scale, index] or found != index:
            wrong.append(f"{text} at scale {scale}: {found}; expected {index}")
    return wrong


def wrong_merge(entry: Entry) -> list[str]:
    """Merge the inputs of an entry; return what differs from the expected summary."""
    merged = merge(map(summary, entry["inputs"]))
    return list(differences(merged, summary(entry["merged"])))


def wrong_refusal(entry: Entry) -> list[str]:
    """Merge what does not fit; return the words that the error lacks."""
    try:
        merge(map(summary, entry["inputs"]))
    except MergeError as error:
        return [word for word in entry["named"] if word not in str(error)]
    return ["was merged"]


def wrong_figures(entry: Entry) -> list[str]:
    """Derive the figures of the expected merged summary; return those that are not near."""
    merged, wanted = summary(entry["merged"]), expected_figures(entry["name"])
    problems = []
    for path, got, number, size in _figures(merged, wanted):
        # Both forms are the same number.
        expected = float.fromhex(number["hex"])
        relative = _RELATIVE.get(path.rsplit(".", 1)[-1], _TOLERANCE)
        same = got == expected or (math.isnan(got) and math.isnan(expected))
        if not same and not abs(got - expected) <= relative * max(abs(expected), size):
            problems.append(f"{path}: {got}; expected {number['decimal']}")
        if repr(float(number["decimal"])) != repr(expected):
            problems.append(f"{path}: the decimal form is another number")
    return problems


def _figures(merged: summary_pb2.LossSummary, wanted: Entry) -> Found:
    total = merged.total
    for candidate, entry in enumerate(wanted["total"]):
        yield from _statistics(total, candidate, entry, f"total[{candidate}]")
    names = list(merged.candidates)
    for at, entry in enumerate(wanted["differences"]):
        first, second = names.index(entry["first"]), names.index(entry["second"])
        found = statistics.difference(total, first, second)
        size = sum(abs(statistics.mean(total.distributions[each])) for each in (first, second))
        path = f"differences[{at}]"
        yield f"{path}.mean", found.mean, entry["mean"], size
        yield f"{path}.standard_error", found.standard_error, entry["standard_error"], 0.0
        yield f"{path}.p_value", found.p_value, entry["p_value"], 0.0
        yield from _intervals(found, entry, path, size)
    places = [(table, each) for table in merged.tables for each in range(max(len(names), 1))]
    for at, ((table, candidate), entry) in enumerate(zip(places, wanted["tables"], strict=True)):
        yield from _lifts(table, total, candidate, entry, f"tables[{at}]")


def _statistics(group: summary_pb2.GroupSummary, candidate: int, entry: Entry, path: str) -> Found:
    distribution = group.distributions[candidate]
    found = statistics.estimate(group, candidate)
    yield f"{path}.mean", found.mean, entry["mean"], 0.0
    yield f"{path}.finite_mean", statistics.finite_mean(distribution), entry["finite_mean"], 0.0
    yield f"{path}.standard_error", found.standard_error, entry["standard_error"], 0.0
    yield f"{path}.std", statistics.std(distribution), entry["std"], 0.0
    yield from _intervals(found, entry, path, abs(found.mean))
    for share, number in entry["quantiles"].items():
        got = statistics.quantile(distribution, float(share))
        yield f"{path}.quantiles[{share}]", got, number, 0.0


def _intervals(found: statistics.Estimate, entry: Entry, path: str, size: float) -> Found:
    for level, numbers in entry["intervals"].items():
        bounds = found.interval(float(level))
        width = abs(bounds[1] - bounds[0])
        for side, got, number in zip(("low", "high"), bounds, numbers, strict=True):
            yield f"{path}.intervals[{level}].{side}", got, number, size + width


def _lifts(
    table: summary_pb2.SliceTable,
    total: summary_pb2.GroupSummary,
    candidate: int,
    entry: Entry,
    path: str,
) -> Found:
    lifts = [statistics.lift(each, total, candidate) for each in table.slices]
    adjusted = statistics.holm([each.p_value for each in lifts])
    for at, group in enumerate(table.slices):
        wanted, lift, where = entry["slices"][at], lifts[at], f"{path}.slices[{at}]"
        found = statistics.estimate(group, candidate)
        size = abs(found.mean) + abs(statistics.estimate(total, candidate).mean)
        yield f"{where}.mean", found.mean, wanted["mean"], 0.0
        yield f"{where}.standard_error", found.standard_error, wanted["standard_error"], 0.0
        yield f"{where}.lift", lift.mean, wanted["lift"], size
        yield (
            f"{where}.lift_standard_error",
            lift.standard_error,
            wanted["lift_standard_error"],
            0.0,
        )
        yield f"{where}.p_value", lift.p_value, wanted["p_value"], 0.0
        yield f"{where}.p_adjusted", adjusted[at], wanted["p_adjusted"], 0.0
