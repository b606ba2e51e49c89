"""Reading of results from messages."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from losswire.client._errors import InternalError, LosswireError, error_from_status
from losswire.v1 import evaluation_pb2, loss_service_pb2, tensor_pb2
from losswire.wire import (
    DETACHED_FROM,
    MalformedTensorError,
    Violation,
    decode_tensor,
    detach,
    dtype_name,
)

TransportName = Literal["unary", "chunked", "region", "local", "many", "stream"]

_NO_ARRAYS: Mapping[str, npt.NDArray[Any]] = {}
_NO_PAYLOADS: Mapping[str, memoryview] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """The device, path and versions that computed a result."""

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

    x are the logits and q the target distribution, both of which the caller holds. The factors
    came from the server; the dense gradient that was made of them is among `gradients`.

    Example:
        >>> result = client.evaluate(
        ...     "cross_entropy",
        ...     {"input": np.zeros((1, 4), np.float32), "target": [0]},
        ...     gradients=["input"],
        ...     gradient_form="factored",
        ... )
        >>> result.factored_gradients["input"].scale.tolist(), result.gradients["input"].tolist()
        ([1.0], [[-0.75, 0.25, 0.25, 0.25]])
    """

    lse: npt.NDArray[np.float64]
    """log(sum(exp(x_i))) of each row, in the shape of the values."""
    scale: npt.NDArray[np.float64]
    """The factor of each row, in the shape of the values."""
    lse_tail: npt.NDArray[np.float64]
    """The difference that rounding to float64 took from `lse`, in the shape of the values."""

    @property
    def arrays(self) -> tuple[npt.NDArray[np.float64], ...]:
        """All factors, in the order in which chunks pack them."""
        return self.lse, self.scale, self.lse_tail


# Without slots, so that all fields can be given at once (see read_result).
@dataclass(frozen=True, kw_only=True, eq=False)
class EvaluationResult:
    """The result of an evaluation. Its arrays are the caller's own and writable.

    Example:
        >>> result = client.evaluate(
        ...     "mse_loss", {"input": [1.0, 2.0], "target": [0.0, 0.0]}, gradients=["input"]
        ... )
        >>> float(result.loss), result.gradients["input"].tolist(), result.count
        (2.5, [1.0, 2.0], 2)
    """

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
    """The number of values that took part: neither ignored nor of sample weight 0."""
    queue_nanoseconds: int
    """Nanoseconds between the end of validation and the start of the computation."""
    compute_nanoseconds: int
    """Nanoseconds spent in the computation."""
    receipt: Receipt
    """The device, path and versions that computed it."""
    transport: TransportName = "unary"
    """The transport of the tensors: `"unary"` (one message), `"chunked"`, `"region"` (memory
    shared with a server on the same machine), `"local"` (one message that stayed on the
    machine, without gRPC), `"many"` or `"stream"`."""

    def _repr_html_(self) -> str:
        from losswire.client._report.notebook import result_fragment  # noqa: PLC0415 - for notebooks

        return result_fragment(self)


class OneAnswer(NamedTuple):
    """The answer to one evaluation."""

    message: loss_service_pb2.EvaluateResponse
    detached: Mapping[str, memoryview]
    """The elements of tensors that are missing in its result, by path."""
    transport: TransportName = "unary"
    """Its transport."""

    @classmethod
    def parse(cls, answer: bytes, transport: TransportName = "unary") -> "OneAnswer":
        """Parse an answer, a large one without having protobuf copy it; DecodeError."""
        if len(answer) < DETACHED_FROM:
            message = loss_service_pb2.EvaluateResponse.FromString(answer)
            return cls(message, _NO_PAYLOADS, transport)
        message, payloads = detach(answer, loss_service_pb2.EvaluateResponse)
        detached = {path.removeprefix("result."): payloads[path] for path in payloads}
        return cls(message, detached, transport)


def read_result(
    message: evaluation_pb2.EvaluationResult,
    transport: TransportName = "unary",
    placed: Mapping[str, npt.NDArray[Any]] = _NO_ARRAYS,
    detached: Mapping[str, memoryview] = _NO_PAYLOADS,
) -> EvaluationResult:
    """Read a result that came by a transport; InternalError when it is malformed.

    `placed` are the arrays, by name, into which the server writes gradients on request,
    `detached` the elements of tensors that are not in the message, by path.
    """
    gradients, factored = message.gradients, message.factored_gradients
    try:
        fields = {
            "loss": decode_tensor(
                message.loss, "loss", writable=True, detached=detached.get("loss")
            ),
            "gradients": {
                # A map of messages iterates over its entries in Python, but over its keys in C.
                name: _written(gradients[name], placed[name], name)
                if name in placed
                else _array(gradients[name], f'gradients["{name}"]', detached)
                for name in gradients
            },
            "factored_gradients": _read_all_factors(factored, detached) if factored else {},
            "sum": message.sum,
            "mean_numerator": message.mean_numerator,
            "mean_denominator": message.mean_denominator,
            "count": message.count,
            "queue_nanoseconds": message.queue_nanoseconds,
            "compute_nanoseconds": message.compute_nanoseconds,
            "receipt": _receipt(message.receipt.SerializeToString()),
            "transport": transport,
        }
    except MalformedTensorError as error:
        raise InternalError(
            "the server's answer is malformed",
            reason="MALFORMED_RESPONSE",
            violations=error.violations,
        ) from error
    # One field after the other, as dataclasses do, would take as long as all of the above.
    result = object.__new__(EvaluationResult)
    object.__setattr__(result, "__dict__", fields)
    return result


def _written(tensor: tensor_pb2.Tensor, array: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    """Return the array that a gradient was written into, as the answer has to say."""
    if not tensor.HasField("region"):
        raise MalformedTensorError([Violation(f'gradients["{name}"]', "is not in its region")])
    return array


def _array(
    tensor: tensor_pb2.Tensor, path: str, detached: Mapping[str, memoryview]
) -> npt.NDArray[Any]:
    return decode_tensor(tensor, path, writable=True, detached=detached.get(path))


def _read_all_factors(
    messages: Mapping[str, evaluation_pb2.FactoredGradient], detached: Mapping[str, memoryview]
) -> dict[str, FactoredGradient]:
    return {
        name: FactoredGradient(
            **{
                part: _array(
                    getattr(factors, part), f'factored_gradients["{name}"].{part}', detached
                )
                for part in ("lse", "scale", "lse_tail")
            }
        )
        for name, factors in messages.items()
    }


def read_outcome(
    message: evaluation_pb2.EvaluationOutcome, transport: TransportName = "many"
) -> EvaluationResult | LosswireError:
    """Read the outcome of one item of many; failures are returned, not raised."""
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


@lru_cache(maxsize=64)
def _receipt(serialized: bytes) -> Receipt:
    """Read a receipt; cached, because a server has only a few."""
    message = evaluation_pb2.Receipt.FromString(serialized)
    return Receipt(
        device=message.device,
        engine=message.engine,
        compute_dtype=dtype_name(message.compute_data_type),
        server_version=message.server_version,
        torch_version=message.torch_version,
    )


def read_receipt(message: evaluation_pb2.Receipt) -> Receipt:
    """Read a receipt."""
    return _receipt(message.SerializeToString())
