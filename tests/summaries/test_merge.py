"""Summaries merge in any order and tree to the same counts, buckets, extremes and rows."""

from collections.abc import Callable

import numpy as np
import pytest

from losswire.summaries import Column, MergeError, Settings, merge
from losswire.v1 import evaluation_pb2, summary_pb2
from tests.support.summarized import Data, exact, summary_of, sums

_DRAW = np.random.default_rng(3)
_COUNT = 4000
_SHARDS = 40
_DATA = Data(
    values=np.stack([_DRAW.lognormal(0, 1.5, _COUNT), _DRAW.normal(1e4, 1e-2, _COUNT)]),
    weights=_DRAW.integers(1, 5, _COUNT).astype(np.float64),
    columns={"c": Column(_DRAW.integers(0, 30, _COUNT))},
    clusters=Column(np.sort(_DRAW.integers(0, 300, _COUNT))),
    ids=Column(_DRAW.permutation(_COUNT)),
)
_SETTINGS = Settings(
    loss="mse_loss",
    candidates=("a", "b"),
    tables=(("c",),),
    worst=10,
    grouped_clusters=True,
)


def _shards() -> list[summary_pb2.LossSummary]:
    size = _COUNT // _SHARDS
    return [
        summary_of(_SETTINGS, _DATA, size * at, size * (at + 1), step=37) for at in range(_SHARDS)
    ]


def _by_tree(
    parts: list[summary_pb2.LossSummary], draw: np.random.Generator
) -> summary_pb2.LossSummary:
    """Merge two or three random parts at a time, until one is left."""
    left = list(parts)
    while len(left) > 1:
        chosen = [left.pop(int(draw.integers(len(left)))) for _ in range(min(3, len(left)))]
        left.append(merge(chosen))
    return left[0]


def test_fifty_orders_and_trees_give_the_same_summary() -> None:
    """Exactly the same counts, buckets, extremes and rows; sums within 1e-12."""
    shards = _shards()
    whole = summary_of(_SETTINGS, _DATA, step=_COUNT)
    first = sums(merge(shards))
    for seed in range(50):
        draw = np.random.default_rng(seed)
        order = [shards[each] for each in draw.permutation(_SHARDS)]
        merged = _by_tree(order, draw) if seed % 2 else merge(order)
        assert exact(merged) == exact(whole)
        assert sums(merged) == pytest.approx(first, rel=1e-12)


def test_the_same_order_gives_the_same_bits() -> None:
    """A fixed order of merging is reproducible to the last bit."""
    shards = _shards()
    once, again = (merge(shards).SerializeToString(deterministic=True) for _ in range(2))
    assert once == again


def test_a_message_survives_being_merged_alone() -> None:
    """Reading and writing a state changes nothing."""
    [shard, *_] = _shards()
    assert merge([shard]) == shard


def test_the_finest_scale_that_holds_all_buckets_does_not_depend_on_the_order() -> None:
    """Values over all magnitudes need a coarser scale; which one is decided by all of them."""
    draw = np.random.default_rng(1)
    values = np.exp2(draw.uniform(-1000, 1000, 60_000))
    data = Data(values=values[None])
    settings = Settings(loss="mse_loss", scale=8)
    whole = summary_of(settings, data, step=60_000).total.distributions[0].sketch
    assert whole.scale < 8
    assert len(whole.positive_indices) <= 8192
    parts = [summary_of(settings, data, at, at + 6000) for at in range(0, 60_000, 6000)]
    for _ in range(5):
        merged = merge([parts[each] for each in draw.permutation(len(parts))])
        assert merged.total.distributions[0].sketch == whole


def _change(**fields: object) -> Callable[[summary_pb2.LossSummary], None]:
    def change(message: summary_pb2.LossSummary) -> None:
        for name, value in fields.items():
            setattr(message, name, value)

    return change


def _with_option(message: summary_pb2.LossSummary) -> None:
    message.options["beta"].CopyFrom(evaluation_pb2.OptionValue(double_value=2.0))


def _with_table(message: summary_pb2.LossSummary) -> None:
    message.tables[0].columns[0] = "other"


def _malformed_moments(message: summary_pb2.LossSummary) -> None:
    message.total.distributions[0].terms.means.append(1.0)


def _malformed_sketch(message: summary_pb2.LossSummary) -> None:
    message.total.distributions[0].sketch.positive_indices.append(3)


def _wild_sketch(message: summary_pb2.LossSummary) -> None:
    sketch = message.total.distributions[0].sketch
    sketch.positive_indices.append(2**31 - 1)
    sketch.positive_weights.append(1.0)


def _unsorted_sketch(message: summary_pb2.LossSummary) -> None:
    indices = message.total.distributions[0].sketch.positive_indices
    indices[0], indices[1] = indices[1], indices[0]


def _slice_twice(message: summary_pb2.LossSummary) -> None:
    message.tables[0].slices.append(message.tables[0].slices[0])


def _without_labels(message: summary_pb2.LossSummary) -> None:
    message.tables[0].slices[0].ClearField("labels")


def _backwards(message: summary_pb2.LossSummary) -> None:
    message.included[0].ranges.add(begin=9, end=8)


def _partition_twice(message: summary_pb2.LossSummary) -> None:
    message.included.append(message.included[0])


def _without_a_candidate(message: summary_pb2.LossSummary) -> None:
    del message.total.distributions[1]


def _distribution(**fields: float) -> Callable[[summary_pb2.LossSummary], None]:
    def change(message: summary_pb2.LossSummary) -> None:
        for name, value in fields.items():
            setattr(message.total.distributions[0], name, value)

    return change


def _negative_bucket(message: summary_pb2.LossSummary) -> None:
    message.total.distributions[0].sketch.positive_weights[0] = -1.0


def _negative_zeros(message: summary_pb2.LossSummary) -> None:
    message.total.pairs[0].sketch.zero_weight = float("nan")


def _negative_moments(message: summary_pb2.LossSummary) -> None:
    message.tables[0].slices[0].joint.weight = -3.0


def _too_many_wins(message: summary_pb2.LossSummary) -> None:
    message.total.pairs[0].wins = 1 << 62


def _worst_of_one(message: summary_pb2.LossSummary) -> None:
    del message.total.pairs[0].most_different[0].values[1:]


def _beyond_int64(message: summary_pb2.LossSummary) -> None:
    for name in ("a", "b"):
        message.included.add(partition=name).ranges.add(begin=0, end=(1 << 63) - 1)


def _all_numbers(message: summary_pb2.LossSummary) -> None:
    message.included[0].partition = "other"
    message.included[0].ranges[0].end = (1 << 63) - 1


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (_distribution(count=-1), "the counts"),
        (_distribution(count=1 << 62), "the counts"),
        (_distribution(nan_count=101), "the counts"),
        (_distribution(weight_sum=-1.0), "a sum of weights is negative or NaN"),
        (_distribution(weight_square_sum=float("nan")), "a sum of weights is negative or NaN"),
        (_negative_bucket, "a weight of a sketch is negative or NaN"),
        (_negative_zeros, "a weight of a sketch is negative or NaN"),
        (_negative_moments, "the weight of moments is negative or NaN"),
        (_too_many_wins, "a pair has .* rows of the 100 that are included"),
        (_worst_of_one, "one of the worst rows has other candidates"),
        (_beyond_int64, "rows are more than int64 counts"),
        (_all_numbers, "do not fit into int64"),
        (_change(loss="l1_loss"), "the loss differ: 'l1_loss' and 'mse_loss'"),
        (_with_option, "the options differ"),
        (_with_table, "the slices differ"),
        (_change(scale=5), "the accuracy's scale differ: 5 and 6"),
        (_change(worst=2), "the number of worst rows differ: 2 and 10"),
        (_change(clustered=False), "one has clusters, and the other has none"),
        (_malformed_moments, "moments of 2 numbers have the lengths"),
        (_malformed_sketch, "a sketch has as many weights as indices"),
        (_wild_sketch, "a bucket beyond those of float64"),
        (_unsorted_sketch, "the buckets of a sketch are not in ascending order"),
        (_slice_twice, "the table c has a slice twice"),
        (_without_labels, r"a slice has the labels \[\] for the columns \['c'\]"),
        (_backwards, "the rows 9 to 7 of partition 'data' are not a range above those before"),
        (_partition_twice, "has the partition 'data' twice"),
        (_without_a_candidate, "other candidates than the 2"),
        (_change(), "rows 0 to 99 of partition 'data' would be counted twice"),
    ],
)
def test_what_does_not_fit_is_refused(
    change: Callable[[summary_pb2.LossSummary], None], text: str
) -> None:
    """The message says what differs, or which rows would be counted twice."""
    shards = _shards()
    other = summary_pb2.LossSummary()
    other.CopyFrom(shards[0])
    change(other)
    with pytest.raises(MergeError, match=text):
        merge([shards[0], shards[1], other])


def test_nothing_to_merge_is_refused() -> None:
    """There is no summary of nothing."""
    with pytest.raises(ValueError, match="there is no summary to merge"):
        merge([])
