"""Futures that nobody asks: silence for what the stream gave up, not for what was refused."""

import asyncio
import gc
import logging
from typing import Any

import pytest

from losswire.client import AsyncClient, Evaluation
from losswire.v1 import evaluation_pb2, status_pb2
from tests.support.scripted import Scripted, serving
from tests.support.scripted_streams import Hung

_ITEM = Evaluation("any", {"x": 1.0})


def _refuse(_: evaluation_pb2.Evaluation) -> evaluation_pb2.EvaluationOutcome:
    return evaluation_pb2.EvaluationOutcome(error=status_pb2.Status(code=3, reason="NO"))


async def _leave(client: AsyncClient, end: str) -> None:
    """Begin a stream with five items, and end it without a look at their futures."""
    stream = client.stream(timeout=60)
    await stream.__aenter__()
    for _ in range(5):
        await stream.submit(_ITEM)
    await asyncio.sleep(0.05)
    if end == "close":
        await client.close()
    await stream.__aexit__(KeyError, KeyError(), None)
    gc.collect()
    await asyncio.sleep(0)


@pytest.mark.parametrize("end", ["exception", "close"])
def test_what_the_stream_gave_up_is_not_logged(caplog: pytest.LogCaptureFixture, end: str) -> None:
    """The caller left the block: that the answers were not waited for is no news."""

    async def run(address: str) -> None:
        async with AsyncClient(address) as client:
            await _leave(client, end)

    hung = Hung()
    with serving(hung) as service, caplog.at_level(logging.WARNING, "asyncio"):
        asyncio.run(run(service.address))
        hung.released.set()
    gc.collect()
    assert caplog.messages == []


def test_what_the_server_refused_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """By the event loop, as of any future whose exception nobody asks for."""

    async def run(address: str) -> Any:  # noqa: ANN401 (nothing)
        async with AsyncClient(address) as client:
            await _leave(client, "exception")

    with (
        serving(Scripted(item_script=_refuse)) as service,
        caplog.at_level(logging.WARNING, "asyncio"),
    ):
        asyncio.run(run(service.address))
    gc.collect()
    assert [each for each in caplog.messages if "never retrieved" in each]
