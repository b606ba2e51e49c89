"""Servers whose answers do not fit the questions: each is one clear error, never a result."""

# ruff: noqa: N802 - gRPC names methods as the contract does

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import grpc
import numpy as np
import pytest

from losswire.client import Client, DataLossError, Evaluation, InternalError, LosswireError
from losswire.v1 import evaluation_pb2, loss_service_pb2, tensor_pb2, tensor_service_pb2
from losswire.wire import encode_tensor
from tests.client.conftest import Call, call_async, call_blocking
from tests.support.scripted import Scripted, echo, serving

_BATCH = {"input": np.ones((64, 10), np.float32), "target": np.zeros((64, 10), np.float32)}
_EVALUATION = Evaluation("mse_loss", _BATCH, gradients=["input"])
Lie = Callable[[evaluation_pb2.EvaluationResult], object]

LIES: dict[str, Lie] = {
    "shape of a gradient": lambda answer: answer.gradients["input"].CopyFrom(
        encode_tensor(np.ones((10, 64), np.float32))
    ),
    "gradient that would broadcast": lambda answer: answer.gradients["input"].CopyFrom(
        encode_tensor(np.ones((1, 10), np.float32))
    ),
    "dtype of a gradient": lambda answer: answer.gradients["input"].CopyFrom(
        encode_tensor(np.ones((64, 10)))
    ),
    "no gradient": lambda answer: answer.ClearField("gradients"),
    "another gradient": lambda answer: answer.gradients["target"].CopyFrom(
        encode_tensor(np.ones((64, 10), np.float32))
    ),
    "shape of the loss": lambda answer: answer.loss.CopyFrom(
        encode_tensor(np.ones(64, np.float32))
    ),
    "loss of integers": lambda answer: answer.loss.CopyFrom(encode_tensor(np.int64(1))),
    "dtype of the loss": lambda answer: answer.loss.CopyFrom(encode_tensor(np.float64(1))),
    "negative count": lambda answer: setattr(answer, "count", -1),
}


UNREDUCED_LIES: dict[str, tuple[dict[str, Any], tuple[int, ...], int]] = {
    "length of no input": ({"reduction": "none"}, (7,), 1),
    "more counted than there is": ({"reduction": "none"}, (64, 10), 641),
    "shape of the weight": (
        {"reduction": "none", "sample_weight": np.ones((64, 10), np.float32)},
        (10, 64),
        1,
    ),
    "rows of the weight": (
        {"reduction": "none", "sample_weight": np.ones(64, np.float32)},
        (10,),
        1,
    ),
    "values of what is reduced": ({}, (64, 10), 1),
    "values of what is weighted": ({"sample_weight": np.ones(64, np.float32)}, (64, 10), 0),
}
"""The fields of an evaluation, the shape of its loss and the count that a server answers with."""


def _with_values(
    answer: evaluation_pb2.EvaluationResult, shape: tuple[int, ...], count: int
) -> None:
    answer.loss.CopyFrom(encode_tensor(np.ones(shape, np.float32)))
    answer.count = count


def _with_factors(answer: evaluation_pb2.EvaluationResult) -> None:
    answer.ClearField("gradients")
    factors = answer.factored_gradients["input"]
    for part in (factors.lse, factors.scale, factors.lse_tail):
        part.CopyFrom(encode_tensor(np.zeros(64, np.float32)))


def lying(lie: Lie) -> Scripted:
    """Return a server whose every result has one lie."""

    def one(
        evaluation: evaluation_pb2.Evaluation, _context: grpc.ServicerContext | None = None
    ) -> evaluation_pb2.EvaluationResult:
        answer = echo(evaluation)
        lie(answer)
        return answer

    return Scripted(one, lambda item: evaluation_pb2.EvaluationOutcome(result=one(item)))


@pytest.fixture(params=[call_blocking, call_async], ids=["Client", "AsyncClient"])
def call(request: pytest.FixtureRequest) -> Call:
    """Return what makes one call: both clients in turn."""
    chosen: Call = request.param
    return chosen


@pytest.mark.parametrize("lie", LIES)
def test_one_evaluation(call: Call, lie: str) -> None:
    """An answer that does not fit is InternalError, the first time and from a known request."""
    with serving(lying(LIES[lie])) as service:
        for _ in range(2):
            with pytest.raises(InternalError, match="does not fit the request") as raised:
                call(service.address, "evaluate", "mse_loss", _BATCH, gradients=["input"])
            assert raised.value.reason == "UNFIT_RESPONSE"


@pytest.mark.parametrize("lie", UNREDUCED_LIES)
def test_values(call: Call, lie: str) -> None:
    """An unreduced loss that cannot be one of its inputs is InternalError."""
    fields, shape, count = UNREDUCED_LIES[lie]
    with serving(lying(partial(_with_values, shape=shape, count=count))) as service:
        for _ in range(2):
            with pytest.raises(InternalError, match="does not fit the request"):
                call(service.address, "evaluate", "mse_loss", _BATCH, **fields)


@pytest.mark.parametrize("shape", [(64, 10), (64,), (10, 10, 1), ()])
def test_values_of_any_loss(call: Call, shape: tuple[int, ...]) -> None:
    """Values over any axes of the inputs are a result: a loss of elsewhere may have them."""
    with serving(lying(partial(_with_values, shape=shape, count=1))) as service:
        result = call(service.address, "evaluate", "mse_loss", _BATCH, reduction="none")
    assert result.loss.shape == shape


@pytest.mark.parametrize("form", ["dense", "factored"])
def test_factors(call: Call, form: str) -> None:
    """Factors in place of a dense gradient, and factors of another dtype, are InternalError."""
    batch: dict[str, Any] = {"input": _BATCH["input"], "target": np.zeros(64, np.int64)}
    fields: dict[str, Any] = {"gradients": ["input"], "gradient_form": form}
    with serving(lying(_with_factors)) as service:
        says = pytest.raises(InternalError, match="does not fit the request")
        with says:
            call(service.address, "evaluate", "cross_entropy", batch, **fields)
        [outcome] = call(
            service.address, "evaluate_many", [Evaluation("cross_entropy", batch, **fields)]
        )
    assert isinstance(outcome, InternalError)


def test_arrays_of_the_caller_are_left_alone() -> None:
    """A gradient that would be broadcast into `out` is not written there."""
    out = {"input": np.full((64, 10), 7, np.float32)}
    with (
        serving(lying(LIES["gradient that would broadcast"])) as service,
        Client(service.address) as client,
        pytest.raises(InternalError),
    ):
        client.evaluate("mse_loss", _BATCH, gradients=["input"], out=out)
    assert (out["input"] == 7).all()


@pytest.mark.parametrize("lie", LIES)
def test_items(call: Call, lie: str) -> None:
    """An item of many that does not fit is InternalError in its place."""
    with serving(lying(LIES[lie])) as service:
        outcomes = call(service.address, "evaluate_many", [_EVALUATION, _EVALUATION])
        with Client(service.address) as client, client.stream() as stream:
            outcomes += stream.map([_EVALUATION, _EVALUATION])
    assert [type(each) for each in outcomes] == [InternalError] * 4


def test_the_truth_fits(call: Call) -> None:
    """An answer that fits is a result in each of these ways."""
    with serving(Scripted()) as service:
        call(service.address, "evaluate", "mse_loss", _BATCH, gradients=["input"])
        outcomes = call(service.address, "evaluate_many", [_EVALUATION])
        with Client(service.address) as client, client.stream() as stream:
            outcomes += stream.map([_EVALUATION])
    assert not any(isinstance(each, LosswireError) for each in outcomes)


class FewOutcomes(Scripted):
    """Answers one item less than it was asked."""

    def EvaluateMany(
        self, request: loss_service_pb2.EvaluateManyRequest, context: grpc.ServicerContext
    ) -> loss_service_pb2.EvaluateManyResponse:
        """Answer all but the last."""
        answer = super().EvaluateMany(request, context)
        del answer.outcomes[-1]
        return answer


def test_too_few_outcomes(call: Call) -> None:
    """A list that is too short would be paired wrongly: it is an error."""
    with serving(FewOutcomes()) as service, pytest.raises(InternalError, match="2 outcomes for 3"):
        call(service.address, "evaluate_many", [_EVALUATION] * 3)


@contextmanager
def raw_server(answers: dict[str, Any], listen: str = "127.0.0.1:0") -> Iterator[str]:
    """Serve prepared bytes by the names of methods; yields the address."""
    info = loss_service_pb2.GetServerInfoResponse()
    info.limits.max_message_bytes, info.limits.max_in_flight_per_stream = 4_000_000, 8
    known = {"GetServerInfo": info.SerializeToString(), **answers}

    class Handler(grpc.GenericRpcHandler):
        def service(self, details: grpc.HandlerCallDetails) -> Any:  # noqa: ANN401 (gRPC's own)
            name = details.method.rpartition("/")[2]
            if name not in known:
                return None

            def stream(requests: Iterator[bytes], _: grpc.ServicerContext) -> Iterator[bytes]:
                for _request in requests:
                    yield known[name]
                    if name != "EvaluateStream":
                        return

            return grpc.stream_stream_rpc_method_handler(stream)

    with ThreadPoolExecutor(8) as threads:
        server = grpc.server(threads, handlers=[Handler()], options=[("grpc.so_reuseport", 0)])
        port = server.add_insecure_port(listen)
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(None).wait()


_NOISE = b"\xff" * 50


@pytest.mark.parametrize("method", ["Evaluate", "EvaluateMany", "GetServerInfo"])
def test_noise(call: Call, method: str) -> None:
    """An answer that does not parse is InternalError, and says so."""
    calls: dict[str, tuple[object, ...]] = {
        "Evaluate": ("evaluate", "mse_loss", _BATCH),
        "EvaluateMany": ("evaluate_many", [_EVALUATION]),
        "GetServerInfo": ("server_info",),
    }
    says = pytest.raises(InternalError, match="does not parse")
    with raw_server({method: _NOISE}) as address, says:
        call(address, *calls[method])


def test_noise_in_a_stream() -> None:
    """A stream whose answers do not parse raises an error that says so."""
    with raw_server({"EvaluateStream": _NOISE}) as address, Client(address) as client:
        says = pytest.raises(InternalError, match="does not parse")
        with client.stream() as stream, says:
            stream.submit(_EVALUATION).result(60)


def test_another_tensor_was_stored() -> None:
    """A server that stores another tensor than it was sent is told apart from a changed array."""
    other = tensor_service_pb2.PutTensorResponse(id=tensor_pb2.TensorId(sha256=b"x" * 32))
    absent = tensor_service_pb2.StatTensorResponse(present=False)
    answers = {"PutTensor": other.SerializeToString(), "StatTensor": absent.SerializeToString()}
    says = pytest.raises(DataLossError, match="another tensor")
    with raw_server(answers) as address, Client(address) as client, says:
        client.put([1.0, 2.0])
