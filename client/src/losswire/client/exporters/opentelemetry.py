"""Turns the distribution of a summary into an exponential histogram of OpenTelemetry.

Needs `losswire[opentelemetry]`, which is opentelemetry-proto: the messages without the SDK. Scale
and buckets of a summary are OpenTelemetry's own, so that nothing is lost.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, Literal

from losswire.client.exporters._content import Evaluated, groups_of
from losswire.v1.summary_pb2 import LossDistribution

try:
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
    from opentelemetry.proto.metrics.v1.metrics_pb2 import (
        AGGREGATION_TEMPORALITY_DELTA,
        ExponentialHistogram,
        ExponentialHistogramDataPoint,
        Metric,
    )
except ImportError as error:
    raise ImportError(
        "losswire.client.exporters.opentelemetry needs its messages: "
        "pip install 'losswire[opentelemetry]'"
    ) from error

Counts = Literal["exact", "round"]

_CHOICES: Final = ("exact", "round")
_LARGEST: Final = 2.0**63
"""Bucket counts are uint64; what reads them often has int64."""


def exponential_histogram(
    summary: Evaluated,
    *,
    name: str = "losswire.loss",
    started: datetime | None = None,
    ended: datetime | None = None,
    attributes: Mapping[str, str] | None = None,
    slices: int = 50,
    counts: Counts = "exact",
) -> Metric:
    """Return a metric with the distribution of the losses, in OpenTelemetry's protobuf form.

    One data point for all rows and one for each slice of a table with at most `slices` of them,
    which has the attributes `table` and `slice`; those of a comparison have `candidate`.
    `attributes` are further ones of each point, such as the loss and the commit. Scale, buckets,
    minimum, maximum and sum are those of the summary; rows whose loss is NaN or infinite are in
    none of them. The temporality is DELTA: each summary stands for itself, from `started` to
    `ended` (None: now), which have time zones.

    Counts are integers there and weights here: with `counts="exact"`, weights of buckets that are
    no integers are refused; with "round", each bucket is rounded to the nearest integer, half to
    even, and the count is the sum of the buckets.

    Raises TypeError for other objects; ValueError for weights that are no integers, a negative
    `slices`, a time without a zone, or other `counts`.

    Example:
        >>> from losswire.client.exporters.opentelemetry import exponential_histogram
        >>> summary = client.summarize("mse_loss", [{"input": [1.0, 3.0], "target": [0.0, 0.0]}])
        >>> [point] = exponential_histogram(summary).exponential_histogram.data_points
        >>> point.count, point.sum, point.min, point.max, point.scale
        (2, 10.0, 1.0, 9.0, 6)
    """
    if counts not in _CHOICES:
        raise ValueError(f'counts: expected "exact" or "round", got {counts!r}')
    end = _nanoseconds("ended", ended or datetime.now(UTC))
    start = _nanoseconds("started", started) if started else end
    points = [
        _point(
            group.distribution,
            {**(attributes or {}), **group.attributes},
            (start, end),
            rounded=counts == "round",
        )
        for group in groups_of(summary, slices)
    ]
    return Metric(
        name=name,
        description=f"Loss of each row: {summary.loss}",
        unit="1",
        exponential_histogram=ExponentialHistogram(
            data_points=points, aggregation_temporality=AGGREGATION_TEMPORALITY_DELTA
        ),
    )


def _point(
    distribution: LossDistribution,
    attributes: Mapping[str, str],
    span: tuple[int, int],
    *,
    rounded: bool,
) -> ExponentialHistogramDataPoint:
    """Return one data point."""
    sketch = distribution.sketch
    positive = _buckets(sketch.positive_indices, sketch.positive_weights, rounded=rounded)
    negative = _buckets(sketch.negative_indices, sketch.negative_weights, rounded=rounded)
    zeros = _integer(sketch.zero_weight, rounded=rounded)
    point = ExponentialHistogramDataPoint(
        attributes=[
            KeyValue(key=key, value=AnyValue(string_value=text)) for key, text in attributes.items()
        ],
        start_time_unix_nano=span[0],
        time_unix_nano=span[1],
        count=sum(positive.bucket_counts) + sum(negative.bucket_counts) + zeros,
        sum=distribution.sum,
        scale=sketch.scale,
        zero_count=zeros,
        positive=positive,
        negative=negative,
    )
    if distribution.HasField("minimum"):
        point.min, point.max = distribution.minimum, distribution.maximum
    return point


def _buckets(
    indices: Sequence[int], weights: Sequence[float], *, rounded: bool
) -> ExponentialHistogramDataPoint.Buckets:
    """Return the buckets of one side, with the empty ones between them."""
    if not indices:
        return ExponentialHistogramDataPoint.Buckets()
    counts = [0] * (indices[-1] - indices[0] + 1)
    for index, weight in zip(indices, weights, strict=True):
        counts[index - indices[0]] = _integer(weight, rounded=rounded)
    return ExponentialHistogramDataPoint.Buckets(offset=indices[0], bucket_counts=counts)


def _integer(weight: float, *, rounded: bool) -> int:
    """Return a weight as a count."""
    if weight >= _LARGEST:
        raise ValueError(f"summary: a bucket's weight of {weight:g} is more than a count can be")
    if not (rounded or weight.is_integer()):
        raise ValueError(
            f"summary: OpenTelemetry counts in integers, and a bucket has the weight {weight!r}; "
            'counts="round" rounds each bucket'
        )
    return round(weight)


def _nanoseconds(name: str, time: datetime) -> int:
    """Return a time as nanoseconds since 1970."""
    if time.tzinfo is None:
        raise ValueError(f"{name}: expected a time with a zone, such as datetime.now(UTC)")
    whole = time - datetime(1970, 1, 1, tzinfo=UTC)
    return (whole.days * 86_400 + whole.seconds) * 10**9 + whole.microseconds * 1000


__all__ = ["exponential_histogram"]
