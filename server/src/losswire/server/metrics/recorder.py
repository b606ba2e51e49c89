"""The recorder: what is counted while the server works.

Without metrics there is none, and the functions that it would wrap are called as they are. Nothing
here knows how the counts are read, so that counting takes neither a library nor a label lookup.
"""

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, ParamSpec, TypeVar

from losswire.server.metrics.histogram import BYTES, COUNTS, SECONDS, STAGE_SECONDS, Histogram
from losswire.server.metrics.notes import (
    CURRENT_NOTES,
    CallNotes,
    Headers,
    Observer,
    note_refusal,
    note_stage,
)

P = ParamSpec("P")
ResultT = TypeVar("ResultT")

Stage = Literal["decode", "queue", "compute", "encode"]
STAGES: Final[tuple[Stage, ...]] = ("decode", "queue", "compute", "encode")
"""The stages of an evaluation; `decode` includes the validation."""

RECENT_REFUSALS: Final = 50
"""How many refusals are kept with their texts."""

_NANO: Final = 1e-9


class Ended(NamedTuple):
    """The calls of a method that ended with the same status."""

    seconds: Histogram
    received_bytes: Histogram
    sent_bytes: Histogram

    def copy(self) -> "Ended":
        """Return what was counted until now."""
        return Ended(*(each.copy() for each in self))


class Method:
    """The calls of one method. Belongs to the event loop."""

    __slots__ = ("ended", "name", "recorder", "started")

    def __init__(self, name: str, recorder: "Recorder") -> None:
        """Begin without calls; `name` is the service and the method."""
        self.name = name
        self.recorder = recorder
        self.started = 0
        self.ended: dict[str, Ended] = {}
        """By the name of the status."""

    def begin(self) -> int:
        """Count a call that begins, and make it the current one; returns the time."""
        self.started += 1
        CURRENT_METHOD.set(self)
        return time.perf_counter_ns()

    def note(self, headers: Headers) -> CallNotes | None:
        """Begin the notes of the current call; None where nobody observes calls."""
        if self.recorder.observer is None:
            return None
        notes = CallNotes(self.name, headers)
        CURRENT_NOTES.set(notes)
        return notes

    def end(
        self,
        status: str,
        began: int,
        received_bytes: int,
        sent_bytes: int,
        notes: CallNotes | None = None,
    ) -> None:
        """Count a call that ended; `began` and `notes` are what `begin` and `note` returned."""
        nanoseconds = time.perf_counter_ns() - began
        if notes is not None:
            notes.status, notes.nanoseconds = status, nanoseconds
            notes.received_bytes, notes.sent_bytes = received_bytes, sent_bytes
            self.recorder.observed(notes)
        ended = self.ended.get(status)
        if ended is None:
            ended = Ended(Histogram(SECONDS), Histogram(BYTES), Histogram(BYTES))
            self.ended[status] = ended
        ended.seconds.observe(nanoseconds * _NANO)
        ended.received_bytes.observe(received_bytes)
        ended.sent_bytes.observe(sent_bytes)


CURRENT_METHOD: ContextVar[Method | None] = ContextVar("losswire_method", default=None)
"""The method whose call is being answered; None where nothing is counted."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error that was sent to a caller."""

    time: float
    """Seconds since 1970."""
    method: str
    reason: str
    code: str
    detail: str
    """The text that the caller received."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """The counts of one server at one moment, for any thread."""

    started: Mapping[str, int]
    """Calls that began, by method."""
    ended: Mapping[tuple[str, str], Ended]
    """By method and status."""
    requests: Mapping[tuple[str, str, int], Histogram]
    lease_calls: int
    stages: Mapping[Stage, Histogram]
    batch_sizes: Histogram
    refusals: Mapping[str, int]
    recent_refusals: Sequence[Refusal]


class Recorder:
    """Counts what one server does."""

    def __init__(self, observer: Observer | None = None) -> None:
        """Begin without counts; an observer learns of each call when it has ended."""
        self.observer = observer
        self.started = time.time()
        """Seconds since 1970."""
        self.selftest_seconds = 0.0
        self.methods: dict[str, Method] = {}
        self.requests: dict[tuple[str, str, int], Histogram] = {}
        """Seconds of HTTP requests by method, template of the path, and status."""
        self.lease_calls = 0
        """Calls over the connections of leases, which are in `methods` as well."""
        self.stages: dict[Stage, Histogram] = {stage: Histogram(STAGE_SECONDS) for stage in STAGES}
        self.batch_sizes = Histogram(COUNTS)
        self.refusals: defaultdict[str, int] = defaultdict(int)
        """By reason."""
        self.recent_refusals: deque[Refusal] = deque(maxlen=RECENT_REFUSALS)
        # The event loop and the worker's thread both compute.
        self._lock = threading.Lock()

    def counts(self) -> Counts:
        """Return what was counted until now. On the event loop."""
        with self._lock:
            stages = {stage: each.copy() for stage, each in self.stages.items()}
        return Counts(
            started={each.name: each.started for each in self.methods.values()},
            ended={
                (method.name, status): each.copy()
                for method in self.methods.values()
                for status, each in method.ended.items()
            },
            requests={key: each.copy() for key, each in self.requests.items()},
            lease_calls=self.lease_calls,
            stages=stages,
            batch_sizes=self.batch_sizes.copy(),
            refusals=dict(self.refusals),
            recent_refusals=tuple(self.recent_refusals),
        )

    def method(self, name: str) -> Method:
        """Return the counts of a method."""
        return self.methods.setdefault(name, Method(name, self))

    def observed(self, notes: CallNotes) -> None:
        """Tell the observer that a call has ended."""
        if self.observer is not None:
            self.observer.ended(notes)
        # Whatever still knows the notes must not keep the call.
        notes.headers = tuple

    def request(self, method: str, template: str, status: int, seconds: float) -> None:
        """Count an HTTP request that ended."""
        key = method, template, status
        seconds_of = self.requests.get(key)
        if seconds_of is None:
            seconds_of = self.requests[key] = Histogram(SECONDS)
        seconds_of.observe(seconds)

    def stage(self, stage: Stage, nanoseconds: int) -> None:
        """Count a stage that an evaluation has passed; on any thread."""
        with self._lock:
            self.stages[stage].observe(nanoseconds * _NANO)

    def batch(self, size: int) -> None:
        """Count evaluations that are computed together; on the worker's thread."""
        self.batch_sizes.observe(size)

    def run(
        self, stage: Stage, function: Callable[P, ResultT], *args: P.args, **kwargs: P.kwargs
    ) -> ResultT:
        """Call a function and count its time as a stage."""
        began = time.perf_counter_ns()
        result = function(*args, **kwargs)
        nanoseconds = time.perf_counter_ns() - began
        self.stage(stage, nanoseconds)
        if self.observer is not None:
            note_stage(stage, nanoseconds)
        return result

    def timed(self, stage: Stage, function: Callable[P, ResultT]) -> Callable[P, ResultT]:
        """Return a function that calls another one and counts its time as a stage."""

        def call(*args: P.args, **kwargs: P.kwargs) -> ResultT:
            return self.run(stage, function, *args, **kwargs)

        return call

    def refused(self, method: str, reason: str, code: str, detail: str) -> None:
        """Count an error that is sent to a caller."""
        self.refusals[reason] += 1
        self.recent_refusals.append(Refusal(time.time(), method, reason, code, detail))


def record_refusal(reason: str, code: str, detail: str) -> None:
    """Count an error of the current call, if calls are counted."""
    method = CURRENT_METHOD.get()
    if method is not None:
        method.recorder.refused(method.name, reason, code, detail)
        note_refusal(reason, code)
