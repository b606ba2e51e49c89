"""The queue of the compute worker, as metrics see it."""

import asyncio
import math
import threading

import pytest
import torch

from losswire.server.metrics.recorder import Recorder
from losswire.server.pipeline.worker import ComputeWorker


async def _wait_until_empty(worker: ComputeWorker) -> None:
    async with asyncio.timeout(60):
        while len(worker.waiting):  # noqa: ASYNC110 (nothing tells it)
            await asyncio.sleep(0.001)


def test_jobs_wait_until_they_begin_or_are_cancelled() -> None:
    """One that is computed does not wait any more; one that was cancelled never did."""

    async def play() -> None:
        worker = ComputeWorker(torch.device("cpu"), 1)
        worker.start()
        end = threading.Event()
        running = worker.start_task(lambda _: end.wait(60), math.inf)
        await _wait_until_empty(worker)
        first = worker.start_task(lambda _: 1, math.inf)
        second = worker.start_task(lambda _: 2, math.inf)
        assert len(worker.waiting) == 2
        assert worker.waiting.seconds > 0
        second.cancel()
        await asyncio.sleep(0)
        assert len(worker.waiting) == 1
        end.set()
        await running
        assert await worker.answer_of(first) == 1
        assert (len(worker.waiting), worker.waiting.seconds) == (0, 0.0)
        worker.stop()

    asyncio.run(play())


@pytest.mark.parametrize("count", [1, 5])
def test_tasks_are_counted_as_queued_and_computed(count: int) -> None:
    """A part of a chunked call is one of each; a part that fails is not computed."""

    async def play() -> None:
        recorder = Recorder()
        worker = ComputeWorker(torch.device("cpu"), 1, recorder)
        worker.start()
        for _ in range(count):
            await worker.run(lambda waited: waited, math.inf)
        with pytest.raises(ZeroDivisionError):
            await worker.run(lambda _: 1 // 0, math.inf)
        worker.stop()
        counted = {stage: each.count for stage, each in recorder.stages.items()}
        assert counted == {"decode": 0, "queue": count + 1, "compute": count, "encode": 0}
        assert recorder.batch_sizes.count == count + 1

    asyncio.run(play())
