"""What a summary is, a second time: of all rows at once, in exact arithmetic, rounded at the end.

Nothing here comes from losswire.summaries. A float64 is a fraction, so sums and products of them
are exact; only what `scaled` and figures.py take roots of goes through mpmath, with 60 digits.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from fractions import Fraction
from math import copysign, inf, isfinite, isnan
from typing import TypeAlias

from losswire.v1 import evaluation_pb2, summary_pb2

Key: TypeAlias = int | str
Terms: TypeAlias = Sequence[Fraction]

MAX_BUCKETS = 8192


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row, with the loss of each candidate."""

    values: tuple[float, ...]
    weight: float = 1.0
    denominators: tuple[float, ...] | None = None
    """The share in the mean's denominator, of each candidate; None: the weight."""
    counted: tuple[bool, ...] | None = None
    """Whether it takes part, for each candidate; None: in all."""
    labels: Mapping[str, str] = field(default_factory=dict)
    cluster: Key | None = None
    id: Key | None = None
    partition: str = "data"
    row: int = 0

    def takes_part(self, candidate: int) -> bool:
        """Whether the row counts for a candidate, finite or not."""
        return self.counted is None or self.counted[candidate]

    def is_finite(self, candidate: int) -> bool:
        """Whether the row takes part and its loss is finite."""
        return self.takes_part(candidate) and isfinite(self.values[candidate])

    def denominator(self, candidate: int) -> Fraction:
        """Return the share in the denominator."""
        own = self.weight if self.denominators is None else self.denominators[candidate]
        return Fraction(own)

    def numerator(self, candidate: int) -> Fraction:
        """Return the share in the numerator: the value, as often as the denominator says."""
        return Fraction(self.values[candidate]) * self.denominator(candidate)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a summary is of, and what it keeps."""

    loss: str = "mse_loss"
    options: Mapping[str, evaluation_pb2.OptionValue] = field(default_factory=dict)
    candidates: tuple[str, ...] = ()
    tables: tuple[tuple[str, ...], ...] = ()
    scale: int = 6
    worst: int = 0
    clustered: bool = False

    @property
    def width(self) -> int:
        """The number of candidates; 1 where they have no names."""
        return max(len(self.candidates), 1)


def bucket_index(magnitude: float | Fraction, scale: int) -> int:
    """Return the i for which b^i < magnitude <= b^(i+1), where b = 2^(2^-scale)."""
    found = Fraction(magnitude)
    if scale > 0:
        found **= 1 << scale
    # The bounds are now whole powers of 2. All float64 are m / 2^e.
    exponent = found.denominator.bit_length() - 1
    below = (found.numerator - 1).bit_length() - exponent - 1
    return below >> max(-scale, 0)


def rounded(exact: Fraction) -> float:
    """Return the nearest float64; infinite beyond the largest."""
    try:
        return float(exact)
    except OverflowError:
        return copysign(inf, exact)


def sketch(weighted: Iterable[tuple[Fraction, Fraction]], scale: int) -> summary_pb2.LossSketch:
    """Return the sketch of values and their weights."""
    counts: dict[bool, dict[int, Fraction]] = {False: {}, True: {}}
    zero = Fraction(0)
    for value, weight in weighted:
        if value == 0:
            zero += weight
        else:
            buckets = counts[value < 0]
            at = bucket_index(abs(value), scale)
            buckets[at] = buckets.get(at, Fraction(0)) + weight
    while sum(map(len, counts.values())) > MAX_BUCKETS and scale > -4:
        counts = {sign: _joined(buckets) for sign, buckets in counts.items()}
        scale -= 1
    message = summary_pb2.LossSketch(scale=scale, zero_weight=rounded(zero))
    for at in sorted(counts[False]):
        message.positive_indices.append(at)
        message.positive_weights.append(rounded(counts[False][at]))
    for at in sorted(counts[True]):
        message.negative_indices.append(at)
        message.negative_weights.append(rounded(counts[True][at]))
    return message


def _joined(buckets: Mapping[int, Fraction]) -> dict[int, Fraction]:
    """Join each two neighbouring buckets."""
    joined: dict[int, Fraction] = {}
    for at, weight in buckets.items():
        joined[at >> 1] = joined.get(at >> 1, Fraction(0)) + weight
    return joined


def moments(rows: Sequence[Terms], weights: Sequence[Fraction]) -> summary_pb2.Moments:
    """Return the centred moments of some numbers of each row."""
    total = sum(weights, Fraction(0))
    message = summary_pb2.Moments(weight=rounded(total))
    dimension = len(rows[0]) if rows else 0
    means = [
        sum((w * row[each] for row, w in zip(rows, weights, strict=True)), Fraction(0)) / total
        for each in range(dimension)
    ]
    message.means[:] = map(rounded, means)
    for left in range(dimension):
        for right in range(left + 1):
            products = (
                w * (row[left] - means[left]) * (row[right] - means[right])
                for row, w in zip(rows, weights, strict=True)
            )
            message.products.append(rounded(sum(products, Fraction(0))))
    return message


def terms(row: Row, origins: Sequence[Fraction], candidates: Iterable[int]) -> list[Fraction]:
    """Return n - origin x d and d of each candidate."""
    found: list[Fraction] = []
    for each in candidates:
        below = row.denominator(each)
        found += [row.numerator(each) - origins[each] * below, below]
    return found


def distribution(
    rows: Sequence[Row], candidate: int, origin: Fraction, scale: int
) -> summary_pb2.LossDistribution:
    """Return the losses of one candidate, apart from the worst rows."""
    counted = [row for row in rows if row.takes_part(candidate)]
    finite = [row for row in counted if isfinite(row.values[candidate])]
    losses = [row.values[candidate] for row in counted]
    values = [Fraction(row.values[candidate]) for row in finite]
    weights = [Fraction(row.weight) for row in finite]
    weighted = list(zip(values, weights, strict=True))
    above = sum((row.numerator(candidate) for row in finite), Fraction(0))
    below = sum((row.denominator(candidate) for row in finite), Fraction(0))
    message = summary_pb2.LossDistribution(
        count=len(counted),
        ignored_count=len(rows) - len(counted),
        nan_count=sum(map(isnan, losses)),
        positive_infinity_count=losses.count(inf),
        negative_infinity_count=losses.count(-inf),
        weight_sum=rounded(sum(weights, Fraction(0))),
        weight_square_sum=rounded(sum((each * each for each in weights), Fraction(0))),
        sum=rounded(sum((value * weight for value, weight in weighted), Fraction(0))),
        mean_numerator=rounded(above),
        mean_denominator=rounded(below),
        origin=float(origin) if finite else 0.0,
        terms=moments(
            [terms(row, {candidate: origin}, [candidate]) for row in finite],  # type: ignore[arg-type]
            [Fraction(1)] * len(finite),
        ),
        values=moments([[value - origin] for value in values], weights),
        sketch=sketch(weighted, scale),
    )
    if values:
        message.minimum, message.maximum = float(min(values)), float(max(values))
    return message


def pair(rows: Sequence[Row], first: int, second: int, scale: int) -> summary_pb2.PairSummary:
    """Return how two candidates differ, apart from the rows that differ most."""
    both = [row for row in rows if row.is_finite(first) and row.is_finite(second)]
    # A difference is a float64, as a client would form it.
    differences = [row.values[first] - row.values[second] for row in both]
    weighted = [
        (Fraction(difference), Fraction(row.weight))
        for difference, row in zip(differences, both, strict=True)
    ]
    return summary_pb2.PairSummary(
        wins=sum(each < 0 for each in differences),
        ties=differences.count(0),
        losses=sum(each > 0 for each in differences),
        sketch=sketch(weighted, scale),
    )


def cluster_sums(
    rows: Sequence[Row], width: int, origins: Sequence[Fraction]
) -> dict[Key, list[Fraction]]:
    """Return the sums of the terms of the rows that are finite in all candidates, by cluster."""
    sums: dict[Key, list[Fraction]] = {}
    for row in joint_rows(rows, width):
        assert row.cluster is not None
        found = terms(row, origins, range(width))
        before = sums.get(row.cluster, [Fraction(0)] * len(found))
        sums[row.cluster] = [a + b for a, b in zip(before, found, strict=True)]
    return sums


def joint_rows(rows: Sequence[Row], width: int) -> list[Row]:
    """Return the rows that are finite in all candidates."""
    return [row for row in rows if all(map(row.is_finite, range(width)))]


def _clusters(
    sums: Mapping[Key, Sequence[Fraction]], folded: AbstractSet[Key]
) -> summary_pb2.ClusterSummary:
    inner = [each for key, each in sums.items() if key in folded]
    message = summary_pb2.ClusterSummary(folded=moments(inner, [Fraction(1)] * len(inner)))
    opened = [key for key in sums if key not in folded]
    for key in sorted(opened, key=lambda each: (isinstance(each, str), each)):
        entry = message.open.add(sums=map(rounded, sums[key]))
        if isinstance(key, int):
            entry.number = key
        else:
            entry.name = key
    return message


def group(
    plan: Plan,
    rows: Sequence[Row],
    labels: tuple[str, ...],
    *,
    folded: AbstractSet[Key] = frozenset(),
    scale: int | None = None,
    origins: Sequence[Fraction] | None = None,
) -> summary_pb2.GroupSummary:
    """Return the summary of some rows; `folded` are the clusters that are complete."""
    used = plan.scale if scale is None else scale
    width = plan.width
    if origins is None:
        origins = [_origin(rows, each) for each in range(width)]
    message = summary_pb2.GroupSummary(
        labels=labels,
        distributions=[distribution(rows, each, origins[each], used) for each in range(width)],
        pairs=[pair(rows, a, b, used) for a in range(width) for b in range(a + 1, width)],
    )
    if width > 1:
        found = [terms(row, origins, range(width)) for row in joint_rows(rows, width)]
        message.joint.CopyFrom(moments(found, [Fraction(1)] * len(found)))
    if plan.clustered:
        message.clusters.CopyFrom(_clusters(cluster_sums(rows, width, origins), folded))
    return message


def _origin(rows: Sequence[Row], candidate: int) -> Fraction:
    """Return some value near the mean: here the first one that is finite."""
    finite = (row.values[candidate] for row in rows if row.is_finite(candidate))
    return Fraction(next(finite, 0.0))


def summary(
    plan: Plan,
    rows: Sequence[Row],
    *,
    folded: AbstractSet[Key] = frozenset(),
    scale: int | None = None,
    receipts: Sequence[evaluation_pb2.Receipt] = (),
) -> summary_pb2.LossSummary:
    """Return the summary of rows. `scale`: that of the sketches, where it was lowered."""
    message = summary_pb2.LossSummary(
        loss=plan.loss,
        options=plan.options,
        candidates=plan.candidates,
        scale=plan.scale,
        worst=plan.worst,
        total=group(plan, rows, (), folded=folded, scale=scale),
        included=_included(rows),
        receipts=sorted(receipts, key=lambda each: each.SerializeToString(deterministic=True)),
        clustered=plan.clustered,
    )
    for columns in plan.tables:
        table = message.tables.add(columns=columns)
        for labels in sorted({labels_of(row, columns) for row in rows}):
            inside = [row for row in rows if labels_of(row, columns) == labels]
            table.slices.append(group(plan, inside, labels, folded=folded, scale=scale))
    for candidate, each in enumerate(message.total.distributions):
        counted = [row for row in rows if row.takes_part(candidate)]
        each.worst.extend(_largest(counted, plan.worst, lambda row, k=candidate: row.values[k]))  # type: ignore[misc]
    pairs = [(a, b) for a in range(plan.width) for b in range(a + 1, plan.width)]
    for (a, b), found in zip(pairs, message.total.pairs, strict=True):
        both = [row for row in rows if row.is_finite(a) and row.is_finite(b)]
        found.most_different.extend(
            _largest(both, plan.worst, lambda row, a=a, b=b: abs(row.values[a] - row.values[b]))  # type: ignore[misc]
        )
    return message


def labels_of(row: Row, columns: Iterable[str]) -> tuple[str, ...]:
    """Return the slice of a table that a row belongs to."""
    return tuple(row.labels[name] for name in columns)


def _largest(
    rows: Sequence[Row], count: int, score: Callable[[Row], float]
) -> list[summary_pb2.RowLoss]:
    """Return the rows with the largest scores: NaN first, equal ones by id."""

    def order(row: Row) -> tuple[bool, float, bool, int, str, str, int]:
        own = score(row)
        number = row.id if isinstance(row.id, int) else 0
        name = row.id if isinstance(row.id, str) else ""
        value = 0.0 if isnan(own) else -own
        return (not isnan(own), value, bool(name), number, name, row.partition, row.row)

    found = []
    for row in sorted(rows, key=order)[:count]:
        entry = summary_pb2.RowLoss(
            partition=row.partition,
            row=row.row,
            values=row.values,
            weight=row.weight,
            labels=row.labels,
        )
        if isinstance(row.id, int):
            entry.number = row.id
        elif row.id is not None:
            entry.name = row.id
        found.append(entry)
    return found


def _included(rows: Sequence[Row]) -> list[summary_pb2.IncludedRows]:
    """Return which rows there are, by partition, in ranges that do not touch."""
    found = []
    for partition in sorted({row.partition for row in rows}):
        message = summary_pb2.IncludedRows(partition=partition)
        for at in sorted(row.row for row in rows if row.partition == partition):
            if message.ranges and message.ranges[-1].end == at:
                message.ranges[-1].end = at + 1
            else:
                message.ranges.add(begin=at, end=at + 1)
        found.append(message)
    return found
