"""A thin caller of the service: requests, answers, and nothing in between.

The tests of losses speak the contract itself, so that no convenience of the SDK
can hide a difference.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt

from losswire.server.catalogue.record import Reduction
from losswire.v1 import (
    evaluation_pb2,
    loss_info_pb2,
    loss_service_pb2,
    loss_service_pb2_grpc,
    status_pb2,
)
from losswire.wire import (
    DATA_TYPES,
    OptionScalar,
    decode_tensor,
    encode_option,
    encode_tensor,
)

Array = npt.NDArray[Any]

_REDUCTIONS = {
    None: evaluation_pb2.REDUCTION_UNSPECIFIED,
    Reduction.NONE: evaluation_pb2.REDUCTION_NONE,
    Reduction.MEAN: evaluation_pb2.REDUCTION_MEAN,
    Reduction.SUM: evaluation_pb2.REDUCTION_SUM,
    Reduction.BATCHMEAN: evaluation_pb2.REDUCTION_BATCHMEAN,
}
_ENGINES = {
    "auto": evaluation_pb2.ENGINE_AUTO,
    "autograd": evaluation_pb2.ENGINE_AUTOGRAD,
}
_NUMBERS = {each.name: each.data_type for each in DATA_TYPES.values()}
_ITEMS_A_CALL = 512
_BYTES_A_CALL = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One evaluation as a test writes it; see `losswire.v1.Evaluation`."""

    loss: str
    inputs: Mapping[str, Array]
    options: Mapping[str, OptionScalar] = field(default_factory=dict)
    reduction: Reduction | None = None
    gradients_for: tuple[str, ...] = ()
    grad_output: Array | None = None
    sample_weight: Array | None = None
    normalizer: float | None = None
    compute_dtype: str | None = None
    gradient_dtype: str | None = None
    engine: str = "autograd"

    def message(self) -> evaluation_pb2.Evaluation:
        """Make it a message."""
        message = evaluation_pb2.Evaluation(
            loss=self.loss,
            inputs={name: encode_tensor(array) for name, array in self.inputs.items()},
            options={name: encode_option(value) for name, value in self.options.items()},
            reduction=_REDUCTIONS[self.reduction],
            gradients_for=self.gradients_for,
            normalizer=self.normalizer,
            engine=_ENGINES[self.engine],
        )
        if self.grad_output is not None:
            message.grad_output.CopyFrom(encode_tensor(self.grad_output))
        if self.sample_weight is not None:
            message.sample_weight.CopyFrom(encode_tensor(self.sample_weight))
        if self.compute_dtype is not None:
            message.compute_data_type = _NUMBERS[self.compute_dtype]
        if self.gradient_dtype is not None:
            message.gradient_data_type = _NUMBERS[self.gradient_dtype]
        return message

    def __str__(self) -> str:
        """Return the request as text, without the values."""
        shapes = {name: f"{a.dtype.name}{list(a.shape)}" for name, a in self.inputs.items()}
        others = {
            "reduction": self.reduction and self.reduction.value,
            "gradients_for": self.gradients_for,
            "grad_output": self.grad_output is not None,
            "sample_weight": self.sample_weight is not None and self.sample_weight.shape,
            "normalizer": self.normalizer,
            "compute": self.compute_dtype,
            "gradient": self.gradient_dtype,
        }
        told = {name: value for name, value in others.items() if value}
        return f"{self.loss} {shapes} {dict(self.options)} {told}"


@dataclass(frozen=True, kw_only=True)
class Result:
    """The result of an evaluation; see `losswire.v1.EvaluationResult`."""

    loss: Array
    sum: float
    mean_numerator: float
    mean_denominator: float
    count: int
    gradients: Mapping[str, Array]
    engine: str
    compute_dtype: str


class Caller:
    """Calls one server."""

    def __init__(self, stub: loss_service_pb2_grpc.LossServiceStub) -> None:
        self._stub = stub

    def losses(self) -> Sequence[loss_info_pb2.LossInfo]:
        """List the losses."""
        return self._stub.ListLosses(loss_service_pb2.ListLossesRequest()).losses

    def evaluate(self, ask: Ask) -> Result:
        """Evaluate one batch by itself; raises grpc.RpcError."""
        request = loss_service_pb2.EvaluateRequest(evaluation=ask.message())
        return _read(self._stub.Evaluate(request).result)

    def outcomes(self, asks: Sequence[Ask]) -> list[Result | status_pb2.Status]:
        """Evaluate many batches, a few hundred in one message."""
        found: list[Result | status_pb2.Status] = []
        request, size = loss_service_pb2.EvaluateManyRequest(), 0
        for position, ask in enumerate(asks, start=1):
            message = ask.message()
            request.evaluations.append(message)
            size += message.ByteSize()
            full = size > _BYTES_A_CALL or len(request.evaluations) == _ITEMS_A_CALL
            if full or position == len(asks):
                found += self._many(request)
                request, size = loss_service_pb2.EvaluateManyRequest(), 0
        assert len(found) == len(asks)
        return found

    def _many(
        self, request: loss_service_pb2.EvaluateManyRequest
    ) -> list[Result | status_pb2.Status]:
        return [
            _read(each.result) if each.HasField("result") else each.error
            for each in self._stub.EvaluateMany(request).outcomes
        ]

    def results(self, asks: Sequence[Ask]) -> list[Result]:
        """Evaluate many batches, all of which must succeed."""
        outcomes = self.outcomes(asks)
        wrong = [
            f"{ask}: {outcome.message}"
            for ask, outcome in zip(asks, outcomes, strict=True)
            if not isinstance(outcome, Result)
        ]
        assert not wrong, "\n".join([f"{len(wrong)} of {len(asks)} failed:", *wrong[:10]])
        return [each for each in outcomes if isinstance(each, Result)]

    def refusal(self, ask: Ask) -> str:
        """Evaluate one batch that must be refused; gives the text of the refusal."""
        [outcome] = self.outcomes([ask])
        assert isinstance(outcome, status_pb2.Status), f"{ask} was not refused"
        assert outcome.code == grpc.StatusCode.INVALID_ARGUMENT.value[0], outcome.message
        return outcome.message


@contextmanager
def calling(address: str) -> Iterator[Caller]:
    """Connect to a server."""
    options = [("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(address, options) as channel:
        yield Caller(loss_service_pb2_grpc.LossServiceStub(channel))


def floats(values: npt.ArrayLike, dtype: str = "float32") -> Array:
    """Make an array of a floating type."""
    return np.asarray(values, dtype)


def _read(result: evaluation_pb2.EvaluationResult) -> Result:
    return Result(
        loss=decode_tensor(result.loss),
        sum=result.sum,
        mean_numerator=result.mean_numerator,
        mean_denominator=result.mean_denominator,
        count=result.count,
        gradients={name: decode_tensor(tensor) for name, tensor in result.gradients.items()},
        engine=result.receipt.engine,
        compute_dtype=DATA_TYPES[result.receipt.compute_data_type].name,
    )
