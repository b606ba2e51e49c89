"""Compares two summaries; the Python reading of what README.md says in words."""

import math
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from losswire.v1 import summary_pb2

Shift: TypeAlias = tuple[float, float, float]
"""The expected origin of a candidate, the one found, and the range of its values."""
Shifts: TypeAlias = Sequence[Shift]

TOLERANCE = 1e-12
_SUMS = (
    "weight_sum",
    "weight_square_sum",
    "sum",
    "mean_numerator",
    "mean_denominator",
)
_FREE = ("origin", "terms", "values")


def near(got: float, wanted: float, scale: float = 0.0) -> bool:
    """Whether a number is within 1e-12 of another, or of `scale` where terms may cancel."""
    if not (math.isfinite(got) and math.isfinite(wanted)):
        return got == wanted or (math.isnan(got) and math.isnan(wanted))
    return abs(got - wanted) <= TOLERANCE * max(abs(wanted), scale)


def differences(got: summary_pb2.LossSummary, wanted: summary_pb2.LossSummary) -> Iterator[str]:
    """Yield what differs, as a field path."""
    if _exact(got) != _exact(wanted):
        yield "an exact field"
        return
    yield from _group(got.total, wanted.total, "total")
    for at, (ours, theirs) in enumerate(zip(got.tables, wanted.tables, strict=True)):
        for place, groups in enumerate(zip(ours.slices, theirs.slices, strict=True)):
            yield from _group(*groups, f"tables[{at}].slices[{place}]")


def _exact(summary: summary_pb2.LossSummary) -> bytes:
    """Return a summary without its sums, as bytes: in messages NaN is not equal to itself."""
    found = summary_pb2.LossSummary()
    found.CopyFrom(summary)
    for group in (found.total, *(each for table in found.tables for each in table.slices)):
        group.ClearField("joint")
        group.clusters.ClearField("folded")
        for cluster in group.clusters.open:
            cluster.ClearField("sums")
        for each in group.distributions:
            for name in (*_SUMS, *_FREE):
                each.ClearField(name)  # type: ignore[arg-type]
        sketches = [each.sketch for each in group.distributions]
        for sketch in (*sketches, *(each.sketch for each in group.pairs)):
            sketch.ClearField("zero_weight")
            sketch.ClearField("positive_weights")
            sketch.ClearField("negative_weights")
    return found.SerializeToString(deterministic=True)


def _group(
    got: summary_pb2.GroupSummary, wanted: summary_pb2.GroupSummary, path: str
) -> Iterator[str]:
    shifts: list[Shift] = []
    for at, (ours, theirs) in enumerate(zip(got.distributions, wanted.distributions, strict=True)):
        where = f"{path}.distributions[{at}]"
        size = math.sqrt(theirs.weight_square_sum * _square_sum(theirs))
        for name in _SUMS:
            scale = size if name in ("sum", "mean_numerator") else 0.0
            if not near(getattr(ours, name), getattr(theirs, name), scale):
                yield f"{where}.{name}"
        shifts.append((theirs.origin, ours.origin, theirs.maximum - theirs.minimum))
        yield from _sketch(ours.sketch, theirs.sketch, f"{where}.sketch")
        yield from _moments(ours.terms, theirs.terms, shifts[-1:], f"{where}.terms")
        yield from _values(ours, theirs, f"{where}.values")
    for at, (mine, other) in enumerate(zip(got.pairs, wanted.pairs, strict=True)):
        yield from _sketch(mine.sketch, other.sketch, f"{path}.pairs[{at}].sketch")
    yield from _moments(got.joint, wanted.joint, shifts, f"{path}.joint")
    yield from _moments(
        got.clusters.folded, wanted.clusters.folded, shifts, f"{path}.clusters.folded"
    )
    yield from _open(got, wanted, shifts, path)


def _square_sum(found: summary_pb2.LossDistribution) -> float:
    """Return about how large the sum of squared values is; sums may cancel to less."""
    if not found.values.means:
        return 0.0
    mean = found.origin + found.values.means[0]
    return found.values.products[0] + found.values.weight * mean * mean


def _sketch(
    got: summary_pb2.LossSketch, wanted: summary_pb2.LossSketch, path: str
) -> Iterator[str]:
    for name in ("positive_weights", "negative_weights"):
        if not all(map(near, getattr(got, name), getattr(wanted, name))):
            yield f"{path}.{name}"
    if not near(got.zero_weight, wanted.zero_weight):
        yield f"{path}.zero_weight"


def _values(
    got: summary_pb2.LossDistribution, wanted: summary_pb2.LossDistribution, path: str
) -> Iterator[str]:
    if not near(got.values.weight, wanted.values.weight):
        yield f"{path}.weight"
    if not wanted.values.weight:
        return
    shift = wanted.origin - got.origin
    [size] = _sizes(wanted.values)
    size += (abs(shift) + wanted.maximum - wanted.minimum) * math.sqrt(wanted.values.weight)
    mean = wanted.values.means[0] + shift
    if not near(got.values.means[0], mean, size / math.sqrt(wanted.values.weight)):
        yield f"{path}.means"
    if not near(got.values.products[0], wanted.values.products[0], size * size):
        yield f"{path}.products"


def _sizes(message: summary_pb2.Moments) -> list[float]:
    """Return the root of the sum of squares of each number."""
    return [
        math.sqrt(max(_at(message, each, each), 0.0) + message.weight * mean * mean)
        for each, mean in enumerate(message.means)
    ]


def _bounds(wanted: summary_pb2.Moments, shifts: Shifts) -> list[float]:
    """Return how large each number may have been, when it was measured from another origin."""
    sizes = _sizes(wanted)
    for each, (before, after, span) in enumerate(shifts):
        sizes[2 * each] += (abs(before - after) + span) * sizes[2 * each + 1]
    return sizes


def _change(shifts: Shifts) -> list[list[float]]:
    """Return the matrix that shifts n - origin x d and d of each candidate to other origins."""
    size = 2 * len(shifts)
    change = [[float(row == column) for column in range(size)] for row in range(size)]
    for each, (before, after, _) in enumerate(shifts):
        change[2 * each][2 * each + 1] = before - after
    return change


def _times(matrix: Sequence[Sequence[float]], vector: Sequence[float]) -> list[float]:
    return [math.fsum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix]


def _moments(
    got: summary_pb2.Moments,
    wanted: summary_pb2.Moments,
    shifts: Shifts,
    path: str,
) -> Iterator[str]:
    if not near(got.weight, wanted.weight):
        yield f"{path}.weight"
    if not wanted.weight:
        return
    change = _change(shifts)
    size = len(change)
    sizes = _bounds(wanted, shifts)
    means = _times(change, wanted.means)
    per_row = [each / math.sqrt(wanted.weight) for each in sizes]
    if not all(map(near, got.means, means, per_row)):
        yield f"{path}.means"
    old = [[_at(wanted, row, column) for column in range(size)] for row in range(size)]
    half = [_times(change, row) for row in old]
    moved = [_times(change, column) for column in zip(*half, strict=True)]
    for row in range(size):
        for column in range(row + 1):
            if not near(_at(got, row, column), moved[row][column], sizes[row] * sizes[column]):
                yield f"{path}.products of {row} and {column}"


def _open(
    got: summary_pb2.GroupSummary,
    wanted: summary_pb2.GroupSummary,
    shifts: Shifts,
    path: str,
) -> Iterator[str]:
    """Compare the sums of clusters, which may cancel: as large as those of all rows may be."""
    change = _change(shifts)
    sizes: list[float] = []
    for shift, each in zip(shifts, wanted.distributions, strict=True):
        sizes += _bounds(each.terms, [shift]) if each.terms.weight else [0.0, 0.0]
    both = zip(got.clusters.open, wanted.clusters.open, strict=True)
    for at, (ours, theirs) in enumerate(both):
        if not all(map(near, ours.sums, _times(change, theirs.sums), sizes)):
            yield f"{path}.clusters.open[{at}]"


def _at(message: summary_pb2.Moments, row: int, column: int) -> float:
    """Return a product of the lower triangle."""
    high, low = max(row, column), min(row, column)
    return message.products[high * (high + 1) // 2 + low]
