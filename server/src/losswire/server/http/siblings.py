"""The other workers of a server: each answers the questions of the others over a unix socket.

A caller reaches any of them, and asks for the numbers of all.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from losswire.server.http import limits
from losswire.server.settings import Place

_log = logging.getLogger(__name__)

Answers = Mapping[str, Callable[[], Awaitable[Any]]]
"""What answers each question, in the values that JSON has."""


class Siblings:
    """All workers of a server, of which this process is one."""

    def __init__(self, place: Place) -> None:
        """Prepare; `start` begins to answer."""
        self._place = place
        self._answers: Answers = {}
        self._server: asyncio.Server | None = None

    async def start(self, answers: Answers) -> None:
        """Answer the others from now on."""
        self._answers = answers
        path = self._path(self._place.index)
        # That of the worker that had this place before.
        path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._answer, path)

    def stop(self) -> None:
        """Answer no more."""
        if self._server is not None:
            self._server.close()

    async def ask(self, question: str) -> dict[int, Any]:
        """Return the answers of all workers that gave one in time, this one included, by place."""
        found = await asyncio.gather(
            *(self._ask(place, question) for place in range(self._place.count))
        )
        return {place: each for place, each in enumerate(found) if each is not None}

    async def _ask(self, place: int, question: str) -> Any:  # noqa: ANN401 (any JSON)
        if place == self._place.index:
            return await self._answers[question]()
        # One that starts, ends or hangs is left out.
        with suppress(OSError, TimeoutError, ValueError):
            async with asyncio.timeout(limits.SIBLING_SECONDS):
                reader, writer = await asyncio.open_unix_connection(self._path(place))
                try:
                    writer.write(f"{question}\n".encode())
                    return json.loads(await reader.read())
                finally:
                    writer.close()
        return None

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one question."""
        try:
            async with asyncio.timeout(limits.SIBLING_SECONDS):
                question = (await reader.readline()).decode().strip()
                answer = await self._answers[question]()
                # Some hundred kilobytes take milliseconds.
                writer.write(await asyncio.to_thread(lambda: json.dumps(answer).encode()))
                await writer.drain()
        except (OSError, TimeoutError, KeyError) as error:
            _log.debug("another worker's question has no answer: %r", error)
        finally:
            writer.close()

    def _path(self, place: int) -> Path:
        return Path(self._place.folder) / f"{place}.sock"
