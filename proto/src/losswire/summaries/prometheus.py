"""Summaries in the protobuf format that Prometheus scrapes, where distributions keep all buckets.

Schema and buckets of a sketch are those of Prometheus' native histograms, so that nothing is lost;
counts are doubles there, as weights are here. Server and SDK share this.
"""

import io
from collections.abc import Iterable, Sequence
from functools import reduce
from itertools import pairwise
from operator import add
from typing import Any, Final

from google.protobuf.proto import serialize_length_prefixed

from losswire.summaries._prometheus_messages import (
    COUNTER,
    GAUGE,
    GAUGE_HISTOGRAM,
    HISTOGRAM,
    MetricFamily,
)
from losswire.v1.summary_pb2 import LossDistribution

CONTENT_TYPE: Final = (
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
)
"""The content type of an exposition."""

_ZERO: Final = 2.0**-1074
"""The width of the zero bucket: as narrow as a double can be, because only 0 is in it.

Not 0, which means to older versions of Prometheus that a histogram of floats is not a native one.
"""


def page(families: Iterable[Any]) -> bytes:
    """Return an exposition of families."""
    written = io.BytesIO()
    for each in families:
        serialize_length_prefixed(each, written)
    return written.getvalue()


def fill_histogram(
    histogram: Any,  # noqa: ANN401 (a message made at run time)
    distribution: LossDistribution,
) -> None:
    """Fill in a native histogram of floats; losses that are NaN or infinite are not in it."""
    sketch = distribution.sketch
    # Prometheus adds the buckets up in this order, and refuses a count that is the least bit lower.
    # Not by `sum`, which rounds less.
    sides = [reduce(add, each, 0.0) for each in (sketch.negative_weights, sketch.positive_weights)]
    counted = sides[0] + sides[1] + sketch.zero_weight
    histogram.sample_count_float = max(distribution.weight_sum, counted)
    histogram.sample_sum = distribution.sum
    histogram.schema = sketch.scale
    histogram.zero_count_float = sketch.zero_weight
    histogram.zero_threshold = _ZERO
    for side in ("positive", "negative"):
        indices = getattr(sketch, f"{side}_indices")
        _spans(getattr(histogram, f"{side}_span"), indices)
        getattr(histogram, f"{side}_count").extend(getattr(sketch, f"{side}_weights"))


def _spans(spans: Any, indices: Sequence[int]) -> None:  # noqa: ANN401 (as above)
    """Add the runs of neighbouring buckets.

    Bucket i has (b^(i-1), b^i] there and (b^i, b^(i+1)] here, so that numbers differ by one.
    """
    if not indices:
        return
    spans.add(offset=indices[0] + 1, length=1)
    for before, index in pairwise(indices):
        if index == before + 1:
            spans[-1].length += 1
        else:
            spans.add(offset=index - before - 1, length=1)


__all__ = [
    "CONTENT_TYPE",
    "COUNTER",
    "GAUGE",
    "GAUGE_HISTOGRAM",
    "HISTOGRAM",
    "MetricFamily",
    "fill_histogram",
    "page",
]
