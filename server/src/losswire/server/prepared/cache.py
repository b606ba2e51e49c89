"""The cache of prepared evaluations, which are found by the bytes of a request.

A training loop sends one form over and over: its requests differ in the elements of their
tensors only. After the first, which takes the whole pipeline, the validated skeleton is kept with
the constant bytes of such requests and of their responses. For those that follow, decoding is a
comparison, validation a check of the values, and encoding the same response with other numbers.
Anything unusual about one, such as a value that is refused, takes the pipeline.
"""

import ctypes
from typing import Final

from losswire.server import thresholds
from losswire.server.catalogue.record import Reduction
from losswire.server.compute.dispatch import Pause, no_pause
from losswire.server.compute.native.message import fits_message, native_computation
from losswire.server.compute.native.places import InMessage, MessageOffsets
from losswire.server.compute.native.rows import threads_of
from losswire.server.compute.paths import is_small, native_form
from losswire.server.compute.work import Work
from losswire.server.memory.regions.places import MapRegion
from losswire.server.metrics.notes import About, describe
from losswire.server.pipeline.admit import peak_bytes
from losswire.server.pipeline.encode import Encoded
from losswire.server.pipeline.validation_cache import Skeleton
from losswire.server.pipeline.worker import is_brief
from losswire.server.prepared.envelope import Slice, result_prefix
from losswire.server.prepared.zero_copy import numbers, zero_copy_computation
from losswire.v1 import evaluation_pb2, tensor_pb2
from losswire.wire import BoundedCache, Template, find_payloads, new_bytes

_REDUCED: Final = (Reduction.MEAN, Reduction.SUM)


class PreparedEvaluation:
    """One form: the constant bytes of its requests and of its responses, and what computes it."""

    __slots__ = (
        "_address",
        "_compute",
        "_head",
        "_memory",
        "about",
        "answer",
        "is_brief",
        "kept_bytes",
        "peak_bytes",
        "small",
        "template",
        "writes_regions",
    )

    def __init__(
        self, template: Template, work: Work, compute: InMessage, answer: Template, about: About
    ) -> None:
        self.template = template
        """The constant bytes of the evaluation."""
        self.about = about
        self.peak_bytes = peak_bytes(work)
        self.small = is_small(work)
        """Whether the event loop may compute it."""
        self.writes_regions = bool(work.destinations)
        """Whether gradients are written to memory that the caller shares."""
        self._compute = compute
        self.answer = answer
        self.is_brief = is_brief(work)
        """Whether it may be computed between two slices of another."""
        self._head = result_prefix(answer.size)
        self.kept_bytes = len(self._head) + answer.size if self.small else 0
        """The bytes of the response that is kept."""
        self._memory = ctypes.create_string_buffer(self.kept_bytes) if self.small else None
        self._address = self._lay_out(ctypes.addressof(self._memory)) if self._memory else 0

    def answer_of(self, sent: Slice) -> bytes | None:
        """Compute a small evaluation; returns the EvaluateResponse. One thread at a time.

        None when the pipeline has to look at this one.
        """
        memory = self._memory
        if memory is None or not self._compute(sent.request, sent.start, self._address, 0):
            return None
        return memory.raw

    def result_of(self, sent: Slice) -> bytes | None:
        """Compute a small evaluation, as `answer_of` does; returns the EvaluationResult alone."""
        answer = self.answer_of(sent)
        return None if answer is None else answer[len(self._head) :]

    def large_answer_of(self, sent: Slice, waited: int) -> bytes | None:
        """Compute a large evaluation; returns the EvaluateResponse. One thread at a time.

        `waited` is the time in the queue, in nanoseconds. None when the pipeline has to look at
        this one.
        """
        message, address = new_bytes(len(self._head) + self.answer.size)
        address = self._lay_out(address)
        return message if self._compute(sent.request, sent.start, address, waited) else None

    def _lay_out(self, address: int) -> int:
        """Write the constant bytes of a response; returns the address of its result."""
        ctypes.memmove(address, self._head, len(self._head))
        address += len(self._head)
        for piece, start in self.answer.pieces:
            ctypes.memmove(address + start, piece, len(piece))
        return address


class PreparedCache:
    """The evaluations that are answered without decoding them. Belongs to the event loop."""

    def __init__(
        self,
        threads: int,
        map_region: MapRegion,
        pause: Pause = no_pause,
        *,
        max_entries: int = thresholds.MAX_PREPARED,
        max_bytes: int = thresholds.MAX_PREPARED_BYTES,
    ) -> None:
        """Begin without any; `threads` compute a large one.

        `map_region` maps the regions that some of their tensors are in, `pause` is called between
        two slices of a large one.
        """
        self._threads = threads
        self._pause = pause
        self._map_region = map_region
        self._by_size: BoundedCache[int, tuple[PreparedEvaluation, ...]] = BoundedCache(
            max_entries, max_bytes
        )
        self._left_out = 0
        """How many forms were not kept because their size class was full."""

    def __len__(self) -> int:
        """Return how many evaluations are prepared."""
        return self._by_size.entries

    @property
    def kept_bytes(self) -> int:
        """The bytes of the responses that are kept."""
        return self._by_size.nbytes

    def find(self, sent: Slice) -> PreparedEvaluation | None:
        """Look up the form of an evaluation by its bytes; None when it is not known."""
        request, start, stop = sent
        for prepared in self._by_size.get(stop - start) or ():
            if prepared.template.matches(request, start):
                return prepared
        return None

    def learn(
        self,
        sent: Slice,
        evaluation: evaluation_pb2.Evaluation,
        work: Work,
        result: Encoded,
    ) -> None:
        """Prepare the form of an evaluation that the pipeline answered, if that pays off."""
        inside = [name for name in work.inputs if evaluation.inputs[name].HasField("data")]
        elements = sum([work.inputs[name].nbytes for name in inside])
        constant = sent.stop - sent.start - elements
        if constant > thresholds.MAX_CONSTANT_BYTES or not _is_simple(evaluation, work):
            return
        if len(self._by_size.get(sent.stop - sent.start) or ()) == thresholds.MAX_PREPARED_PER_SIZE:
            self._left_out += 1
            if self._left_out % thresholds.EVICT_EVERY:
                return
        prepared = self._prepare(sent, evaluation, work, result)
        if prepared is not None:
            self._keep(prepared)

    def _prepare(
        self, sent: Slice, evaluation: evaluation_pb2.Evaluation, work: Work, result: Encoded
    ) -> PreparedEvaluation | None:
        """Find the constant bytes of a form's messages, and prepare to compute them."""
        found, message = result.message, sent.message
        bare = evaluation_pb2.EvaluationResult(
            loss=found.loss, gradients=found.gradients, receipt=found.receipt
        )
        tensors = b"".join(Encoded(bare, result.detached).parts())
        try:
            payloads = find_payloads(message, evaluation_pb2.Evaluation)
            placed = find_payloads(tensors, evaluation_pb2.EvaluationResult)
        except ValueError:
            return None
        names = {f'inputs["{name}"]': name for name in work.inputs}
        sources = {name: evaluation.inputs[name].WhichOneof("source") for name in work.inputs}
        inside = {path for path, name in names.items() if sources[name] == "data"}
        if {each.path for each in payloads} != inside:
            return None
        starts = {each.path: each.start for each in placed}
        places = MessageOffsets(
            work=work,
            inputs={names[each.path]: each.start for each in payloads},
            shared={
                name: evaluation.inputs[name].region
                for name in sources
                if sources[name] == "region"
            },
            gradients={
                name: starts[f'gradients["{name}"]']
                for name in work.gradients_for
                if name not in work.destinations
            },
            loss=starts["loss"],
            numbers=len(tensors),
            small=is_small(work),
        )
        compute = self._computation(places)
        answer = Template(tensors + numbers(), [each.span for each in placed])
        if compute is None:
            return None
        template = Template(message, [each.span for each in payloads])
        return PreparedEvaluation(template, work, compute, answer, describe(evaluation))

    def _computation(self, places: MessageOffsets) -> InMessage | None:
        """Choose a function for the evaluations of a form, with the same bits as the pipeline."""
        work = places.work
        if native_form(work) is None or work.skeleton is None:
            return None
        alone = threads_of(work, self._threads) <= 1 and not (places.shared or work.destinations)
        inside = native_computation(places) if alone else None
        return inside or zero_copy_computation(
            places, Skeleton.of(work.skeleton), self._map_region, self._pause
        )

    def _keep(self, prepared: PreparedEvaluation) -> None:
        """Store a form as the newest of its size class, the oldest of which it may evict."""
        size = prepared.template.size
        others = (self._by_size.get(size) or ())[: thresholds.MAX_PREPARED_PER_SIZE - 1]
        group = (prepared, *others)
        kept_bytes = sum(each.kept_bytes for each in group)
        self._by_size.put(size, group, entries=len(group), nbytes=kept_bytes)


def _is_simple(evaluation: evaluation_pb2.Evaluation, work: Work) -> bool:
    """Check that an evaluation has nothing that only the pipeline can do."""
    large = not is_small(work)
    return (
        native_form(work) is not None
        and work.skeleton is not None
        # The steps around the rows take little time only where there are many rows.
        and (large or fits_message(work))
        and work.reduction in _REDUCED
        and work.grad_output is None
        and work.sample_weight is None
        and not work.factored
        and all(_is_simple_source(work, name, tensor) for name, tensor in evaluation.inputs.items())
    )


def _is_simple_source(work: Work, name: str, tensor: tensor_pb2.Tensor) -> bool:
    """Check that a tensor is read without a copy."""
    # It may name several sources, the last of which counts.
    source = tensor.WhichOneof("source")
    # Checked tensors are copied out of a region, where their caller could still change them.
    checked = work.record.inputs[name].rule_for(is_float=work.layout.inputs[name].is_float).enforced
    return source == "data" or (source == "region" and not checked)
