"""Calls that end early, by their caller or their deadline, wherever they are: nothing goes on."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Literal

import grpc
import numpy as np
import pytest

from losswire.v1 import evaluation_pb2, loss_service_pb2, loss_service_pb2_grpc
from losswire.wire import encode_tensor
from tests.support.doors import Doors, open_doors
from tests.support.harness import UNLIMITED
from tests.support.http2 import EVALUATE, Sessions, framed
from tests.support.made_losses import GatedLoss
from tests.support.soak import record, tier
from tests.support.vitals import wait_until

if TYPE_CHECKING:
    Started = grpc.Future[loss_service_pb2.EvaluateManyResponse]

End = Literal["cancelled", "expired"]
_ENDS: tuple[End, ...] = ("cancelled", "expired")

_MIB = 1 << 20
_SECONDS = 0.3
"""The deadline of a call that is to expire."""
_DEADLINES = (_SECONDS, 1.0, 3.0, 9.0, 27.0)
"""Those that are tried one after the other where calls have to get somewhere before."""
_EXPIRED_CODES = (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED)
_TRIES = 10
"""Of each point and end in the long tier: a hundred calls in all."""
_QUEUED = 5

pytestmark = pytest.mark.parametrize("end", _ENDS)


@dataclass(frozen=True)
class Gated:
    """A server with a loss that waits at a gate, and ways to look at it."""

    doors: Doors
    loss: GatedLoss
    stub: loss_service_pb2_grpc.LossServiceStub

    @property
    def reserved(self) -> float:
        """The bytes that are reserved for calls."""
        return self.doors.samples().of("losswire_reserved_bytes")

    @property
    def queued(self) -> int:
        """How many jobs wait for the worker."""
        return int(self.doors.get("/v1/live")["queue"]["length"])

    def start(self, numbers: Sequence[float], seconds: float = 60, elements: int = 1) -> "Started":
        """Start a call with an evaluation of each number, and a deadline."""
        request = loss_service_pb2.EvaluateManyRequest(
            evaluations=[item(number, elements) for number in numbers]
        )
        return self.stub.EvaluateMany.future(request, timeout=seconds)

    def start_until(
        self, reached: Callable[[], bool], numbers: Sequence[Sequence[float]], end: End
    ) -> "list[Started]":
        """Start a call for each group of numbers; all have got somewhere before they may expire."""
        for seconds in _DEADLINES if end == "expired" else (60.0,):
            calls = [self.start(each, seconds) for each in numbers]
            wait_until(lambda calls=calls: reached() or any(each.done() for each in calls))  # type: ignore[misc]
            if reached():
                return calls
        message = "the calls expire before they get anywhere"
        raise AssertionError(message)

    @contextmanager
    def closed(self) -> "Iterator[Started]":
        """Close the gate and keep the worker there with a call; yields it.

        Behind, the call succeeds, and everything is as it was before.
        """
        before = self.reserved
        self.loss.close()
        call = self.start([0])
        try:
            self.loss.wait_until_reached()
            yield call
        finally:
            self.loss.open()
        assert len(call.result().outcomes) == 1
        wait_until(lambda: self.queued == 0)
        wait_until(lambda: self.reserved <= before)


def item(number: float, elements: int = 1) -> evaluation_pb2.Evaluation:
    """Return an evaluation of the gated loss."""
    return evaluation_pb2.Evaluation(
        loss="gated_loss",
        inputs={"input": encode_tensor(np.full(elements, number, np.float32))},
        gradients_for=["input"],
    )


def message(elements: int) -> bytes:
    """Return a request for an answer of the same size, by a loss that waits at no gate."""
    array = encode_tensor(np.ones(elements, np.float32))
    return loss_service_pb2.EvaluateRequest(
        evaluation=evaluation_pb2.Evaluation(
            loss="mse_loss", inputs={"input": array, "target": array}, gradients_for=["input"]
        )
    ).SerializeToString()


def finish(calls: "Sequence[Started]", end: End) -> None:
    """End calls that wait: cancel them, or wait for their deadline."""
    for call in calls:
        if end == "cancelled":
            call.cancel()
    for call in calls:
        if end == "cancelled":
            assert call.cancelled()
        else:
            error = call.exception(timeout=60)
            assert isinstance(error, grpc.RpcError)
            # Without memory it is told before, while time is left for another server.
            assert error.code() in _EXPIRED_CODES


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gated]:
    """A server whose loss waits as long as its gate is closed."""
    made = GatedLoss(tmp_path_factory.mktemp("gated"))
    arguments = (*made.arguments, "--memory-budget-mib", "128")
    with (
        open_doors(*arguments, environment=made.environment) as doors,
        grpc.insecure_channel(doors.grpc, UNLIMITED) as channel,
    ):
        yield Gated(doors, made, loss_service_pb2_grpc.LossServiceStub(channel))


def test_while_its_message_comes(gated: Gated, end: End) -> None:
    """Half a message is given up, with what was reserved for it."""

    async def run(before: float) -> None:
        whole = framed(message(_MIB // 2))
        fields = {"grpc-timeout": f"{int(_SECONDS * 1000)}m"} if end == "expired" else {}
        async with Sessions(gated.doors.grpc) as sessions:
            [session] = await sessions.open(1)
            call = session.call(EVALUATE, fields)
            await call.send(whole[: len(whole) // 2])
            if end == "cancelled":
                call.reset()
            else:
                assert (await call.wait()).code in {
                    grpc.StatusCode.DEADLINE_EXCEEDED.value[0],
                    None,
                }
            await asyncio.to_thread(wait_until, lambda: gated.reserved <= before)

    for _ in range(tier(short=1, soak=_TRIES)):
        asyncio.run(run(gated.reserved))


def test_while_it_waits_for_memory(gated: Gated, end: End) -> None:
    """It leaves the line, and takes nothing when there is memory again."""
    size = _MIB // 4  # with gradients, they are priced at 24 MiB each
    for _ in range(tier(short=1, soak=_TRIES)):
        with gated.closed():
            full = [gated.start([1], elements=size) for _ in range(8)]
            wait_until(lambda: gated.queued >= 3)
            late = gated.start([2], _SECONDS if end == "expired" else 60, elements=size)
            finish([late], end)
        for each in full:
            each.exception(timeout=60)
        assert 2 not in gated.loss.computed


def test_in_the_queue_of_the_worker(gated: Gated, end: End) -> None:
    """It is gone at once, and is not computed when its turn would have come."""
    seconds = []
    for _ in range(tier(short=1, soak=_TRIES)):
        with gated.closed():
            numbers = [[number] for number in range(1, 1 + _QUEUED)]
            finish(gated.start_until(lambda: gated.queued >= _QUEUED, numbers, end), end)
            # The server's own canary may wait as well.
            seconds.append(wait_until(lambda: gated.queued <= 1))
        assert gated.loss.computed == [0]
    name = f"queued work gone when {end}"
    record(f"{name}, median", 1000 * median(seconds), unit="ms", required="<= 50")
    record(f"{name}, slowest", 1000 * max(seconds), unit="ms")


def test_while_it_is_computed(gated: Gated, end: End) -> None:
    """What the call has beyond the evaluation under way is not computed."""
    before = gated.reserved
    for _ in range(tier(short=1, soak=_TRIES)):
        gated.loss.close()
        try:
            finish(gated.start_until(lambda: gated.loss.is_reached, [[0, 1, 2]], end), end)
        finally:
            gated.loss.open()
        wait_until(lambda: gated.reserved <= before)
        with gated.closed():
            pass
        assert gated.loss.computed == [0]


def test_while_its_answer_waits_for_its_reader(gated: Gated, end: End) -> None:
    """The answer's memory is given back."""

    async def run(before: float) -> None:
        fields = {"grpc-timeout": f"{int(_SECONDS * 1000)}m"} if end == "expired" else {}
        async with Sessions(gated.doors.grpc) as sessions:
            [session] = await sessions.open(1, window=0, reads=False)
            await session.settled()
            call = session.call(EVALUATE, fields)
            await call.send(framed(message(_MIB // 4)), end=True)
            await asyncio.sleep(_SECONDS / 2)
            if end == "cancelled":
                call.reset()
            else:
                await call.wait()
            assert await asyncio.to_thread(wait_until, lambda: gated.reserved <= before) < 30

    for _ in range(tier(short=1, soak=_TRIES)):
        asyncio.run(run(gated.reserved))


def test_the_answer_was_the_point(gated: Gated, end: End) -> None:
    """A call that is not ended early is answered, so that the tests above could fail."""
    del end
    with gated.closed() as call:
        assert not call.done()
    assert call.result().outcomes[0].result.count == 1
