"""HTTP by hand over a socket, for what no client would send."""

import asyncio
import json
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Self

PATIENCE = 60.0
"""How long to wait for something that must happen: for hangs only."""

_BUFFER_BYTES = 8192


class Wire:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, address: str) -> "Wire":
        """Connect to HOST:PORT."""
        host, _, port = address.rpartition(":")
        connected = socket.socket()
        # What is not read stays on the server's side, where it is seen.
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        connected.setblocking(False)  # noqa: FBT003 (as it is called)
        try:
            await asyncio.get_running_loop().sock_connect(connected, (host, int(port)))
        except OSError:
            connected.close()
            raise
        return cls(*await asyncio.open_connection(sock=connected))

    async def send(self, data: bytes) -> None:
        """Send bytes."""
        self._writer.write(data)
        await self._writer.drain()

    async def request(
        self, method: str, path: str, body: bytes = b"", **headers: str | int
    ) -> None:
        """Send a request with a body; `headers` replace those that follow from it."""
        fields: dict[str, str | int] = {"host": "localhost", "content-length": len(body)}
        if body:
            fields["content-type"] = "application/json"
        fields |= {name.replace("_", "-"): value for name, value in headers.items()}
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {text}" for name, text in fields.items())]
        await self.send("\r\n".join([*lines, "", ""]).encode() + body)

    async def answer(self) -> tuple[int, Mapping[str, str], bytes]:
        """Read an answer: its status, header and body."""
        async with asyncio.timeout(PATIENCE):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.rstrip().split("\r\n")
            fields = dict(line.split(": ", 1) for line in lines)
            body = await self._reader.readexactly(int(fields.get("content-length", "0")))
            return int(first.split()[1]), fields, body

    async def problem(self) -> tuple[int, str]:
        """Read a problem: its status and its reason."""
        status, _, body = await self.answer()
        content: dict[str, Any] = json.loads(body)
        return status, content["reason"]

    async def ended(self) -> bool:
        """Wait until the server closes the connection; returns whether nothing came before."""
        try:
            async with asyncio.timeout(PATIENCE):
                return not await self._reader.read()
        except ConnectionError:
            return True

    def pause(self) -> None:
        """Read nothing from now on."""
        self._writer.transport.pause_reading()  # type: ignore[attr-defined]

    def resume(self) -> None:
        """Read again."""
        self._writer.transport.resume_reading()  # type: ignore[attr-defined]

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()

    async def closed(self) -> None:
        """Close the connection and wait until it is."""
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()


class Dialer:
    """Opens connections to one address, and closes them all at the end of its context."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._wires: list[Wire] = []

    async def open(self) -> Wire:
        """Open a connection."""
        self._wires.append(await Wire.open(self._address))
        return self._wires[-1]

    async def several(self, count: int) -> list[Wire]:
        """Open some connections."""
        return [await self.open() for _ in range(count)]

    async def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """Send a request over a connection of its own; returns the status and the body."""
        wire = await Wire.open(self._address)
        try:
            await wire.request(method, path, body)
            status, _, answer = await wire.answer()
        finally:
            await wire.closed()
        return status, answer

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        for each in self._wires:
            await each.closed()
