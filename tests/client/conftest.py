"""What the tests of the SDK share."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from losswire.client import AsyncClient, Client
from tests.support.scripted import Scripted, serving

Call = Callable[..., Any]
"""Makes one call with a client of its own: (address, method, *arguments, settings, **options)."""


def call_blocking(
    address: str,
    method: str,
    *arguments: object,
    settings: Mapping[str, Any] | None = None,
    **options: object,
) -> object:
    """Call through `Client`."""
    with Client(address, **(settings or {})) as client:
        return getattr(client, method)(*arguments, **options)


def call_async(
    address: str,
    method: str,
    *arguments: object,
    settings: Mapping[str, Any] | None = None,
    **options: object,
) -> object:
    """Call through `AsyncClient`."""

    async def run() -> object:
        async with AsyncClient(address, **(settings or {})) as client:
            return await getattr(client, method)(*arguments, **options)

    return asyncio.run(run())


@pytest.fixture(params=[call_blocking, call_async], ids=["Client", "AsyncClient"])
def call(request: pytest.FixtureRequest) -> Call:
    """Both clients in turn: what holds for one holds for the other."""
    chosen: Call = request.param
    return chosen


@pytest.fixture
def echoing() -> Iterator[Scripted]:
    """A server that sends the inputs back as gradients."""
    with serving(Scripted()) as service:
        yield service
