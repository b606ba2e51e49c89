"""Servers in this process that ask callers who they are, and callers who say so or not."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from losswire.server.app import App
from losswire.server.identity.tokens import TokenHash, digest_of
from losswire.server.settings import MIB, Settings

SECONDS = 60.0
"""How long to wait for what must happen: for hangs only."""


@dataclass(frozen=True)
class Served:
    """The addresses of a server, HOST:PORT each."""

    grpc: str
    http: str
    metrics: str


def settings(**changes: Any) -> Settings:  # noqa: ANN401 (any setting)
    """Return the settings of a server with all its addresses."""
    facts: dict[str, Any] = {
        "listen": "127.0.0.1:0",
        "http": "127.0.0.1:0",
        "metrics": "127.0.0.1:0",
        "device": "cpu",
        "threads": 1,
        "memory_budget_bytes": 64 * MIB,
        "region_quota_bytes": 16 * MIB,
        "resident_quota_bytes": 16 * MIB,
    }
    return Settings(**{**facts, **changes})


@contextmanager
def serving(**changes: Any) -> Iterator[Served]:  # noqa: ANN401 (any setting)
    """Serve in a thread of its own; StartError when that fails."""
    app: list[App] = []
    failed: list[BaseException] = []
    started = threading.Event()
    loop = asyncio.new_event_loop()
    stopping = asyncio.Event()

    async def serve() -> None:
        try:
            app.append(App(settings(**changes)))
            await app[0].start()
        except BaseException as error:  # noqa: BLE001 (raised where the test waits)
            failed.append(error)
            return
        finally:
            started.set()
        await stopping.wait()
        await app[0].stop()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert started.wait(SECONDS)
        if failed:
            raise failed[0]
        yield Served(app[0].address, app[0].http_address, app[0].metrics_address)
    finally:
        loop.call_soon_threadsafe(stopping.set)
        thread.join(SECONDS)
        loop.close()


def write_tokens(path: Path, **tokens: str) -> str:
    """Write a file with one token for each tenant; returns its path."""
    lines = [TokenHash(tenant, digest_of(token)).line for tenant, token in tokens.items()]
    path.write_text("".join(f"{each}\n" for each in lines), encoding="utf-8")
    return str(path)


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    """Return the metadata of a call with a token; none for an empty one."""
    return (("authorization", f"Bearer {token}"),) if token else ()
