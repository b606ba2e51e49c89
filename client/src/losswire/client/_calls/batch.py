"""An evaluation with numpy arrays, for one message or for chunks."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from losswire.client._calls.lease import Lease
from losswire.client._calls.operations import Steps, evaluate, one_batch, residents_of
from losswire.client._calls.plan import ChunkedPlan
from losswire.client._errors import too_large_error
from losswire.client._messages import thresholds
from losswire.client._messages.arrays import ArrayInput, as_array
from losswire.client._messages.catalogue import LossInfo, ServerInfo
from losswire.client._messages.evaluation import Evaluation
from losswire.client._messages.factored import complete, rebuild_of
from losswire.client._messages.outputs import Spec, check_outputs
from losswire.client._messages.request import (
    fill_evaluation,
    float_type,
    gradient_names,
    items_of,
    serialize,
)
from losswire.client._messages.resident import StoredTensor
from losswire.client._messages.response import EvaluationResult
from losswire.client._messages.rows import row_inputs
from losswire.client._messages.weights import with_float_weights
from losswire.v1 import loss_service_pb2
from losswire.wire import DATA_TYPES, Packing, TensorSpec, wire_type_of

Array = npt.NDArray[Any]


class Batch:
    """An evaluation whose arrays are numpy's, and the arrays for its gradients."""

    def __init__(self, evaluation: Evaluation, out: Mapping[str, Array] | None) -> None:
        """Convert the arrays; TypeError and ValueError for values that cannot be sent."""
        evaluation = with_float_weights(evaluation)
        inputs = {
            name: _array_or_resident(value, f'inputs["{name}"]')
            for name, value in items_of(evaluation.inputs, "", "inputs")
        }
        output, weight = evaluation.grad_output, evaluation.sample_weight
        output = None if output is None else _array_or_resident(output, "grad_output")
        weight = None if weight is None else _array_or_resident(weight, "sample_weight")
        self.evaluation = replace(
            evaluation, inputs=inputs, grad_output=output, sample_weight=weight
        )
        self.residents = residents_of(self.evaluation)
        """The resident tensors among them, which are sent by reference."""
        self._stored = {name for name, each in inputs.items() if isinstance(each, StoredTensor)}
        self._inputs = {
            name: each.array if isinstance(each, StoredTensor) else each
            for name, each in inputs.items()
        }
        beside = [each.nbytes for each in (output, weight) if isinstance(each, np.ndarray)]
        self._sent_bytes = sum(beside) + sum([each.nbytes for _, each in self.sent_inputs()])
        """The bytes of all tensors that are sent."""
        self.out = {} if out is None else check_outputs(out, self.gradient_specs(), self._inputs)

    @property
    def is_small(self) -> bool:
        """Whether sending it takes less time than reading it in shared memory."""
        return self._sent_bytes <= thresholds.INLINE_BYTES

    @property
    def is_large(self) -> bool:
        """Whether it may not fit into one message."""
        return self._sent_bytes > thresholds.SURE_MESSAGE_BYTES

    @property
    def may_be_worth_staging(self) -> bool:
        """Whether copying it through shared memory may take less time than sending it.

        By the bytes that are sent alone: `Placement.is_worth_staging` decides.
        """
        # A gradient has at most four times the bytes of its input.
        return self._sent_bytes * 5 > thresholds.STAGED_BYTES

    def sent_inputs(self) -> Iterator[tuple[str, Array]]:
        """Return the inputs that are sent with their data, by name."""
        return ((name, each) for name, each in self._inputs.items() if name not in self._stored)

    def steps(self, leases: Sequence[Lease]) -> Steps[EvaluationResult]:
        """Evaluate in one message, and store missing resident tensors."""
        result = yield from evaluate(self.evaluation, one_batch(self.evaluation, leases))
        return self.deliver(result)

    def deliver(self, result: EvaluationResult) -> EvaluationResult:
        """Copy the gradients of a result into the arrays of `out`."""
        complete(self.evaluation, result, self.out)
        for name, output in self.out.items():
            found = result.gradients.get(name)
            if found is not None and found is not output:
                output[...] = found
                result.gradients[name] = output
        return result

    def plan(
        self, server: ServerInfo, losses: Mapping[str, LossInfo], *, required: bool = False
    ) -> ChunkedPlan | None:
        """Return how it is cut into chunks; None when one message is as good, or has to be.

        `losses` are the server's, by name; `required`: one message is not as good. Raises
        ResourceExhaustedError when not even its parts fit.
        """
        limit = server.limits.max_message_bytes
        max_tensor_bytes = limit - self._bytes_beside_tensors()
        loss = losses.get(self.evaluation.loss)
        if not server.transports.chunked:
            return None
        fits = self._sent_bytes <= max_tensor_bytes
        if fits and not required and not self._gains_from_chunks(loss):
            return None
        streamed = self._streamed_inputs(loss, max_tensor_bytes)
        if not streamed:
            return None
        header = _header(self.evaluation, streamed)
        if len(header) > limit:
            raise too_large_error(f"the server takes at most {limit} bytes", len(header))
        arrays = tuple(self._inputs[name] for name in streamed)
        row_bytes = sum(array.nbytes for array in arrays) // max(1, len(arrays[0]))
        if row_bytes + thresholds.CHUNK_FRAME_BYTES > limit:
            room = limit - thresholds.CHUNK_FRAME_BYTES
            text = f"one row is more than the {room} bytes of a part that the server takes"
            raise too_large_error(text, row_bytes)
        streaming = sum(array.nbytes for array in arrays)
        chunk = min(
            server.limits.preferred_chunk_bytes or thresholds.MIN_CHUNK_BYTES,
            limit - thresholds.CHUNK_FRAME_BYTES,
            max(thresholds.MIN_CHUNK_BYTES, streaming // thresholds.MIN_CHUNKS),
        )
        outputs = self._outputs(streamed)
        rebuild = rebuild_of(self.evaluation, self._inputs) if outputs else None
        specs = rebuild.specs if rebuild else tuple(map(_spec_of, outputs.values()))
        return ChunkedPlan(
            header=header,
            arrays=arrays,
            step=max(1, chunk // max(1, row_bytes)),
            outputs=outputs,
            packing=Packing(specs),
            rebuild=rebuild,
        )

    def _gains_from_chunks(self, loss: LossInfo | None) -> bool:
        """Return whether chunks are faster than the one message it fits into, with the same bits.

        Values that are not added up come in one message anyway, and torch's own path computes
        other bits for the elements of vectors at a cut.
        """
        return (
            loss is not None
            # The gradient of what all rows share would be formed and added up for each chunk.
            and set(self.evaluation.gradients) <= set(row_inputs(loss, self._inputs))
            and loss.kind == "loss"
            and loss.separable
            and self._sent_bytes >= thresholds.CHUNKED_BYTES
            and bool(self.evaluation.gradients)
            and self.evaluation.reduction != "none"
            and self.evaluation.engine == "auto"
        )

    def _bytes_beside_tensors(self) -> int:
        """Return an upper bound of the bytes of the message that are not those of tensors."""
        bare = replace(self.evaluation, grad_output=None, sample_weight=None)
        sent = [name for name, _ in self.sent_inputs()]
        return len(_header(bare, sent)) + thresholds.CHUNK_FRAME_BYTES * (len(self._inputs) + 2)

    def _streamed_inputs(self, loss: LossInfo | None, max_tensor_bytes: int) -> list[str]:
        """Choose the inputs that stream: the largest ones, until the others fit into the header.

        `max_tensor_bytes` is the size of all tensors that fit into one message. The denominator
        of a mean follows from small inputs (classes, weights), so as few inputs as possible stream.
        """
        rows = row_inputs(loss, self._inputs)
        candidates = [name for name in rows if name not in self._stored]
        candidates.sort(key=lambda name: -self._inputs[name].nbytes)
        chosen: list[str] = []
        left = self._sent_bytes
        for name in candidates:
            if chosen and left <= max_tensor_bytes:
                break
            chosen.append(name)
            left -= self._inputs[name].nbytes
        return chosen

    def _outputs(self, streamed: Sequence[str]) -> dict[str, Array]:
        """Return the arrays of the gradients that stream: the caller's, or new ones."""
        specs = self.gradient_specs()
        found: dict[str, Array] = {}
        for name in streamed:
            if name in self.out:
                found[name] = self.out[name]
            elif name in specs:
                dtype, shape = specs[name]
                found[name] = np.empty(shape, dtype)
        return found

    def gradient_specs(self) -> dict[str, Spec]:
        """Return the dtype and shape of each gradient that is asked for."""
        names = gradient_names(self.evaluation.gradients, "")
        asked = DATA_TYPES.get(float_type(self.evaluation.gradient_dtype, "gradient_dtype"))
        return {
            name: (asked.numpy if asked else array.dtype.newbyteorder("="), array.shape)
            for name, array in self._inputs.items()
            if name in names
        }


def _array_or_resident(value: ArrayInput, path: str) -> Array | StoredTensor:
    """Convert an argument to an array, unless it is a resident tensor."""
    return value if isinstance(value, StoredTensor) else as_array(value, path)


def _header(evaluation: Evaluation, streamed: Sequence[str]) -> bytes:
    message = loss_service_pb2.EvaluateChunkedRequest()
    fill_evaluation(message.header.evaluation, evaluation, streamed=streamed)
    message.header.streamed_inputs.extend(streamed)
    return serialize(message)


def _spec_of(array: Array) -> TensorSpec:
    wire_type = wire_type_of(array.dtype)
    if wire_type is None:
        raise TypeError(f"dtype {array.dtype} cannot be sent")
    return TensorSpec(wire_type, array.shape)
