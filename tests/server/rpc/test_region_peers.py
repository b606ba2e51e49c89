"""Peers of the region socket who are silent, slow or many: bounded, cut, and no harm to others."""

import asyncio
import socket
import struct
import time
from collections.abc import Callable

import grpc
import pytest

from losswire.server import thresholds
from losswire.server.app import App
from losswire.server.memory.budget import Kind
from losswire.server.settings import MIB
from losswire.v1 import evaluation_pb2, loss_service_pb2
from tests.support.inside import until
from tests.support.regions import Held, receive
from tests.support.requests import TIMEOUT, evaluation, f32
from tests.support.sharing import create_from, fetch_from, freed, reserved, sharing

_HEADER = struct.Struct("<II")
_MANY = 200
_REGION = 12 * MIB


def _framed(item: evaluation_pb2.Evaluation) -> bytes:
    request = loss_service_pb2.EvaluateRequest(evaluation=item).SerializeToString()
    return _HEADER.pack(len(request), 0) + request


def _large_answer(held: Held) -> bytes:
    """Return a request of a few bytes whose answer has a million numbers."""
    item = evaluation("mse_loss", {}, reduction=evaluation_pb2.REDUCTION_NONE)
    for name in ("input", "target"):
        item.inputs[name].CopyFrom(held.tensor(held.array((1000, 1000))))
    return _framed(item)


_SMALL = _framed(evaluation("mse_loss", {"input": f32(1), "target": f32(2)}))


def _ask(held: Held, request: bytes) -> int:
    """Send a request and return the code of its answer."""
    held.lease.sendall(request)
    size, code = _HEADER.unpack(receive(held.lease, _HEADER.size))
    receive(held.lease, size)
    return int(code)


def test_an_answer_counts_until_its_peer_has_taken_it() -> None:
    """What waits to be read is in the budget, and leaves it when it was read."""

    async def body(app: App, channel: grpc.aio.Channel) -> None:
        budget = app.evaluator.budget
        held = await fetch_from(channel, _REGION)
        before = reserved(app)
        held.lease.sendall(_large_answer(held))
        await until(lambda: budget.by_kind[Kind.ANSWER] > 3 * MIB)
        size, code = _HEADER.unpack(await asyncio.to_thread(receive, held.lease, _HEADER.size))
        assert (code, size > 4_000_000) == (0, True)
        await asyncio.to_thread(receive, held.lease, size)
        await until(lambda: reserved(app) == before)
        assert await asyncio.to_thread(_ask, held, _SMALL) == 0
        held.close()
        await freed(app)

    sharing(body, memory_budget_bytes=256 * MIB)


_SLOW: dict[str, Callable[[Held], bytes]] = {
    "answer unread": _large_answer,
    "two bytes of a header": lambda _: b"\x64\x00",
    "header alone": lambda _: _HEADER.pack(100, 0),
    "all but a byte": lambda _: _SMALL[:-1],
}


@pytest.mark.parametrize("what", _SLOW)
def test_who_is_slow_loses_the_lease(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests that stay incomplete and answers that stay unread end; idle leases go on."""
    monkeypatch.setattr(thresholds, "GRACE_SECONDS", 0.3)
    monkeypatch.setattr(thresholds, "BYTES_PER_SECOND", 1 << 30)

    async def body(app: App, channel: grpc.aio.Channel) -> None:
        idle, slow = await fetch_from(channel, 1), await fetch_from(channel, _REGION)
        slow.lease.sendall(_SLOW[what](slow))
        await until(lambda: app.evaluator.regions.leased == 1)
        assert await asyncio.to_thread(_ask, idle, _SMALL) == 0
        for each in (slow, idle):
            each.close()
        await freed(app)

    sharing(body, memory_budget_bytes=256 * MIB)


def test_who_does_not_read_makes_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """While another call waits for memory, an unread answer ends after a second, not twelve."""
    monkeypatch.setattr(thresholds, "PRESSED_GRACE_SECONDS", 0.1)
    monkeypatch.setattr(thresholds, "GRACE_SECONDS", 600.0)
    monkeypatch.setattr(thresholds, "ADMISSION_WAIT_SECONDS", TIMEOUT)

    async def body(app: App, channel: grpc.aio.Channel) -> None:
        budget = app.evaluator.budget
        held = await fetch_from(channel, _REGION)
        held.lease.sendall(_large_answer(held))
        await until(lambda: budget.by_kind[Kind.ANSWER] > 3 * MIB)
        with budget.reservation() as other:
            await other.grow_to(budget.free_bytes + MIB, time.monotonic() + TIMEOUT)
        await until(lambda: not app.evaluator.regions.leased)
        held.close()
        await freed(app)

    sharing(body, memory_budget_bytes=256 * MIB)


def test_silent_peers_keep_nobody_out() -> None:
    """Hundreds of connections without a token: an honest caller gets its region among them."""

    async def body(app: App, channel: grpc.aio.Channel) -> None:
        path = (await create_from(channel, 1)).socket_path
        silent: list[socket.socket] = []

        def flood() -> None:
            for _ in range(_MANY):
                peer = socket.socket(socket.AF_UNIX)
                peer.settimeout(TIMEOUT)
                peer.connect(path)
                silent.append(peer)

        for _ in range(3):
            await asyncio.to_thread(flood)
            held = await fetch_from(channel, 1)
            assert await asyncio.to_thread(_ask, held, _SMALL) == 0
            held.close()
        # The oldest went first.
        assert await asyncio.to_thread(silent[0].recv, 1) == b""
        for each in silent:
            each.close()
        await freed(app)

    sharing(body, memory_budget_bytes=256 * MIB)
