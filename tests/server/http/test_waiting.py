"""Bodies that wait for memory: none for ever, each with an answer that its caller sees."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from losswire.server import thresholds
from losswire.server.app import App
from losswire.server.settings import MIB
from tests.support.inside import Gate, serving_app, until
from tests.support.raw_http import Dialer

_SOON = 0.2
"""Seconds that take the place of a limit which a test has to wait for."""

_HEAD = (
    b"POST /v1/evaluate HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)


def _run(body: Callable[[App, Dialer], Awaitable[None]], **changes: Any) -> None:  # noqa: ANN401 (any setting)
    """Run a function against a server; afterwards nothing is reserved."""

    async def run() -> None:
        async with (
            serving_app(Gate(), http="127.0.0.1:0", **changes) as (app, _),
            Dialer(app.http_address) as dial,
        ):
            await body(app, dial)
            await until(lambda: app.evaluator.budget.reserved_bytes == 0)

    asyncio.run(run())


def test_a_refusal_is_seen_by_who_sends_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who sends the whole of a long body that has no memory reads a 429 afterwards."""
    monkeypatch.setattr(thresholds, "ADMISSION_WAIT_SECONDS", _SOON)

    async def body(app: App, dial: Dialer) -> None:
        budget = app.evaluator.budget
        with budget.hold(budget.free_bytes - 10):
            wire = await dial.open()
            await wire.request("POST", "/v1/evaluate", b"[" * (7 * MIB))
            assert await wire.problem() == (429, "OVERLOADED")
            assert await wire.ended()

    _run(body)


def test_half_grown_bodies_do_not_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of bodies of unknown length that wait for each other's memory, one goes on."""
    monkeypatch.setattr(thresholds, "ADMISSION_WAIT_SECONDS", 1.0)
    text = json.dumps({"loss": "gate", "inputs": {"input": 1.0}, "reduction": "sum"}).encode()
    text += b" " * (4 * MIB)

    async def send(dial: Dialer) -> int:
        wire = await dial.open()

        async def write() -> None:
            await wire.send(_HEAD)
            for start in range(0, len(text), 100_000):
                chunk = text[start : start + 100_000]
                await wire.send(b"%x\r\n%b\r\n" % (len(chunk), chunk))
            await wire.send(b"0\r\n\r\n")

        writing = asyncio.create_task(write())
        status = (await wire.answer())[0]
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        return status

    async def body(_: App, dial: Dialer) -> None:
        statuses = await asyncio.gather(*(send(dial) for _ in range(6)))
        assert 200 in statuses
        assert set(statuses) <= {200, 429}

    _run(body, memory_budget_bytes=128 * MIB)


def test_a_deadline_includes_the_body() -> None:
    """Who is in no hurry to send has no more time than it asked for."""

    async def body(_: App, dial: Dialer) -> None:
        wire = await dial.open()
        await wire.request(
            "POST", "/v1/evaluate", b"{", content_length=100, losswire_timeout_ms=300
        )
        assert await wire.problem() == (504, "EXPIRED")

    _run(body)


def test_a_server_has_a_limit_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call without a deadline ends, too."""
    monkeypatch.setattr(thresholds, "MAX_CALL_SECONDS", _SOON)

    async def body(_: App, dial: Dialer) -> None:
        wire = await dial.open()
        await wire.request("POST", "/v1/evaluate", b"{", content_length=100)
        assert await wire.problem() == (504, "EXPIRED")

    _run(body)
