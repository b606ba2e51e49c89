"""SIGTERM: requests in flight are answered, idle connections end, nothing waits for them."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from losswire.server.address import StartError
from losswire.server.app import App
from losswire.server.settings import Settings
from tests.support.http_door import open_door
from tests.support.inside import CLOSED, PATIENCE, Gate, until
from tests.support.raw_http import Dialer

_GATED = json.dumps({"loss": "gate", "inputs": {"input": [CLOSED]}, "reduction": "sum"}).encode()


def _settings(drain_seconds: float = PATIENCE) -> Settings:
    return Settings(
        listen="127.0.0.1:0",
        http="127.0.0.1:0",
        device="cpu",
        threads=1,
        memory_budget_bytes=64 << 20,
        drain_seconds=drain_seconds,
    )


def test_a_request_in_flight_is_answered() -> None:
    """Stopping waits for an evaluation, and tells meanwhile who asks; idle connections end."""

    async def run() -> None:
        gate = Gate()
        app = App(_settings(), gate.registry)
        await app.start()
        async with Dialer(app.http_address) as dial:
            busy, idle, silent = await dial.several(3)
            await idle.request("GET", "/readyz")
            assert (await idle.answer())[0] == 200
            await busy.request("POST", "/v1/evaluate", _GATED)
            await until(gate.reached.is_set)
            stopping = asyncio.create_task(app.stop())
            assert await idle.ended()
            assert await silent.ended()
            assert (await dial.ask("GET", "/healthz"))[0] == 200
            assert (await dial.ask("GET", "/readyz"))[0] == 503
            status, answer = await dial.ask("POST", "/v1/evaluate", _GATED)
            assert (status, json.loads(answer)["reason"]) == (503, "DRAINING")
            assert not stopping.done()
            gate.open.set()
            status, fields, _ = await busy.answer()
            assert (status, fields["connection"]) == (200, "close")
            assert await busy.ended()
            await stopping
            with pytest.raises(ConnectionRefusedError):
                await dial.ask("GET", "/healthz")

    asyncio.run(run())


def test_a_request_that_does_not_end_is_cut() -> None:
    """After the time to drain, a body that still comes is not waited for."""

    async def run() -> None:
        app = App(_settings(drain_seconds=0.2))
        await app.start()
        async with Dialer(app.http_address) as dial:
            wire = await dial.open()
            await wire.request("POST", "/v1/evaluate", b"{", content_length=100)
            await until(lambda: app.evaluator.budget.reserved_bytes > 0)
            await app.stop()
            assert await wire.ended()
            await until(lambda: app.evaluator.budget.reserved_bytes == 0)

    asyncio.run(run())


def test_a_process_ends_with_open_connections(tmp_path: Path) -> None:
    """SIGTERM ends a server with status 0 although callers keep their connections."""
    with open_door(tmp_path / "log") as door:
        assert door.client.get("/readyz").text == "ready\n"
        door.child.terminate()
        assert door.child.wait() == 0
        assert door.child.entries()[-1]["message"] == "stopped"


def test_an_address_in_use_is_refused() -> None:
    """A second server at the same address does not start, and says why."""

    async def run() -> None:
        app = App(_settings())
        await app.start()
        second = App(replace(_settings(), http=app.http_address))
        with pytest.raises(StartError, match=f"^--http {app.http_address}: cannot listen"):
            await second.start()
        await app.stop()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("0.0.0.0:0", "say --allow-insecure"),
        ("unix:/tmp/x", "expected HOST:PORT"),
        ("8080", "expected HOST:PORT"),
        ("127.0.0.1:65536", "expected HOST:PORT"),
        ("nowhere.invalid:0", "say --allow-insecure"),
    ],
)
def test_other_addresses_are_refused(address: str, says: str) -> None:
    """An address that others reach needs --allow-insecure; a unix socket is none of HTTP."""
    with pytest.raises(StartError, match=f"^--http {address}.*{says}"):
        asyncio.run(App(replace(_settings(), http=address)).start())
