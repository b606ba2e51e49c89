"""Servers whose streams answer late, out of order, or not at all."""

# ruff: noqa: N802 - gRPC names methods as the contract does

import threading
from collections.abc import Iterator
from itertools import islice

import grpc

from losswire.v1 import loss_service_pb2
from tests.support.scripted import Scripted, echo_item, fail


class Backwards(Scripted):
    """Answers in groups of four, the last first."""

    def EvaluateStream(
        self,
        requests: Iterator[loss_service_pb2.EvaluateStreamRequest],
        context: grpc.ServicerContext,
    ) -> Iterator[loss_service_pb2.EvaluateStreamResponse]:
        """Answer out of order."""
        del context
        group: list[loss_service_pb2.EvaluateStreamRequest] = []
        for request in requests:
            group.append(request)
            if len(group) == 4:
                while group:
                    item = group.pop()
                    yield loss_service_pb2.EvaluateStreamResponse(
                        id=item.id, outcome=echo_item(item.evaluation)
                    )


class Counting(Scripted):
    """Keeps the greatest number of items that were read and not answered."""

    most: int = 0

    def EvaluateStream(
        self,
        requests: Iterator[loss_service_pb2.EvaluateStreamRequest],
        context: grpc.ServicerContext,
    ) -> Iterator[loss_service_pb2.EvaluateStreamResponse]:
        """Answer only when nothing more arrives for a moment."""
        del context
        unanswered: list[loss_service_pb2.EvaluateStreamRequest] = []
        arrived = threading.Semaphore(0)

        def read() -> None:
            for request in requests:
                unanswered.append(request)
                arrived.release()

        reader = threading.Thread(target=read)
        reader.start()
        while reader.is_alive() or unanswered:
            while arrived.acquire(timeout=0.1):
                pass
            self.most = max(self.most, len(unanswered))
            while unanswered:
                item = unanswered.pop()
                yield loss_service_pb2.EvaluateStreamResponse(
                    id=item.id, outcome=echo_item(item.evaluation)
                )


class Breaking(Scripted):
    """Ends each call after a number of answers, with or without an error."""

    def __init__(self, answers: int, code: grpc.StatusCode | None) -> None:
        super().__init__()
        self._answers = answers
        self._code = code

    def EvaluateStream(
        self,
        requests: Iterator[loss_service_pb2.EvaluateStreamRequest],
        context: grpc.ServicerContext,
    ) -> Iterator[loss_service_pb2.EvaluateStreamResponse]:
        """Answer a few, and end."""
        answers = super().EvaluateStream(requests, context)
        yield from islice(answers, self._answers)
        if self._code is not None:
            fail(context, self._code)


class Silent(Scripted):
    """Reads items and never answers."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = threading.Event()

    def EvaluateStream(
        self,
        requests: Iterator[loss_service_pb2.EvaluateStreamRequest],
        context: grpc.ServicerContext,
    ) -> Iterator[loss_service_pb2.EvaluateStreamResponse]:
        """Read until the caller ends the call."""
        del context
        for _ in requests:
            self.reached.set()
        yield from ()


class Hung(Silent):
    """Never answers and never ends, whatever the caller does."""

    def __init__(self) -> None:
        super().__init__()
        self.released = threading.Event()

    def EvaluateStream(
        self,
        requests: Iterator[loss_service_pb2.EvaluateStreamRequest],
        context: grpc.ServicerContext,
    ) -> Iterator[loss_service_pb2.EvaluateStreamResponse]:
        """Wait for the end of the test."""
        del requests, context
        self.released.wait(60)
        yield from ()
