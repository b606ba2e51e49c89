"""Streamed answers: nothing of the body is lost to them, and they end with their callers."""

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator, MutableMapping
from typing import Any

import pytest

from losswire.server.http.answer import Answer
from losswire.server.http.body import CallerGoneError
from losswire.server.http.sending import CutError, Reader, send_answer
from losswire.server.memory.budget import Budget
from losswire.server.memory.patience import Patience
from tests.support.http_door import Door
from tests.support.http_summaries import NDJSON

_ROWS = 60_000


def _body() -> Iterator[bytes]:
    """Yield the lines of a summary, in parts that end anywhere."""
    rows = "".join(f'{{"input": {row % 7}.5, "target": 0.5}}\n' for row in range(_ROWS))
    text = (json.dumps({"loss": "mse_loss"}) + "\n" + rows).encode()
    for start in range(0, len(text), 100_003):
        yield text[start : start + 100_003]


def test_an_answer_in_lines_has_all_rows(door: Door) -> None:
    """What comes after the answer has begun is counted, too."""
    response = door.client.post(
        "/v1/summarize", content=_body(), headers={"content-type": NDJSON, "accept": NDJSON}
    )
    lines = [json.loads(each) for each in response.text.splitlines()]
    assert len(lines) > 1
    assert lines[-1]["rows"] == _ROWS


@pytest.mark.parametrize("sent", [0, 1, 2])
@pytest.mark.parametrize("error", [CallerGoneError, TimeoutError, asyncio.CancelledError])
def test_what_makes_an_answer_is_closed_at_once(sent: int, error: type[BaseException]) -> None:
    """Wherever sending ends, the generator ends before `send_answer` does."""

    async def run() -> None:
        closed, messages = [False], 0

        async def parts() -> AsyncGenerator[bytes]:
            try:
                while True:
                    yield b"x"
            finally:
                closed[0] = True

        async def send(message: MutableMapping[str, Any]) -> None:
            nonlocal messages
            del message
            if messages == sent:
                raise error
            messages += 1

        body = parts()
        await anext(body)
        answer = Answer(media_type="x/y", body=body)
        budget = Budget(1 << 20)
        reader = Reader(Patience(budget), budget.reservation())
        with pytest.raises((CutError, asyncio.CancelledError)):
            await send_answer(answer, send, "id", reader, keeps_alive=True)
        assert closed == [True]

    asyncio.run(run())
