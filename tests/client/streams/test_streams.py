"""Streams: order, bad items, limits, and connections that break under them."""

import asyncio
import threading
from collections.abc import Callable, Iterable
from typing import Any

import grpc
import pytest

from losswire.client import (
    AsyncClient,
    CancelledError,
    Client,
    DeadlineExceededError,
    Evaluation,
    EvaluationResult,
    LosswireError,
    NotFoundError,
    ResourceExhaustedError,
    RetryPolicy,
    UnimplementedError,
)
from losswire.v1 import evaluation_pb2, server_info_pb2, status_pb2
from tests.support.scripted import Scripted, echo_item, serving
from tests.support.scripted_streams import Backwards, Breaking, Counting, Hung, Silent

Map = Callable[..., list[EvaluationResult | LosswireError]]


def map_blocking(address: str, items: Iterable[Evaluation], **options: Any) -> Any:  # noqa: ANN401
    """Map through `Client`."""
    settings = options.pop("settings", {})
    with Client(address, **settings) as client, client.stream(**options) as stream:
        return list(stream.map(items))


def map_async(address: str, items: Iterable[Evaluation], **options: Any) -> Any:  # noqa: ANN401
    """Map through `AsyncClient`."""
    settings = options.pop("settings", {})

    async def run() -> list[EvaluationResult | LosswireError]:
        async with AsyncClient(address, **settings) as client, client.stream(**options) as stream:
            return [outcome async for outcome in stream.map(items)]

    return asyncio.run(run())


@pytest.fixture(params=[map_blocking, map_async], ids=["Client", "AsyncClient"])
def map_all(request: pytest.FixtureRequest) -> Map:
    """Both clients in turn."""
    chosen: Map = request.param
    return chosen


def numbered(count: int) -> list[Evaluation]:
    """Make evaluations that can be told apart."""
    return [Evaluation("any", {"x": float(i)}, gradients=["x"]) for i in range(count)]


def numbers(outcomes: Iterable[EvaluationResult | LosswireError]) -> list[float | str]:
    """Return the reason or the number of each outcome."""
    return [
        outcome.reason if isinstance(outcome, LosswireError) else float(outcome.gradients["x"])
        for outcome in outcomes
    ]


def test_outcomes_come_in_order(map_all: Map, echoing: Scripted) -> None:
    """A stream carries more items than may be in flight, over one call, and keeps their order."""
    assert numbers(map_all(echoing.address, numbered(100))) == list(range(100))
    assert echoing.streams == 1


def test_answers_may_come_in_any_order(map_all: Map) -> None:
    """Outcomes keep the order of the questions, whatever the order of the answers."""
    with serving(Backwards()) as service:
        assert numbers(map_all(service.address, numbered(40))) == list(range(40))


def test_nothing_to_do(map_all: Map, echoing: Scripted) -> None:
    """A stream without items makes no call."""
    assert map_all(echoing.address, []) == []
    assert echoing.streams == 0


def test_a_bad_item_does_not_end_the_stream(map_all: Map) -> None:
    """A failed item is a LosswireError in its place."""

    def script(evaluation: evaluation_pb2.Evaluation) -> evaluation_pb2.EvaluationOutcome:
        if evaluation.loss == "odd":
            return evaluation_pb2.EvaluationOutcome(error=status_pb2.Status(code=5, reason="ODD"))
        return echo_item(evaluation)

    items = [*numbered(2), Evaluation("odd", {}), *numbered(2)]
    with serving(Scripted(item_script=script)) as service:
        outcomes = map_all(service.address, items)
    assert numbers(outcomes) == [0, 1, "ODD", 0, 1]
    assert type(outcomes[2]) is NotFoundError


def test_an_item_over_the_message_limit_fails_alone(map_all: Map, echoing: Scripted) -> None:
    """An item that would make the server end the call is not sent."""
    items = [*numbered(1), Evaluation("any", {"x": [0.0] * 1_500_000}), *numbered(1)]
    outcomes = map_all(echoing.address, items)
    assert numbers(outcomes) == [0, "MESSAGE_TOO_LARGE", 0]
    assert type(outcomes[1]) is ResourceExhaustedError
    assert echoing.streams == 1


def test_a_mistake_is_raised_where_it_is_submitted(map_all: Map, echoing: Scripted) -> None:
    """What cannot be sent raises with the argument's path."""
    with pytest.raises(TypeError, match=r'^inputs\["x"\]: str is not an array'):
        map_all(echoing.address, [*numbered(3), Evaluation("any", {"x": "text"})])


@pytest.mark.parametrize(
    ("asked", "allowed", "expected"), [(None, 5, 5), (3, 5, 3), (9, 5, 5), (None, 0, 1)]
)
def test_in_flight_is_bounded(map_all: Map, asked: int | None, allowed: int, expected: int) -> None:
    """No more are unanswered than asked for, and never more than the server takes."""
    limits = server_info_pb2.Limits(max_message_bytes=1_000_000, max_in_flight_per_stream=allowed)
    with serving(Counting(limits=limits)) as service:
        outcomes = map_all(service.address, numbered(12), max_in_flight=asked)
        assert numbers(outcomes) == list(range(12))
    assert service.most == expected


def test_impossible_arguments(map_all: Map, echoing: Scripted) -> None:
    """Out-of-range arguments are ValueError."""
    with pytest.raises(ValueError, match="max_in_flight: expected at least 1"):
        map_all(echoing.address, [], max_in_flight=0)
    with pytest.raises(ValueError, match="timeout: expected"):
        map_all(echoing.address, [], timeout=0)


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, None], ids=["fails", "ends"])
def test_a_broken_call_is_made_again(map_all: Map, code: grpc.StatusCode | None) -> None:
    """Items without an answer go again over another call, and nobody notices."""
    with serving(Breaking(7, code)) as service:
        assert numbers(map_all(service.address, numbered(30))) == list(range(30))
    assert service.streams >= 5


def test_a_stream_moves_to_another_server(map_all: Map) -> None:
    """When one of two servers keeps failing, the other one answers."""
    with serving(Breaking(0, grpc.StatusCode.UNAVAILABLE)) as bad, serving(Scripted()) as good:
        target = f"{bad.address},{good.address}"
        assert numbers(map_all(target, numbered(30))) == list(range(30))


def test_a_call_that_is_refused_fails_its_items(map_all: Map) -> None:
    """A failure that no retry can heal is the outcome of every item."""
    with serving(Breaking(0, grpc.StatusCode.UNIMPLEMENTED)) as service:
        outcomes = map_all(service.address, numbered(3))
    assert [type(outcome) for outcome in outcomes] == [UnimplementedError] * 3


def test_an_item_without_an_answer_expires(map_all: Map) -> None:
    """Each item has the stream's timeout, broken connections included."""
    with serving(Breaking(0, grpc.StatusCode.UNAVAILABLE)) as service:
        [outcome] = map_all(service.address, numbered(1), timeout=0.5)
    assert type(outcome) is DeadlineExceededError
    assert "connection is down" in outcome.message


def test_a_server_that_hangs_does_not_hang_the_caller(map_all: Map) -> None:
    """Items expire, and closing the stream does not wait for the server."""
    with serving(Hung()) as service:
        outcomes = map_all(service.address, numbered(2), timeout=0.3)
        service.released.set()
    assert [type(outcome) for outcome in outcomes] == [DeadlineExceededError] * 2


def test_the_retry_policy_limits_a_stream(map_all: Map) -> None:
    """After `max_attempts` calls without an answer, the items fail as the last call did."""
    settings = {"retry": RetryPolicy(max_attempts=3, initial_backoff=0.01)}
    with serving(Breaking(0, grpc.StatusCode.UNAVAILABLE)) as service:
        [outcome] = map_all(service.address, numbered(1), settings=settings)
    assert isinstance(outcome, LosswireError)
    assert outcome.code is grpc.StatusCode.UNAVAILABLE
    assert service.streams == 0  # each call ended before its first item was read


def test_a_server_that_is_not_there(map_all: Map) -> None:
    """Opening a stream raises as any call does."""
    settings = {"retry": RetryPolicy(max_attempts=1)}
    with pytest.raises(LosswireError, match="127"):
        map_all("127.0.0.1:1", [], settings=settings)


def test_an_exception_gives_up_what_is_in_flight() -> None:
    """Leaving the block by an exception does not wait for answers."""
    with serving(Silent()) as service, Client(service.address) as client:
        stream = client.stream()

        def leave() -> None:
            with stream:
                futures.append(stream.submit(Evaluation("any", {})))
                raise KeyError

        futures: list[Any] = []
        with pytest.raises(KeyError):
            leave()
        with pytest.raises(CancelledError):
            futures[0].result(0)
        with pytest.raises(RuntimeError, match="not open"):
            stream.submit(Evaluation("any", {}))


def test_an_exception_gives_up_what_is_in_flight_in_a_task() -> None:
    """Leaving the `async with` by an exception does not wait for answers."""

    async def run(address: str) -> None:
        async with AsyncClient(address) as client:
            stream = client.stream()

            async def leave() -> None:
                async with stream:
                    futures.append(await stream.submit(Evaluation("any", {})))
                    raise KeyError

            futures: list[asyncio.Future[EvaluationResult]] = []
            with pytest.raises(KeyError):
                await leave()
            with pytest.raises(CancelledError):
                await futures[0]
            with pytest.raises(RuntimeError, match="not open"):
                await stream.submit(Evaluation("any", {}))

    with serving(Silent()) as service:
        asyncio.run(run(service.address))


def test_closing_the_client_ends_its_streams() -> None:
    """Items in flight end as CancelledError when the client is closed."""
    with serving(Silent()) as service:
        client = Client(service.address)
        with client.stream() as stream:
            future = stream.submit(Evaluation("any", {}))
            assert service.reached.wait(60)
            client.close()
            with pytest.raises(CancelledError):
                future.result(60)


def test_closing_the_async_client_ends_its_streams() -> None:
    """Items in flight end as CancelledError when the client is closed."""

    async def run(service: Silent) -> None:
        client = AsyncClient(service.address)
        async with client.stream() as stream:
            future = await stream.submit(Evaluation("any", {}))
            await asyncio.to_thread(service.reached.wait, 30)
            await client.close()
            with pytest.raises(CancelledError):
                await future

    with serving(Silent()) as service:
        asyncio.run(run(service))


def test_threads_share_a_stream(echoing: Scripted) -> None:
    """Each of several threads gets the answers to its own questions."""
    answers: dict[int, list[float]] = {}

    def work(thread: int) -> None:
        futures = [
            stream.submit(Evaluation("any", {"x": thread * 100 + i}, gradients=["x"]))
            for i in range(20)
        ]
        answers[thread] = [float(future.result(60).gradients["x"]) for future in futures]

    with Client(echoing.address) as client, client.stream() as stream:
        threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answers == {t: [t * 100 + i for i in range(20)] for t in range(8)}


def test_a_cancelled_future_frees_its_place(echoing: Scripted) -> None:
    """A future that its owner cancels neither blocks nor breaks the stream."""

    async def run() -> list[float | str]:
        async with (
            AsyncClient(echoing.address) as client,
            client.stream(max_in_flight=1) as stream,
        ):
            (await stream.submit(Evaluation("any", {}))).cancel()
            return numbers([outcome async for outcome in stream.map(numbered(3))])

    assert asyncio.run(run()) == [0, 1, 2]
