"""A SummarizeLosses in time: draining, deadlines, silence, cancellation, memory and regions."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import grpc
import numpy as np
import pytest

from losswire.server import thresholds
from losswire.server.errors import ExpiredError, OverLimitError, OverloadedError
from losswire.server.pipeline.evaluator import Evaluator
from losswire.server.summaries.accumulate import Response
from losswire.server.summaries.call import Summarizer
from tests.support.harness import Child
from tests.support.inside import (
    CLOSED,
    PATIENCE,
    Gate,
    numbered,
    outcome,
    running_evaluator,
    until,
)
from tests.support.regions import region
from tests.support.requests import TIMEOUT, Stub, f32, i64, item_status
from tests.support.summary_calls import Answer, Request, batch, column, header, read, summarize

_MIB = 1 << 20
_NEVER = float("inf")
_PAIR = {"input": np.ones((3, 2)), "target": np.zeros((3, 2))}


class _Sender:
    """Requests that are sent when the test says so."""

    def __init__(self, *parts: Request) -> None:
        self._parts = list(parts)
        self._end = threading.Event()

    def __iter__(self) -> Iterator[Request]:
        yield from self._parts
        self._end.wait(PATIENCE)

    def end(self) -> None:
        """Send nothing more."""
        self._end.set()


def test_a_server_that_ends_reports_first(tmp_path: Path) -> None:
    """After SIGTERM a call gets a report of all that was counted, then UNAVAILABLE, at once."""
    parts = [batch(_PAIR) for _ in range(3)]
    sender = _Sender(header("mse_loss"), *parts)
    with Child(tmp_path / "log", "--drain-seconds", "30") as child, child.channel() as channel:
        responses = Stub(channel).SummarizeLosses(iter(sender), timeout=TIMEOUT)
        answer = Answer()
        for each in responses:
            answer.progress.append(each.progress)
            if each.progress.batches == len(parts):
                break
        child.terminate()
        with pytest.raises(grpc.RpcError) as ended:
            read(responses, answer)
        assert child.wait() == 0
        sender.end()
    assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
    assert item_status(ended.value).reason == "DRAINING"
    [report] = answer.reports
    assert (report.final, report.batches) == (False, 3)
    assert answer.total.count == 9
    assert [each for each in child.entries() if each["level"] == "error"] == []


def test_a_report_of_a_server_that_ends_is_continued_by_another(tmp_path: Path, stub: Stub) -> None:
    """No batch is lost or counted twice, wherever the call was interrupted."""
    rng = np.random.default_rng(3)
    parts = [
        batch({"input": rng.standard_normal((50, 4)), "target": rng.integers(0, 4, 50)})
        for _ in range(40)
    ]
    whole = summarize(stub, [header("cross_entropy"), *parts])
    with Child(tmp_path / "log", "--drain-seconds", "30") as child, child.channel() as channel:
        requests = iter([header("cross_entropy"), *parts])
        answer = Answer()
        sent = _paced(requests, child, answer)
        responses = Stub(channel).SummarizeLosses(sent, timeout=TIMEOUT)
        with pytest.raises(grpc.RpcError):
            read(responses, answer)
    last = answer.reports[-1]
    assert 0 < last.batches < len(parts)
    again = header("cross_entropy", resume_from=last.summary)
    second = summarize(stub, [again, *parts[last.batches :]])
    assert second.total.count == whole.total.count
    np.testing.assert_allclose(second.total.sum, whole.total.sum, rtol=1e-12)


def _paced(requests: Iterator[Request], child: Child, answer: Answer) -> Iterator[Request]:
    """Send requests, with SIGTERM in the middle, once some were counted."""
    for number, each in enumerate(requests):
        if number == 20:
            while not answer.progress:
                time.sleep(0.01)
            child.terminate()
        if number > 20:
            time.sleep(0.05)
        yield each


def test_deadline_of_a_silent_caller(stub: Stub) -> None:
    """A call that its caller forgot ends at its deadline."""
    sender = _Sender(header("mse_loss"), batch(_PAIR))
    with pytest.raises(grpc.RpcError) as ended:
        read(stub.SummarizeLosses(iter(sender), timeout=0.5))
    sender.end()
    assert ended.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def _parts(*requests: Request, then: asyncio.Event | None = None) -> AsyncIterator[object]:
    async def parts() -> AsyncIterator[object]:
        for each in requests:
            yield each, {}
        if then is not None:
            await then.wait()

    return parts()


async def _responses(
    evaluator: Evaluator, parts: AsyncIterator[object], deadline: float = _NEVER
) -> list[Response | bytes]:
    summarizer = Summarizer(evaluator)
    return [each async for each in summarizer.summarize(parts, deadline)]  # type: ignore[arg-type]


def test_silence_ends_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller that sends nothing for too long loses its call, and nothing stays reserved."""
    monkeypatch.setattr(thresholds, "SUMMARY_SILENCE_SECONDS", 0.05)

    async def run(evaluator: Evaluator) -> None:
        with pytest.raises(ExpiredError, match=r"no batch came for 0\.05 seconds"):
            await _responses(evaluator, _parts(header("mse_loss"), then=asyncio.Event()))
        assert evaluator.budget.reserved_bytes == 0

    with running_evaluator(Gate()) as evaluator:
        asyncio.run(run(evaluator))


def test_deadline_while_the_worker_is_busy() -> None:
    """Batches that have not begun by the deadline never begin."""
    gate = Gate()

    async def run(evaluator: Evaluator) -> None:
        busy = asyncio.create_task(outcome(evaluator, numbered(CLOSED, elements=100_000)))
        await until(gate.reached.is_set)
        loop = asyncio.get_running_loop()
        call = asyncio.create_task(
            _responses(evaluator, _parts(header("gate"), batch({"input": f32(5)})), loop.time())
        )
        await asyncio.sleep(0.05)
        gate.open.set()
        with pytest.raises(ExpiredError):
            await call
        await busy
        assert gate.computed == [CLOSED]
        assert evaluator.budget.reserved_bytes == 0

    with running_evaluator(gate) as evaluator:
        asyncio.run(run(evaluator))


def test_a_cancelled_call_gives_all_back() -> None:
    """Batches that wait are never computed; the budget is free once the one under way is done."""
    gate = Gate()
    numbers = [header("gate"), *(batch({"input": f32(n)}) for n in (CLOSED, 1, 2, 3))]

    async def run(evaluator: Evaluator) -> None:
        call = asyncio.create_task(_responses(evaluator, _parts(*numbers)))
        await until(gate.reached.is_set)
        assert evaluator.budget.reserved_bytes > 0
        call.cancel()
        # The call gives up what waits in the next turns of the event loop.
        for _ in range(100):
            await asyncio.sleep(0)
        assert not call.done()
        gate.open.set()
        await asyncio.wait([call])
        assert call.cancelled()
        assert evaluator.budget.reserved_bytes == 0
        await until(lambda: evaluator.worker.is_idle)
        assert gate.computed == [CLOSED]

    with running_evaluator(gate) as evaluator:
        asyncio.run(run(evaluator))


def test_reading_is_bounded() -> None:
    """While the worker is busy, a few batches are read ahead and no more."""
    gate = Gate()
    taken = 0

    async def parts() -> AsyncIterator[object]:
        nonlocal taken
        yield header("gate"), {}
        for number in range(100):
            taken = number + 1
            yield batch({"input": f32(number)}), {}

    async def run(evaluator: Evaluator) -> None:
        call = asyncio.create_task(_responses(evaluator, parts()))
        await until(gate.reached.is_set)
        await asyncio.sleep(0.1)
        assert taken <= 5
        gate.open.set()
        responses = await call
        assert taken == 100
        progress = [each.progress.batches for each in responses if isinstance(each, Response)]
        assert progress[-1] == 100
        assert progress == sorted(set(progress))

    with running_evaluator(gate) as evaluator:
        asyncio.run(run(evaluator))


@pytest.mark.parametrize(
    ("rows", "taken", "error"),
    [(4_000_000, 0, OverLimitError), (200_000, 60 * _MIB, OverloadedError)],
    ids=["never", "not now"],
)
def test_memory_of_a_batch(rows: int, taken: int, error: type[Exception]) -> None:
    """A batch that does not fit into the budget is refused before it is computed."""
    gate = Gate()
    one = batch({"input": np.ones(rows, np.float32)})

    async def run(evaluator: Evaluator) -> None:
        with evaluator.budget.hold(taken), pytest.raises(error):
            await _responses(evaluator, _parts(header("gate"), one))
        assert evaluator.budget.reserved_bytes == 0
        assert gate.computed == []

    with running_evaluator(gate) as evaluator:
        asyncio.run(run(evaluator))


def _clusters(start: int, rows: int) -> Request:
    """Return a batch of rows of which each is a cluster of its own."""
    return batch({"input": np.ones(rows, np.float32)}, clusters=column(np.arange(rows) + start))


def test_memory_of_the_summary() -> None:
    """A summary that grows is held in the budget."""
    gate = Gate()
    held: list[int] = []

    async def parts(budget: object) -> AsyncIterator[object]:
        yield header("gate", max_open_clusters=1_000_000), {}
        for number in range(200):
            held.append(getattr(budget, "reserved_bytes"))  # noqa: B009
            yield _clusters(1000 * number, 1000), {}

    async def run(evaluator: Evaluator) -> None:
        with pytest.raises((OverLimitError, OverloadedError)):
            await _responses(evaluator, parts(evaluator.budget))
        assert held[20] > held[3] + 10 * 1000 * 100
        assert len(held) < 200
        assert evaluator.budget.reserved_bytes == 0
        await until(lambda: evaluator.worker.is_idle)

    with running_evaluator(gate) as evaluator:
        asyncio.run(run(evaluator))


def test_batches_in_regions(stub: Stub, channel: grpc.Channel) -> None:
    """Inputs, weights and columns are read where they are, and no more once they are counted."""
    rng = np.random.default_rng(8)
    logits, classes = rng.standard_normal((64, 3)).astype(np.float32), rng.integers(0, 3, 64)
    weights = rng.random(64)
    plain = [
        header("cross_entropy", tables=[["c"]]),
        batch(
            {"input": logits, "target": classes},
            sample_weight=weights,
            columns={"c": column(classes)},
        ),
        batch(
            {"input": logits * 2, "target": classes},
            sample_weight=weights,
            columns={"c": column(classes)},
        ),
    ]
    expected = summarize(stub, plain)
    with region(channel) as held:
        x = held.array((64, 3))
        y = held.array((64,), np.int64)
        w = held.array((64,), np.float64)
        y[...], w[...] = classes, weights
        counted: Sequence[threading.Event] = [threading.Event() for _ in range(2)]

        def requests() -> Iterator[Request]:
            yield plain[0]
            for number in range(2):
                x[...] = logits * (number + 1)
                yield batch(
                    {"input": held.tensor(x), "target": held.tensor(y)},
                    sample_weight=held.tensor(w),
                    columns={"c": column(held.tensor(y))},
                )
                assert counted[number].wait(PATIENCE)
                x[...] = np.nan

        answer = Answer()
        for each in stub.SummarizeLosses(requests(), timeout=TIMEOUT):
            if each.HasField("progress"):
                counted[each.progress.batches - 1].set()
            else:
                answer.reports.append(each.report)
    assert answer.summary == expected.summary
    assert i64(answer.total.count).tolist() == [128]
