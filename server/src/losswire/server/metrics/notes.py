"""What is noted of a call under way, where somebody observes calls."""

from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from itertools import islice
from typing import Final, NamedTuple, Protocol

from losswire.v1 import evaluation_pb2

NAME_CHARACTERS: Final = 64
"""The characters of a caller's name that are noted; no name of the catalogue is longer."""

_MAX_INPUTS: Final = 16
_MAX_AXES: Final = 8
"""What is noted of a message that may be invalid: no loss has more inputs, no tensor more axes."""

Headers = Callable[[], Iterable[tuple[str | bytes, str | bytes]]]
"""Returns the metadata of a call, or the fields of its header, in lower case."""


class About(NamedTuple):
    """What an evaluation is, without its values."""

    loss: str
    shapes: Mapping[str, list[int]]
    """Of the inputs, by name."""


def describe(evaluation: evaluation_pb2.Evaluation) -> About:
    """Return what a message says it is, cut to what a valid one has."""
    return About(
        evaluation.loss[:NAME_CHARACTERS],
        {
            name[:NAME_CHARACTERS]: list(tensor.shape[:_MAX_AXES])
            for name, tensor in islice(evaluation.inputs.items(), _MAX_INPUTS)
        },
    )


class CallNotes:
    """What is noted of one call, until it has ended."""

    __slots__ = (
        "about",
        "headers",
        "http_status",
        "method",
        "nanoseconds",
        "reason",
        "received_bytes",
        "refusal_code",
        "refusals",
        "request_id",
        "sent_bytes",
        "stages",
        "status",
    )

    def __init__(self, method: str, headers: Headers) -> None:
        """Begin; `method` is the service and the method, or that of HTTP and its path."""
        self.method = method
        self.headers: Headers = headers
        """Only until the call has ended."""
        self.request_id = ""
        self.about: About | None = None
        """The first evaluation."""
        self.stages: dict[str, int] = {}
        """Nanoseconds, by stage: what the thread of the call knows of them."""
        self.reason = ""
        """Of the last error that the caller was sent; empty: none."""
        self.refusal_code = ""
        """Its status."""
        self.refusals = 0
        """The errors that the caller was sent: of the call, or of its items."""
        self.status = ""
        """The name of the status that the call ended with."""
        self.http_status = 0
        """That of HTTP; 0 for gRPC."""
        self.nanoseconds = 0
        self.received_bytes = 0
        self.sent_bytes = 0


class Observer(Protocol):
    """Learns of each call when it has ended. On the event loop."""

    def ended(self, notes: CallNotes) -> None:
        """Take the notes of a call that has ended; raises nothing."""


CURRENT_NOTES: ContextVar[CallNotes | None] = ContextVar("losswire_notes", default=None)
"""The notes of the call that is being answered; None where nobody observes calls."""


def note_evaluation(evaluation: evaluation_pb2.Evaluation) -> None:
    """Note the first evaluation of the current call, if calls are observed."""
    notes = CURRENT_NOTES.get()
    if notes is not None and notes.about is None:
        notes.about = describe(evaluation)


def note_about(about: About) -> None:
    """Note what the first evaluation of the current call is, if calls are observed."""
    notes = CURRENT_NOTES.get()
    if notes is not None and notes.about is None:
        notes.about = about


def note_stage(stage: str, nanoseconds: int) -> None:
    """Add to a stage of the current call, if calls are observed."""
    notes = CURRENT_NOTES.get()
    if notes is not None:
        notes.stages[stage] = notes.stages.get(stage, 0) + nanoseconds


def note_refusal(reason: str, code: str) -> None:
    """Note an error that the caller of the current call is sent, if calls are observed."""
    notes = CURRENT_NOTES.get()
    if notes is not None:
        notes.reason, notes.refusal_code = reason, code
        notes.refusals += 1
