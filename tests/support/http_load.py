"""Callers of the HTTP door who repeat one request as fast as they are answered."""

import asyncio
import json
import multiprocessing
import os
import time
from collections.abc import Coroutine
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tests.support.raw_http import Wire

_NICENESS = 10

_FIRST_WAIT = 0.05
"""Seconds before a caller tries again who was refused without being told when."""


@dataclass(slots=True)
class Load:
    """What became of the requests."""

    good: int = 0
    late: int = 0
    """Answers after the time in which they were of use."""
    refused: int = 0
    lost: int = 0
    """Requests without an answer, because the connection ended."""
    others: dict[int, int] = field(default_factory=dict)
    """Further answers, by status."""
    seconds: float = 0.0

    @property
    def per_second(self) -> float:
        """Good answers a second."""
        return self.good / self.seconds


async def repeat(
    address: str, body: bytes, *, callers: int, seconds: float, useful_seconds: float = 1e9
) -> Load:
    """Let callers evaluate a body again and again; who is refused waits as long as it is told."""
    load = Load()
    began = time.monotonic()
    end = began + seconds
    await asyncio.gather(
        *(_caller(address, body, load, end, useful_seconds) for _ in range(callers))
    )
    # Until the last one was answered.
    load.seconds = time.monotonic() - began
    return load


def repeat_apart(
    address: str, body: bytes, *, callers: int, seconds: float, useful_seconds: float
) -> Load:
    """Do as `repeat` in a process of its own, which gets the processors that the server leaves."""
    run = partial(
        repeat, address, body, callers=callers, seconds=seconds, useful_seconds=useful_seconds
    )
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, os.nice, (_NICENESS,)) as process:
        return process.submit(_run, run).result()


def _run(load: partial[Coroutine[Any, Any, Load]]) -> Load:
    return asyncio.run(load())


async def _caller(address: str, body: bytes, load: Load, end: float, useful: float) -> None:
    wire: Wire | None = None
    while time.monotonic() < end:
        if wire is None:
            wire = await Wire.open(address)
        sent = time.monotonic()
        try:
            status, fields, answer = await _ask(wire, body)
        except (ConnectionError, asyncio.IncompleteReadError):
            load.lost += 1
            await wire.closed()
            wire = None
            continue
        if fields.get("connection") == "close":
            await wire.closed()
            wire = None
        if status == 429:
            load.refused += 1
            wait = json.loads(answer).get("retry_after_ms", 1000 * _FIRST_WAIT)
            await asyncio.sleep(wait / 1000)
        elif status != 200:
            load.others[status] = load.others.get(status, 0) + 1
        elif time.monotonic() - sent <= useful:
            load.good += 1
        else:
            load.late += 1
    if wire is not None:
        await wire.closed()


async def _ask(wire: Wire, body: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send the request; an answer may come before all of it was sent."""
    sending = asyncio.create_task(wire.request("POST", "/v1/evaluate", body))
    try:
        status, fields, answer = await wire.answer()
    finally:
        sending.cancel()
        with suppress(asyncio.CancelledError, ConnectionError):
            await sending
    return status, dict(fields), answer
