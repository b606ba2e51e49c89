"""Short ways to write requests, and the answers that every method must return."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import torch
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from google.rpc import status_pb2 as rpc_status_pb2
from torch.nn import functional

from losswire.v1 import (
    evaluation_pb2,
    loss_service_pb2,
    loss_service_pb2_grpc,
    status_pb2,
    tensor_pb2,
)
from losswire.wire import encode_option, encode_tensor

Array = npt.NDArray[Any]
Stub = loss_service_pb2_grpc.LossServiceStub
Outcome = evaluation_pb2.EvaluationOutcome
Method = Callable[[Stub, evaluation_pb2.Evaluation], Outcome]

TIMEOUT = 60.0
"""The deadline of a call that must be answered; far more than it takes."""


def f32(*values: Any) -> Array:  # noqa: ANN401 (nested numbers)
    """Return a float32 array."""
    return np.array(values, np.float32)


def i64(*values: Any) -> Array:  # noqa: ANN401 (nested numbers)
    """Return an int64 array."""
    return np.array(values, np.int64)


def tensor(value: "npt.ArrayLike | tensor_pb2.Tensor") -> tensor_pb2.Tensor:
    """Return a tensor message; an array becomes one."""
    return value if isinstance(value, tensor_pb2.Tensor) else encode_tensor(value)


def evaluation(
    loss: str,
    inputs: Mapping[str, "npt.ArrayLike | tensor_pb2.Tensor"],
    options: Mapping[str, Any] | None = None,
    **fields: Any,  # noqa: ANN401 (any field of Evaluation)
) -> evaluation_pb2.Evaluation:
    """Return an evaluation; options may be messages, arrays become tensors."""
    values = {
        name: value if isinstance(value, evaluation_pb2.OptionValue) else encode_option(value)
        for name, value in (options or {}).items()
    }
    for name in ("grad_output", "sample_weight"):
        if name in fields:
            fields[name] = tensor(fields[name])
    return evaluation_pb2.Evaluation(
        loss=loss,
        inputs={name: tensor(value) for name, value in inputs.items()},
        options=values,
        **fields,
    )


def by_call(stub: Stub, item: evaluation_pb2.Evaluation) -> Outcome:
    """Evaluate in a call of its own."""
    request = loss_service_pb2.EvaluateRequest(evaluation=item)
    try:
        response = stub.Evaluate(request, timeout=TIMEOUT)
    except grpc.RpcError as error:
        return Outcome(error=item_status(error))
    return Outcome(result=response.result)


def by_many(stub: Stub, item: evaluation_pb2.Evaluation) -> Outcome:
    """Evaluate between two others in EvaluateMany, which it must leave alone."""
    request = loss_service_pb2.EvaluateManyRequest(evaluations=[GOLDEN, item, GOLDEN])
    response = stub.EvaluateMany(request, timeout=TIMEOUT)
    before, outcome, after = response.outcomes
    assert essence(before.result) == essence(after.result)
    assert is_golden(after.result)
    return outcome


def by_stream(stub: Stub, item: evaluation_pb2.Evaluation) -> Outcome:
    """Evaluate between two others in EvaluateStream, which it must leave alone."""
    items = enumerate([GOLDEN, item, GOLDEN])
    answers = {
        each.id: each.outcome
        for each in stub.EvaluateStream(stream_requests(items), timeout=TIMEOUT)
    }
    assert sorted(answers) == [0, 1, 2]
    assert essence(answers[0].result) == essence(answers[2].result)
    assert is_golden(answers[2].result)
    return answers[1]


METHODS: dict[str, Method] = {"Evaluate": by_call, "Many": by_many, "Stream": by_stream}
"""Every method of the contract that takes one evaluation."""


def stream_requests(
    items: Iterable[tuple[int, evaluation_pb2.Evaluation]],
) -> Iterator[loss_service_pb2.EvaluateStreamRequest]:
    """Number evaluations for a stream."""
    return (
        loss_service_pb2.EvaluateStreamRequest(id=number, evaluation=item) for number, item in items
    )


def trailing(error: grpc.RpcError) -> dict[str, str | bytes]:
    """Return the metadata that came with a refusal."""
    pairs: Any = error.trailing_metadata() or ()  # grpc.aio returns plain pairs
    return dict(pairs)


def details(error: grpc.RpcError) -> tuple[rpc_status_pb2.Status, dict[type[Message], Message]]:
    """Return the rich status of a refused call and its details by type."""
    binary = trailing(error)["grpc-status-details-bin"]
    assert isinstance(binary, bytes)
    status = rpc_status_pb2.Status.FromString(binary)
    kinds = (
        error_details_pb2.ErrorInfo,
        error_details_pb2.BadRequest,
        error_details_pb2.RetryInfo,
        error_details_pb2.RequestInfo,
    )
    found: dict[type[Message], Message] = {}
    for packed in status.details:
        [kind] = [each for each in kinds if packed.Is(each.DESCRIPTOR)]
        found[kind] = kind()
        assert packed.Unpack(found[kind])
    return status, found


def item_status(error: grpc.RpcError) -> status_pb2.Status:
    """Write the refusal of a whole call as an item's would be written."""
    status, found = details(error)
    assert (status.code, status.message) == (error.code().value[0], error.details())
    info = found[error_details_pb2.ErrorInfo]
    assert isinstance(info, error_details_pb2.ErrorInfo)
    bad = found.get(error_details_pb2.BadRequest, error_details_pb2.BadRequest())
    assert isinstance(bad, error_details_pb2.BadRequest)
    return status_pb2.Status(
        code=status.code,
        message=status.message,
        reason=info.reason,
        violations=[
            status_pb2.FieldViolation(field=each.field, description=each.description)
            for each in bad.field_violations
        ],
    )


def essence(result: evaluation_pb2.EvaluationResult) -> evaluation_pb2.EvaluationResult:
    """Leave out what may differ between two equal evaluations: the times."""
    copy = evaluation_pb2.EvaluationResult()
    copy.CopyFrom(result)
    copy.queue_nanoseconds = copy.compute_nanoseconds = 0
    return copy


def _golden() -> tuple[evaluation_pb2.Evaluation, tensor_pb2.Tensor, tensor_pb2.Tensor]:
    """Return a request with torch's own answer to it: the values and their gradient."""
    draw = np.random.default_rng(7)
    logits = draw.standard_normal((5, 11)).astype(np.float32)
    classes = draw.integers(0, 11, 5)
    upstream = draw.standard_normal(5).astype(np.float32)
    leaf = torch.from_numpy(logits.copy()).requires_grad_()
    values = functional.cross_entropy(leaf, torch.from_numpy(classes), reduction="none")
    [gradient] = torch.autograd.grad(values, leaf, torch.from_numpy(upstream))
    request = evaluation(
        "cross_entropy",
        {"input": logits, "target": classes},
        reduction=evaluation_pb2.REDUCTION_NONE,
        gradients_for=["input"],
        grad_output=upstream,
        engine=evaluation_pb2.ENGINE_AUTOGRAD,
    )
    return request, encode_tensor(values.detach().numpy()), encode_tensor(gradient.numpy())


GOLDEN, _VALUES, _GRADIENT = _golden()


def is_golden(result: evaluation_pb2.EvaluationResult) -> bool:
    """Return whether an answer to GOLDEN is torch's own, bit for bit."""
    return result.loss == _VALUES and result.gradients["input"] == _GRADIENT
