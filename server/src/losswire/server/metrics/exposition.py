"""The page that Prometheus reads: as text, as OpenMetrics, or in protobuf, as it asks.

Only protobuf has native histograms: the distributions of saved runs are on that page alone.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import CollectorRegistry

from losswire.server.metrics.run_losses import RunLosses, distributions, gauges
from losswire.summaries.prometheus import (
    CONTENT_TYPE,
    COUNTER,
    GAUGE,
    HISTOGRAM,
    MetricFamily,
    page,
)

_TYPES: Final = {"counter": COUNTER, "gauge": GAUGE, "info": GAUGE, "histogram": HISTOGRAM}
_ENDS: Final = {"counter": "_total", "info": "_info"}
"""What the names of some families lack."""
_PROTOBUF: Final = "application/vnd.google.protobuf"
_VERSION: Final = re.compile(r";[ \t]*version[ \t]*=([^;,]*)", re.IGNORECASE)
_VERSIONS: Final = ("0.0.1", "0.0.4", "1.0.0")
"""The versions of the formats in text."""
_MESSAGE: Final = "io.prometheus.client.MetricFamily"


class _Families:
    """Families that were collected, as a collector."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        """Return them."""
        return self._families


def exposition(server: Iterable[Metric], runs: RunLosses, accept: str) -> tuple[str, bytes]:
    """Return the content type and the bytes of the page that a reader wants most.

    It has the families of a server and the losses of runs.
    """
    families = _Families([*server, *gauges(runs)])
    if _prefers_protobuf(accept):
        messages = [_message(each) for each in families.collect() if each.samples]
        if runs:
            messages.append(distributions(runs))
        return CONTENT_TYPE, page(messages)
    registry = CollectorRegistry()
    registry.register(families)
    encode, content_type = choose_encoder(_without_versions(accept))
    return content_type, encode(registry)


def _without_versions(accept: str) -> str:
    """Return an Accept header without versions that nobody writes.

    The library compares whatever text a version has, and repeats it in the answer.
    """
    return _VERSION.sub(lambda found: found[0] if found[1] in _VERSIONS else "", accept)


def _prefers_protobuf(accept: str) -> bool:
    """Return whether an Accept header names protobuf, and nothing that it likes better."""
    wanted: dict[str, float] = {}
    for each in accept.split(","):
        kind, *fields = [part.strip() for part in each.split(";")]
        values = dict(field.split("=", 1) for field in fields if "=" in field)
        name = kind.lower()
        if name == _PROTOBUF and values.get("proto", _MESSAGE) != _MESSAGE:
            continue
        if name == _PROTOBUF and values.get("encoding", "delimited") != "delimited":
            continue
        wanted.setdefault(name, _quality(values))
    ours = wanted.pop(_PROTOBUF, 0.0)
    return ours > 0 and ours >= max(wanted.values(), default=0.0)


def _quality(values: Mapping[str, str]) -> float:
    try:
        return float(values.get("q", "1"))
    except ValueError:
        return 0.0


def _message(family: Metric) -> Any:  # noqa: ANN401 (a message made at run time)
    """Return a family as a message."""
    message = MetricFamily(
        name=family.name + _ENDS.get(family.type, ""),
        help=family.documentation,
        type=_TYPES[family.type],
    )
    if family.type == "histogram":
        for labels, samples in _histograms(family):
            _fill(_metric(message, labels).histogram, family.name, samples)
        return message
    for sample in family.samples:
        metric = _metric(message, sample.labels)
        value = metric.counter if family.type == "counter" else metric.gauge
        value.value = sample.value
    return message


def _metric(message: Any, labels: Mapping[str, str]) -> Any:  # noqa: ANN401 (as above)
    """Add a series."""
    metric = message.metric.add()
    for key, value in sorted(labels.items()):
        metric.label.add(name=key, value=value)
    return metric


Samples = list[tuple[str, str, float]]
"""The samples of one histogram: name, upper bound or nothing, and value."""


def _histograms(family: Metric) -> Iterator[tuple[Mapping[str, str], Samples]]:
    """Return the labels and the samples of each histogram of a family."""
    found: dict[tuple[tuple[str, str], ...], Samples] = {}
    for sample in family.samples:
        labels = dict(sample.labels)
        bound = labels.pop("le", "")
        key = tuple(sorted(labels.items()))
        found.setdefault(key, []).append((sample.name, bound, sample.value))
    for key, samples in found.items():
        yield dict(key), samples


def _fill(histogram: Any, name: str, samples: Samples) -> None:  # noqa: ANN401 (as above)
    """Fill in a histogram with bounds."""
    for sample_name, bound, value in samples:
        if bound and bound != "+Inf":
            histogram.bucket.add(cumulative_count=int(value), upper_bound=float(bound))
        elif bound:
            histogram.sample_count = int(value)
        elif sample_name == f"{name}_sum":
            histogram.sample_sum = value
