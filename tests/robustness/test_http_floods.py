"""Floods of the HTTP door: memory stays within the budget, others are answered, all ends."""

import asyncio
import json
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import pytest

from tests.support.doors import Doors, open_doors
from tests.support.http_door import npy
from tests.support.http_load import Load, repeat, repeat_apart
from tests.support.raw_http import Dialer, Wire
from tests.support.soak import record, tier
from tests.support.vitals import PeakMemory, vitals, wait_until
from tests.support.witness import Report, witness

_MIB = 1 << 20
_BUDGET_MIB = 256
_LIMIT_MIB = _BUDGET_MIB * 1.2
"""What a server may grow by beyond what it has when nobody calls."""


@pytest.fixture
def doors() -> Iterator[Doors]:
    """Start a server, which must live to the end."""
    with open_doors("--memory-budget-mib", str(_BUDGET_MIB)) as found:
        assert found.ask("POST", "/v1/evaluate", json.loads(_numbers(1000)))[0] == 200
        yield found


def _numbers(size_bytes: int) -> bytes:
    """Return the JSON of an evaluation of about so many bytes."""
    count = size_bytes // 16
    values = ",".join(["0.12345"] * count)
    return f'{{"loss":"mse_loss","inputs":{{"input":[{values}],"target":[{values}]}}}}'.encode()


def _is_empty(doors: Doors) -> bool:
    """Return whether no call holds memory."""
    kinds = doors.get("/v1/live")["reserved_bytes"]
    reserved: int = kinds["receive"] + kinds["compute"] + kinds["answer"]
    # Of the one who asks.
    return reserved < 64 << 10


def _check(doors: Doors, what: str, health: Report, peak: PeakMemory) -> None:
    """Check that all went well for others, and that nothing is left."""
    assert health.seconds
    assert not health.failed
    record(f"{what}: p99 of /healthz", health.p99_ms, unit="ms", required="<= 100")
    grown = peak.growth_bytes / _MIB
    record(f"{what}: growth", grown, unit="MiB", required=f"<= {_LIMIT_MIB}")
    assert grown <= 2 * _BUDGET_MIB
    wait_until(lambda: _is_empty(doors), 30)


def test_large_bodies_share_the_memory(doors: Doors) -> None:
    """Many callers with long bodies get as much done as one, and none is lost."""
    size = tier(short=2 * _MIB, soak=7.9 * _MIB)
    seconds = tier(short=2.0, soak=15.0)
    body = _numbers(int(size))
    with PeakMemory(doors.pid) as peak, witness(doors.http, "healthz") as seen:
        one = asyncio.run(repeat(doors.http, body, callers=1, seconds=seconds))
        alone = seen.report()
        many = asyncio.run(
            repeat(doors.http, body, callers=tier(short=16, soak=64), seconds=seconds)
        )
        health = seen.report()
    assert one.good
    assert many.good
    assert not many.others
    assert not many.lost
    share = many.per_second / one.per_second
    record("64 bodies of 7.9 MiB: goodput, of one caller's", share, required=">= 0.8")
    record("64 bodies of 7.9 MiB: refused", many.refused)
    record("one body of 7.9 MiB after the other: p99 of /healthz", alone.p99_ms, unit="ms")
    _check(doors, "64 bodies of 7.9 MiB", health, peak)


def test_slow_senders_are_cut_and_cost_others_nothing(doors: Doors) -> None:
    """Bodies of which a byte comes now and then end, and meanwhile everybody else is answered."""
    count = tier(short=60, soak=500)

    async def run() -> tuple[Load, float]:
        async with Dialer(doors.http) as dial:
            slow = await dial.several(count)
            for each in slow:
                await each.request("POST", "/v1/evaluate", b"[", content_length=_MIB)
            began = time.monotonic()
            dripping = [asyncio.create_task(_drip(each)) for each in slow]
            load = await repeat(
                doors.http, _numbers(1000), callers=1, seconds=tier(short=1, soak=5)
            )
            if tier(short=False, soak=True):
                for each in slow:
                    assert await each.problem() == (504, "EXPIRED")
            taken = time.monotonic() - began
            for task in dripping:
                task.cancel()
            await asyncio.gather(*dripping, return_exceptions=True)
            return load, taken

    alone = asyncio.run(repeat(doors.http, _numbers(1000), callers=1, seconds=1))
    with PeakMemory(doors.pid) as peak, witness(doors.http, "healthz") as seen:
        load, taken = asyncio.run(run())
        health = seen.report()
    assert load.good
    assert not load.refused
    assert not load.others
    record("500 slow senders: until the last was cut", taken, unit="s", required="<= 15")
    record("500 slow senders: rate of another", load.per_second / alone.per_second)
    _check(doors, "500 slow senders", health, peak)


async def _drip(wire: Wire) -> None:
    """Send a byte now and then."""
    with suppress(ConnectionError):
        while True:
            await wire.send(b" ")
            await asyncio.sleep(1)


def test_stalled_bodies_do_not_keep_others_out(doors: Doors) -> None:
    """Who has sent a part of a long body and sends no more gives way to who does."""

    async def run() -> Load:
        async with Dialer(doors.http) as dial:
            for each in await dial.several(tier(short=40, soak=200)):
                await each.request("POST", "/v1/evaluate", b"[" * 100_000, content_length=8 * _MIB)
            await asyncio.sleep(0.5)
            seconds = tier(short=4, soak=10)
            return await repeat(doors.http, _numbers(2 * _MIB), callers=2, seconds=seconds)

    with PeakMemory(doors.pid) as peak, witness(doors.http, "healthz") as seen:
        load = asyncio.run(run())
        health = seen.report()
    assert load.good
    assert not load.others
    record("long bodies beside stalled ones: good", load.good, required=">= 5")
    _check(doors, "stalled bodies", health, peak)


def test_unread_answers_are_in_the_budget(doors: Doors) -> None:
    """Answers that nobody reads take memory of the budget, and end; others are answered."""
    put = _put(doors, np.zeros(3 << 19, np.float32))
    content = {
        "loss": "mse_loss",
        "inputs": {"input": {"resident": put}, "target": {"resident": put}},
        "gradients_for": ["input"],
    }
    body = json.dumps(content).encode()

    async def run() -> Load:
        async with Dialer(doors.http) as dial:
            for each in await dial.several(tier(short=60, soak=400)):
                each.pause()
                await each.request("POST", "/v1/evaluate", body, accept="multipart/form-data")
            return await repeat(
                doors.http, _numbers(1000), callers=1, seconds=tier(short=3, soak=20)
            )

    with PeakMemory(doors.pid) as peak, witness(doors.http, "healthz") as seen:
        load = asyncio.run(run())
        health = seen.report()
    assert load.good
    assert not load.others
    _check(doors, "unread answers", health, peak)


def _put(doors: Doors, array: np.ndarray) -> str:
    """Keep a tensor on the server; returns its id."""

    async def run() -> str:
        async with Dialer(doors.http) as dial:
            wire = await dial.open()
            media = "application/octet-stream"
            await wire.request("PUT", "/v1/tensors", npy(array), content_type=media)
            found: str = json.loads((await wire.answer())[2])["resident"]
            return found

    return asyncio.run(run())


def test_a_storm_of_resets_leaves_nothing(doors: Doors) -> None:
    """Connections that end at any moment leave neither descriptors nor memory."""
    before = vitals(doors.pid).descriptors
    host, _, port = doors.http.rpartition(":")
    head = b"POST /v1/evaluate HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    small = _numbers(1000)
    whole = head + b"content-length: %d\r\n\r\n" % len(small) + small
    end = time.monotonic() + tier(short=1.5, soak=12.0)
    count = 0
    with PeakMemory(doors.pid) as peak, witness(doors.http, "healthz") as seen:
        health = Report()
        # A busy machine may take longer for a first answer.
        while time.monotonic() < end or not (health := seen.report()).seconds:
            with socket.create_connection((host, int(port))) as one:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                one.sendall(whole[: count % (len(whole) + 1)])
            count += 1
    record("connections that were reset", count)
    _check(doors, "a storm of resets", health, peak)
    assert wait_until(lambda: vitals(doors.pid).descriptors <= before + 2) < 30


def test_more_callers_than_can_be_answered(doors: Doors) -> None:
    """Five times as many callers as keep the server busy get as much done in time."""
    body = _numbers(4000)
    seconds = tier(short=1.5, soak=10.0)
    callers = tier(short=80, soak=320)
    # Beside the same observers, who take a part of the processors.
    with PeakMemory(doors.pid), witness(doors.grpc, "health"):
        peak_load = repeat_apart(doors.http, body, callers=16, seconds=seconds, useful_seconds=1)
    with PeakMemory(doors.pid) as peak, witness(doors.grpc, "health") as seen:
        load = repeat_apart(doors.http, body, callers=callers, seconds=seconds, useful_seconds=1)
        health = seen.report()
    assert load.good
    assert not load.others
    assert not load.lost
    share = load.per_second / peak_load.per_second
    record("320 callers over HTTP: good in 1 s, of the peak's", share, required=">= 0.9")
    record("the peak over HTTP", peak_load.per_second, unit="calls/s")
    record(
        "320 callers over HTTP: p99 of gRPC's health", health.p99_ms, unit="ms", required="<= 100"
    )
    grown = peak.growth_bytes / _MIB
    record("320 callers over HTTP: growth", grown, unit="MiB", required=f"<= {_LIMIT_MIB}")
