"""One SummarizeLosses under way, for one thread that neither blocks on sending nor on receiving.

gRPC sends from a thread of its own, and another one receives here; a server in this process
answers from its own thread. What happens there comes as events to the thread of the caller, where
the caller's data is read and the caller's callbacks are called.
"""

import queue
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from typing import Any, Final

import grpc

from losswire.client._calls.abandoned import end_call
from losswire.client._calls.absence import silent_error
from losswire.client._calls.cancellation import Watch
from losswire.client._calls.local import LocalServer
from losswire.client._calls.operations import SUMMARIZE_LOSSES
from losswire.client._calls.retry import Attempts
from losswire.client._calls.session import Session
from losswire.client._calls.summarize.encode import Handed, Message
from losswire.client._errors import (
    CancelledError,
    DeadlineExceededError,
    LosswireError,
    error_from_call,
    error_from_details,
)
from losswire.v1 import loss_service_pb2

Answer = loss_service_pb2.SummarizeLossesResponse
_ENDED: Final = object()
_LEAVE_SECONDS: Final = 10.0
"""The longest wait for a server in this process to let go of the caller's arrays."""


class CallFailedError(Exception):
    """A call failed; `error` is the SDK's own. Not an error of the caller's data or callbacks."""

    def __init__(self, error: LosswireError) -> None:
        super().__init__(error)
        self.error = error


class OneCall(ABC):
    """A call that is under way."""

    def __init__(self) -> None:
        """Begin without an event."""
        self.has_ended = False
        """Whether the server has ended the call, without an error."""
        self.unsent_bytes = 0
        """The bytes of the messages that were not taken yet."""
        self._events: queue.SimpleQueue[Any] = queue.SimpleQueue()

    @abstractmethod
    def send(self, message: Message) -> None:
        """Send a message when the messages before it are sent."""

    @abstractmethod
    def finish(self) -> None:
        """End the messages of this side."""

    @abstractmethod
    def cancel(self) -> None:
        """End the call, unless it has ended. Any thread may do this."""

    def leave(self) -> None:
        """End the call, unless it has ended, and wait until nobody reads the caller's arrays."""
        self.cancel()

    @property
    def has_events(self) -> bool:
        """Whether `next_answer` would return at once."""
        return not self._events.empty()

    def next_answer(self, seconds: float) -> Answer | None:
        """Wait for the next event; returns an answer, or None for other events.

        Raises CallFailedError when the call has failed, or nothing happens within some seconds.
        """
        try:
            event = self._events.get(timeout=seconds)
        except queue.Empty:
            text = f"the call has not moved for {seconds:g} s"
            raise CallFailedError(DeadlineExceededError(text)) from None
        if isinstance(event, int):
            self.unsent_bytes -= event
        elif isinstance(event, LosswireError):
            raise CallFailedError(event) from None
        elif event is _ENDED:
            self.has_ended = True
        else:
            answer: Answer = event if isinstance(event, Answer) else Answer.FromString(event)
            return answer
        return None


class GrpcCall(OneCall):
    """A call by gRPC."""

    def __init__(
        self, channel: grpc.Channel, header: bytes, session: Session, attempts: Attempts
    ) -> None:
        """Make the call and send its first message; ValueError when the channel is closed."""
        super().__init__()
        self._attempts = attempts
        self._target = attempts.target_name
        self._moves = 0
        """The number of messages that were sent and received."""
        self._header_bytes = len(header)
        self._outbox: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self.send(header)
        method: Any = channel.stream_stream(SUMMARIZE_LOSSES.path, None, None)
        self._call = method(self._requests(), metadata=session.metadata)
        self._watch = Watch(self._call, attempts, lambda: self._moves)
        threading.Thread(target=self._receive, name="losswire-summary", daemon=True).start()

    def send(self, message: Message) -> None:
        """Send a message when the messages before it are sent."""
        self.unsent_bytes += len(message)
        self._outbox.put(message)

    def finish(self) -> None:
        """End the messages of this side."""
        self._outbox.put(None)

    def cancel(self) -> None:
        """End the call, unless it has ended. Any thread may do this."""
        end_call(self._call)
        self._outbox.put(None)

    def _requests(self) -> Iterator[Message]:
        while (message := self._outbox.get()) is not None:
            self._moves += 1
            self._events.put(len(message))
            yield message

    def _receive(self) -> None:
        try:
            with self._watch:
                for answer in self._call:
                    self._moves += 1
                    self._attempts.note_answer()
                    self._events.put(SUMMARIZE_LOSSES.parsed(answer))
            self._events.put(_ENDED)
        except LosswireError as malformed:
            self._call.cancel()
            self._events.put(malformed)
        except grpc.RpcError as failure:
            error = error_from_call(failure, self._header_bytes)
            self._events.put(silent_error(self._target) if self._watch.found_silence else error)


class DirectCall(OneCall):
    """A call of the server in this process: it reads arrays where they are."""

    def __init__(self, server: LocalServer, header: bytes, session: Session) -> None:
        """Make the call and send its first message."""
        super().__init__()
        self._session = session
        self._sizes: deque[int] = deque()
        """The sizes of the messages that were not taken yet."""
        self._is_over = threading.Event()
        self._has_failed = False
        self._call = server.open_summary(self)
        self.send(header)
        session.calls.add(self)
        if session.closed:
            self.cancel()

    def send(self, message: Message) -> None:
        """Hand a message over."""
        size = len(message)
        self.unsent_bytes += size
        self._sizes.append(size)
        if isinstance(message, Handed):
            self._call.send(message.message, message.elements)
        else:
            self._call.send(message)

    def finish(self) -> None:
        """End the messages of this side."""
        self._call.finish()

    def cancel(self) -> None:
        """End the call, unless it has ended. Any thread may do this."""
        if not self._is_over.is_set():
            self._has_failed = True
            self._events.put(CancelledError("the call was cancelled"))
            self._call.cancel()

    def leave(self) -> None:
        """End the call, unless it has ended, and wait until nobody reads the caller's arrays."""
        self.cancel()
        self._is_over.wait(_LEAVE_SECONDS)
        self._session.calls.discard(self)

    def taken(self) -> None:
        """Note that the server took the next message."""
        self._events.put(self._sizes.popleft())

    def answered(self, answer: Answer | bytes) -> None:
        """Note an answer."""
        self._events.put(answer)

    def failed(self, code: int, status: bytes) -> None:
        """Note the error of the server."""
        self._has_failed = True
        self._events.put(error_from_details(code, status))

    def ended(self) -> None:
        """Note that the server reads no array any more."""
        self._is_over.set()
        if not self._has_failed:
            self._events.put(_ENDED)
