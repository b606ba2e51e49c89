"""The families of metrics that Prometheus reads, made of the recorder's counts when it asks.

Calls have the names and labels of gRFC A66. All labels come from closed sets: methods of the
contract, templates of paths, statuses, stages, reasons.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Final

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import CollectorRegistry

from losswire.server.metrics.histogram import Histogram
from losswire.server.metrics.reading import Reading
from losswire.server.metrics.recorder import Counts, Ended

Series = Sequence[tuple[Sequence[str], Histogram]]

_CALL_LABELS = ("grpc_method", "grpc_status")

_CALL_HISTOGRAMS: Final[Sequence[tuple[str, str, Callable[[Ended], Histogram]]]] = (
    (
        "grpc_server_call_duration_seconds",
        "Time from the arrival of a call to its end.",
        attrgetter("seconds"),
    ),
    (
        "grpc_server_call_rcvd_total_compressed_message_size_bytes",
        "Bytes of all messages that a call received; nothing is compressed.",
        attrgetter("received_bytes"),
    ),
    (
        "grpc_server_call_sent_total_compressed_message_size_bytes",
        "Bytes of all messages that a call sent; nothing is compressed.",
        attrgetter("sent_bytes"),
    ),
)
"""Name, description and counts of each histogram of calls."""


# In a registry of its own: the default one would have further collectors.
_PROCESS = ProcessCollector(registry=CollectorRegistry())


def families_of(counts: Counts, reading: Reading) -> Iterator[Metric]:
    """Return all families of a server at one moment, and those of this process now."""
    yield from _calls(counts)
    yield from _evaluations(counts)
    yield from _memory(reading)
    yield from _server(reading)
    yield from _PROCESS.collect()


def _calls(counts: Counts) -> Iterator[Metric]:
    yield _counter(
        "grpc_server_call_started_total",
        "Calls that began; those over a lease's connection are calls of Evaluate.",
        "grpc_method",
        counts.started,
    )
    ended = counts.ended.items()
    for name, text, of in _CALL_HISTOGRAMS:
        yield _histogram(name, text, _CALL_LABELS, [(labels, of(each)) for labels, each in ended])
    yield CounterMetricFamily(
        "losswire_lease_calls_total",
        "Calls over the connections of leases, on this machine.",
        value=counts.lease_calls,
    )
    yield _histogram(
        "http_server_request_duration_seconds",
        "Time of an HTTP request, by the template of its path.",
        ("http_request_method", "http_route", "http_response_status_code"),
        [
            ((method, template, str(status)), each)
            for (method, template, status), each in counts.requests.items()
        ],
    )


def _evaluations(counts: Counts) -> Iterator[Metric]:
    yield _histogram(
        "losswire_stage_duration_seconds",
        "Time of an evaluation in a stage: decode and validate, queue, compute, encode.",
        ("stage",),
        [((stage,), each) for stage, each in counts.stages.items()],
    )
    yield _histogram(
        "losswire_batch_size",
        "Evaluations that the worker computed together.",
        (),
        [((), counts.batch_sizes)],
    )
    yield _counter(
        "losswire_refusals_total",
        "Errors that were sent to callers, of calls and of items in calls.",
        "reason",
        counts.refusals,
    )


def _memory(reading: Reading) -> Iterator[Metric]:
    yield _gauge(
        "losswire_reserved_bytes",
        "Memory that is reserved; residents are outside of the budget.",
        "reservation",
        reading.reserved_bytes,
    )
    yield GaugeMetricFamily(
        "losswire_budget_bytes", "The memory budget.", value=reading.budget_bytes
    )
    yield _gauge(
        "losswire_quota_bytes",
        "The most that a reservation may hold.",
        "reservation",
        reading.quota_bytes,
    )
    yield GaugeMetricFamily(
        "losswire_admitted_ratio",
        "The part of the budget that is reserved, from 0 to 1: for autoscaling.",
        value=reading.admitted_ratio,
    )
    yield _gauge(
        "losswire_device_memory_bytes",
        "The memory of the device that computes.",
        "device",
        {reading.device: reading.device_memory_bytes},
    )
    yield _gauge(
        "losswire_device_memory_reserved_bytes",
        "What the server's process holds of it.",
        "device",
        {reading.device: reading.device_memory_reserved_bytes},
    )


def _server(reading: Reading) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "losswire_queue_oldest_seconds",
        "How long the first in the worker's queue has been waiting; 0 when nobody waits.",
        value=reading.queue_oldest_seconds,
    )
    yield GaugeMetricFamily(
        "losswire_queue_length", "Evaluations in the worker's queue.", value=reading.queue_length
    )
    yield InfoMetricFamily(
        "losswire_worker",
        "The worker and its versions.",
        value={
            "worker_id": reading.worker_id,
            "server_version": reading.server_version,
            "torch_version": reading.torch_version,
            "device": reading.device,
            "device_name": reading.device_name,
        },
    )
    yield GaugeMetricFamily(
        "losswire_start_time_seconds", "When the server started.", value=reading.started
    )
    yield GaugeMetricFamily(
        "losswire_ready", "1 while the server is SERVING.", value=float(reading.is_ready)
    )
    yield GaugeMetricFamily(
        "losswire_selftest_duration_seconds",
        "Time of the self-test that the server passed when it started.",
        value=reading.selftest_seconds,
    )


def _counter(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _gauge(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _histogram(name: str, text: str, labels: Sequence[str], series: Series) -> Metric:
    family = HistogramMetricFamily(name, text, labels=labels)
    for values, each in series:
        buckets = [
            ("+Inf" if bound == float("inf") else repr(bound), float(count))
            for bound, count in each.cumulative()
        ]
        family.add_metric(values, buckets, each.sum)
    return family
