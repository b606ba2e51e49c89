"""A raw gRPC server that sends back what it gets: `echo_server sync|aio`."""

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import grpc.aio

OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.so_reuseport", 0),
)
UNARY, CHUNKED = "/echo/Unary", "/echo/Chunked"
_THREADS = 16


def _unary(request: bytes, _context: object) -> bytes:
    return request


def _chunked(requests: Iterator[bytes], _context: object) -> Iterator[bytes]:
    yield from requests


async def _unary_later(request: bytes, _context: object) -> bytes:
    return request


async def _chunked_later(requests: AsyncIterator[bytes], _context: object) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request


class _Handler(grpc.GenericRpcHandler):
    """Two methods without serializers: messages are bytes."""

    def __init__(self, unary: Any, chunked: Any) -> None:  # noqa: ANN401 (either interface's)
        self._methods: dict[str, Any] = {
            UNARY: grpc.unary_unary_rpc_method_handler(unary),
            CHUNKED: grpc.stream_stream_rpc_method_handler(chunked),
        }

    def service(self, handler_call_details: Any) -> Any:  # noqa: ANN401 (gRPC's)
        return self._methods.get(handler_call_details.method)


def _greet(port: int) -> None:
    sys.stdout.write(f"listening on 127.0.0.1:{port}\n")
    sys.stdout.flush()


def _serve_sync() -> None:
    server = grpc.server(ThreadPoolExecutor(_THREADS), options=OPTIONS)
    server.add_generic_rpc_handlers([_Handler(_unary, _chunked)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    _greet(port)
    threading.Event().wait()


async def _serve_aio() -> None:
    server = grpc.aio.server(options=OPTIONS)
    server.add_generic_rpc_handlers([_Handler(_unary_later, _chunked_later)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    _greet(port)
    await server.wait_for_termination()


def main(arguments: Sequence[str]) -> int:
    """Serve until a signal."""
    [kind] = arguments
    if kind == "sync":
        _serve_sync()
    else:
        asyncio.run(_serve_aio())
    return 0
