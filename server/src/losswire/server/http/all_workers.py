"""The numbers of several workers together, as one server has them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client.metrics_core import Metric

from losswire.server.metrics.recorder import RECENT_REFUSALS

Snapshot = Mapping[str, Any]
"""What `live.snapshot` returns."""


def merged(workers: Sequence[Snapshot]) -> dict[str, Any]:
    """Return the snapshots of all workers as one: counts are added up.

    Its `worker_id` names all of them, so that it changes when one is replaced, whose counts are
    gone.
    """
    refusals = {reason: 0 for each in workers for reason in _reasons(each)}
    for each in workers:
        for reason, count in _reasons(each).items():
            refusals[reason] += count
    recent = [refusal for each in workers for refusal in each["recent_refusals"]]
    return {
        "time": max(each["time"] for each in workers),
        "uptime_seconds": max(each["uptime_seconds"] for each in workers),
        "worker_id": "+".join(each["worker_id"] for each in workers),
        "server_version": workers[0]["server_version"],
        "ready": any(each["ready"] for each in workers),
        "calls": _calls(each for worker in workers for each in worker["calls"]),
        "calls_started": sum(each["calls_started"] for each in workers),
        "lease_calls": sum(each["lease_calls"] for each in workers),
        "reserved_bytes": _sums([each["reserved_bytes"] for each in workers]),
        "budget_bytes": sum(each["budget_bytes"] for each in workers),
        "quota_bytes": _sums([each["quota_bytes"] for each in workers]),
        "queue": {
            "oldest_seconds": max(each["queue"]["oldest_seconds"] for each in workers),
            "length": sum(each["queue"]["length"] for each in workers),
        },
        "batch_sizes": _histogram([each["batch_sizes"] for each in workers]),
        "stages": {
            stage: _histogram([each["stages"][stage] for each in workers])
            for stage in workers[0]["stages"]
        },
        "refusals": [{"reason": each, "count": refusals[each]} for each in sorted(refusals)],
        "recent_refusals": sorted(recent, key=lambda each: str(each["time"]), reverse=True)[
            :RECENT_REFUSALS
        ],
        "device": {
            "name": workers[0]["device"]["name"],
            # All of them have the same one.
            "memory_bytes": max(each["device"]["memory_bytes"] for each in workers),
            "memory_reserved_bytes": sum(
                each["device"]["memory_reserved_bytes"] for each in workers
            ),
        },
        "workers": [each for worker in workers for each in worker["workers"]],
    }


def _reasons(worker: Snapshot) -> dict[str, int]:
    return {each["reason"]: each["count"] for each in worker["refusals"]}


def _sums(counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    return {key: sum(each[key] for each in counts) for key in counts[0]}


def _calls(series: Iterable[Snapshot]) -> list[dict[str, Any]]:
    """Return the series of calls, those with the same labels together."""
    found: dict[tuple[str, str, str], list[Snapshot]] = {}
    for each in series:
        found.setdefault((each["transport"], each["method"], each["code"]), []).append(each)
    return [
        {
            "transport": transport,
            "method": method,
            "code": code,
            "count": sum(each["count"] for each in alike),
            "seconds_sum": sum(each["seconds_sum"] for each in alike),
            "buckets": _buckets(alike),
        }
        for (transport, method, code), alike in found.items()
    ]


def _histogram(histograms: Sequence[Snapshot]) -> dict[str, Any]:
    return {
        "buckets": _buckets(histograms),
        "count": sum(each["count"] for each in histograms),
        "sum": sum(each["sum"] for each in histograms),
    }


def _buckets(histograms: Sequence[Snapshot]) -> list[list[Any]]:
    """Return the buckets of histograms with the same bounds, added up."""
    together = zip(*(each["buckets"] for each in histograms), strict=True)
    return [[same[0][0], sum(count for _, count in same)] for same in together]


def plain(families: Iterable[Metric]) -> list[list[Any]]:
    """Return families of metrics in the values that JSON has."""
    return [
        [
            *(each.name, each.documentation, each.type),
            [[sample.name, sample.labels, sample.value] for sample in each.samples],
        ]
        for each in families
    ]


def labelled(workers: Mapping[int, Sequence[Sequence[Any]]]) -> Iterator[Metric]:
    """Return the families of all workers, each sample with the label `worker`, its place.

    Counts are not added up: those of a worker that was replaced begin at 0, which Prometheus sees
    in one series and would not see in a sum.
    """
    found: dict[str, Metric] = {}
    for place, families in workers.items():
        for name, documentation, kind, samples in families:
            family = found.setdefault(name, Metric(name, documentation, kind))
            for sample, labels, value in samples:
                family.add_sample(sample, {**labels, "worker": str(place)}, value)
    yield from found.values()
