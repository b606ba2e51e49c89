"""A server with regions inside of the test's own process, and callers that lease some."""

import asyncio
from collections.abc import Awaitable, Callable

import grpc

from losswire.server.app import App
from losswire.server.settings import MIB
from losswire.v1 import tensor_service_pb2, tensor_service_pb2_grpc
from tests.support.inside import Gate, serving_app, until
from tests.support.regions import Created, Held, fetch

SIZE = 8 * MIB

Body = Callable[[App, grpc.aio.Channel], Awaitable[None]]


def sharing(body: Body, gate: Gate | None = None, **changes: object) -> None:
    """Run a function beside a server, both on one new event loop."""

    async def run() -> None:
        settings = {"region_quota_bytes": 32 * MIB, **changes}
        async with serving_app(gate or Gate(), **settings) as (app, channel):
            await body(app, channel)

    asyncio.run(run())


async def create_from(channel: grpc.aio.Channel, size: int = SIZE) -> Created:
    """Create a region."""
    stub = tensor_service_pb2_grpc.TensorServiceStub(channel)
    request = tensor_service_pb2.CreateRegionRequest(size_bytes=size)
    created: Created = await stub.CreateRegion(request)
    return created


async def fetch_from(channel: grpc.aio.Channel, size: int = SIZE) -> Held:
    """Create a region and lease it."""
    created = await create_from(channel, size)
    return await asyncio.to_thread(fetch, created)


def reserved(app: App) -> int:
    """Return the bytes that the memory budget holds."""
    return app.evaluator.budget.reserved_bytes


async def freed(app: App) -> None:
    """Wait until nothing is reserved and no region is left."""
    await until(lambda: not reserved(app) and not app.evaluator.regions.held_bytes)
