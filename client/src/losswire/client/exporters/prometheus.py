"""Exposes a summary to Prometheus: the distribution as a native histogram, the figures as gauges.

Needs nothing beyond the SDK. Prometheus scrapes native histograms in its protobuf format only, and
must be started with `--enable-feature=native-histograms`. Schema and buckets of a summary are
Prometheus' own, so that nothing is lost; counts are doubles there, as weights are here.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from losswire.client.exporters._content import Evaluated, Group, groups_of
from losswire.summaries.prometheus import (
    CONTENT_TYPE,
    GAUGE,
    GAUGE_HISTOGRAM,
    MetricFamily,
    fill_histogram,
    page,
)

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

_NAME: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL: Final = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*")
_RESERVED: Final = frozenset({"candidate", "table", "slice", "le", "quantile"})

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
    return page(families)


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
        fill_histogram(metric.histogram, group.distribution)
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


__all__ = ["CONTENT_TYPE", "exposition", "wsgi_app"]
