"""A region lives as long as the connection that fetched it, and leaves nothing behind."""

import asyncio
import fcntl
import gc
import math
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from losswire.server import thresholds
from losswire.server.app import App, StartError
from losswire.server.memory.regions.memory import RegionMemory
from losswire.server.pipeline.admit import peak_bytes, reply_bytes
from losswire.server.prepared.cache import PreparedCache, PreparedEvaluation
from losswire.server.settings import MIB, Settings
from losswire.v1 import (
    evaluation_pb2,
    loss_service_pb2,
    loss_service_pb2_grpc,
)
from losswire.wire import decode_tensor, encode_tensor
from tests.support.encodings import field
from tests.support.exact import same_bits
from tests.support.harness import Child
from tests.support.inside import CLOSED, PATIENCE, Gate, outcome, until
from tests.support.regions import Held, create, fetch, region, relocate
from tests.support.requests import TIMEOUT, Stub, by_call, evaluation, f32
from tests.support.sharing import SIZE, create_from, fetch_from, sharing

_PROMPT = 1.0
"""How many seconds may pass until the bytes of a caller who died are free."""


def _reserved(app: App) -> int:
    return app.evaluator.budget.reserved_bytes


def _descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def _freed(app: App, within: float = _PROMPT) -> None:
    """Wait until nothing is reserved and no region is left."""
    start = time.monotonic()
    await until(lambda: not _reserved(app) and not app.evaluator.regions.held_bytes)
    assert time.monotonic() - start < within


def test_a_closed_lease_frees_everything() -> None:
    """Bytes are reserved while a region lives, and descriptors do not grow."""

    async def body(app: App, channel: grpc.aio.Channel) -> None:
        before = 0
        for round_ in range(20):
            held = await fetch_from(channel)
            assert _reserved(app) == SIZE
            held.close()
            await _freed(app)
            del held
            if not round_:
                before = _descriptors()
        assert _descriptors() <= before

    sharing(body)


def test_a_known_form_keeps_no_region() -> None:
    """What is remembered of evaluations in a region does not keep it when its lease ends."""
    item = evaluation(
        "cross_entropy",
        {"input": np.zeros((300, 500), np.float32), "target": np.arange(300)},
        gradients_for=["input"],
    )

    async def body(app: App, channel: grpc.aio.Channel) -> None:
        stub = loss_service_pb2_grpc.LossServiceStub(channel)
        held = await fetch_from(channel, 2 << 20)
        item.inputs["input"].CopyFrom(held.tensor(held.array((300, 500))))
        item.gradient_destinations["input"].CopyFrom(held.place(held.array((300, 500))))
        for _ in range(3):
            await stub.Evaluate(loss_service_pb2.EvaluateRequest(evaluation=item))
        assert app.evaluator.regions.held_bytes == 2 << 20
        held.close()
        await _freed(app)
        assert not app.evaluator.regions.held_bytes

    sharing(body)


@pytest.mark.parametrize(("unknown", "kept"), [(100, 1), (100_000, 0)])
def test_a_form_is_kept_by_few_bytes(
    unknown: int, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies in a region is no part of a message, the rest of which has to be short."""
    made: list[PreparedEvaluation] = []
    monkeypatch.setattr(PreparedCache, "_keep", lambda _, known: made.append(known))
    item = evaluation(
        "cross_entropy",
        {"input": np.zeros((300, 500), np.float32), "target": np.arange(300)},
        gradients_for=["input"],
    )

    async def body(app: App, channel: grpc.aio.Channel) -> None:
        del app
        held = await fetch_from(channel, 2 << 20)
        item.inputs["input"].CopyFrom(held.tensor(held.array((300, 500))))
        message = item.SerializeToString() + field(15, bytes(unknown))
        call: Any = channel.unary_unary("/losswire.v1.LossService/Evaluate")
        await call(field(1, message), timeout=PATIENCE)
        assert len(made) == kept
        held.close()

    sharing(body)


@pytest.mark.parametrize(("loss", "kept"), [("mse_loss", 1), ("binary_cross_entropy", 0)])
def test_what_is_checked_is_not_read_where_its_caller_can_change_it(
    loss: str, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Elements that any loss accepts are known in a region; probabilities are copied each time."""
    made: list[PreparedEvaluation] = []
    keep = PreparedCache._keep

    def spy(forms: PreparedCache, known: PreparedEvaluation) -> None:
        made.append(known)
        keep(forms, known)

    monkeypatch.setattr(PreparedCache, "_keep", spy)
    names = ["input", "target"] if loss == "mse_loss" else ["input"]
    item = evaluation(loss, {}, gradients_for=names)
    draw = np.random.default_rng(3)

    async def body(app: App, channel: grpc.aio.Channel) -> None:
        stub = loss_service_pb2_grpc.LossServiceStub(channel)
        held = await fetch_from(channel, 4 << 20)
        inputs = {name: held.array((300, 500)) for name in ("input", "target")}
        gradients = {name: held.array((300, 500)) for name in names}
        for name, array in inputs.items():
            item.inputs[name].CopyFrom(held.tensor(array))
        for name, array in gradients.items():
            item.gradient_destinations[name].CopyFrom(held.place(array))
        plain = evaluation(loss, {}, gradients_for=names)
        for _ in range(3):
            for name, array in inputs.items():
                array[...] = draw.random((300, 500))
                plain.inputs[name].CopyFrom(encode_tensor(array))
            expected = await outcome(app.evaluator, plain, math.inf)
            found = await stub.Evaluate(loss_service_pb2.EvaluateRequest(evaluation=item))
            assert found.result.loss == expected.result.loss
            for name, array in gradients.items():
                assert same_bits(array, decode_tensor(expected.result.gradients[name]))
        assert len(made) == kept
        held.close()

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
    """Wherever SIGKILL meets a caller, the bytes come back within a second."""
    monkeypatch.setattr(thresholds, "TOKEN_SECONDS", 0.5)
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
                assert _reserved(app) >= (SIZE if stage != "created" else 0)
                victim.send_signal(signal.SIGKILL)
                await asyncio.to_thread(victim.wait)
            if stage == "evaluating":
                await until(lambda: not app.evaluator.regions.leased)
                # Torch still reads the memory: it is there, and counts.
                assert app.evaluator.regions.held_bytes == SIZE
                gate.open.set()
            await _freed(app)
        gc.collect()
        # gRPC closes the killed caller's connection when it likes.
        await until(lambda: _descriptors() <= before)

    sharing(body, gate, listen=f"unix:{listen}")


def test_a_token_that_nobody_presents_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    """A region waits for its caller for a moment, and then not."""
    monkeypatch.setattr(thresholds, "TOKEN_SECONDS", 0.2)

    async def body(app: App, channel: grpc.aio.Channel) -> None:
        created = await create_from(channel)
        await _freed(app)
        with pytest.raises(ConnectionError):
            await asyncio.to_thread(fetch, created)

    sharing(body)


def test_tokens_work_once(child: Child) -> None:
    """A token that was used, and one that never was one, fetch nothing."""
    with child.channel() as channel:
        created = create(channel, 1)
        held = fetch(created)
        with pytest.raises(ConnectionError):
            fetch(created)
        other = create(channel, 1)
        for token in (b"", bytes(32), other.token[:31], other.token[:-1] + b"\0", b"\xff" * 64):
            with socket.socket(socket.AF_UNIX) as peer:
                peer.connect(other.socket_path)
                peer.sendall(token)
                peer.shutdown(socket.SHUT_WR)
                # What is behind a token is not read, which the kernel calls a reset.
                with suppress(ConnectionResetError):
                    assert socket.recv_fds(peer, 1, 1)[:2] == (b"", [])
        fetch(other).close()
        held.close()


def test_a_peer_that_says_nothing_is_let_go(child: Child) -> None:
    """A connection without a token ends by itself, and others are served meanwhile."""
    with child.channel() as channel:
        path = create(channel, 1).socket_path
        silent = [socket.socket(socket.AF_UNIX) for _ in range(8)]
        for peer in silent:
            peer.settimeout(TIMEOUT)
            peer.connect(path)
        with region(channel):
            pass
        for peer in silent:
            assert peer.recv(1) == b""
            peer.close()


def test_a_peer_that_talks_loses_its_lease() -> None:
    """After the token nothing is said but evaluations."""

    async def body(app: App, channel: grpc.aio.Channel) -> None:
        held = await fetch_from(channel)
        held.lease.sendall(b"not a request")
        await until(lambda: not app.evaluator.regions.leased)
        held.close()
        await _freed(app)

    sharing(body)


@pytest.mark.parametrize("kept", ["descriptor", "mapping"])
def test_contents_stay_as_long_as_somebody_has_them(kept: str) -> None:
    """Whoever gives up the lease and keeps the memory keeps its contents, and they count."""

    async def body(app: App, channel: grpc.aio.Channel) -> None:
        held = await fetch_from(channel)
        held.memory[:4] = b"mine"
        held.lease.close()
        os.close(held.descriptor) if kept == "mapping" else held.memory.close()
        await until(lambda: not app.evaluator.regions.leased)
        await asyncio.sleep(3 * thresholds.MAX_RELEASE_CHECK_SECONDS)
        assert _reserved(app) == app.evaluator.regions.held_bytes == SIZE
        if kept == "mapping":
            assert held.memory[:4] == b"mine"
            held.memory.close()
        else:
            assert os.pread(held.descriptor, 4, 0) == b"mine"
            os.close(held.descriptor)
        await _freed(app)

    sharing(body)


def test_what_children_have_is_held_too() -> None:
    """Memory that a process inherits is its own until it ends, whatever its parent does."""

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
        assert _reserved(app) == SIZE
        child.communicate()
        await _freed(app)

    sharing(body)


@pytest.mark.parametrize("way", ["unlock", "open anew"])
def test_memory_is_taken_back_from_who_cheats(way: str) -> None:
    """Whoever makes the server believe that the memory is free has zeros: what counts is there."""

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
        await _freed(app)
        assert os.fstat(kept).st_blocks == 0
        assert os.pread(kept, 4, 0) == bytes(4)
        os.close(kept)

    sharing(body)


def test_what_is_held_without_a_lease_takes_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ending leases makes no room for more regions than there may be."""
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
        await _freed(app)
        (await fetch_from(channel, 1)).close()

    sharing(body)


def test_what_a_caller_holds_survives_the_server() -> None:
    """A server that ends leaves the memory to those who have it: there may be results in it."""
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


def test_an_evaluation_goes_on_without_the_lease() -> None:
    """Memory that is freed while it is read stays until it is not."""
    gate = Gate()

    async def body(app: App, channel: grpc.aio.Channel) -> None:
        held = await fetch_from(channel)
        numbers = held.array((2,))
        numbers[1] = 5
        item = evaluation("gate", {"input": held.tensor(numbers)}, reduction=3)
        running = asyncio.ensure_future(app.evaluator.evaluate(item, float("inf")))
        await until(gate.reached.is_set)
        held.lease.close()
        await until(lambda: not app.evaluator.regions.leased)
        assert _reserved(app) > SIZE
        gate.open.set()
        assert (await running).message.sum == CLOSED + 5
        held.close()
        await _freed(app)

    sharing(body, gate)


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
        await _freed(app)

    sharing(body)


def test_a_call_that_is_cancelled_leaves_no_region(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for a region and leaves before it is made is like one who never comes."""
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
        assert _reserved(app) == SIZE
        go_on.set()
        await _freed(app)

    sharing(body)


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_socket_is_private_and_goes_with_the_server() -> None:
    """Nobody else may enter the folder, and nothing of it stays."""
    folders: list[Path] = []

    async def body(app: App, _: grpc.aio.Channel) -> None:
        path = Path(app.evaluator.regions.socket_path)
        assert [_mode(each) for each in (path, path.parent)] == [0o600, 0o700]
        folders.append(path.parent)

    sharing(body)
    assert not folders[0].exists()


def test_a_chosen_socket(tmp_path: Path) -> None:
    """A path of the operator's is used, taken over from a server that is gone, and removed."""
    path = tmp_path / "losswire.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))

    async def body(_: App, channel: grpc.aio.Channel) -> None:
        created = await create_from(channel)
        assert created.socket_path == str(path)
        with pytest.raises(StartError, match="a server listens there"):
            await _start(region_socket=str(path))

    sharing(body, region_socket=str(path))
    assert list(tmp_path.iterdir()) == []


async def _start(**changes: object) -> None:
    facts: dict[str, object] = {
        "listen": "127.0.0.1:0",
        "device": "cpu",
        "threads": 1,
        "memory_budget_bytes": 64 * MIB,
        "region_quota_bytes": MIB,
        "drain_seconds": PATIENCE,
        **changes,
    }
    app = App(Settings(**facts))  # type: ignore[arg-type]
    await app.start()
    await app.stop()


@pytest.mark.parametrize("what", ["file", "folder", "long"])
def test_paths_that_cannot_be_listened_at(tmp_path: Path, what: str) -> None:
    """What is no socket is left alone, and the server does not start without what was asked."""
    path = tmp_path / "taken"
    if what == "file":
        path.write_text("mine")
    elif what == "folder":
        path = tmp_path / "missing" / "regions.sock"
    else:
        path = tmp_path / ("x" * 200)
    with pytest.raises(StartError, match="--region-socket"):
        asyncio.run(_start(region_socket=str(path)))
    assert what != "file" or path.read_text() == "mine"


@pytest.mark.parametrize(("path", "shared"), [("", False), ("regions.sock", True)])
def test_other_machines_are_offered_none(tmp_path: Path, path: str, *, shared: bool) -> None:
    """A server that other machines reach hands regions out only where it was told to."""
    chosen = str(tmp_path / path) if path else ""

    async def body(app: App, _: grpc.aio.Channel) -> None:
        assert bool(app.evaluator.regions.socket_path) == shared

    sharing(body, listen="0.0.0.0:0", allow_insecure=True, region_socket=chosen)


_PLAIN_PYTHON = shutil.which("python3", path="/usr/bin:/usr/local/bin")
"""One that every user may run."""


@pytest.mark.skipif(
    os.geteuid() != 0 or _PLAIN_PYTHON is None, reason="only root can be somebody else"
)
def test_other_users_are_refused(tmp_path: Path) -> None:
    """Even with a token and a folder that is open: the kernel tells whose the peer is."""
    path = tmp_path / "regions.sock"
    script = (
        "import socket, sys; peer = socket.socket(socket.AF_UNIX); peer.connect(sys.argv[1]); "
        "peer.sendall(bytes.fromhex(sys.argv[2])); print(socket.recv_fds(peer, 1, 1)[:2])"
    )

    async def body(_: App, channel: grpc.aio.Channel) -> None:
        for folder in (tmp_path, *tmp_path.parents[:3]):
            folder.chmod(0o755)
        path.chmod(0o666)
        for user, expected in ((65534, "(b'', [])"), (0, "(b'\\x01', [")):
            token = (await create_from(channel)).token.hex()
            found = await asyncio.to_thread(
                subprocess.run,
                [str(_PLAIN_PYTHON), "-c", script, str(path), token],
                user=user,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
                cwd="/",
            )
            refused = "ConnectionResetError" in found.stdout or "BrokenPipe" in found.stdout
            assert found.stdout.startswith(expected) or (user and refused), found.stdout

    sharing(body, region_socket=str(path))


def test_the_same_evaluation_before_and_after(child: Child) -> None:
    """Regions that come and go leave the server as it was."""
    with child.channel() as channel:
        stub = Stub(channel)
        for _ in range(50):
            with region(channel) as held:
                numbers = held.array((4,))
                numbers[...] = 2
                inputs: dict[str, Any] = {"input": held.tensor(numbers), "target": f32(0, 0, 0, 0)}
                item = evaluation("mse_loss", inputs)
                assert by_call(stub, item).result.sum == 16


def test_what_lies_in_regions_is_not_paid_for_again() -> None:
    """The price leaves out what is read and written in place, and nothing that is copied."""
    inputs = {"input": np.zeros((600, 500), "f4"), "target": np.zeros(600, np.int64)}
    item = evaluation("cross_entropy", inputs, gradients_for=["input"])

    async def body(app: App, channel: grpc.aio.Channel) -> None:
        held = await fetch_from(channel)
        moved, gradients = relocate(item, held)
        plain, shared = [await app.evaluator.prepare(each) for each in (item, moved)]
        in_place = inputs["input"].nbytes + gradients["input"].nbytes
        assert peak_bytes(shared) == peak_bytes(plain) - in_place
        assert reply_bytes(shared) == reply_bytes(plain) - gradients["input"].nbytes
        moved.engine = evaluation_pb2.ENGINE_AUTOGRAD
        # Autograd makes a gradient of its own, which is copied.
        copied = await app.evaluator.prepare(moved)
        assert peak_bytes(copied) == peak_bytes(plain) - inputs["input"].nbytes
        held.close()

    sharing(body)
