"""What a server says at /v1/live, and what follows from two of its answers."""

import http.client
import json
import math
import urllib.error
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final
from urllib.parse import urlsplit

from losswire.client.cli._common import Exit, UsageError
from losswire.client.cli._http import Door

PATH: Final = "/v1/live"
_MAX_BYTES: Final = 16 << 20
"""More than this is no answer of a server."""

Buckets = Sequence[tuple[float, float]]
"""Pairs of an upper bound, the last one infinite, and how many are up to it."""


class NoAnswerError(Exception):
    """A server that does not answer as expected; the text says what to do."""

    def __init__(self, message: str, status: Exit) -> None:
        """Store the text and the exit status of the command."""
        super().__init__(message)
        self.status = status


def address_of(url: str) -> str:
    """Return the address of an HTTP door, without a slash at its end; UsageError for none."""
    text = url if "://" in url else f"http://{url}"
    try:
        parts = urlsplit(text)
        has_port = parts.port is None or parts.port > 0
    except ValueError:
        has_port = False
    if not has_port or parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
        raise UsageError(f"URL: {url!r} is not an address such as http://127.0.0.1:8080")
    return text.rstrip("/")


def fetch(door: Door, timeout: float) -> dict[str, Any]:
    """Ask a server what it does now; NoAnswerError when it does not say."""
    try:
        with door.open(PATH, timeout) as answer:
            content = json.loads(answer.read(_MAX_BYTES))
    except urllib.error.HTTPError as error:
        with error:
            raise NoAnswerError(_refusal(error), Exit.OTHER) from error
    except TimeoutError as error:
        raise NoAnswerError(f"no answer within {timeout:g} s", Exit.UNREACHABLE) from error
    except urllib.error.URLError as error:
        raise NoAnswerError(_unreachable(door.address, error, timeout), Exit.UNREACHABLE) from error
    except (http.client.HTTPException, OSError) as error:
        raise NoAnswerError(_NO_HTTP, Exit.UNREACHABLE) from error
    except ValueError as error:
        raise NoAnswerError(_NOT_OURS, Exit.OTHER) from error
    if not isinstance(content, dict) or "worker_id" not in content or "calls" not in content:
        raise NoAnswerError(_NOT_OURS, Exit.OTHER)
    return content


_NO_HTTP: Final = (
    "what listens there does not speak HTTP; `--http` of a server has a port of its own, beside "
    "that of gRPC"
)
_NOT_OURS: Final = f"this is no Losswire server: its {PATH} is something else"


def _unreachable(address: str, error: urllib.error.URLError, timeout: float) -> str:
    """Return why a server cannot be reached, and how one is started."""
    if isinstance(error.reason, TimeoutError):
        return f"no answer within {timeout:g} s"
    reason = getattr(error.reason, "strerror", None) or str(error.reason)
    where = urlsplit(address).netloc
    return f"no HTTP door there ({reason}); `losswire-server serve --http {where}` opens one"


def _refusal(error: urllib.error.HTTPError) -> str:
    """Return what an answer with an error says."""
    try:
        problem = json.loads(error.read(_MAX_BYTES))
        detail = str(problem["detail"])
    except (ValueError, KeyError, TypeError, OSError):
        return f"it answers {error.code} to {PATH}: this is no Losswire server, or an older one"
    return f"it answers {error.code} to {PATH}: {detail}"


@dataclass(frozen=True, slots=True)
class Series:
    """Some calls during a span of time: those of one method that ended with one status."""

    method: str
    code: str
    per_second: float
    total: int
    p50: float
    """Seconds; NaN when there were none in the span."""
    p99: float


@dataclass(frozen=True, slots=True)
class Figures:
    """What is shown: the newest answer, and how fast its counts grow."""

    live: Mapping[str, Any]
    seconds: float
    """The span of time that rates are of; 0 when there was one answer only: no rates."""
    calls: Sequence[Series]
    stages: Mapping[str, tuple[float, float, float]]
    """Evaluations a second, and p50 and p99 in seconds, by stage."""
    batch_p50: float
    batch_p99: float
    refusals: Mapping[str, tuple[int, float]]
    """How many in all, and a second, by reason."""

    @property
    def per_second(self) -> float:
        """All calls a second."""
        return sum(each.per_second for each in self.calls)

    @property
    def failed_per_second(self) -> float:
        """Calls a second that ended with an error."""
        return sum(each.per_second for each in self.calls if not is_fine(each.code))


def is_fine(code: str) -> bool:
    """Return whether a status is a success: OK, or 2xx and 3xx of HTTP."""
    return code == "OK" or code[:1] in ("2", "3")


@dataclass
class History:
    """The answers of the last seconds."""

    seconds: float
    """The longest span of time that rates are of."""
    restarts: int = 0
    _answers: list[tuple[float, Mapping[str, Any]]] = field(default_factory=list)

    def add(self, moment: float, live: Mapping[str, Any]) -> Figures:
        """Add an answer at a moment of the monotonic clock; returns what is shown of it."""
        if self._answers and self._answers[-1][1]["worker_id"] != live["worker_id"]:
            # The counts of another process begin anew.
            self._answers.clear()
            self.restarts += 1
        self._answers.append((moment, live))
        while len(self._answers) > 2 and self._answers[1][0] <= moment - self.seconds:  # noqa: PLR2004 (a span needs two)
            self._answers.pop(0)
        since, before = self._answers[0]
        return figures(before if moment > since else None, live, moment - since)


def figures(before: Mapping[str, Any] | None, after: Mapping[str, Any], seconds: float) -> Figures:
    """Return what happened between two answers; without the first one, since the start."""
    old = before or {"calls": [], "stages": {}, "refusals": [], "batch_sizes": {"buckets": []}}
    span = seconds if before else float(after["uptime_seconds"])
    batches = _grown(old["batch_sizes"]["buckets"], after["batch_sizes"]["buckets"])
    return Figures(
        live=after,
        seconds=seconds if before else 0.0,
        calls=sorted(_series(old, after, span), key=lambda each: (-each.per_second, -each.total)),
        stages={
            stage: _stage(old["stages"].get(stage, {"buckets": []}), each, span)
            for stage, each in after["stages"].items()
        },
        batch_p50=_whole(quantile(batches, 0.5)),
        batch_p99=_whole(quantile(batches, 0.99)),
        refusals={
            each["reason"]: (each["count"], (each["count"] - _refused(old, each["reason"])) / span)
            for each in after["refusals"]
        },
    )


def _series(old: Mapping[str, Any], after: Mapping[str, Any], span: float) -> Iterator[Series]:
    known = {(each["method"], each["code"]): each for each in old["calls"]}
    for each in after["calls"]:
        earlier = known.get((each["method"], each["code"]), {"count": 0, "buckets": []})
        buckets = _grown(earlier["buckets"], each["buckets"])
        yield Series(
            method=each["method"],
            code=each["code"],
            per_second=(each["count"] - earlier["count"]) / span,
            total=each["count"],
            p50=quantile(buckets, 0.5),
            p99=quantile(buckets, 0.99),
        )


def _stage(
    earlier: Mapping[str, Any], later: Mapping[str, Any], span: float
) -> tuple[float, float, float]:
    buckets = _grown(earlier["buckets"], later["buckets"])
    count = buckets[-1][1] if buckets else 0.0
    return count / span, quantile(buckets, 0.5), quantile(buckets, 0.99)


def _refused(old: Mapping[str, Any], reason: str) -> int:
    return sum(each["count"] for each in old["refusals"] if each["reason"] == reason)


def _grown(before: Sequence[Sequence[Any]], after: Sequence[Sequence[Any]]) -> Buckets:
    """Return the buckets of what came between two answers."""
    counts = [count for _, count in before] or [0] * len(after)
    return [
        (float(bound), float(count) - earlier)
        for (bound, count), earlier in zip(after, counts, strict=True)
    ]


def _whole(value: float) -> float:
    """Return the whole number that a quantile of whole numbers is at most."""
    return value if math.isnan(value) else float(math.ceil(value))


def quantile(buckets: Buckets, q: float) -> float:
    """Return a quantile, between the bounds of its bucket; NaN of nothing.

    As Prometheus does: linear within a bucket, and the last finite bound beyond it.
    """
    total = buckets[-1][1] if buckets else 0.0
    if not total:
        return math.nan
    rank = q * total
    for (low, below), (high, count) in pairwise([(0.0, 0.0), *buckets]):
        if count >= rank and count > below:
            if math.isinf(high):
                return low
            return low + (high - low) * (rank - below) / (count - below)
    return math.nan
