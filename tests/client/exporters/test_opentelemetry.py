"""The exponential histogram of OpenTelemetry has every bucket of the summary."""

from datetime import UTC, datetime

import pytest
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AGGREGATION_TEMPORALITY_DELTA,
    ExponentialHistogramDataPoint,
    Metric,
)

from losswire.client.exporters.opentelemetry import exponential_histogram
from losswire.summaries import bucket_bounds
from tests.support.evaluated import comparison, summary

Drawn = dict[str, object]

CASES: tuple[Drawn, ...] = (
    {},
    {"below_zero": 0.2},
    {"below_zero": 1e6},
    {"nan": 3},
    {"rows": 6},
    {"rows": 5},
)
"""Usual losses; negative ones; large ones; NaN and infinite ones; a single row; none."""


def _attributes(point: ExponentialHistogramDataPoint) -> dict[str, str]:
    return {each.key: each.value.string_value for each in point.attributes}


@pytest.mark.parametrize("drawn", CASES, ids=str)
def test_nothing_is_lost(drawn: Drawn) -> None:
    """Read back from bytes: scale, every bucket, zeros, extremes, sum and count."""
    evaluated = summary(**drawn)
    metric = Metric.FromString(exponential_histogram(evaluated).SerializeToString())
    point = metric.exponential_histogram.data_points[0]
    sketch = evaluated.message.total.distributions[0].sketch
    assert (point.scale, point.zero_count) == (sketch.scale, sketch.zero_weight)
    for side in ("positive", "negative"):
        found = getattr(point, side)
        counted = {
            found.offset + i: float(each) for i, each in enumerate(found.bucket_counts) if each
        }
        indices = getattr(sketch, f"{side}_indices")
        assert counted == dict(zip(indices, getattr(sketch, f"{side}_weights"), strict=True))
    assert point.count == evaluated.weight_sum
    assert point.sum == evaluated.sum
    if evaluated.weight_sum:
        assert (point.min, point.max) == (evaluated.minimum, evaluated.maximum)
    else:
        assert not point.HasField("min")


def test_bounds_are_those_of_opentelemetry() -> None:
    """Bucket i of scale s has (2^(i / 2^s), 2^((i + 1) / 2^s)], and the extremes lie in theirs."""
    evaluated = summary()
    point = exponential_histogram(evaluated).exponential_histogram.data_points[0]
    last = point.positive.offset + len(point.positive.bucket_counts) - 1
    base = 2.0 ** (2.0**-point.scale)
    for index, value in ((point.positive.offset, point.min), (last, point.max)):
        assert base**index < value <= base ** (index + 1)
        assert bucket_bounds(index, point.scale) == pytest.approx(
            (base**index, base ** (index + 1))
        )


def test_slices_and_candidates_are_attributes() -> None:
    """One point each, and the caller's attributes on all."""
    metric = exponential_histogram(comparison(), attributes={"commit": "abc"}, name="eval.loss")
    assert metric.name == "eval.loss"
    points = metric.exponential_histogram.data_points
    assert len(points) == 2 * (1 + 4)
    assert _attributes(points[0]) == {"commit": "abc", "candidate": "small"}
    assert _attributes(points[6]) == {
        "commit": "abc",
        "candidate": "large",
        "table": "country",
        "slice": "DE",
    }
    assert len(exponential_histogram(comparison(), slices=0).exponential_histogram.data_points) == 2


def test_times() -> None:
    """Nanoseconds since 1970, exactly; each summary stands for itself."""
    metric = exponential_histogram(
        summary(),
        started=datetime(2026, 1, 1, tzinfo=UTC),
        ended=datetime(2026, 1, 1, 0, 0, 1, 1, tzinfo=UTC),
    )
    histogram = metric.exponential_histogram
    assert histogram.aggregation_temporality == AGGREGATION_TEMPORALITY_DELTA
    point = histogram.data_points[0]
    assert point.start_time_unix_nano == 1_767_225_600_000_000_000
    assert point.time_unix_nano == 1_767_225_601_000_001_000


def test_weights_are_refused_or_rounded() -> None:
    """Counts are integers there."""
    evaluated = summary(weighted=True)
    with pytest.raises(ValueError, match=r'counts in integers.*counts="round" rounds each bucket'):
        exponential_histogram(evaluated)
    point = exponential_histogram(evaluated, counts="round").exponential_histogram.data_points[0]
    sketch = evaluated.message.total.distributions[0].sketch
    counts = point.positive.bucket_counts
    assert [counts[index - point.positive.offset] for index in sketch.positive_indices] == [
        round(weight) for weight in sketch.positive_weights
    ]
    assert point.count == sum(counts)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"counts": "floor"}, 'counts: expected "exact" or "round", got \'floor\''),
        ({"started": datetime(2026, 1, 1)}, "started: expected a time with a zone"),  # noqa: DTZ001
        ({"slices": -1}, "slices: expected a number of at least 0"),
    ],
)
def test_mistakes_are_named(fields: dict[str, object], text: str) -> None:
    """The message begins with the argument."""
    with pytest.raises(ValueError, match=text):
        exponential_histogram(summary(), **fields)  # type: ignore[arg-type]
