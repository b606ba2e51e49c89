"""Evaluations over the connection that leases a region: the same answers, the same limits."""

import asyncio
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2

from losswire.server import thresholds
from losswire.server.app import App
from losswire.server.settings import MIB
from losswire.v1 import evaluation_pb2, loss_service_pb2, loss_service_pb2_grpc
from losswire.wire import encode_tensor
from tests.support.encodings import field
from tests.support.harness import Child
from tests.support.inside import CLOSED, Gate, numbered, until
from tests.support.mutations import CORPUS
from tests.support.regions import Held, create, fetch, receive, region, relocate
from tests.support.requests import TIMEOUT, Stub, by_call, details, essence, evaluation, f32
from tests.support.sharing import SIZE, create_from, fetch_from, sharing

_HEADER = struct.Struct("<II")
_RANDOM = np.random.default_rng(20261121)


def _framed(item: evaluation_pb2.Evaluation, milliseconds: int = 0) -> bytes:
    request = loss_service_pb2.EvaluateRequest(evaluation=item).SerializeToString()
    return _HEADER.pack(len(request), milliseconds) + request


def _answer(held: Held) -> tuple[int, bytes]:
    size, code = _HEADER.unpack(receive(held.lease, _HEADER.size))
    return code, receive(held.lease, size)


def _call(held: Held, item: evaluation_pb2.Evaluation, milliseconds: int = 0) -> tuple[int, bytes]:
    held.lease.sendall(_framed(item, milliseconds))
    return _answer(held)


def _result(answer: tuple[int, bytes]) -> evaluation_pb2.EvaluationResult:
    code, body = answer
    assert code == 0
    return loss_service_pb2.EvaluateResponse.FromString(body).result


def _status(answer: tuple[int, bytes]) -> tuple[str, str]:
    """Return the code and the reason of a failure."""
    code, body = answer
    status = status_pb2.Status.FromString(body)
    assert status.code == code
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return {each.value[0]: each.name for each in grpc.StatusCode}[code], info.reason


def _batch(rows: int, classes: int, loss: str = "cross_entropy") -> evaluation_pb2.Evaluation:
    logits = _RANDOM.standard_normal((rows, classes), dtype=np.float32)
    by_class = loss == "cross_entropy"
    target = _RANDOM.integers(0, classes, rows) if by_class else logits[::-1].copy()
    return evaluation(loss, {"input": logits, "target": target}, gradients_for=["input"])


@pytest.fixture
def held(channel: grpc.Channel) -> Iterator[Held]:
    """A new region for each test."""
    with region(channel, 4 * MIB) as found:
        yield found


@pytest.mark.parametrize(
    "item",
    [*CORPUS, _batch(4, 10), _batch(300, 500), _batch(300, 500, "mse_loss")],
    ids=lambda each: each.loss,
)
def test_answers_are_those_of_evaluate(
    stub: Stub, held: Held, item: evaluation_pb2.Evaluation
) -> None:
    """Every time, prepared or not, with the tensors in the message or in a region."""
    expected = essence(by_call(stub, item).result)
    moved, gradients = relocate(item, held)
    for _ in range(3):
        if item.ByteSize() < thresholds.MAX_LEASE_REQUEST_BYTES:
            assert essence(_result(_call(held, item))) == expected
        found = essence(_result(_call(held, moved)))
        for name, array in gradients.items():
            assert found.gradients[name].region == moved.gradient_destinations[name]
            found.gradients[name].CopyFrom(encode_tensor(array))
            array.fill(7)
        assert found == expected


def test_failures_are_those_of_evaluate(stub: Stub, held: Held) -> None:
    """The same code and details, but for the number of the call; and the next one is answered."""
    wrong = [
        evaluation("cross_entropia", {"input": f32(1)}),
        evaluation("cross_entropy", {"input": f32(1)}),
        evaluation_pb2.Evaluation(),
    ]
    good = _batch(3, 4)
    bad, _ = relocate(good, held)
    bad.inputs["input"].region.region_id += 1
    for item in (*wrong, bad):
        with pytest.raises(grpc.RpcError) as caught:
            stub.Evaluate(loss_service_pb2.EvaluateRequest(evaluation=item), timeout=TIMEOUT)
        expected, _ = details(caught.value)
        code, body = _call(held, item)
        found = status_pb2.Status.FromString(body)
        assert code == caught.value.code().value[0]
        numbers = set()
        for status in (expected, found):
            [request] = [
                each for each in status.details if each.Is(error_details_pb2.RequestInfo.DESCRIPTOR)
            ]
            numbers.add(request.value)
            status.details.remove(request)
        assert len(numbers) == 2
        assert found == expected
        _result(_call(held, good))


def test_what_is_no_message_is_refused(held: Held) -> None:
    """A request that does not parse is an error of its own, not the end."""
    held.lease.sendall(_HEADER.pack(3, 0) + b"\xff\xff\xff")
    assert _status(_answer(held)) == ("INVALID_ARGUMENT", "MALFORMED_MESSAGE")
    _result(_call(held, _batch(3, 4)))


def test_calls_need_no_descriptor(channel: grpc.Channel) -> None:
    """A peer that reads the byte alone gets no memory, and can call like all others."""
    created = create(channel, 1)
    with socket.socket(socket.AF_UNIX) as lease:
        lease.settimeout(TIMEOUT)
        lease.connect(created.socket_path)
        lease.sendall(created.token)
        assert lease.recv(1) == b"\x01"
        framed = _framed(_batch(3, 4))
        for _ in range(3):
            lease.sendall(framed)
            size, code = _HEADER.unpack(receive(lease, _HEADER.size))
            _result((code, receive(lease, size)))


def test_a_request_may_come_in_pieces(held: Held) -> None:
    """It is answered when its last byte has arrived."""
    framed = _framed(_batch(3, 4))
    for at in range(len(framed)):
        held.lease.sendall(framed[at : at + 1])
    _result(_answer(held))


@pytest.mark.parametrize("what", ["too long", "more than one", "more than it says"])
def test_whoever_breaks_the_rules_loses_the_lease(held: Held, what: str) -> None:
    """The next message has no known begin, so the connection ends and the region with it."""
    framed = _framed(_batch(3, 4))
    held.lease.sendall(
        {
            "too long": _HEADER.pack(thresholds.MAX_LEASE_REQUEST_BYTES + 1, 0),
            "more than one": framed + framed,
            "more than it says": framed + b"x",
        }[what]
    )
    with pytest.raises(ConnectionError):
        receive(held.lease, _HEADER.size)


def test_noise(channel: grpc.Channel, child: Child, stub: Stub) -> None:
    """The server continues after any bytes, and holds nothing when the peers have ended."""
    draw = np.random.default_rng(7).integers
    for _ in range(60):
        peer = fetch(create(channel, 4096))
        body = draw(0, 256, draw(200), np.uint8).tobytes()
        size = int(draw(4)) and (len(body), int(draw(400)), int(draw(2**32)))[int(draw(3))]
        peer.lease.sendall(_HEADER.pack(size, int(draw(1000))) + body)
        peer.close()
    with region(channel, 8 * MIB) as held:
        _result(_call(held, _batch(3, 4)))
    stub.Evaluate(loss_service_pb2.EvaluateRequest(evaluation=_batch(3, 4)), timeout=TIMEOUT)
    assert child.alive


@pytest.mark.parametrize("limit", [MIB, thresholds.MAX_LEASE_REQUEST_BYTES // 2])
def test_the_length_is_announced(limit: int) -> None:
    """It is at most the size of a message; a longer request ends the lease."""
    longest = min(limit, thresholds.MAX_LEASE_REQUEST_BYTES)

    async def body(_: App, channel: grpc.aio.Channel) -> None:
        created = await create_from(channel)
        assert created.max_request_bytes == longest
        held = await asyncio.to_thread(fetch, created)
        # Field 1 is text: the name of a loss that there is not.
        longer = field(1, field(1, b"x" * (longest - 7)))
        request = field(1, field(1, b"x" * (longest - 8)))
        assert (len(request), len(longer)) == (longest, longest + 1)
        await asyncio.to_thread(held.lease.sendall, _HEADER.pack(longest, 0) + request)
        answer = await asyncio.to_thread(_answer, held)
        assert _status(answer) == ("NOT_FOUND", "UNKNOWN_LOSS")
        with suppress(ConnectionError):  # it may end while this is sent
            await asyncio.to_thread(held.lease.sendall, _HEADER.pack(longest + 1, 0) + longer)
        with pytest.raises(ConnectionError):
            await asyncio.to_thread(receive, held.lease, 1)
        held.close()

    sharing(body, max_message_bytes=limit)


def test_what_has_not_begun_in_time_never_does() -> None:
    """A request may have a time limit."""
    gate = Gate()

    async def body(app: App, channel: grpc.aio.Channel) -> None:
        held = await fetch_from(channel)
        running = asyncio.ensure_future(app.evaluator.evaluate(numbered(CLOSED), float("inf")))
        await until(gate.reached.is_set)
        held.lease.sendall(_framed(numbered(1), 20))
        await asyncio.sleep(0.05)
        gate.open.set()
        answer = await asyncio.to_thread(_answer, held)
        assert _status(answer) == ("DEADLINE_EXCEEDED", "EXPIRED")
        await running
        assert gate.computed == [CLOSED]
        held.close()

    sharing(body, gate)


def test_who_leaves_is_not_computed_for() -> None:
    """A request that waits when its connection ends never begins; its region is freed at once."""
    gate = Gate()

    async def body(app: App, channel: grpc.aio.Channel) -> None:
        held = await fetch_from(channel)
        running = asyncio.ensure_future(app.evaluator.evaluate(numbered(CLOSED), float("inf")))
        await until(gate.reached.is_set)
        before = app.evaluator.budget.reserved_bytes
        held.lease.sendall(_framed(numbered(1)))
        await until(lambda: app.evaluator.budget.reserved_bytes > before)
        held.close()
        await until(lambda: app.evaluator.budget.reserved_bytes == before - SIZE)
        gate.open.set()
        await running
        await app.evaluator.evaluate(numbered(2), float("inf"))
        assert gate.computed == [CLOSED, 2]

    sharing(body, gate)


def test_more_than_one_at_once_ends_the_lease_while_one_waits() -> None:
    """One request is answered before the next one comes."""
    gate = Gate()

    async def body(app: App, channel: grpc.aio.Channel) -> None:
        held = await fetch_from(channel)
        held.lease.sendall(_framed(numbered(CLOSED)))
        await until(gate.reached.is_set)
        held.lease.sendall(b"x")
        await until(lambda: not app.evaluator.regions.leased)
        with pytest.raises(ConnectionError):
            await asyncio.to_thread(receive, held.lease, 1)
        held.close()

    sharing(body, gate)


def test_others_are_served_meanwhile() -> None:
    """Each connection waits for its own answer only."""
    gate = Gate()

    async def body(_: App, channel: grpc.aio.Channel) -> None:
        first, second = [await fetch_from(channel, MIB) for _ in range(2)]
        first.lease.sendall(_framed(numbered(CLOSED)))
        await until(gate.reached.is_set)
        # Small and known to torch: computed where it arrives.
        small = _batch(3, 4)
        second.lease.sendall(_framed(small))
        _result(await asyncio.to_thread(_answer, second))
        gate.open.set()
        assert _result(await asyncio.to_thread(_answer, first)).sum == CLOSED
        for held in (first, second):
            held.close()

    sharing(body, gate)


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("many", [False, True])
def test_gradients_are_written_in_the_order_of_their_requests(*, known: bool, many: bool) -> None:
    """A small evaluation into a region does not overtake one that may write to the same place."""
    gate = Gate()

    async def body(app: App, channel: grpc.aio.Channel) -> None:
        del app
        stub = loss_service_pb2_grpc.LossServiceStub(channel)
        held = await fetch_from(channel, MIB)
        placed, gradients = relocate(_batch(3, 4), held)
        small = _batch(3, 4)

        async def evaluate(item: evaluation_pb2.Evaluation) -> None:
            if many:
                request = loss_service_pb2.EvaluateManyRequest(evaluations=[item])
                await stub.EvaluateMany(request, timeout=TIMEOUT)
            else:
                held.lease.sendall(_framed(item))
                _result(await asyncio.to_thread(_answer, held))

        for _ in range(3 if known else 0):
            await evaluate(placed)
        gradients["input"].fill(7)
        running = asyncio.ensure_future(
            stub.Evaluate(loss_service_pb2.EvaluateRequest(evaluation=numbered(CLOSED)))
        )
        await until(gate.reached.is_set)
        await evaluate(small)
        writing = asyncio.ensure_future(evaluate(placed))
        await asyncio.sleep(0.1)
        assert not writing.done()
        assert (gradients["input"] == 7).all()
        gate.open.set()
        await writing
        await running
        assert (gradients["input"] != 7).all()
        held.close()

    sharing(body, gate)


@pytest.mark.parametrize("known", [False, True])
def test_no_gradient_overtakes_one_that_is_still_checked(*, known: bool) -> None:
    """Evaluations into regions wait for those before them that have not reached the worker."""

    async def body(app: App, channel: grpc.aio.Channel) -> None:
        held = await fetch_from(channel, MIB)
        placed, gradients = relocate(_batch(3, 4), held)

        async def evaluate() -> None:
            held.lease.sendall(_framed(placed))
            _result(await asyncio.to_thread(_answer, held))

        for _ in range(3 if known else 0):
            await evaluate()
        gradients["input"].fill(7)
        async with app.evaluator.write_order:
            writing = asyncio.ensure_future(evaluate())
            await asyncio.sleep(0.1)
            assert not writing.done()
            assert (gradients["input"] == 7).all()
        await writing
        assert (gradients["input"] != 7).all()
        held.close()

    sharing(body)


def test_answers_that_nobody_reads_end_the_lease() -> None:
    """The next request comes after the whole answer, so that answers cannot pile up."""

    async def body(app: App, channel: grpc.aio.Channel) -> None:
        held = await fetch_from(channel, 12 * MIB)
        item = evaluation("mse_loss", {}, reduction=evaluation_pb2.REDUCTION_NONE)
        for name in ("input", "target"):
            item.inputs[name].CopyFrom(held.tensor(held.array((1000, 1000))))
        held.lease.sendall(_framed(item))
        await asyncio.sleep(0.2)
        held.lease.sendall(_framed(item))
        await until(lambda: not app.evaluator.regions.leased)
        held.close()

    sharing(body, memory_budget_bytes=256 * MIB)


def test_what_is_under_way_is_answered_before_the_end() -> None:
    """A server that ends finishes evaluations, and the results stay where they are."""
    gate = Gate()
    ends: list[Held] = []

    async def body(app: App, channel: grpc.aio.Channel) -> None:
        idle, held = [await fetch_from(channel, MIB) for _ in range(2)]
        held.lease.sendall(_framed(numbered(CLOSED)))
        await until(gate.reached.is_set)
        stopping = asyncio.ensure_future(app.stop())
        assert await asyncio.to_thread(idle.lease.recv, 1) == b""
        assert not stopping.done()
        gate.open.set()
        assert _result(await asyncio.to_thread(_answer, held)).sum == CLOSED
        await stopping
        ends.extend((idle, held))

    sharing(body, gate)
    for held in ends:
        assert held.lease.recv(1) == b""
        held.close()
