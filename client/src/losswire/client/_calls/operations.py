"""The calls of both clients: their methods, requests and answers, and the steps of larger calls."""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any, Generic, TypeAlias, TypeVar

import grpc
from google.protobuf.message import DecodeError

from losswire.client._calls.cancellation import Cancellation
from losswire.client._calls.lease import Lease
from losswire.client._calls.plan import ChunkedPlan, Progress
from losswire.client._calls.retry import Attempts
from losswire.client._errors import LosswireError, malformed_error
from losswire.client._messages import thresholds
from losswire.client._messages.arrays import ArrayInput, to_numpy
from losswire.client._messages.catalogue import LossInfo, ServerInfo, read_losses, read_server_info
from losswire.client._messages.evaluation import Evaluation
from losswire.client._messages.fit import Fit
from losswire.client._messages.placed_array import Array, check_arrays
from losswire.client._messages.request import serialize
from losswire.client._messages.resident import StoredTensor, distinct, is_missing
from losswire.client._messages.response import (
    EvaluationResult,
    OneAnswer,
    read_result,
)
from losswire.client._messages.template import (
    ALONE,
    TEMPLATES,
    KeyedValues,
    in_stream,
    key_of,
)
from losswire.v1 import loss_service_pb2, run_service_pb2, tensor_pb2, tensor_service_pb2

_R = TypeVar("_R")
_Stored = TypeVar("_Stored", bound=StoredTensor)
_Outcome = EvaluationResult | LosswireError


@dataclass(frozen=True, slots=True)
class Method:
    """One method, as gRPC needs it."""

    path: str
    """The full name in a call."""
    parse: Callable[[bytes], Any]
    """Parses the bytes of an answer; DecodeError."""

    def parsed(self, answer: bytes) -> Any:
        """Parse the bytes of an answer; InternalError when they are damaged."""
        try:
            return self.parse(answer)
        except DecodeError as error:
            raise malformed_error("a message does not parse") from error


def _method(name: str, module: ModuleType = loss_service_pb2, service: str = "Loss") -> Method:
    described = module.DESCRIPTOR.services_by_name[f"{service}Service"]
    answer = described.methods_by_name[name].output_type.name
    return Method(f"/{described.full_name}/{name}", getattr(module, answer).FromString)


EVALUATE = Method(_method("Evaluate").path, OneAnswer.parse)
EVALUATE_MANY = _method("EvaluateMany")
LIST_LOSSES = _method("ListLosses")
GET_SERVER_INFO = _method("GetServerInfo")
STAT_TENSOR = _method("StatTensor", tensor_service_pb2, "Tensor")
DELETE_TENSOR = _method("DeleteTensor", tensor_service_pb2, "Tensor")
CREATE_REGION = _method("CreateRegion", tensor_service_pb2, "Tensor")
SAVE_RUN = _method("SaveRun", run_service_pb2, "Run")
GET_RUN = _method("GetRun", run_service_pb2, "Run")
LIST_RUNS = _method("ListRuns", run_service_pb2, "Run")
DELETE_RUN = _method("DeleteRun", run_service_pb2, "Run")
UNARY_METHODS = (
    EVALUATE,
    EVALUATE_MANY,
    LIST_LOSSES,
    GET_SERVER_INFO,
    STAT_TENSOR,
    DELETE_TENSOR,
    CREATE_REGION,
    SAVE_RUN,
    GET_RUN,
    LIST_RUNS,
    DELETE_RUN,
)
"""Everything with one request and one answer."""
PUT_TENSOR = _method("PutTensor", tensor_service_pb2, "Tensor")
"""Many requests and one answer."""
EVALUATE_STREAM = _method("EvaluateStream")
EVALUATE_CHUNKED = _method("EvaluateChunked")
SUMMARIZE_LOSSES = _method("SummarizeLosses")


class Calls(dict[str, Any]):
    """The methods of one server that have one answer, by their paths.

    Who makes a call keeps this until it ends: a channel that has been replaced is closed when
    nobody has it any more, and that ends its calls.
    """

    def __init__(self, channel: Any) -> None:
        """Make the methods of a channel of either kind: gRPC's two have no type in common.

        Answers are bytes: gRPC would log the exceptions of a parser, and say nothing to the caller
        of an asynchronous one.
        """
        super().__init__(
            {method.path: channel.unary_unary(method.path, None, None) for method in UNARY_METHODS}
        )
        self[PUT_TENSOR.path] = channel.stream_unary(PUT_TENSOR.path, None, None)
        self.channel = channel
        """The channel."""


# Not frozen: each call makes one, and that would take twice as long.
@dataclass(slots=True)
class Operation(Generic[_R]):
    """One call, ready to be sent as often as needed. It is never changed."""

    method: Method
    """The method."""
    request: bytes
    """The message, serialized once for all tries."""
    read: Callable[[Any], _R]
    """Converts the answer's message to the caller's result."""
    parts: Callable[[], Iterator[bytes]] | None = None
    """Yields the messages of a method that takes many, instead of `request`."""
    retry: bool = True
    """Whether to try again when the server says that it may work later."""
    leases: Sequence[Lease] = ()
    """The connections that a call of EVALUATE can go over instead, whichever is free."""

    def payload(self) -> Any:
        """Return the message, or the messages, to send in one try."""
        return self.request if self.parts is None else self.parts()

    def by_lease(self, seconds: float) -> OneAnswer | None:
        """Call over a lease; returns the answer's message, None when the call has to go by gRPC.

        Raises LosswireError.
        """
        for lease in self.leases:
            answer = lease.call(self.request, seconds)
            if answer is not None:
                return _parse(answer)
        return None

    async def by_lease_async(self, seconds: float) -> OneAnswer | None:
        """Call over a lease, as `by_lease` does, on the running event loop."""
        for lease in self.leases:
            answer = await lease.call_async(self.request, seconds)
            if answer is not None:
                return _parse(answer)
        return None


def _parse(answer: bytes) -> OneAnswer:
    try:
        return OneAnswer.parse(answer, "local")
    except DecodeError as error:
        raise malformed_error("a message does not parse") from error


@dataclass(frozen=True, slots=True)
class LocalStep:
    """Work on this machine that takes too long for an event loop."""

    work: Callable[[], Any]
    """The function to call; once begun, it is never abandoned."""


@dataclass(frozen=True, slots=True)
class EachTarget:
    """One call to each target, answered with the list of their answers."""

    operation: Operation[Any]
    """The call."""


@dataclass(frozen=True, slots=True)
class ChunkedCall:
    """A call of EvaluateChunked, answered with an EvaluationResult."""

    plan: ChunkedPlan
    """The chunks."""
    progress: Progress | None
    """The caller's callback."""


@dataclass(frozen=True, slots=True)
class StreamedCall:
    """A call with any number of requests and answers, made by a function that blocks."""

    work: Callable[[Sequence[grpc.Channel], Attempts, Cancellation], Any]
    """The function to call, with a channel to each target. It does its own tries, and stops soon
    after the cancellation is stopped."""


@dataclass(frozen=True, slots=True)
class StoreMissing:
    """Storing those of some tensors that the server of the last call misses."""

    tensors: Sequence[StoredTensor]
    """The tensors, each at most once."""


Step: TypeAlias = (
    Operation[Any] | StoreMissing | LocalStep | EachTarget | ChunkedCall | StreamedCall
)
"""The next step of a call of the client."""

Steps: TypeAlias = Generator[Step, Any, _R]
"""A call of the client, step by step. The runner sends back the result of each step, or throws its
LosswireError; the generator's value is the caller's result."""


def single(operation: Operation[_R]) -> Steps[_R]:
    """Make one call."""
    result: _R = yield operation
    return result


def evaluate(
    evaluation: Evaluation, operation: Operation[EvaluationResult]
) -> Steps[EvaluationResult]:
    """Evaluate one batch, and store the resident tensors that the server misses."""
    tensors = residents_of(evaluation)
    result: EvaluationResult
    for _ in range(thresholds.MAX_RESTORES):
        try:
            result = yield operation
        except LosswireError as error:
            if not (tensors and is_missing(error)):
                raise
        else:
            return result
        yield StoreMissing(tensors)
    result = yield operation
    return result


def check_contents(evaluation: Evaluation, out: Mapping[str, Array] | None = None) -> None:
    """Check, after its arrays were read and written, that none is in memory that was emptied.

    Raises FailedPreconditionError.
    """
    beside = evaluation.grad_output, evaluation.sample_weight
    check_arrays((*evaluation.inputs.values(), *beside, *(out or {}).values()))


def known_call(
    keyed: KeyedValues | None, leases: Sequence[Lease]
) -> Operation[EvaluationResult] | None:
    """Return the one call of an evaluation by its `key_of`; None when its template is not known.

    No such evaluation is large, names resident tensors or has its result completed.
    """
    known = TEMPLATES.small_request(keyed, ALONE)
    if known is None:
        return None
    return Operation(EVALUATE, known[0], partial(_read_one, known[1]), leases=leases)


def one_batch(evaluation: Evaluation, leases: Sequence[Lease]) -> Operation[EvaluationResult]:
    """Return the call that sends all tensors of an evaluation which are not resident."""
    request, fit = TEMPLATES.request(evaluation, ALONE)
    return Operation(EVALUATE, request, partial(_read_one, fit), leases=leases)


def _read_one(fit: Fit, answer: OneAnswer) -> EvaluationResult:
    result = read_result(answer.message.result, answer.transport, detached=answer.detached)
    return fit.check(result)


def residents_of(evaluation: Evaluation) -> tuple[StoredTensor, ...]:
    """Return the resident tensors of an evaluation."""
    arrays = [*evaluation.inputs.values(), evaluation.grad_output, evaluation.sample_weight]
    found = [array for array in arrays if isinstance(array, StoredTensor)]
    return distinct(found) if found else ()


def store(value: ArrayInput, make: Callable[[Array], _Stored]) -> Steps[_Stored]:
    """Store an array on a server, unless that holds it; `make` hashes it."""
    if isinstance(value, StoredTensor):
        raise TypeError("array: this is a resident tensor already")
    tensor: _Stored = yield LocalStep(partial(make, to_numpy(value)))
    check_arrays([tensor.array])
    yield StoreMissing([tensor])
    return tensor


def put_missing(tensors: Iterable[StoredTensor]) -> Steps[None]:
    """Store the tensors that a server does not hold."""
    for tensor in tensors:
        present = yield stat(tensor)
        if not present:
            yield put(tensor)


def is_held_by_all(tensor: StoredTensor) -> Steps[bool]:
    """Return whether every target holds a tensor."""
    held = yield EachTarget(stat(tensor))
    return all(held)


def delete_from_all(tensor: StoredTensor) -> Steps[bool]:
    """Delete a tensor from every target; returns whether any of them held it."""
    held = yield EachTarget(delete(tensor))
    return any(held)


def put(tensor: StoredTensor) -> Operation[bool]:
    """Store a tensor; returns whether it was stored before."""
    return Operation(PUT_TENSOR, b"", tensor.check_stored, tensor.parts)


def stat(tensor: StoredTensor) -> Operation[bool]:
    """Ask whether a tensor is stored."""
    message = tensor_service_pb2.StatTensorRequest(id=tensor_pb2.TensorId(sha256=tensor.id))
    return Operation(STAT_TENSOR, serialize(message), lambda answer: bool(answer.present))


def delete(tensor: StoredTensor) -> Operation[bool]:
    """Delete a tensor; returns whether it was stored."""
    message = tensor_service_pb2.DeleteTensorRequest(id=tensor_pb2.TensorId(sha256=tensor.id))
    return Operation(DELETE_TENSOR, serialize(message), lambda answer: bool(answer.existed))


def create_region(size: int) -> Operation[tensor_service_pb2.CreateRegionResponse]:
    """Ask for shared memory."""
    message = tensor_service_pb2.CreateRegionRequest(size_bytes=size)
    return Operation(CREATE_REGION, serialize(message), lambda answer: answer)


def stream_item(number: int, evaluation: Evaluation) -> tuple[bytes, Sequence[StoredTensor], Fit]:
    """Serialize one batch of a stream; returns the message, its resident tensors and its fit."""
    before = in_stream(number)
    known = TEMPLATES.small_request(key_of(evaluation), before)
    message, fit = TEMPLATES.request(evaluation, before) if known is None else known
    check_contents(evaluation)
    return message, () if known is not None else residents_of(evaluation), fit


def list_losses() -> Operation[list[LossInfo]]:
    """List every loss."""
    return Operation(LIST_LOSSES, serialize(loss_service_pb2.ListLossesRequest()), read_losses)


def get_server_info() -> Operation[ServerInfo]:
    """Ask for the server's description."""
    request = serialize(loss_service_pb2.GetServerInfoRequest())
    return Operation(GET_SERVER_INFO, request, read_server_info)
