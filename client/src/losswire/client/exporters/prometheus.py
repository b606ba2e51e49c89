"""Exposes a summary to Prometheus: the distribution as a native histogram, the figures as gauges.

Needs nothing beyond the SDK. Prometheus scrapes native histograms in its protobuf format only, and
must be started with `--enable-feature=native-histograms`. Schema and buckets of a summary are
Prometheus' own, so that nothing is lost; counts are doubles there, as weights are here.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce
from itertools import pairwise
from operator import add
from typing import TYPE_CHECKING, Any, Final

from losswire.client.exporters._content import Evaluated, Group, groups_of
from losswire.client.exporters._prometheus_messages import GAUGE, GAUGE_HISTOGRAM, MetricFamily
from losswire.v1.summary_pb2 import LossDistribution
from losswire.wire import varint

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

CONTENT_TYPE: Final = (
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
)
"""The content type of an exposition."""

_NAME: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL: Final = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*")
_RESERVED: Final = frozenset({"candidate", "table", "slice", "le", "quantile"})
_ZERO: Final = 2.0**-1074
"""The width of the zero bucket: as narrow as a double can be, because only 0 is in it.

Not 0, which means to older versions of Prometheus that a histogram of floats is not a native one.
"""

_GAUGES: Final[Mapping[str, tuple[str, Callable[[Group], float]]]] = {
    "mean": ("Mean loss.", lambda group: group.statistics.mean),
    "standard_error": (
        "Standard error of the mean loss, clustered where rows have clusters.",
        lambda group: group.statistics.standard_error,
    ),
    "rows": ("Rows that take part.", lambda group: group.statistics.count),
    "ignored_rows": ("Rows that do not take part.", lambda group: group.statistics.ignored_count),
    "nan_rows": ("Rows whose loss is NaN.", lambda group: group.statistics.nan_count),
    "infinite_rows": (
        "Rows whose loss is infinite.",
        lambda group: group.statistics.infinite_count,
    ),
}
"""The gauges by the end of their name: what they are, and how they are read."""


def exposition(
    summary: Evaluated,
    *,
    name: str = "losswire_loss",
    labels: Mapping[str, str] | None = None,
    slices: int = 50,
) -> bytes:
    """Return a `Summary` or a `Comparison` in Prometheus' protobuf format.

    `NAME` is a native histogram of the losses, for `histogram_quantile(0.99, NAME)`; its counts are
    weights, and rows whose loss is NaN or infinite are not in it. It is a gauge histogram: a
    summary is what it is, and no count that grows. Gauges are `NAME_mean`, `NAME_standard_error`,
    `NAME_rows`, `NAME_ignored_rows`, `NAME_nan_rows`, `NAME_infinite_rows`. Each has a series for
    all rows and one for each slice of a table with at most `slices` of them, which has the labels
    `table` and `slice`; those of a comparison have `candidate`. `labels` are further ones of each.

    Several expositions with different labels may not follow each other: a name may occur once.
    Raises TypeError for other objects, ValueError for a name or label that Prometheus refuses.

    Example:
        >>> from losswire.client.exporters.prometheus import exposition
        >>> summary = client.summarize("mse_loss", [{"input": [1.0, 3.0], "target": [0.0, 0.0]}])
        >>> len(exposition(summary, labels={"model": "small"})) < 1000
        True
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"name: Prometheus has no metrics named {name!r}")
    for each in labels or {}:
        if not _LABEL.fullmatch(each) or each in _RESERVED:
            raise ValueError(f"labels: {each!r} cannot be the name of a label here")
    groups = list(groups_of(summary, slices))
    families = [_histograms(name, f"Loss of each row: {summary.loss}.", groups, labels or {})]
    families += [
        _gauges(f"{name}_{end}", text, read, groups, labels or {})
        for end, (text, read) in _GAUGES.items()
    ]
    return b"".join(
        varint(len(data)) + data for each in families for data in [each.SerializeToString()]
    )


def wsgi_app(collect: Callable[[], bytes]) -> "WSGIApplication":
    """Return a WSGI application that answers each request with what `collect` returns.

    For a server of your choice, such as `wsgiref.simple_server.make_server("", 9464, app)`.

    Example:
        >>> from losswire.client.exporters.prometheus import exposition, wsgi_app
        >>> summary = client.summarize("mse_loss", [{"input": [1.0, 3.0], "target": [0.0, 0.0]}])
        >>> app = wsgi_app(lambda: exposition(summary))
    """

    def app(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        del environ
        data = collect()
        start_response(
            "200 OK", [("Content-Type", CONTENT_TYPE), ("Content-Length", str(len(data)))]
        )
        return [data]

    return app


def _histograms(name: str, text: str, groups: Sequence[Group], labels: Mapping[str, str]) -> Any:
    """Return the family of the histograms."""
    family = MetricFamily(name=name, help=text, type=GAUGE_HISTOGRAM)
    for group in groups:
        metric = _metric(family, group, labels)
        _fill(metric.histogram, group.distribution)
    return family


def _gauges(
    name: str,
    text: str,
    read: Callable[[Group], float],
    groups: Sequence[Group],
    labels: Mapping[str, str],
) -> Any:
    """Return the family of one gauge."""
    family = MetricFamily(name=name, help=text, type=GAUGE)
    for group in groups:
        _metric(family, group, labels).gauge.value = read(group)
    return family


def _metric(family: Any, group: Group, labels: Mapping[str, str]) -> Any:
    """Add the series of a group to a family."""
    metric = family.metric.add()
    for key, value in sorted({**labels, **group.attributes}.items()):
        metric.label.add(name=key, value=value)
    return metric


def _fill(histogram: Any, distribution: LossDistribution) -> None:
    """Fill in a native histogram of floats."""
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


def _spans(spans: Any, indices: Sequence[int]) -> None:
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


__all__ = ["CONTENT_TYPE", "exposition", "wsgi_app"]
