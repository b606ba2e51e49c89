"""A relay in front of a server that counts the bytes which a client sends."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

_BUFFER = 1 << 16


@dataclass(slots=True)
class Relay:
    """Where the relay listens, and what has come through it."""

    address: str
    sent_bytes: int = 0
    """The bytes from the client to the server."""


@contextmanager
def counting(address: str) -> Iterator[Relay]:
    """Relay one connection to a server."""
    host, _, port = address.rpartition(":")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        relay = Relay(f"127.0.0.1:{listener.getsockname()[1]}")

        def run() -> None:
            client, _ = listener.accept()
            with client, socket.create_connection((host, int(port))) as server:
                back = threading.Thread(target=_forward, args=(server, client, None))
                back.start()
                _forward(client, server, relay)
                back.join()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield relay
        thread.join(60)


def _forward(source: socket.socket, sink: socket.socket, relay: Relay | None) -> None:
    # A client that closes its connection resets it while the server's last bytes are under way.
    with suppress(ConnectionError):
        while data := source.recv(_BUFFER):
            if relay is not None:
                relay.sent_bytes += len(data)
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
