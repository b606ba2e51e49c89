"""Who sends or reads too slowly, too much or in fragments is cut, and nobody else suffers."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest

from losswire.server import thresholds
from losswire.server.app import App
from losswire.server.http import limits
from losswire.server.memory.budget import Kind
from losswire.server.settings import MIB
from tests.support.http_door import npy
from tests.support.inside import CLOSED, Gate, serving_app, until
from tests.support.raw_http import Dialer

_SOON = 0.2
"""Seconds that take the place of a limit which a test has to wait for."""


def _number(number: float, elements: int = 1) -> bytes:
    """Return the JSON of an evaluation of the gate for a number."""
    content = {"loss": "gate", "inputs": {"input": [number] * elements}, "reduction": "sum"}
    return json.dumps(content).encode()


def _run(body: Callable[[App, Dialer, Gate], Awaitable[None]], **changes: Any) -> None:  # noqa: ANN401 (any setting)
    """Run a function against a server with an HTTP door, both on one new event loop.

    Afterwards nothing is reserved.
    """

    async def run() -> None:
        gate = Gate()
        async with (
            serving_app(gate, http="127.0.0.1:0", **changes) as (app, _),
            Dialer(app.http_address) as dial,
        ):
            await body(app, dial, gate)
            await until(lambda: app.evaluator.budget.reserved_bytes == 0)
            assert (await dial.ask("GET", "/healthz"))[0] == 200

    asyncio.run(run())


def test_a_header_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A first header, and one after an answer, have a deadline."""
    monkeypatch.setattr(limits, "HTTP_HEADER_SECONDS", _SOON)

    async def body(_: App, dial: Dialer, __: Gate) -> None:
        silent, begun, again = await dial.several(3)
        await begun.send(b"GET /healthz HT")
        await again.request("GET", "/healthz")
        assert (await again.answer())[0] == 200
        await again.send(b"GET /healthz HT")
        assert await silent.ended()
        assert await begun.ended()
        assert await again.ended()

    _run(body)


def test_a_long_header_is_refused() -> None:
    """More than 16 KiB of header are a problem, and the end of the connection."""

    async def body(_: App, dial: Dialer, __: Gate) -> None:
        wire = await dial.open()
        await wire.send(b"GET / HTTP/1.1\r\nhost: localhost\r\na: " + b"x" * 20_000)
        assert await wire.problem() == (400, "MALFORMED_MESSAGE")
        assert await wire.ended()

    _run(body)


def test_what_is_not_http_is_refused() -> None:
    """Bytes of another protocol get an answer that HTTP has."""

    async def body(_: App, dial: Dialer, __: Gate) -> None:
        wire = await dial.open()
        await wire.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")
        assert await wire.problem() == (400, "MALFORMED_MESSAGE")
        assert await wire.ended()

    _run(body)


def test_five_hundred_slow_senders_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bodies that hardly come end with 504; meanwhile health and evaluations are answered."""
    monkeypatch.setattr(thresholds, "GRACE_SECONDS", 5.0)

    async def body(app: App, dial: Dialer, gate: Gate) -> None:
        slow = await dial.several(500)
        for each in slow:
            await each.request("POST", "/v1/evaluate", b"{", content_length=1 << 20)
        held = len(slow) * limits.HTTP_CALL_BYTES
        await until(lambda: app.evaluator.budget.reserved_bytes >= held)
        assert (await dial.ask("GET", "/readyz"))[0] == 200
        assert (await dial.ask("POST", "/v1/evaluate", _number(3.0)))[0] == 200
        assert gate.computed == [3.0]
        for each in slow:
            assert await each.problem() == (504, "EXPIRED")
            assert await each.ended()

    _run(body)


def test_a_pause_in_a_body_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was sent before, a part has to come in time."""
    monkeypatch.setattr(thresholds, "GRACE_SECONDS", _SOON)

    async def body(_: App, dial: Dialer, __: Gate) -> None:
        wire = await dial.open()
        await wire.request("POST", "/v1/evaluate", b"{" * 50_000, content_length=1 << 20)
        assert await wire.problem() == (504, "EXPIRED")

    _run(body)


def test_a_flood_of_fragments_is_refused() -> None:
    """Chunks of one byte cost as much as large ones: after the first there may not be many."""

    async def body(_: App, dial: Dialer, __: Gate) -> None:
        wire = await dial.open()
        head = (
            b"POST /v1/evaluate HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        )
        await wire.send(head + b"transfer-encoding: chunked\r\n\r\n" + b"1\r\n{\r\n" * 2000)
        assert await wire.problem() == (400, "MALFORMED_MESSAGE")

    _run(body)


def test_short_rows_are_no_flood() -> None:
    """Whoever sends a row at a time, in chunks of 20 bytes, is answered."""

    async def body(_: App, dial: Dialer, gate: Gate) -> None:
        text = _number(3.0, elements=10_000)
        chunks = [text[start : start + 20] for start in range(0, len(text), 20)]
        wire = await dial.open()
        head = (
            b"POST /v1/evaluate HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        )
        await wire.send(head + b"transfer-encoding: chunked\r\n\r\n")
        for each in (*chunks, b""):
            await wire.send(b"%x\r\n%s\r\n" % (len(each), each))
        status, *_rest, answer = await wire.answer()
        assert (status, json.loads(answer)["loss"]) == (200, 30_000.0)
        assert gate.computed == [3.0]

    _run(body)


def test_connections_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """One too many ends the one that has been idle for longest; if none is, it ends itself."""
    monkeypatch.setattr(limits, "HTTP_MAX_CONNECTIONS", 3)

    async def body(app: App, dial: Dialer, gate: Gate) -> None:
        wires = await dial.several(3)
        for each in wires:
            await each.request("GET", "/healthz")
            assert (await each.answer())[0] == 200
        assert (await dial.ask("GET", "/healthz"))[0] == 200
        assert await wires[0].ended()
        wires = [*wires[1:], await dial.open()]
        for each in wires:
            await each.request("POST", "/v1/evaluate", _number(CLOSED))
        held = len(wires) * limits.HTTP_CALL_BYTES
        await until(lambda: app.evaluator.budget.reserved_bytes >= held)
        assert await (await dial.open()).ended()
        gate.open.set()
        for each in wires:
            assert (await each.answer())[0] == 200

    _run(body)


def test_a_caller_who_does_not_read_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that nobody reads does not keep its memory."""
    monkeypatch.setattr(thresholds, "GRACE_SECONDS", _SOON)
    monkeypatch.setattr(thresholds, "BYTES_PER_SECOND", 1 << 30)
    elements = 3_000_000

    async def body(app: App, dial: Dialer, _: Gate) -> None:
        wire = await dial.open()
        wire.pause()
        numbers = b"1" + b",1" * (elements - 1)
        text = b'{"loss": "gate", "reduction": "none", "inputs": {"input": [' + numbers + b"]}}"
        await wire.request("POST", "/v1/evaluate", text)
        await until(lambda: app.evaluator.budget.reserved_bytes > 0)
        await until(lambda: app.evaluator.budget.reserved_bytes == 0)
        wire.resume()
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await wire.answer()

    _run(body, memory_budget_bytes=2048 * MIB)


def test_a_caller_who_leaves_is_not_computed_for() -> None:
    """What waits for the worker is dropped when its caller closes the connection."""

    async def body(app: App, dial: Dialer, gate: Gate) -> None:
        first, second = await dial.several(2)
        await first.request("POST", "/v1/evaluate", _number(CLOSED))
        await until(gate.reached.is_set)
        before = app.evaluator.budget.reserved_bytes
        await second.request("POST", "/v1/evaluate", _number(5.0))
        await until(lambda: app.evaluator.budget.reserved_bytes > before)
        second.close()
        await until(lambda: app.evaluator.budget.reserved_bytes == before)
        gate.open.set()
        assert (await first.answer())[0] == 200
        assert gate.computed == [CLOSED]

    _run(body)


def test_a_caller_who_leaves_is_seen_behind_the_next_request() -> None:
    """Also when some bytes of another request have come, which are not read yet."""

    async def body(app: App, dial: Dialer, gate: Gate) -> None:
        first, second = await dial.several(2)
        await first.request("POST", "/v1/evaluate", _number(CLOSED))
        await until(gate.reached.is_set)
        before = app.evaluator.budget.reserved_bytes
        await second.request("POST", "/v1/evaluate", _number(5.0))
        await until(lambda: app.evaluator.budget.reserved_bytes > before)
        await second.request("GET", "/healthz")
        # So that the server reads them apart.
        assert (await dial.ask("GET", "/healthz"))[0] == 200
        second.close()
        await until(lambda: app.evaluator.budget.reserved_bytes == before)
        gate.open.set()
        assert (await first.answer())[0] == 200
        assert gate.computed == [CLOSED]

    _run(body)


def test_a_slow_reader_has_time_for_each_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time to read an answer does not end a later one over the same connection."""
    monkeypatch.setattr(thresholds, "GRACE_SECONDS", 3.0)
    elements = 500_000

    async def body(_: App, dial: Dialer, __: Gate) -> None:
        wire = await dial.open()
        await wire.request("GET", "/healthz")
        assert (await wire.answer())[0] == 200
        await asyncio.sleep(2)
        wire.pause()
        numbers = b"1" + b",1" * (elements - 1)
        text = b'{"loss": "gate", "reduction": "none", "inputs": {"input": [' + numbers + b"]}}"
        await wire.request("POST", "/v1/evaluate", text)
        await asyncio.sleep(1.5)
        wire.resume()
        assert (await wire.answer())[0] == 200

    _run(body, memory_budget_bytes=1024 * MIB)


def test_an_answer_in_parts_is_held_until_it_is_read() -> None:
    """Its tensors take memory of the budget as long as its caller does not read them."""
    elements = 2_000_000

    async def body(app: App, dial: Dialer, gate: Gate) -> None:
        wire = await dial.open()
        wire.pause()
        tensor = npy(np.ones(elements, np.float32))
        request = b'{"loss": "gate", "reduction": "none"}'
        parts = {b"request": request, b"inputs.input": tensor}
        text = b"".join(
            b'--cut\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % each
            for each in parts.items()
        )
        media = "multipart/form-data; boundary=cut"
        await wire.request(
            "POST", "/v1/evaluate", text + b"--cut--\r\n", content_type=media, accept=media
        )
        await until(lambda: bool(gate.computed))
        await asyncio.sleep(0.5)
        assert app.evaluator.budget.by_kind[Kind.ANSWER] >= 4 * elements
        assert app.evaluator.budget.reserved_bytes < 2 * 4 * elements
        wire.close()

    _run(body, memory_budget_bytes=256 * MIB)


def test_a_deadline_is_kept() -> None:
    """The header's milliseconds are the caller's patience: then comes a 504."""

    async def body(_: App, dial: Dialer, gate: Gate) -> None:
        wire = await dial.open()
        await wire.request("POST", "/v1/evaluate", _number(CLOSED), losswire_timeout_ms=300)
        assert await wire.problem() == (504, "EXPIRED")
        await wire.request("GET", "/healthz")
        assert (await wire.answer())[0] == 200
        gate.open.set()

    _run(body)


def test_a_body_is_held_in_the_budget() -> None:
    """What a body takes is reserved before it comes, and free again when its caller leaves."""

    async def body(app: App, dial: Dialer, _: Gate) -> None:
        wire = await dial.open()
        await wire.request("POST", "/v1/evaluate", b"[" * MIB, content_length=4 * MIB)
        await until(lambda: app.evaluator.budget.by_kind[Kind.RECEIVE] >= 4 * MIB)
        wire.close()

    _run(body)


def test_a_body_that_only_begins_takes_little() -> None:
    """To declare a long body costs a caller nothing, and so it gets nothing for it."""

    async def body(app: App, dial: Dialer, _: Gate) -> None:
        wire = await dial.open()
        await wire.request("POST", "/v1/evaluate", b"[", content_length=8 * MIB)
        await until(lambda: app.evaluator.budget.reserved_bytes > 0)
        await asyncio.sleep(0.1)
        assert app.evaluator.budget.reserved_bytes == limits.HTTP_CALL_BYTES
        wire.close()

    _run(body)


def test_a_body_waits_for_memory() -> None:
    """What does not fit now is not read yet, and answered when there is memory."""

    async def body(app: App, dial: Dialer, gate: Gate) -> None:
        budget = app.evaluator.budget
        with budget.hold(budget.free_bytes - 10):
            wire = await dial.open()
            waiting = asyncio.create_task(
                wire.request("POST", "/v1/evaluate", _number(1.0, elements=1_000_000))
            )
            await until(lambda: len(budget.line) > 0)
            # The rest is in the buffers of both sides.
            assert not waiting.done()
            assert not gate.computed
        assert (await wire.answer())[0] == 200
        await waiting

    _run(body, memory_budget_bytes=256 * MIB)


def test_a_full_budget_is_pushed_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has waited for memory in vain gets 429, with the time to come back."""
    monkeypatch.setattr(thresholds, "ADMISSION_WAIT_SECONDS", _SOON)

    async def body(app: App, dial: Dialer, _: Gate) -> None:
        budget = app.evaluator.budget
        with budget.hold(budget.free_bytes - 10):
            wire = await dial.open()
            await wire.request("POST", "/v1/evaluate", _number(1.0))
            status, fields, answer = await wire.answer()
        assert (status, json.loads(answer)["reason"]) == (429, "OVERLOADED")
        assert int(fields["retry-after"]) >= 1
        assert json.loads(answer)["retry_after_ms"] > 0

    _run(body)


def test_lists_that_would_grow_are_refused() -> None:
    """A list of empty lists takes many times its text: it never fits, and is not parsed."""

    async def body(_: App, dial: Dialer, __: Gate) -> None:
        text = b'{"loss": "gate", "inputs": {"input": [' + b"[]," * 900_000 + b"[]]}}"
        status, answer = await dial.ask("POST", "/v1/evaluate", text)
        assert (status, json.loads(answer)["reason"]) == (413, "OVER_LIMIT")

    _run(body)
