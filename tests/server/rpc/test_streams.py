"""EvaluateStream: every item is answered under its id, and no item ends the stream."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator

import grpc
import pytest

from losswire.server.rpc.drain import Drain
from losswire.server.rpc.streaming import answer_stream
from losswire.v1 import evaluation_pb2, loss_service_pb2
from tests.support.harness import Child
from tests.support.inside import CLOSED, PATIENCE, AsyncStub, Gate, in_server, numbered, until
from tests.support.mistakes_in_form import IN_FORM
from tests.support.requests import (
    GOLDEN,
    TIMEOUT,
    Stub,
    by_call,
    essence,
    is_golden,
    item_status,
    stream_requests,
)

_LIMIT = 4
"""The most in flight of a stream, in these tests."""

Request = loss_service_pb2.EvaluateStreamRequest
Response = loss_service_pb2.EvaluateStreamResponse
_WRONG = [each.item for each in IN_FORM]


def _number(response: Response) -> int:
    return response.id


def test_answers_carry_the_ids_of_their_requests(stub: Stub) -> None:
    """Each id comes back once for each time it was sent, for any numbers."""
    ids = [0, 7, 7, 2**64 - 1, 3, 0]
    answers = stub.EvaluateStream(stream_requests((n, GOLDEN) for n in ids), timeout=TIMEOUT)
    found = list(answers)
    assert Counter(map(_number, found)) == Counter(ids)
    assert all(is_golden(each.outcome.result) for each in found)


def test_bad_items_never_end_the_stream(stub: Stub) -> None:
    """Every mistake of the table, among good items: each gets its own answer."""
    items = [*_WRONG, *[GOLDEN] * len(_WRONG)]
    order = list(range(len(items)))
    random.Random(1).shuffle(order)  # noqa: S311 (repeatable)
    requests = stream_requests((number, items[number]) for number in order)
    answers = {each.id: each.outcome for each in stub.EvaluateStream(requests, timeout=TIMEOUT)}
    assert sorted(answers) == sorted(order)
    assert all(answers[number].error.code for number in range(len(_WRONG)))
    assert all(is_golden(answers[n].result) for n in range(len(_WRONG), len(items)))


def test_a_stream_answers_as_a_call_does(stub: Stub) -> None:
    """The same evaluation has the same bits through both methods."""
    [answer] = stub.EvaluateStream(stream_requests([(1, GOLDEN)]), timeout=TIMEOUT)
    assert essence(answer.outcome.result) == essence(by_call(stub, GOLDEN).result)


def test_an_empty_stream_ends_well(stub: Stub) -> None:
    """No request, no answer, status OK."""
    answers = stub.EvaluateStream(iter(()), timeout=TIMEOUT)
    assert list(answers) == []
    assert answers.code() is grpc.StatusCode.OK


def test_bytes_that_are_no_item_end_the_stream_precisely(child: Child) -> None:
    """A message that does not parse has no id for its answer: the call is INVALID_ARGUMENT."""
    with child.channel() as channel:
        method = "/losswire.v1.LossService/EvaluateStream"
        stream: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(method)
        answers = stream(iter([b"\xff"]), timeout=TIMEOUT)
        with pytest.raises(grpc.RpcError) as refused:
            list(answers)
    status = item_status(refused.value)
    assert (status.code, status.reason) == (3, "MALFORMED_MESSAGE")
    assert status.message == "the bytes are not a losswire.v1.EvaluateStreamRequest"


def test_items_are_answered_while_the_stream_is_open_and_after_half_close() -> None:
    """An answer comes without waiting for the end of the requests; the rest comes after it."""

    async def run(stub: AsyncStub) -> None:
        call = stub.EvaluateStream(timeout=PATIENCE)
        await call.write(Request(id=1, evaluation=numbered(1.0)))
        first = await call.read()
        assert isinstance(first, Response)
        assert first.id == 1
        for number in (2, 3):
            await call.write(Request(id=number, evaluation=numbered(float(number))))
        await call.done_writing()
        others = [await call.read(), await call.read()]
        assert sorted(each.id for each in others if isinstance(each, Response)) == [2, 3]
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK

    in_server(Gate(), run)


async def _computed_until_held_back(gate: Gate) -> int:
    """Wait until the server computes no more for a caller who does not read; returns the number."""
    computed = 0
    while not computed or computed != len(gate.computed):
        computed = len(gate.computed)
        await asyncio.sleep(0.3)
    return computed


def test_a_sender_that_does_not_read_is_held_back() -> None:
    """The server computes no more than fits in flight and in the pipe; then all arrives."""
    gate = Gate()
    items, elements = 300, 50_000

    async def run(stub: AsyncStub) -> None:
        call = stub.EvaluateStream(timeout=TIMEOUT)
        asked = numbered(1.0, elements)
        asked.reduction = evaluation_pb2.REDUCTION_NONE

        async def write() -> None:
            for number in range(items):
                await call.write(Request(id=number, evaluation=asked))
            await call.done_writing()

        writer = asyncio.create_task(write())
        computed = await _computed_until_held_back(gate)
        assert not writer.done()
        assert computed < items // 2
        found = {each.id async for each in call if each.outcome.result.count == elements}
        assert found == set(range(items))
        await writer

    in_server(gate, run, max_in_flight_per_stream=_LIMIT)
    assert len(gate.computed) == items


@pytest.mark.parametrize("unread", [0, 1, 10])
def test_the_pump_holds_no_more_than_the_limit(unread: int) -> None:
    """Requests are read one by one, never more than the limit (and one) ahead of the reader."""
    taken = 0
    running = 0
    most = 0

    async def requests() -> AsyncIterator[int]:
        nonlocal taken
        for number in range(50):
            taken += 1
            yield number

    async def answer(number: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1
        return number

    async def run() -> None:
        answers = answer_stream(requests(), answer, _LIMIT, Drain())
        found = [await anext(answers) for _ in range(unread)]
        if unread:
            await asyncio.sleep(0.05)
            assert taken <= unread + _LIMIT + 1
        found += [each async for each in answers]
        assert sorted(found) == list(range(50))

    asyncio.run(run())
    assert most <= _LIMIT


def test_a_slow_item_does_not_hold_up_the_others() -> None:
    """Answers may come in another order than requests: each as soon as it is ready."""

    async def requests() -> AsyncIterator[float]:
        for seconds in (0.2, 0.0):
            yield seconds

    async def answer(seconds: float) -> float:
        await asyncio.sleep(seconds)
        return seconds

    async def run() -> list[float]:
        return [each async for each in answer_stream(requests(), answer, _LIMIT, Drain())]

    assert asyncio.run(run()) == [0.0, 0.2]


def test_a_broken_source_is_told_after_what_it_gave() -> None:
    """An error of the requests ends the answers with that very error."""

    async def requests() -> AsyncIterator[int]:
        yield 1
        raise LookupError

    async def answer(number: int) -> int:
        return number

    async def run() -> None:
        with pytest.raises(LookupError):
            _ = [each async for each in answer_stream(requests(), answer, _LIMIT, Drain())]

    asyncio.run(run())


def test_cancelling_a_stream_cancels_what_is_in_flight() -> None:
    """Nothing that still waits is computed, and the server goes on."""
    gate = Gate()

    async def run(stub: AsyncStub) -> None:
        call = stub.EvaluateStream(timeout=PATIENCE)
        for number in (CLOSED, 1.0, 2.0):
            await call.write(Request(id=int(number), evaluation=numbered(number)))
        await until(gate.reached.is_set)
        call.cancel()
        assert await call.code() is grpc.StatusCode.CANCELLED
        other = asyncio.ensure_future(_sum(stub, 3.0))
        await asyncio.sleep(0.2)
        gate.open.set()
        assert await other == 3.0

    in_server(gate, run)
    assert gate.computed == [CLOSED, 3.0]


def test_cancelling_a_stream_that_is_not_read_leaves_nothing_behind() -> None:
    """A server that is blocked in writing to a caller who disconnects drops all work for it."""
    gate = Gate()

    async def run(stub: AsyncStub) -> None:
        before = len(asyncio.all_tasks())
        call = stub.EvaluateStream(timeout=TIMEOUT)
        asked = numbered(1.0, 50_000)
        asked.reduction = evaluation_pb2.REDUCTION_NONE

        async def write() -> None:
            while True:
                await call.write(Request(evaluation=asked))

        writer = asyncio.create_task(write())
        await _computed_until_held_back(gate)
        assert not writer.done()
        call.cancel()
        await asyncio.gather(writer, return_exceptions=True)
        await until(lambda: len(asyncio.all_tasks()) <= before)
        assert await _sum(stub, 3.0) == 3.0

    in_server(gate, run, max_in_flight_per_stream=_LIMIT)


def test_a_stream_over_the_budget_refuses_items_only() -> None:
    """An item that never fits and one that does: the first is refused, the second answered."""

    async def run(stub: AsyncStub) -> None:
        items = enumerate([numbered(1.0, 3_000_000 // 16), numbered(2.0)])
        call = stub.EvaluateStream(stream_requests(items), timeout=PATIENCE)
        answers = {each.id: each.outcome async for each in call}
        assert answers[0].error.reason == "OVER_LIMIT"
        assert answers[1].result.sum == 2.0

    in_server(Gate(), run, memory_budget_bytes=1024 * 1024)


async def _sum(stub: AsyncStub, number: float) -> float:
    request = loss_service_pb2.EvaluateRequest(evaluation=numbered(number))
    return float((await stub.Evaluate(request, timeout=PATIENCE)).result.sum)
