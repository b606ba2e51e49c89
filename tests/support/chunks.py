"""Chunked calls, written plainly: protobuf encodes every part, and the test cuts the rows."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from losswire.v1 import evaluation_pb2, loss_service_pb2, loss_service_pb2_grpc, tensor_pb2
from losswire.wire import DATA_TYPES, decode_tensor

Array = npt.NDArray[Any]
Request = loss_service_pb2.EvaluateChunkedRequest
TIMEOUT = 60.0


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The answer to a chunked call."""

    result: evaluation_pb2.EvaluationResult
    rows: int
    gradients: Mapping[str, Array]
    """Of all inputs, streamed or not, put together."""
    parts: int
    """How many messages of gradients there were."""


def header_of(evaluation: evaluation_pb2.Evaluation, streamed: Sequence[str]) -> Request:
    """Return the header of an evaluation that has all its tensors."""
    header = loss_service_pb2.ChunkedHeader(evaluation=evaluation, streamed_inputs=streamed)
    for name in set(streamed) & set(evaluation.inputs):
        header.evaluation.inputs[name].data = b""
    return Request(header=header)


def parts_of(
    evaluation: evaluation_pb2.Evaluation, streamed: Sequence[str], cuts: Iterable[int]
) -> Iterator[Request]:
    """Yield the parts of a call: the header, then rows up to each cut."""
    yield header_of(evaluation, streamed)
    given = [name for name in streamed if name in evaluation.inputs]
    arrays = [decode_tensor(evaluation.inputs[name]) for name in given]
    start = 0
    for stop in cuts:
        yield Request(rows=b"".join(array[start:stop].tobytes() for array in arrays))
        start = stop


def cuts_of(rows: int, sizes: Iterable[int]) -> list[int]:
    """Cut rows into parts of these sizes, repeatedly; 0 means all at once."""
    sizes = list(sizes)
    cuts: list[int] = []
    done = 0
    while done < rows:
        done = min(rows, done + (sizes[len(cuts) % len(sizes)] or rows))
        cuts.append(done)
    return cuts


def evaluate_chunked(
    stub: loss_service_pb2_grpc.LossServiceStub,
    evaluation: evaluation_pb2.Evaluation,
    streamed: Sequence[str],
    cuts: Iterable[int],
) -> Answer:
    """Call and assemble the answer; raises grpc.RpcError."""
    requests = parts_of(evaluation, streamed, cuts)
    *parts, last = stub.EvaluateChunked(requests, timeout=TIMEOUT)
    assert last.WhichOneof("part") == "result"
    assert {each.WhichOneof("part") for each in parts} <= {"gradient_rows"}
    result = last.result.result
    gradients = {name: decode_tensor(tensor) for name, tensor in result.gradients.items()}
    wanted = [name for name in streamed if name in evaluation.gradients_for]
    assert not set(wanted) & set(gradients)
    forms = {name: _form(evaluation, name) for name in wanted}
    found: dict[str, list[Array]] = {name: [] for name in wanted}
    for part in parts:
        data = part.gradient_rows
        row = sum(dtype.itemsize * int(np.prod(shape)) for dtype, shape in forms.values())
        count, start = len(data) // row, 0
        assert count * row == len(data)
        for name, (dtype, shape) in forms.items():
            stop = start + count * dtype.itemsize * int(np.prod(shape))
            found[name].append(np.frombuffer(data[start:stop], dtype).reshape(count, *shape))
            start = stop
    for name, (dtype, shape) in forms.items():
        gradients[name] = np.concatenate([np.empty((0, *shape), dtype), *found[name]])
    return Answer(result=result, rows=last.result.rows, gradients=gradients, parts=len(parts))


def _form(evaluation: evaluation_pb2.Evaluation, name: str) -> tuple[Any, tuple[int, ...]]:
    """Return the type of a gradient and the shape of one of its rows."""
    tensor: tensor_pb2.Tensor = evaluation.inputs[name]
    dtype = DATA_TYPES[evaluation.gradient_data_type or tensor.data_type].numpy
    return dtype, tuple(tensor.shape[1:])
