"""What is larger than one message goes in chunks by itself, through either client."""

import asyncio
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import pytest

from losswire.client import (
    AsyncClient,
    Client,
    EvaluationResult,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
)
from losswire.v1 import loss_service_pb2, server_info_pb2
from tests.client.conftest import Call
from tests.support.harness import Child
from tests.support.scripted import Scripted, echo, fail, serving

Array = npt.NDArray[Any]

_DRAW = np.random.default_rng(5)
_LOGITS = _DRAW.standard_normal((1500, 500)).astype(np.float32)
_CLASSES = _DRAW.integers(0, 500, 1500)
_BATCH: Mapping[str, Array] = {"input": _LOGITS, "target": _CLASSES}
_STEP = 524
"""How many rows of the logits make the 1 MiB that the server prefers."""


_IN_CHUNKS = ("--max-message-mib", "1", "--region-quota-mib", "0")
"""With shared memory, nothing would go in chunks on this machine."""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that takes messages of 1 MiB, which the batch of this file is larger than."""
    with Child(tmp_path_factory.mktemp("small") / "log", *_IN_CHUNKS) as child:
        yield child.address


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that takes it in one message."""
    with Child(tmp_path_factory.mktemp("whole") / "log", *_IN_CHUNKS[2:]) as child:
        yield child.address


_CASES: Mapping[str, tuple[str, Mapping[str, Array], dict[str, Any]]] = {
    "mean": ("cross_entropy", _BATCH, {}),
    "sum": ("cross_entropy", _BATCH, {"reduction": "sum"}),
    "none": (
        "cross_entropy",
        _BATCH,
        {"reduction": "none", "grad_output": _DRAW.standard_normal(1500)},
    ),
    "weighted": (
        "cross_entropy",
        {**_BATCH, "weight": np.abs(_LOGITS[0])},
        {"sample_weight": _DRAW.random(1500) * (_DRAW.random(1500) < 0.7)},
    ),
    "columns first": ("cross_entropy", {**_BATCH, "input": np.asfortranarray(_LOGITS)}, {}),
    "other byte order": ("cross_entropy", {**_BATCH, "input": _LOGITS.astype(">f4")}, {}),
    "float64 gradient": ("cross_entropy", _BATCH, {"gradient_dtype": "float64"}),
    "probabilities": (
        "cross_entropy",
        {"input": _LOGITS, "target": np.full_like(_LOGITS, 1 / 500)},
        {},
    ),
}


@pytest.mark.parametrize("case", _CASES)
def test_the_answer_is_that_to_the_whole(call: Call, small: str, whole: str, case: str) -> None:
    """Whether in chunks or in one message, the result is the same."""
    loss, inputs, fields = _CASES[case]
    found, expected = (
        call(address, "evaluate", loss, inputs, gradients=["input"], **fields)
        for address in (small, whole)
    )
    assert isinstance(found, EvaluationResult)
    np.testing.assert_array_equal(found.gradients["input"], expected.gradients["input"])
    assert found.gradients["input"].dtype == expected.gradients["input"].dtype
    np.testing.assert_allclose(found.loss, expected.loss, rtol=1e-6)
    assert (found.count, found.receipt) == (expected.count, expected.receipt)
    assert found.gradients["input"].flags.writeable


def test_what_all_rows_share_comes_with_the_result(call: Call, small: str, whole: str) -> None:
    """The largest input is not what streams when it has no rows, and its gradient is whole."""
    matrix = _DRAW.standard_normal((500, 400)).astype(np.float32)
    features = _DRAW.standard_normal((700, 400)).astype(np.float32)
    inputs = {"input": features, "linear_weight": matrix, "target": _CLASSES[:700]}
    found, expected = (
        call(address, "evaluate", "linear_cross_entropy", inputs, gradients=[*inputs][:2])
        for address in (small, whole)
    )
    for name in ("input", "linear_weight"):
        np.testing.assert_allclose(
            found.gradients[name], expected.gradients[name], rtol=1e-4, atol=1e-7
        )


def test_progress_is_told(call: Call, small: str) -> None:
    """With gradients as they come, without as rows are sent; a small batch tells nothing."""
    told: list[tuple[int, int]] = []
    for gradients in (["input"], []):
        told.clear()
        call(
            small,
            "evaluate",
            "cross_entropy",
            _BATCH,
            gradients=gradients,
            progress=lambda *rows: told.append(rows),
        )
        assert told == [(_STEP, 1500), (2 * _STEP, 1500), (1500, 1500)]
    told.clear()
    small_batch = {"input": _LOGITS[:2], "target": _CLASSES[:2]}
    call(small, "evaluate", "cross_entropy", small_batch, progress=lambda *rows: told.append(rows))
    assert told == []


@pytest.mark.parametrize("gradients", [["input"], []])
def test_an_error_of_progress_ends_the_call(call: Call, small: str, gradients: list[str]) -> None:
    """It reaches the caller as it was raised, on whichever thread."""

    def stop(done: int, total: int) -> None:
        raise ZeroDivisionError((done, total))

    with pytest.raises(ZeroDivisionError, match="524, 1500"):
        call(small, "evaluate", "cross_entropy", _BATCH, gradients=gradients, progress=stop)


@pytest.mark.parametrize("rows", [2, 1500])
def test_gradients_are_written_where_asked(call: Call, small: str, rows: int) -> None:
    """`out` is filled in place and is what the result holds, in one message and in chunks."""
    inputs = {"input": _LOGITS[:rows], "target": _CLASSES[:rows]}
    expected = call(small, "evaluate", "cross_entropy", inputs, gradients=["input"])
    out = np.full((rows, 500), np.nan, np.float32)
    result = call(
        small, "evaluate", "cross_entropy", inputs, gradients=["input"], out={"input": out}
    )
    assert result.gradients["input"] is out
    np.testing.assert_array_equal(out, expected.gradients["input"])


_FROZEN = np.zeros((2, 3), np.float32)
_FROZEN.flags.writeable = False
_SHARED = np.zeros((2, 3), np.float32)


@pytest.mark.parametrize(
    ("out", "kind", "text"),
    [
        ([1], TypeError, "out: expected a mapping of names, got list"),
        ({"input": [[0.0]]}, TypeError, 'out["input"]: expected a numpy array, got list'),
        ({"target": _SHARED}, ValueError, "target is not an input whose gradient is asked for"),
        ({"input": np.zeros((2, 3))}, ValueError, "is float64; the gradient is float32"),
        ({"input": np.zeros(3, "f4")}, ValueError, "is [3]; the gradient is [2, 3]"),
        ({"input": np.zeros((3, 2), "f4").T}, ValueError, "contiguous in C order"),
        ({"input": _FROZEN}, ValueError, "must be writable"),
        ({"input": _SHARED}, ValueError, "shares memory with an input"),
    ],
)
def test_a_wrong_place_for_gradients(
    call: Call,
    out: object,
    kind: type[Exception],
    text: str,
) -> None:
    """What cannot take the gradient is refused before anything is sent."""
    inputs = {"input": _SHARED, "target": [0, 1]}
    with pytest.raises(kind) as raised:
        call("127.0.0.1:1", "evaluate", "cross_entropy", inputs, gradients=["input"], out=out)
    assert text in str(raised.value)


def test_the_server_says_what_cannot_stream(call: Call, small: str) -> None:
    """Errors of a chunked call are those of any other, with positions in the whole."""
    wrong = _CLASSES.copy()
    wrong[1400] = 500
    with pytest.raises(InvalidArgumentError, match=r"class index 500 at \[1400\]"):
        call(small, "evaluate", "cross_entropy", {**_BATCH, "target": wrong})
    with pytest.raises(InvalidArgumentError, match="is an activation"):
        call(small, "evaluate", "softmax", {"input": _LOGITS}, {"dim": 0})
    lengths = dict.fromkeys(["targets", "input_lengths", "target_lengths"], np.ones(5, np.int64))
    frames = _LOGITS.reshape(1500, 5, 100)
    with pytest.raises(InvalidArgumentError, match="cannot be cut into rows"):
        call(small, "evaluate", "ctc_loss", {"log_probs": frames, **lengths})
    same = dict.fromkeys(["input", "target", "weight"], _LOGITS)
    with pytest.raises(InvalidArgumentError, match="send it in the header, give a normalizer"):
        call(small, "evaluate", "mse_loss", same, gradients=["input"])
    with pytest.raises(NotFoundError):
        call(small, "evaluate", "cross_entropie", _BATCH)


def test_what_does_not_fit_in_parts_either(call: Call, small: str) -> None:
    """A row, or a header, that is larger than a message is told so, with its size."""
    row = np.zeros((2, 300_000), np.float32)
    text = r"one row is more than the 1048\d{3} bytes of a part"
    with pytest.raises(ResourceExhaustedError, match=text):
        call(small, "evaluate", "mse_loss", {"input": row, "target": row[:, ::-1]})
    weight = np.zeros((1500, 500))
    with pytest.raises(ResourceExhaustedError, match="takes at most 1048576 bytes; the request"):
        call(
            small,
            "evaluate",
            "mse_loss",
            {"input": _LOGITS, "target": _LOGITS},
            sample_weight=weight,
        )


def test_a_cancelled_call_writes_no_more(small: str) -> None:
    """A task that is cancelled ends at once, and its `out` does not change behind it."""

    async def run() -> None:
        large = np.broadcast_to(_LOGITS, (40, 1500, 500)).reshape(-1, 500)
        out = np.zeros_like(large)
        begun = asyncio.Event()
        loop = asyncio.get_running_loop()

        def tell(*_: int) -> None:
            loop.call_soon_threadsafe(begun.set)

        async with AsyncClient(small) as client:
            task = asyncio.create_task(
                client.evaluate(
                    "cross_entropy",
                    {"input": large, "target": np.tile(_CLASSES, 40)},
                    gradients=["input"],
                    out={"input": out},
                    progress=tell,
                )
            )
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            before = out.copy()
            await asyncio.sleep(0.05)
            np.testing.assert_array_equal(out, before)

    asyncio.run(run())


@pytest.mark.parametrize("cancellations", [1, 3])
def test_a_cancelled_call_waits_for_its_thread(small: str, cancellations: int) -> None:
    """However often a task is cancelled, no thread of it goes on when it has ended."""

    async def run() -> None:
        begun = asyncio.Event()
        cancelled = threading.Event()
        ended = threading.Event()
        loop = asyncio.get_running_loop()

        def tell(*_: int) -> None:
            loop.call_soon_threadsafe(begun.set)
            cancelled.wait(60)
            ended.set()

        async with AsyncClient(small) as client:
            call = client.evaluate("cross_entropy", _BATCH, gradients=["input"], progress=tell)
            task = asyncio.create_task(call)
            await begun.wait()
            for _ in range(cancellations):
                task.cancel()
                await asyncio.wait([task], timeout=0.05)
            assert not task.done()
            cancelled.set()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert ended.is_set()

    asyncio.run(run())


class _Chunked(Scripted):
    """Answers chunked calls: the first ones break off, the next one sends the rows back."""

    breaks = 0
    calls = 0
    wrong = b""

    def EvaluateChunked(self, requests: Any, context: Any) -> Any:  # noqa: ANN401, N802 (gRPC's)
        """Echo the rows as their gradients."""
        self.calls += 1
        header = next(requests).header
        for count, request in enumerate(requests):
            if self.calls <= self.breaks and count:
                fail(context, grpc.StatusCode.UNAVAILABLE)
            yield loss_service_pb2.EvaluateChunkedResponse(gradient_rows=request.rows + self.wrong)
        if self.wrong:
            return
        result = loss_service_pb2.ChunkedResult(result=echo(header.evaluation), rows=1500)
        result.result.gradients.clear()
        yield loss_service_pb2.EvaluateChunkedResponse(result=result)

    def GetServerInfo(self, request: Any, context: Any) -> Any:  # noqa: ANN401, N802 (gRPC's)
        """Report that chunks are served."""
        answer = super().GetServerInfo(request, context)
        answer.transports.chunked = True
        return answer


def _limited() -> _Chunked:
    return _Chunked(limits=server_info_pb2.Limits(max_message_bytes=1 << 20))


def test_a_broken_call_is_repeated_as_a_whole(call: Call) -> None:
    """After UNAVAILABLE all rows are sent again, and progress starts over."""
    told: list[int] = []
    with serving(_limited()) as service:
        service.breaks = 2
        result = call(
            service.address,
            "evaluate",
            "cross_entropy",
            _BATCH,
            gradients=["input"],
            progress=lambda done, total: told.append(done * total),
        )
    assert service.calls == 3
    np.testing.assert_array_equal(result.gradients["input"], _LOGITS)
    assert told.count(_STEP * 1500) == 3
    assert told[-1] == 1500 * 1500


@pytest.mark.parametrize("wrong", [b"\0", bytes(_LOGITS[:600].tobytes())])
def test_an_answer_that_does_not_add_up(call: Call, wrong: bytes) -> None:
    """Half rows, too many rows or no result are errors of the server's, not wrong gradients."""
    with serving(_limited()) as service:
        service.wrong = wrong
        with pytest.raises(InternalError, match="the server's answer is malformed"):
            call(service.address, "evaluate", "cross_entropy", _BATCH, gradients=["input"])


def test_servers_are_asked_once() -> None:
    """Limits and losses are remembered; a server without chunks gets one message."""
    limits = server_info_pb2.Limits(max_message_bytes=1 << 20)
    with serving(Scripted(limits=limits)) as service, Client(service.address) as client:
        for _ in range(2):
            client.evaluate("cross_entropy", {"input": _LOGITS[:500], "target": _CLASSES[:500]})
    assert (len(service.evaluations), service.listings) == (2, 1)


def test_a_closed_client_ends_its_transfer(small: str) -> None:
    """Closing the client from another thread ends a chunked call with an error."""
    begun = threading.Event()
    large = np.broadcast_to(_LOGITS, (40, 1500, 500)).reshape(-1, 500)
    with Client(small) as client:

        def close() -> None:
            begun.wait(60)
            client.close()

        closer = threading.Thread(target=close)
        closer.start()
        with pytest.raises(Exception, match=r"closed|cancel"):
            client.evaluate(
                "cross_entropy",
                {"input": large, "target": np.tile(_CLASSES, 40)},
                gradients=["input"],
                progress=lambda *_: begun.set(),
            )
        closer.join()
