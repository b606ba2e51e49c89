"""Leases under attack, from outside: answers that nobody reads, and a server that ends."""

import socket
import struct
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from losswire.client import Client
from losswire.v1 import evaluation_pb2, loss_service_pb2
from tests.support.harness import Child
from tests.support.regions import Held, create, fetch, receive
from tests.support.requests import GOLDEN, Stub, by_call, evaluation, f32, is_golden
from tests.support.soak import record, tier
from tests.support.vitals import PeakMemory, wait_until

_MIB = 1 << 20
_HEADER = struct.Struct("<II")
_BUDGET = 256 * _MIB


def _framed(item: evaluation_pb2.Evaluation) -> bytes:
    request = loss_service_pb2.EvaluateRequest(evaluation=item).SerializeToString()
    return _HEADER.pack(len(request), 0) + request


def _large_answer(held: Held) -> bytes:
    """Return a request of a few bytes whose answer takes 12 MiB."""
    item = evaluation("mse_loss", {}, gradients_for=["input"])
    for name in ("input", "target"):
        item.inputs[name].CopyFrom(held.at(0, 3 * _MIB))
    return _framed(item)


def test_answers_that_nobody_reads_stay_in_the_budget(tmp_path: Path) -> None:
    """Leases whose peers never read: memory within the budget, and others are served."""
    leases = tier(short=6, soak=12)
    with Child(tmp_path / "log", "--memory-budget-mib", "256") as child, ExitStack() as stack:
        channel = stack.enter_context(child.channel())
        memory = stack.enter_context(PeakMemory(child.process.pid))
        end = time.monotonic() + tier(short=3, soak=60)
        sent = 0
        while time.monotonic() < end:
            held = [fetch(create(channel, 4096 * 3072)) for _ in range(leases // 3)]
            for each in held:
                request = _large_answer(each)
                for _ in range(5):
                    try:
                        each.lease.sendall(request)
                    except OSError:
                        break
                    sent += 1
                    time.sleep(0.08)
            assert is_golden(by_call(Stub(channel), GOLDEN).result)
            for each in held:
                each.close()
        growth = memory.growth_bytes / _MIB
        record("memory while leases do not read", growth, unit="MiB", required="<= 307")
        assert memory.growth_bytes <= 1.2 * _BUDGET
        assert sent


@pytest.mark.parametrize("is_open", [False, True])
def test_leases_drain(tmp_path: Path, *, is_open: bool) -> None:
    """At SIGTERM an idle lease ends at once, whatever its peer sends, and the server with it."""
    with Child(tmp_path / "log", "--drain-seconds", "60") as child, child.channel() as channel:
        held = fetch(create(channel, 4096))
        small = _framed(evaluation("mse_loss", {"input": f32(1), "target": f32(2)}))
        over = threading.Event()
        served = [0.0]

        def go_on() -> None:
            try:
                while not over.is_set():
                    held.lease.sendall(small)
                    size, code = _HEADER.unpack(receive(held.lease, _HEADER.size))
                    receive(held.lease, size)
                    assert code == 0
                    served.append(time.monotonic())
            except OSError:
                pass

        caller = threading.Thread(target=go_on)
        if is_open:
            caller.start()
            wait_until(lambda: len(served) > 10)
        began = time.monotonic()
        child.terminate()
        status = child.wait()
        took = time.monotonic() - began
        over.set()
        if is_open:
            caller.join()
        held.lease.settimeout(10)
        with pytest.raises((ConnectionError, AssertionError, socket.timeout)):
            assert held.lease.recv(1)
        held.close()
        assert status == 0
        record("SIGTERM with a lease to the exit", took, unit="s", required="<= 10")
        assert took < 30


def _wait_for_more(results: list[float]) -> None:
    enough = len(results) + 50
    wait_until(lambda: len(results) > enough)


def test_calls_over_leases_go_on_elsewhere(tmp_path: Path) -> None:
    """A server that is replaced while a client calls over its lease: no call fails."""
    address = f"unix:{tmp_path}/grpc.sock"
    rng = np.random.default_rng(1)
    x, y = rng.random((8, 8), np.float32), rng.random((8, 8), np.float32)
    expected = float(((x.astype(float) - y) ** 2).mean())
    results: list[float] = []
    over = threading.Event()

    def call(client: Client) -> None:
        while not over.is_set():
            results.append(float(client.evaluate("mse_loss", {"input": x, "target": y}).loss))

    with Client(address, timeout=60) as client:
        for _ in range(tier(short=1, soak=10)):
            with Child(tmp_path / "log", listen=address) as child:
                if not results:
                    caller = threading.Thread(target=call, args=(client,))
                    caller.start()
                _wait_for_more(results)
                child.terminate()
                assert child.wait() == 0
        with Child(tmp_path / "log", listen=address):
            _wait_for_more(results)
            over.set()
            caller.join()
    assert np.allclose(results, expected, rtol=1e-5)
