"""The newest runs of a store, for those who look again and again."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from losswire.server.memory.residents import TENANT
from losswire.server.runs.address import parse_store
from losswire.server.runs.content import row_of
from losswire.server.runs.keeper import RunKeeper
from losswire.server.runs.newest import NewestRuns
from losswire.v1.run_service_pb2 import Run
from tests.support.evaluated import summary

SUMMARY = summary(rows=50).message
LARGE = summary(rows=3000, cross=True).message


async def _save(keeper: RunKeeper, run_id: str, *, large: bool = False) -> None:
    run = Run(run_id=run_id, name=run_id, summary=LARGE if large else SUMMARY)
    await keeper.run(lambda store: store.save(TENANT, row_of(run, TENANT)))


def _names(runs: Sequence[Run]) -> list[str]:
    assert all(run.HasField("summary") for run in runs)
    return [run.run_id for run in runs]


def test_the_newest_are_read_whole(tmp_path: Path) -> None:
    """As many as wanted, the newest first; one that was deleted is gone, a large one left out."""

    async def play() -> None:
        keeper = RunKeeper(parse_store(str(tmp_path)))
        await keeper.start()
        limit = len(LARGE.SerializeToString())
        newest = NewestRuns(keeper, TENANT, count=3, max_run_bytes=limit - 1000, page_bytes=1 << 20)
        assert _names(await newest.read()) == []
        for run_id in ("a", "b", "c", "d"):
            await _save(keeper, run_id)
        assert _names(await newest.read()) == ["d", "c", "b"]
        await keeper.run(lambda store: store.delete(TENANT, "c"))
        assert _names(await newest.read()) == ["d", "b", "a"]
        await _save(keeper, "e", large=True)
        assert _names(await newest.read()) == ["d", "b"]
        await keeper.stop()

    asyncio.run(play())


@pytest.mark.parametrize("looks", [1, 3])
def test_a_server_without_a_store_has_none(looks: int) -> None:
    """No error: whoever looks wants the other numbers."""

    async def play() -> None:
        keeper = RunKeeper(None)
        await keeper.start()
        newest = NewestRuns(keeper, TENANT, count=3, max_run_bytes=1 << 20, page_bytes=1 << 20)
        for _ in range(looks):
            assert await newest.read() == ()
        await keeper.stop()

    asyncio.run(play())
