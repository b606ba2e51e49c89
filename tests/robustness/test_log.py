"""What callers send is in the log as data at most, never as a line of its own or as an error."""

import logging
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

from losswire.server.rpc.quiet import quiet_cancelled_calls
from losswire.v1 import evaluation_pb2, loss_service_pb2
from tests.support.harness import Child, path_with
from tests.support.requests import TIMEOUT, Stub, evaluation, f32, stream_requests
from tests.support.soak import tier

_FORGED = '{"level": "critical", "logger": "forged", "message": "forged"}'
_TEXTS = (
    f"\n{_FORGED}\n",
    f"\r\n{_FORGED}\r\n",
    f"\u2028{_FORGED}\u2028",
    "\x1b[2J\x1b]0;title\x07",
    "\x00\x85\x0b\x0c",
    "%s %n %(message)s {0}",
)

_FAILING = '''
from torch import Tensor
from losswire.server.declare import Input, Option, Terms, floats, layout, loss

@loss(
    layouts=(layout("any", input=floats("*S"), values="*S"),),
    inputs={"input": Input(meaning="Numbers.")},
    options={"text": Option(meaning="What its error says.")},
    source="tests",
)
def failing(input: Tensor, text: str = "") -> Terms:
    """Fail with a text of the caller's."""
    raise RuntimeError(text)
'''


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    """A server with a loss that fails with what its caller says."""
    folder = tmp_path_factory.mktemp("failing")
    (folder / "failing_loss.py").write_text(_FAILING)
    environment = {"PYTHONPATH": path_with(folder)}
    arguments = ("--losses", "failing_loss", "--log-level", "debug")
    with Child(folder / "log", *arguments, environment=environment) as child:
        yield child


def _entries(child: Child) -> list[dict[str, object]]:
    """Read the log, whose lines are JSON objects of printable ASCII."""
    lines = child.log.read_bytes().splitlines()
    assert all(32 <= byte < 127 for line in lines for byte in line)
    return list(child.entries())


@pytest.mark.parametrize("text", _TEXTS, ids=range(len(_TEXTS)))
def test_texts_of_callers_forge_no_line(child: Child, text: str) -> None:
    """Names, options and metadata with line ends and control characters stay inside of entries."""
    items = [
        evaluation(text, {"input": f32(1)}),
        evaluation("mse_loss", {text: f32(1), "target": f32(1)}),
        evaluation("mse_loss", {"input": f32(1), "target": f32(1)}, {text: text}),
        evaluation("mse_loss", {"input": f32(1), "target": f32(1)}, gradients_for=[text]),
        evaluation("failing", {"input": f32(1)}, {"text": text}),
    ]
    metadata = (("user-agent-text-bin", text.encode()), ("x-request-id", "0123456789abcdef"))
    with child.channel() as channel:
        for item in items:
            request = loss_service_pb2.EvaluateRequest(evaluation=item)
            with pytest.raises(grpc.RpcError):
                Stub(channel).Evaluate(request, timeout=TIMEOUT, metadata=metadata)
    found = _entries(child)
    assert all(each["logger"] != "forged" for each in found)
    errors = [each for each in found if each["level"] == "error"]
    assert text in str(errors[-1]["exception"])


@pytest.mark.parametrize("door", ["call", "many", "stream", "chunked"])
def test_no_text_of_an_error_leaves(child: Child, door: str) -> None:
    """An error that nobody expected is INTERNAL by its request's number, whatever the door."""
    secret = f"secret of {door}"
    item = evaluation("failing", {"input": f32(1, 2)}, {"text": secret})
    with child.channel() as channel:
        told = _told(Stub(channel), door, item)
    assert "secret" not in told
    assert "log has the details under request" in told
    exceptions = [str(each.get("exception")) for each in _entries(child)]
    assert sum(secret in each for each in exceptions) == 1


def _told(stub: Stub, door: str, item: evaluation_pb2.Evaluation) -> str:
    """Return all that a caller hears of a failure, in one text."""
    if door == "many":
        request = loss_service_pb2.EvaluateManyRequest(evaluations=[item])
        return str(stub.EvaluateMany(request, timeout=TIMEOUT))
    if door == "stream":
        return str(list(stub.EvaluateStream(stream_requests([(1, item)]), timeout=TIMEOUT)))
    data = item.inputs["input"].data
    if door == "chunked":
        item.inputs["input"].data = b""
    header = loss_service_pb2.ChunkedHeader(evaluation=item, streamed_inputs=["input"])
    parts = [
        loss_service_pb2.EvaluateChunkedRequest(header=header),
        loss_service_pb2.EvaluateChunkedRequest(rows=data),
    ]
    one = loss_service_pb2.EvaluateRequest(evaluation=item)
    call: Any = partial(stub.Evaluate, one)
    if door == "chunked":
        call = partial(stub.EvaluateChunked, iter(parts))
    with pytest.raises(grpc.RpcError) as failed:
        list(call(timeout=TIMEOUT))
    error = failed.value
    return f"{error.details()} {error.trailing_metadata()!r}"


def test_callers_who_cancel_make_no_errors(tmp_path: Path) -> None:
    """Calls that are cancelled as their answer is sent leave nothing at level error in the log."""
    item = evaluation("mse_loss", {"input": f32(*range(100_000)), "target": f32(*range(100_000))})
    item.gradients_for.append("input")
    request = loss_service_pb2.EvaluateRequest(evaluation=item)
    with Child(tmp_path / "log") as child:
        with child.channel() as channel:
            stub = Stub(channel)
            for number in range(tier(short=40, soak=400)):
                call = stub.Evaluate.future(request, timeout=TIMEOUT)
                with suppress(grpc.FutureTimeoutError):
                    call.result(timeout=0.0005 * (number % 20))
                call.cancel()
        child.terminate()
        assert child.wait() == 0
        assert [each for each in child.entries() if each["level"] == "error"] == []


class ExecuteBatchError(Exception):
    """Named as gRPC's own, which only its core can raise."""


@pytest.mark.parametrize("level", [logging.DEBUG, logging.INFO])
def test_answers_without_a_caller_are_logged_at_level_debug(
    caplog: pytest.LogCaptureFixture, level: int
) -> None:
    """Of what gRPC logs of failed calls, only answers that could not be sent are lowered."""
    quiet_cancelled_calls()
    logger = logging.getLogger("grpc._cython.cygrpc")
    with caplog.at_level(level, logger=logger.name):
        for kind in (ExecuteBatchError, ValueError):
            error = kind()
            logger.error("raised in core", exc_info=error)
    expected = [("DEBUG", ExecuteBatchError)] if level == logging.DEBUG else []
    found = [
        (each.levelname, each.exc_info[0]) for each in caplog.records if each.exc_info is not None
    ]
    assert found == [*expected, ("ERROR", ValueError)]
