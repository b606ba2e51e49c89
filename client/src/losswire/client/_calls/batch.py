"""One evaluation on its way: in one message, or in chunks when it is larger than that."""

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
from losswire.client._messages.catalogue import Offer
from losswire.client._messages.evaluation import Evaluation
from losswire.client._messages.factored import complete, rebuild_of
from losswire.client._messages.outputs import check_outputs
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
from losswire.v1 import loss_service_pb2
from losswire.wire import DATA_TYPES, Packing, TensorSpec, wire_type_of

Array = npt.NDArray[Any]


class Batch:
    """An evaluation whose arrays are numpy's, and where its gradients go."""

    def __init__(self, evaluation: Evaluation, out: Mapping[str, Array] | None) -> None:
        """Convert what needs to be; TypeError and ValueError for what cannot be sent."""
        inputs = {
            name: _settled(value, f'inputs["{name}"]')
            for name, value in items_of(evaluation.inputs, "", "inputs")
        }
        output, weight = evaluation.grad_output, evaluation.sample_weight
        output = None if output is None else _settled(output, "grad_output")
        weight = None if weight is None else _settled(weight, "sample_weight")
        self.evaluation = replace(
            evaluation, inputs=inputs, grad_output=output, sample_weight=weight
        )
        self.residents = residents_of(self.evaluation)
        """The resident tensors among them, which are named and never travel."""
        self._stored = {name for name, each in inputs.items() if isinstance(each, StoredTensor)}
        self._inputs = {
            name: each.array if isinstance(each, StoredTensor) else each
            for name, each in inputs.items()
        }
        self._apart = sum(each.nbytes for each in (output, weight) if isinstance(each, np.ndarray))
        """The bytes of the tensors that never stream."""
        self._size = self._apart + sum([each.nbytes for _, each in self.travelling()])
        """The bytes of all tensors that travel."""
        self.out = {} if out is None else check_outputs(out, self.gradient_forms(), self._inputs)

    @property
    def is_small(self) -> bool:
        """Whether sending it takes less time than reading it in shared memory."""
        return self._size <= thresholds.INLINE_BYTES

    @property
    def is_large(self) -> bool:
        """Whether it may not fit into one message."""
        return self._size > thresholds.SURE_MESSAGE_BYTES

    @property
    def is_worth_staging(self) -> bool:
        """Whether it may be so large that shared memory is worth looking for."""
        # A gradient has at most four times the bytes of its input.
        return self._size * 5 > thresholds.STAGED_BYTES

    def travelling(self) -> Iterator[tuple[str, Array]]:
        """Give the inputs that are not resident."""
        return ((name, each) for name, each in self._inputs.items() if name not in self._stored)

    def steps(self, leases: Sequence[Lease]) -> Steps[EvaluationResult]:
        """Make it one call with one message, and what that call may need."""
        result = yield from evaluate(self.evaluation, one_batch(self.evaluation, leases))
        return self.deliver(result)

    def deliver(self, result: EvaluationResult) -> EvaluationResult:
        """Put the gradients that came with a result where they belong."""
        complete(self.evaluation, result, self.out)
        for name, output in self.out.items():
            found = result.gradients.get(name)
            if found is not None and found is not output:
                output[...] = found
                result.gradients[name] = output
        return result

    def plan(self, offer: Offer) -> ChunkedPlan | None:
        """Cut it, when that is faster or the only way and the server takes chunks.

        Raises ResourceExhaustedError when not even its parts fit.
        """
        limit = offer.server.limits.max_message_bytes
        room = limit - self._frame()
        if not offer.server.transports.chunked:
            return None
        if self._size <= room and not self._gains_from_chunks(offer):
            return None
        streamed = self._choose(offer, room)
        if not streamed:
            return None
        header = _header(self.evaluation, streamed)
        if len(header) > limit:
            raise too_large_error(f"the server takes at most {limit} bytes", len(header))
        arrays = tuple(self._inputs[name] for name in streamed)
        row_bytes = sum(array.nbytes for array in arrays) // max(1, len(arrays[0]))
        if row_bytes + thresholds.CHUNK_FRAME_BYTES > limit:
            text = f"one row is more than the {limit} bytes that the server takes"
            raise too_large_error(text, row_bytes)
        streaming = sum(array.nbytes for array in arrays)
        chunk = min(
            offer.server.limits.preferred_chunk_bytes or thresholds.MIN_CHUNK_BYTES,
            limit - thresholds.CHUNK_FRAME_BYTES,
            max(thresholds.MIN_CHUNK_BYTES, streaming // thresholds.MIN_CHUNKS),
        )
        outputs = self._outputs(streamed)
        rebuild = rebuild_of(self.evaluation, self._inputs) if outputs else None
        forms = rebuild.forms if rebuild else tuple(map(_form, outputs.values()))
        return ChunkedPlan(
            header=header,
            arrays=arrays,
            step=max(1, chunk // max(1, row_bytes)),
            outputs=outputs,
            packing=Packing(forms),
            rebuild=rebuild,
        )

    def _gains_from_chunks(self, offer: Offer) -> bool:
        """Tell whether chunks are faster than the one message it fits into, and give the same.

        Values that are not added up come in one message anyway, and torch's own path gives
        the elements of vectors other bits where they are cut.
        """
        info = offer.losses.get(self.evaluation.loss)
        return (
            info is not None
            and info.kind == "loss"
            and info.separable
            and self._size >= thresholds.CHUNKED_BYTES
            and bool(self.evaluation.gradients)
            and self.evaluation.reduction != "none"
            and self.evaluation.engine == "auto"
        )

    def _frame(self) -> int:
        """Count the bytes of the message beside those of tensors; a little more, not less."""
        bare = replace(self.evaluation, grad_output=None, sample_weight=None)
        travelling = [name for name, _ in self.travelling()]
        return len(_header(bare, travelling)) + thresholds.CHUNK_FRAME_BYTES * (
            len(self._inputs) + 2
        )

    def _choose(self, offer: Offer, room: int) -> list[str]:
        """Choose what streams: the largest inputs, until the others fit into the header.

        What a mean is divided by follows from small inputs (classes, weights), so the
        fewer stream the better.
        """
        rows = row_inputs(offer.losses.get(self.evaluation.loss), self._inputs)
        candidates = [name for name in rows if name not in self._stored]
        candidates.sort(key=lambda name: -self._inputs[name].nbytes)
        chosen: list[str] = []
        left = self._size
        for name in candidates:
            if chosen and left <= room:
                break
            chosen.append(name)
            left -= self._inputs[name].nbytes
        return chosen

    def _outputs(self, streamed: Sequence[str]) -> dict[str, Array]:
        """Give the arrays of the gradients that stream: the caller's, or new ones."""
        forms = self.gradient_forms()
        found: dict[str, Array] = {}
        for name in streamed:
            if name in self.out:
                found[name] = self.out[name]
            elif name in forms:
                dtype, shape = forms[name]
                found[name] = np.empty(shape, dtype)
        return found

    def gradient_forms(self) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
        """Give the type and shape of each gradient that is asked for and can be known."""
        names = gradient_names(self.evaluation.gradients, "")
        asked = DATA_TYPES.get(float_type(self.evaluation.gradient_dtype, "gradient_dtype"))
        return {
            name: (asked.numpy if asked else array.dtype.newbyteorder("="), array.shape)
            for name, array in self._inputs.items()
            if name in names
        }


def _settled(value: ArrayInput, path: str) -> Array | StoredTensor:
    """Make an argument an array, unless it stands for one on the server."""
    return value if isinstance(value, StoredTensor) else as_array(value, path)


def _header(evaluation: Evaluation, streamed: Sequence[str]) -> bytes:
    message = loss_service_pb2.EvaluateChunkedRequest()
    fill_evaluation(message.header.evaluation, evaluation, streamed=streamed)
    message.header.streamed_inputs.extend(streamed)
    return serialize(message)


def _form(array: Array) -> TensorSpec:
    wire_type = wire_type_of(array.dtype)
    if wire_type is None:
        raise TypeError(f"dtype {array.dtype} cannot be sent")
    return TensorSpec(wire_type, array.shape)
