"""Results, from messages."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from losswire.client._errors import InternalError, LosswireError, error_from_status
from losswire.v1 import evaluation_pb2, tensor_pb2
from losswire.wire import DATA_TYPES, MalformedTensorError, decode_tensor

TransportName = Literal["unary", "chunked", "region", "many", "stream"]

_NOWHERE: Mapping[str, npt.NDArray[Any]] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """How and by what a result was computed."""

    device: str
    """The device: `cpu`, `cuda:0`."""
    engine: str
    """The path taken: `autograd` or `closed_form`."""
    compute_dtype: str
    """The floating type computed in, such as `float32`."""
    server_version: str
    """The version of the server."""
    torch_version: str
    """The version of torch."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FactoredGradient:
    """The gradient of a loss over a softmax: scale_i * (exp(x_ij - lse_i) - q_ij).

    x are the logits and q the target distribution, both of which the caller holds. It is what
    came from the server; the dense gradient that was made of it is among `gradients`.
    """

    lse: npt.NDArray[np.float64]
    """log(sum(exp(x_i))) of each row, in the shape of the values."""
    scale: npt.NDArray[np.float64]
    """The factor of each row, in the shape of the values."""
    lse_tail: npt.NDArray[np.float64]
    """What rounding to float64 took from `lse`, in the shape of the values."""

    @property
    def arrays(self) -> tuple[npt.NDArray[np.float64], ...]:
        """All of it, in the order in which chunks pack it."""
        return self.lse, self.scale, self.lse_tail


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EvaluationResult:
    """What an evaluation gives. Its arrays are the caller's own and writable."""

    loss: npt.NDArray[Any]
    """The loss, of shape () when reduced (`float(result.loss)`), else the values.

    NaN and infinity are results like any other.
    """
    gradients: dict[str, npt.NDArray[Any]]
    """The dense gradients by input name, each in the shape of its input. Those that came as
    factors are rebuilt from the inputs, which must not have changed since."""
    factored_gradients: dict[str, FactoredGradient]
    """The factored gradients by input name, when that form was asked for."""
    sum: float
    """The sum of the values, each times its sample weight, in float64."""
    mean_numerator: float
    """The sum of the mean's numerators, in float64."""
    mean_denominator: float
    """The sum of the mean's denominators, or the normalizer, in float64.

    The mean over several batches is the sum of their numerators over the sum of their
    denominators.
    """
    count: int
    """How many values took part: neither ignored nor of sample weight 0."""
    queue_nanoseconds: int
    """Nanoseconds between the end of validation and the start of the computation."""
    compute_nanoseconds: int
    """Nanoseconds spent in the computation."""
    receipt: Receipt
    """How and by what this was computed."""
    transport: TransportName = "unary"
    """The way that the tensors took: `"unary"` (one message), `"chunked"`, `"region"` (memory
    shared with a server on the same machine), `"many"` or `"stream"`."""


def dtype_name(number: int) -> str:
    """Name a data type; one that only a newer server knows gets a name with its number."""
    wire_type = DATA_TYPES.get(number)
    return wire_type.name if wire_type else f"data_type_{number}"


def read_result(
    message: evaluation_pb2.EvaluationResult,
    transport: TransportName = "unary",
    placed: Mapping[str, npt.NDArray[Any]] = _NOWHERE,
) -> EvaluationResult:
    """Read a result that came in some way; InternalError when it is malformed.

    `placed` are the arrays, by name, into which the server was told to write gradients.
    """
    try:
        return EvaluationResult(
            loss=_array(message.loss, "loss"),
            gradients={
                name: placed[name]
                if name in placed and tensor.HasField("region")
                else _array(tensor, f'gradients["{name}"]')
                for name, tensor in message.gradients.items()
            },
            factored_gradients={
                name: FactoredGradient(
                    lse=_array(factors.lse, f'factored_gradients["{name}"].lse'),
                    scale=_array(factors.scale, f'factored_gradients["{name}"].scale'),
                    lse_tail=_array(factors.lse_tail, f'factored_gradients["{name}"].lse_tail'),
                )
                for name, factors in message.factored_gradients.items()
            },
            sum=message.sum,
            mean_numerator=message.mean_numerator,
            mean_denominator=message.mean_denominator,
            count=message.count,
            queue_nanoseconds=message.queue_nanoseconds,
            compute_nanoseconds=message.compute_nanoseconds,
            receipt=_read_receipt(message.receipt),
            transport=transport,
        )
    except MalformedTensorError as error:
        raise InternalError(
            "the server's answer is malformed",
            reason="MALFORMED_RESPONSE",
            violations=error.violations,
        ) from error


def read_outcome(
    message: evaluation_pb2.EvaluationOutcome, transport: TransportName = "many"
) -> EvaluationResult | LosswireError:
    """Read what came of one item of many; failures are returned, not raised."""
    match message.WhichOneof("outcome"):
        case "result":
            try:
                return read_result(message.result, transport)
            except InternalError as error:
                return error
        case "error":
            return error_from_status(message.error)
    return InternalError(
        "the server's answer has neither a result nor an error", reason="MALFORMED_RESPONSE"
    )


def _read_receipt(message: evaluation_pb2.Receipt) -> Receipt:
    return _receipt(
        message.device,
        message.engine,
        message.compute_data_type,
        message.server_version,
        message.torch_version,
    )


@lru_cache(maxsize=64)
def _receipt(
    device: str, engine: str, compute_data_type: int, server_version: str, torch_version: str
) -> Receipt:
    """Make a receipt; a server has only a few."""
    return Receipt(
        device=device,
        engine=engine,
        compute_dtype=dtype_name(compute_data_type),
        server_version=server_version,
        torch_version=torch_version,
    )


def _array(tensor: tensor_pb2.Tensor, path: str) -> npt.NDArray[Any]:
    # The decoded array is a read-only view of `bytes`, which `grad *= rate` would
    # trip over. protobuf hands out nothing but `bytes`, so one copy is the price
    # of a writable array: 0.08 ms for 4 MiB.
    return decode_tensor(tensor, path).copy()
