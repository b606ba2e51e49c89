"""The table of merges: rows of a data set, in shards."""

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import inf, nan

from losswire.v1 import evaluation_pb2, summary_pb2, tensor_pb2
from tests.conformance.summaries.definition import Key, Plan, Row, summary


@dataclass(frozen=True, kw_only=True)
class Shard:
    """The rows of one of the summaries that are merged."""

    rows: Sequence[Row]
    folded: AbstractSet[Key] = frozenset()
    """The clusters that are complete."""
    scale: int | None = None
    """The scale of the sketches, where it was lowered."""
    receipts: Sequence[evaluation_pb2.Receipt] = ()


@dataclass(frozen=True, kw_only=True)
class Case:
    """Summaries to merge."""

    name: str
    about: str
    plan: Plan = field(default_factory=Plan)
    shards: Sequence[Shard]

    @property
    def rows(self) -> list[Row]:
        """The rows of all shards."""
        return [row for shard in self.shards for row in shard.rows]

    @property
    def scale(self) -> int:
        """The scale of the merged sketches."""
        lowered = [shard.scale for shard in self.shards if shard.scale is not None]
        return min([self.plan.scale, *lowered])

    def messages(self) -> list[summary_pb2.LossSummary]:
        """Return the summaries to merge."""
        return [
            # A shard without rows does not know that rows have clusters.
            summary(
                self.plan if shard.rows else replace(self.plan, clustered=False),
                shard.rows,
                folded=shard.folded,
                scale=shard.scale,
                receipts=shard.receipts,
            )
            for shard in self.shards
        ]

    def merged(self) -> summary_pb2.LossSummary:
        """Return the summary of all rows."""
        receipts = {
            each.SerializeToString(deterministic=True): each
            for shard in self.shards
            for each in shard.receipts
        }
        folded: set[Key] = set()
        for shard in self.shards:
            folded |= shard.folded
        return summary(
            self.plan,
            self.rows,
            folded=folded,
            scale=self.scale,
            receipts=list(receipts.values()),
        )


def _draw(seed: int) -> Iterator[int]:
    """Yield numbers in [0, 2^16), the same on every machine."""
    state = seed
    while True:
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        yield state >> 48


def losses(seed: int, count: int) -> list[float]:
    """Return losses as models have them: many small and few large ones, in steps of 2^-16."""
    draw = _draw(seed)
    return [(next(draw) * next(draw) >> 16) * 2.0**-13 + 2.0**-16 for _ in range(count)]


def rows_of(values: Sequence[float], *others: Sequence[float]) -> list[Row]:
    """Return rows from number 0 on, of one or several candidates."""
    return [Row(values=each, row=at) for at, each in enumerate(zip(values, *others, strict=True))]


def _cut(rows: Sequence[Row], *at: int) -> list[Shard]:
    """Cut rows into shards, each of which begins where the one before ends."""
    edges = [0, *at, len(rows)]
    return [Shard(rows=rows[a:b]) for a, b in pairwise(edges)]


def _weighted(rows: Sequence[Row], weights: Sequence[float]) -> list[Row]:
    return [replace(row, weight=weights[at % len(weights)]) for at, row in enumerate(rows)]


def _sliced() -> Case:
    rows = [
        replace(row, labels={"country": ("DE", "FR", "JP")[at % 3], "device": str(7 + at // 2 % 2)})
        for at, row in enumerate(rows_of(losses(3, 24)))
    ]
    return Case(
        name="slices",
        about="Tables of a column of texts, of one of numbers, and of their cross.",
        plan=Plan(tables=(("country",), ("device",), ("country", "device"))),
        # The first shard has no JP, so that the slices are not the same in all.
        shards=[
            Shard(rows=[row for row in rows[:12] if row.labels["country"] != "JP"]),
            Shard(rows=[row for row in rows[:12] if row.labels["country"] == "JP"]),
            Shard(rows=rows[12:]),
        ],
    )


def in_clusters(rows: Sequence[Row], keys: Sequence[Key], size: int) -> list[Row]:
    """Return rows of which each `size` neighbours are a cluster."""
    return [replace(row, cluster=keys[at // size]) for at, row in enumerate(rows)]


def _clusters() -> list[Case]:
    texts = in_clusters(_weighted(rows_of(losses(4, 30)), (1.0, 2.0, 0.5)), "ABCDEFGHIJ", 3)
    numbers = in_clusters(rows_of(losses(5, 36)), [5, -2, 40, 7, 8, 9, 10, 11, 12], 4)
    first, second, third = _cut(numbers, 10, 22)
    sliced = [
        replace(row, labels={"odd": str(at % 2)}) for at, row in enumerate(rows_of(losses(6, 24)))
    ]
    return [
        Case(
            name="clusters_open",
            about="Clusters that stay open, two of them in two shards; keys are texts.",
            plan=Plan(clustered=True),
            shards=_cut(texts, 10, 20),
        ),
        Case(
            name="clusters_folded",
            about="Grouped clusters: the first and the last of a shard are open; numbers as keys.",
            plan=Plan(clustered=True),
            shards=[
                replace(first, folded={-2}),
                replace(second, folded={7, 8}),
                replace(third, folded={10, 11}),
            ],
        ),
        Case(
            name="clusters_slices",
            about="Clusters whose rows are in several slices.",
            plan=Plan(clustered=True, tables=(("odd",),)),
            shards=_cut(in_clusters(sliced, [1, 2, 3, 4, 5, 6], 4), 10),
        ),
        Case(
            name="empty_shard",
            about="Two shards without rows fit to those with clusters, wherever they come.",
            plan=Plan(clustered=True),
            shards=[Shard(rows=[]), *_cut(texts[:12], 6), Shard(rows=[])],
        ),
    ]


def _candidates() -> list[Case]:
    first = losses(7, 24)
    second = [value + (0.0, 0.25, -0.125, 0.5)[at % 4] for at, value in enumerate(first)]
    third = [value * 1.5 for value in losses(8, 24)]
    broken = [nan if at == 5 else inf if at == 17 else value for at, value in enumerate(third)]
    labels = [
        replace(row, labels={"part": "xy"[at % 2]})
        for at, row in enumerate(rows_of(first, second, third))
    ]
    return [
        Case(
            name="two_candidates",
            about="Two candidates with weights; wins, ties and losses.",
            plan=Plan(candidates=("a", "b"), worst=3),
            shards=_cut(_weighted(rows_of(first, second), (1.0, 0.5, 3.0)), 7, 15),
        ),
        Case(
            name="three_candidates",
            about="Three candidates in slices: three pairs, co-moments of six numbers.",
            plan=Plan(candidates=("a", "b", "c"), tables=(("part",),)),
            shards=_cut(labels, 11),
        ),
        Case(
            name="candidates_not_finite",
            about="Rows of which one of three candidates has no finite loss: pairs of the other "
            "two have them, the joint moments have not.",
            plan=Plan(candidates=("a", "b", "c"), worst=2),
            shards=_cut(rows_of(first, second, broken), 12),
        ),
        Case(
            name="candidates_clusters",
            about="Two candidates with clusters.",
            plan=Plan(candidates=("a", "b"), clustered=True),
            shards=_cut(in_clusters(rows_of(first, second), "ABCDEFGH", 3), 10),
        ),
    ]


def _not_finite() -> list[Case]:
    values = [1.5, nan, 2.0, inf, -inf, 3.0, nan, 7.25, 0.5, 1.0, 4.0, 9.0]
    kinds = ["mixed"] * 5 + ["nan", "nan", "fine", "fine", "ignored", "ignored", "ignored"]
    rows = [
        replace(row, labels={"kind": kinds[at]}, counted=(at not in (2, 9, 10, 11),))
        for at, row in enumerate(rows_of(values))
    ]
    infinite = rows_of([2.0, inf, 1.0, 3.0, 0.25, inf])
    return [
        Case(
            name="not_finite",
            about="NaN, both infinities and ignored rows; a slice has only ignored rows.",
            plan=Plan(tables=(("kind",),), worst=4),
            shards=_cut(rows, 4, 8),
        ),
        Case(
            name="infinite",
            about="Infinite losses make the mean infinite.",
            shards=_cut(infinite, 3),
        ),
    ]


def _worst() -> list[Case]:
    values = [2.0, 7.0, nan, 7.0, 7.0, inf, 1.0, nan, 7.0, 7.0, 2.0, 8.0]
    numbers = [10, 4, 30, -5, 3, 60, 70, 20, 2, 100, 9, 1]
    plain = rows_of(values)
    with_numbers = [replace(row, id=number) for row, number in zip(plain, numbers, strict=True)]
    with_texts = [replace(row, id=f"r{number}") for row, number in zip(plain, numbers, strict=True)]
    return [
        Case(
            name="worst_numbers",
            about="Worst rows with equal losses: by id, a number; NaN first.",
            plan=Plan(worst=7),
            shards=_cut(with_numbers, 4, 8),
        ),
        Case(
            name="worst_texts",
            about="Worst rows with equal losses: by id, a text, by its code points.",
            plan=Plan(worst=7),
            shards=_cut(with_texts, 6),
        ),
        Case(
            name="worst_rows",
            about="Worst rows without ids: equal losses by partition and row.",
            plan=Plan(worst=5),
            shards=[
                Shard(rows=[replace(row, partition="z") for row in plain[:6]]),
                Shard(rows=plain[6:]),
            ],
        ),
    ]


def _receipt(device: str, version: str) -> evaluation_pb2.Receipt:
    return evaluation_pb2.Receipt(
        device=device,
        engine="closed_form",
        compute_data_type=tensor_pb2.DATA_TYPE_FLOAT32,
        server_version=version,
    )


def _ranges() -> Case:
    rows = rows_of(losses(9, 20))
    other = [replace(row, partition="") for row in rows]
    one, two = _receipt("cpu", "1.0.0"), _receipt("cuda:0", "1.0.1")
    return Case(
        name="ranges",
        about="Ranges that touch and such that do not, of two partitions; each receipt once.",
        shards=[
            Shard(rows=rows[0:5], receipts=[one]),
            Shard(rows=rows[12:15], receipts=[two]),
            Shard(rows=rows[5:8] + other[2:4], receipts=[two, one]),
            Shard(rows=other[0:2]),
        ],
    )


def _scales() -> Case:
    first, second, third = _cut(rows_of([2.0**-16, *losses(10, 22), 900.0]), 8, 16)
    return Case(
        name="scales",
        about="Sketches of the scales 6, 3 and 4: the merged one has the coarsest.",
        shards=[first, replace(second, scale=3), replace(third, scale=4)],
    )


_SIGNS = [0.0, -0.0, 1.0, -1.0, 0.5, -3.25, 0.0, 2.0, -8.0, 5e-324, -1e-300, 0.75]
_WEIGHTED = _weighted(rows_of(losses(2, 24)), (0.25, 1.0, 3.0, 0.7))
_CLASSES = [
    replace(row, denominators=((0.5, 1.0, 4.0, 0.0)[at % 4],))
    for at, row in enumerate(rows_of(losses(11, 24)))
]
_FAR = rows_of([1e6 + value * 2.0**-10 for value in losses(12, 24)])

CASES: Sequence[Case] = (
    Case(
        name="plain",
        about="One loss without weights, three shards.",
        plan=Plan(
            loss="smooth_l1_loss",
            options={"beta": evaluation_pb2.OptionValue(double_value=0.5)},
        ),
        shards=_cut(rows_of(losses(1, 40)), 10, 25),
    ),
    Case(name="weighted", about="Weights of rows.", shards=_cut(_WEIGHTED, 5, 17)),
    Case(
        name="class_weights",
        about="Denominators that are not the weights; some are 0.",
        plan=Plan(loss="cross_entropy"),
        shards=_cut(_CLASSES, 8),
    ),
    Case(
        name="far_from_zero",
        about="Losses near 1e6 that differ in the 9th digit keep their variance.",
        shards=_cut(_FAR, 1, 9),
    ),
    Case(
        name="signs", about="Zeros, negative values, a subnormal.", shards=_cut(rows_of(_SIGNS), 6)
    ),
    _scales(),
    _ranges(),
    _sliced(),
    *_clusters(),
    *_candidates(),
    *_not_finite(),
    *_worst(),
)
