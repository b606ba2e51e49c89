"""One SummarizeLosses on the wire, for one thread that neither blocks on sending nor on receiving.

gRPC sends from a thread of its own, and another one receives here: what happens in both comes as
events to the thread of the caller, where the caller's data is read and the caller's callbacks are
called.
"""

import queue
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Final

import grpc

from losswire.client._errors import DeadlineExceededError, LosswireError, error_from_call
from losswire.v1 import loss_service_pb2

Answer = loss_service_pb2.SummarizeLossesResponse
_ENDED: Final = object()


class CallFailedError(Exception):
    """A call failed; `error` is the SDK's own. Not an error of the caller's data or callbacks."""

    def __init__(self, error: LosswireError) -> None:
        super().__init__(error)
        self.error = error


class OneCall:
    """A call that is under way."""

    def __init__(
        self, method: Any, header: bytes, metadata: Sequence[tuple[str, str]] | None
    ) -> None:
        """Make the call and send its first message; ValueError when the channel is closed."""
        self.has_ended = False
        """Whether the server has ended the call, without an error."""
        self.unsent_bytes = 0
        """The bytes of the messages that gRPC has not taken yet."""
        self._header_bytes = len(header)
        self._outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.send(header)
        self._call = method(self._requests(), metadata=metadata)
        threading.Thread(target=self._receive, name="losswire-summary", daemon=True).start()

    def send(self, message: bytes) -> None:
        """Send a message when the messages before it are sent."""
        self.unsent_bytes += len(message)
        self._outbox.put(message)

    def finish(self) -> None:
        """End the messages of this side."""
        self._outbox.put(None)

    def cancel(self) -> None:
        """End the call, unless it has ended. Any thread may do this."""
        self._call.cancel()
        self._outbox.put(None)

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
        elif isinstance(event, grpc.RpcError):
            raise CallFailedError(error_from_call(event, self._header_bytes)) from None
        elif event is _ENDED:
            self.has_ended = True
        else:
            answer: Answer = event
            return answer
        return None

    def _requests(self) -> Iterator[bytes]:
        for message in iter(self._outbox.get, None):
            self._events.put(len(message))
            yield message

    def _receive(self) -> None:
        try:
            for answer in self._call:
                self._events.put(answer)
            self._events.put(_ENDED)
        except grpc.RpcError as failure:
            self._events.put(failure)
