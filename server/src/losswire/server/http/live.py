"""What the server does now: the counts and gauges that the Live screen and `losswire top` draw."""

import asyncio
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from losswire.server.http.all_workers import merged
from losswire.server.http.answer import Answer, json_answer
from losswire.server.http.call import Call
from losswire.server.http.reading import read
from losswire.server.http.route import JSON, Route, Schema, ref
from losswire.server.http.services import Services
from losswire.server.metrics.histogram import Histogram
from losswire.server.metrics.reading import Reading
from losswire.server.metrics.recorder import Counts
from losswire.wire import json_number

_CONTRACT: Final = "/v1/"
_LIVE: Final = "/v1/live"
"""The path of this page, whose requests it does not count: it would show its own reader."""


async def get_live(call: Call) -> Answer:
    """Return the counts since the start, and the gauges of now, of all workers."""
    siblings = call.services.siblings
    if siblings is None:
        found = await own_snapshot(call.services)
    else:
        found = merged([*(await siblings.ask("live")).values()])
    return await asyncio.to_thread(lambda: json_answer(found))


async def own_snapshot(services: Services) -> dict[str, Any]:
    """Return the snapshot of this worker."""
    counts, reading = services.recorder.counts(), read(services)
    return await asyncio.to_thread(snapshot, counts, reading)


def snapshot(counts: Counts, reading: Reading) -> dict[str, Any]:
    """Return counts and gauges as JSON has them; counts never fall while a worker lives."""
    return {
        "time": _moment(time.time()),
        "uptime_seconds": time.time() - reading.started,
        "worker_id": reading.worker_id,
        "server_version": reading.server_version,
        "ready": reading.is_ready,
        "calls": [*_calls(counts), *_requests(counts)],
        "calls_started": sum(counts.started.values()),
        "lease_calls": counts.lease_calls,
        "reserved_bytes": reading.reserved_bytes,
        "budget_bytes": reading.budget_bytes,
        "quota_bytes": reading.quota_bytes,
        "queue": {"oldest_seconds": reading.queue_oldest_seconds, "length": reading.queue_length},
        "batch_sizes": _histogram(counts.batch_sizes),
        "stages": {stage: _histogram(each) for stage, each in counts.stages.items()},
        "refusals": [
            {"reason": reason, "count": count} for reason, count in sorted(counts.refusals.items())
        ],
        "recent_refusals": [
            {
                "time": _moment(each.time),
                "method": each.method,
                "reason": each.reason,
                "code": each.code,
                "detail": each.detail,
            }
            for each in reversed(counts.recent_refusals)
        ],
        "device": {
            "name": reading.device_name or reading.device,
            "memory_bytes": reading.device_memory_bytes,
            "memory_reserved_bytes": reading.device_memory_reserved_bytes,
        },
        "workers": [
            {
                "id": reading.worker_id,
                "started": _moment(reading.started),
                "ready": reading.is_ready,
            }
        ],
    }


def _calls(counts: Counts) -> Iterator[dict[str, Any]]:
    """Return the calls by gRPC, by method and status."""
    for (method, status), ended in counts.ended.items():
        yield _series("grpc", method, status, ended.seconds)


def _requests(counts: Counts) -> Iterator[dict[str, Any]]:
    """Return the requests by HTTP that the contract has, without those of this page."""
    for (method, template, status), seconds in counts.requests.items():
        if template.startswith(_CONTRACT) and template != _LIVE:
            yield _series("http", f"{method} {template}", str(status), seconds)


def _series(transport: str, method: str, code: str, seconds: Histogram) -> dict[str, Any]:
    found = _histogram(seconds)
    return {
        "transport": transport,
        "method": method,
        "code": code,
        "count": found["count"],
        "seconds_sum": found["sum"],
        "buckets": found["buckets"],
    }


def _histogram(histogram: Histogram) -> dict[str, Any]:
    """Return a histogram: pairs of a bound, the last one infinite, and the count up to it."""
    buckets = [[json_number(bound), count] for bound, count in histogram.cumulative()]
    return {"buckets": buckets, "count": buckets[-1][1], "sum": histogram.sum}


def _moment(seconds: float) -> str:
    """Return a time as RFC 3339 has it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


ROUTES: Final = (
    Route(
        path=_LIVE,
        handler=get_live,
        name="getLive",
        summary="Describe what the server does now",
        description=(
            "Counts since the start, histograms as pairs of an upper bound and the count up to it, "
            "and gauges of this moment: the numbers of /metrics, of all workers together."
        ),
        tag="server",
        answers={JSON: ref("Live")},
    ),
)

_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
_SECONDS: Final[Schema] = {"type": "number", "minimum": 0}
_BYTES: Final[Schema] = {"type": "integer", "minimum": 0, "description": "in bytes"}
_TEXT: Final[Schema] = {"type": "string"}
_TIME: Final[Schema] = {"type": "string", "format": "date-time"}
_BUCKETS: Final[Schema] = {
    "type": "array",
    "description": "pairs of an upper bound, the last one `Infinity`, and the count up to it",
    "items": {
        "type": "array",
        "items": {"anyOf": [{"type": "number"}, {"const": "Infinity"}]},
        "minItems": 2,
        "maxItems": 2,
    },
}


def _object(fields: Mapping[str, Schema]) -> Schema:
    """Return the schema of an object that has all of some fields."""
    return {"type": "object", "properties": dict(fields), "required": list(fields)}


def _list(fields: Mapping[str, Schema]) -> Schema:
    return {"type": "array", "items": _object(fields)}


_HISTOGRAM: Final = _object({"buckets": _BUCKETS, "count": _COUNT, "sum": {"type": "number"}})

SCHEMAS: Final[Mapping[str, Schema]] = {
    "Live": _object(
        {
            "time": _TIME,
            "uptime_seconds": _SECONDS,
            "worker_id": _TEXT,
            "server_version": _TEXT,
            "ready": {"type": "boolean"},
            "calls": _list(
                {
                    "transport": {"enum": ["grpc", "http"]},
                    "method": _TEXT,
                    "code": _TEXT,
                    "count": _COUNT,
                    "seconds_sum": _SECONDS,
                    "buckets": _BUCKETS,
                }
            ),
            "calls_started": _COUNT,
            "lease_calls": _COUNT,
            "reserved_bytes": _object(
                dict.fromkeys(("receive", "compute", "answer", "regions", "residents"), _BYTES)
            ),
            "budget_bytes": _BYTES,
            "quota_bytes": _object({"regions": _BYTES, "residents": _BYTES}),
            "queue": _object({"oldest_seconds": _SECONDS, "length": _COUNT}),
            "batch_sizes": _HISTOGRAM,
            "stages": _object(dict.fromkeys(("decode", "queue", "compute", "encode"), _HISTOGRAM)),
            "refusals": _list({"reason": _TEXT, "count": _COUNT}),
            "recent_refusals": _list(
                {"time": _TIME, "method": _TEXT, "reason": _TEXT, "code": _TEXT, "detail": _TEXT}
            ),
            "device": _object(
                {"name": _TEXT, "memory_bytes": _BYTES, "memory_reserved_bytes": _BYTES}
            ),
            "workers": _list({"id": _TEXT, "started": _TIME, "ready": {"type": "boolean"}}),
        }
    )
}
