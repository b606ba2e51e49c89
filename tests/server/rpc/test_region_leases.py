"""A region exists as long as the connection that leased it, and is freed completely."""

import asyncio
import fcntl
import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import grpc
import pytest

from losswire.server import thresholds
from losswire.server.app import App
from losswire.server.memory.regions.memory import RegionMemory
from tests.support.inside import PATIENCE, Gate, until
from tests.support.regions import Held, fetch
from tests.support.sharing import SIZE, create_from, fetch_from, freed, reserved, sharing


def _descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_a_closed_lease_frees_everything() -> None:
    """Bytes are reserved while a region lives, and descriptors do not grow."""

    async def body(app: App, channel: grpc.aio.Channel) -> None:
        before = 0
        for round_ in range(20):
            held = await fetch_from(channel)
            assert reserved(app) == SIZE
            held.close()
            await freed(app)
            del held
            if not round_:
                before = _descriptors()
        assert _descriptors() <= before

    sharing(body)


_VICTIM = """
import sys
import grpc
from losswire.v1 import loss_service_pb2, loss_service_pb2_grpc
from tests.support.inside import numbered
from tests.support.regions import create, fetch

address, stage = sys.argv[1:]
channel = grpc.insecure_channel(address)
created = create(channel, 8 << 20)
if stage != "created":
    held = fetch(created)
if stage == "evaluating":
    item = numbered(0.0)
    item.inputs["input"].CopyFrom(held.tensor(held.array((1,))))
    stub = loss_service_pb2_grpc.LossServiceStub(channel)
    call = stub.Evaluate.future(loss_service_pb2.EvaluateRequest(evaluation=item))
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("stage", ["created", "fetched", "evaluating"])
def test_a_caller_who_is_killed_leaves_nothing(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After SIGKILL in any stage, the bytes become free."""
    monkeypatch.setattr(thresholds, "TOKEN_SECONDS", 2.0)
    gate, listen = Gate(), tmp_path / "grpc.sock"

    async def body(app: App, _: grpc.aio.Channel) -> None:
        address = f"unix:{listen}"
        before = _descriptors()
        for _round in range(2):
            gate.reached.clear()
            gate.open.clear()
            victim = subprocess.Popen(  # noqa: ASYNC220 - starting one takes no time
                [sys.executable, "-c", textwrap.dedent(_VICTIM), address, stage],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
            assert victim.stdin is not None
            assert victim.stdout is not None
            with victim.stdin, victim.stdout:
                assert await asyncio.to_thread(victim.stdout.readline) == b"ready\n"
                if stage == "evaluating":
                    await until(gate.reached.is_set)
                assert reserved(app) >= (SIZE if stage != "created" else 0)
                victim.send_signal(signal.SIGKILL)
                await asyncio.to_thread(victim.wait)
            if stage == "evaluating":
                await until(lambda: not app.evaluator.regions.leased)
                # Torch still reads the memory: it is there, and counts.
                assert app.evaluator.regions.held_bytes == SIZE
                gate.open.set()
            await freed(app)
        gc.collect()
        # gRPC closes the killed caller's connection when it likes.
        await until(lambda: _descriptors() <= before)

    sharing(body, gate, listen=f"unix:{listen}")


def test_a_token_that_nobody_presents_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    """A region waits for its caller only until its token expires."""
    monkeypatch.setattr(thresholds, "TOKEN_SECONDS", 0.2)

    async def body(app: App, channel: grpc.aio.Channel) -> None:
        created = await create_from(channel)
        await freed(app)
        with pytest.raises(ConnectionError):
            await asyncio.to_thread(fetch, created)

    sharing(body)


def test_a_peer_that_talks_loses_its_lease() -> None:
    """After the token only evaluations are accepted."""

    async def body(app: App, channel: grpc.aio.Channel) -> None:
        held = await fetch_from(channel)
        held.lease.sendall(b"not a request")
        await until(lambda: not app.evaluator.regions.leased)
        held.close()
        await freed(app)

    sharing(body)


@pytest.mark.parametrize("kept", ["descriptor", "mapping"])
def test_contents_stay_as_long_as_somebody_has_them(kept: str) -> None:
    """A caller who ends the lease and keeps the memory keeps its contents, and they count."""

    async def body(app: App, channel: grpc.aio.Channel) -> None:
        held = await fetch_from(channel)
        held.memory[:4] = b"mine"
        held.lease.close()
        os.close(held.descriptor) if kept == "mapping" else held.memory.close()
        await until(lambda: not app.evaluator.regions.leased)
        await asyncio.sleep(3 * thresholds.MAX_RELEASE_CHECK_SECONDS)
        assert reserved(app) == app.evaluator.regions.held_bytes == SIZE
        if kept == "mapping":
            assert held.memory[:4] == b"mine"
            held.memory.close()
        else:
            assert os.pread(held.descriptor, 4, 0) == b"mine"
            os.close(held.descriptor)
        await freed(app)

    sharing(body)


def test_what_children_have_is_held_too() -> None:
    """Memory that a process inherits stays until it ends, even when its parent unmaps it."""

    async def body(app: App, channel: grpc.aio.Channel) -> None:
        held = await fetch_from(channel)
        held.memory[:4] = b"mine"
        command = [sys.executable, "-c", "import sys; sys.stdin.read()"]
        child = subprocess.Popen(  # noqa: ASYNC220 - starting one takes no time
            command, stdin=subprocess.PIPE, pass_fds=[held.descriptor]
        )
        held.lease.close()
        os.close(held.descriptor)
        held.memory.close()
        await until(lambda: not app.evaluator.regions.leased)
        await asyncio.sleep(3 * thresholds.MAX_RELEASE_CHECK_SECONDS)
        assert reserved(app) == SIZE
        child.communicate()
        await freed(app)

    sharing(body)


@pytest.mark.parametrize("way", ["unlock", "open anew"])
def test_memory_is_taken_back_from_who_cheats(way: str) -> None:
    """A caller who makes the server free memory that it still maps reads zeros."""

    async def body(app: App, channel: grpc.aio.Channel) -> None:
        held = await fetch_from(channel)
        held.memory[:4] = b"mine"
        kept = held.descriptor
        if way == "unlock":
            fcntl.flock(kept, fcntl.LOCK_UN)
        else:
            kept = os.open(f"/proc/self/fd/{held.descriptor}", os.O_RDWR)
            os.close(held.descriptor)
            held.memory.close()
        held.lease.close()
        await freed(app)
        assert os.fstat(kept).st_blocks == 0
        assert os.pread(kept, 4, 0) == bytes(4)
        os.close(kept)

    sharing(body)


def test_what_is_held_without_a_lease_takes_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mapped regions without a lease still count against the most regions."""
    monkeypatch.setattr(thresholds, "MAX_REGIONS", 2)

    async def body(app: App, channel: grpc.aio.Channel) -> None:
        held = [await fetch_from(channel, 1) for _ in range(2)]
        for each in held:
            each.lease.close()
        await until(lambda: not app.evaluator.regions.leased)
        with pytest.raises(grpc.RpcError) as refused:
            await create_from(channel, 1)
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        for each in held:
            each.close()
        await freed(app)
        (await fetch_from(channel, 1)).close()

    sharing(body)


def test_what_a_caller_holds_survives_the_server() -> None:
    """A server that ends does not clear mapped memory, which may hold results."""
    kept: list[Held] = []

    async def body(_: App, channel: grpc.aio.Channel) -> None:
        held = await fetch_from(channel)
        held.memory[:4] = b"mine"
        kept.append(held)

    sharing(body)
    [held] = kept
    assert held.memory[:4] == b"mine"
    assert held.lease.recv(1) == b""
    held.close()


def test_there_are_only_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small regions are counted, too: each takes descriptors."""
    monkeypatch.setattr(thresholds, "MAX_REGIONS", 3)

    async def body(app: App, channel: grpc.aio.Channel) -> None:
        held = [await fetch_from(channel, 1) for _ in range(3)]
        with pytest.raises(grpc.RpcError) as refused:
            await create_from(channel, 1)
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        held.pop().close()
        await until(lambda: app.evaluator.regions.leased == 2)
        held.append(await fetch_from(channel, 1))
        for each in held:
            each.close()
        await freed(app)

    sharing(body)


def test_a_call_that_is_cancelled_leaves_no_region(monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller who cancels before the region is created is like one who never connects."""
    monkeypatch.setattr(thresholds, "TOKEN_SECONDS", 0.2)
    begun, go_on = threading.Event(), threading.Event()

    def slowly(size: int) -> RegionMemory:
        begun.set()
        go_on.wait(PATIENCE)
        return RegionMemory(size)

    monkeypatch.setattr("losswire.server.memory.regions.store.RegionMemory", slowly)

    async def body(app: App, _: grpc.aio.Channel) -> None:
        asking = asyncio.ensure_future(app.evaluator.regions.create(SIZE))
        await until(begun.is_set)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert reserved(app) == SIZE
        go_on.set()
        await freed(app)

    sharing(body)
