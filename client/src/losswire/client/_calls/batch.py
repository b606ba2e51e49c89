"""One evaluation on its way: in one message, or in chunks when it is larger than that."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from losswire.client._calls.lease import Lease
from losswire.client._calls.operations import Steps, evaluate, one_batch, residents_of
from losswire.client._errors import too_large_error
from losswire.client._messages.arrays import ArrayInput, as_array
from losswire.client._messages.catalogue import Offer
from losswire.client._messages.evaluation import Evaluation
from losswire.client._messages.factored import Rebuild, complete, rebuild_of
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

_SMALL = 64 * 1024
"""Up to so many bytes, arrays are copied in less time than a server looks their places up."""

FITS_ALWAYS = 960 * 1024
"""The bytes of tensors that every server takes in one message: none has a limit below 1 MiB."""

STAGED_FROM = 512 * 1024
"""The bytes of inputs and gradients together from which copying them through memory that is
shared with a server on the same machine takes less time than sending them."""

_FASTER_IN_CHUNKS = 5 * 1024 * 1024
"""From this size on, sending and receiving at the same time is worth its greater effort."""

_FRAME = 64
"""More than what a message of rows has beside its rows."""

_LEAST_CHUNK = 1024 * 1024
"""Chunks that are smaller cost more than what there is in them."""

_FEWEST_CHUNKS = 8
"""With fewer of them, the first has hardly left when all is sent, and nothing overlaps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkedPlan:
    """How a large evaluation is cut: everything that its tries have in common."""

    header: bytes
    """The first message."""
    arrays: tuple[Array, ...]
    """The inputs that stream, in the order of packing."""
    step: int
    """How many rows a part has."""
    outputs: Mapping[str, Array]
    """Where the gradients that stream go, in the order of packing."""
    packing: Packing
    """How they, or their factors, are packed."""
    rebuild: Rebuild | None = None
    """How the one gradient that streams is made of factors; None: it comes dense."""

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.arrays[0])


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
        return self._size <= _SMALL

    @property
    def is_large(self) -> bool:
        """Whether it may not fit into one message."""
        return self._size > FITS_ALWAYS

    @property
    def is_worth_staging(self) -> bool:
        """Whether it may be so large that shared memory is worth looking for."""
        # A gradient has at most four times the bytes of its input.
        return self._size * 5 > STAGED_FROM

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
        if row_bytes + _FRAME > limit:
            text = f"one row is more than the {limit} bytes that the server takes"
            raise too_large_error(text, row_bytes)
        streaming = sum(array.nbytes for array in arrays)
        chunk = min(
            offer.server.limits.preferred_chunk_bytes or _LEAST_CHUNK,
            limit - _FRAME,
            max(_LEAST_CHUNK, streaming // _FEWEST_CHUNKS),
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
            and self._size >= _FASTER_IN_CHUNKS
            and bool(self.evaluation.gradients)
            and self.evaluation.reduction != "none"
            and self.evaluation.engine == "auto"
        )

    def _frame(self) -> int:
        """Count the bytes of the message beside those of tensors; a little more, not less."""
        bare = replace(self.evaluation, grad_output=None, sample_weight=None)
        travelling = [name for name, _ in self.travelling()]
        return len(_header(bare, travelling)) + _FRAME * (len(self._inputs) + 2)

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
