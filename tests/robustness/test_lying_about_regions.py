"""A server that answers with a gradient instead of writing it where it was asked for."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest

from losswire.client import AsyncClient, Client, InternalError
from losswire.v1 import loss_service_pb2, tensor_service_pb2
from losswire.wire import encode_tensor
from tests.support.process import running_server

_ROWS = 4096


@pytest.fixture
def lying() -> Iterator[str]:
    """Yield the address of a server that passes calls on, and sends gradients of zeros."""

    class Lying(grpc.GenericRpcHandler):
        def __init__(self, channel: grpc.Channel) -> None:
            self._channel = channel

        def service(self, details: grpc.HandlerCallDetails) -> Any:  # noqa: ANN401 (gRPC's own)
            path = details.method
            forward: Any = self._channel.unary_unary(path, None, None)

            def answer(request: bytes, _: grpc.ServicerContext) -> bytes:
                given: bytes = forward(request)
                if path.endswith("/CreateRegion"):
                    created = tensor_service_pb2.CreateRegionResponse.FromString(given)
                    # Evaluations come over gRPC then.
                    created.max_request_bytes = 0
                    return created.SerializeToString()
                if path.endswith("/Evaluate"):
                    message = loss_service_pb2.EvaluateResponse.FromString(given)
                    for each in message.result.gradients.values():
                        each.CopyFrom(encode_tensor(np.zeros(_ROWS, np.float32)))
                    return message.SerializeToString()
                return given

            return grpc.unary_unary_rpc_method_handler(answer)

    with (
        running_server() as address,
        grpc.insecure_channel(address) as channel,
        ThreadPoolExecutor(4) as threads,
    ):
        server = grpc.server(threads, handlers=[Lying(channel)])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(None).wait()


def test_a_gradient_beside_its_region(lying: str) -> None:
    """It is InternalError: the caller would read what was in `out` before."""
    with Client(lying) as client, client.region(4 * _ROWS * 4) as region:
        inputs = {name: region.array(_ROWS) for name in ("input", "target")}
        out = {"input": region.array(_ROWS)}
        for each in (*inputs.values(), *out.values()):
            each[...] = 1.0
        for _ in range(2):
            with pytest.raises(InternalError, match="malformed"):
                client.evaluate("mse_loss", inputs, gradients=["input"], out=out)


def test_a_gradient_beside_its_region_async(lying: str) -> None:
    """The same by AsyncClient."""

    async def run() -> None:
        async with AsyncClient(lying) as client:
            with await client.region(4 * _ROWS * 4) as region:
                inputs = {name: region.array(_ROWS) for name in ("input", "target")}
                out = {"input": region.array(_ROWS)}
                with pytest.raises(InternalError, match="malformed"):
                    await client.evaluate("mse_loss", inputs, gradients=["input"], out=out)

    asyncio.run(run())
