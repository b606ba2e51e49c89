"""Evaluations whose form was met before, computed where their messages lie.

A training loop sends one form over and over: its messages differ in the elements of their
tensors and in nothing else. After the first, which takes the whole line, what the line found
out is kept with what such messages have in common. For those that follow, decoding is a
comparison, validation a look at the values, and encoding the same answer with other numbers.
Whatever is unusual about one, such as a value that is refused, takes the line.
"""

import ctypes
from typing import Final

from losswire.server.catalogue.closed_form import ClosedForm, InMessage, MessageOffsets
from losswire.server.catalogue.record import Reduction
from losswire.server.compute.native.rows import threads_of
from losswire.server.compute.work import SMALL_BYTES, Work
from losswire.server.memory.regions.places import MapRegion
from losswire.server.pipeline.admit import peak_bytes
from losswire.server.pipeline.encode import Encoded
from losswire.server.prepared.envelope import Slice, result_prefix
from losswire.server.prepared.in_message import in_place, numbers
from losswire.v1 import evaluation_pb2, tensor_pb2
from losswire.wire import Template, find_payloads, new_bytes

_MOST: Final = 1024
"""How many forms are kept, each of a few kilobytes and, if it is small, an answer."""

_MOST_BYTES: Final = 32 << 20
"""How many bytes these answers may have together."""

_SAME_SIZE: Final = 4
"""How many of them may have messages of one size, which are compared one by one."""

_EACH: Final = 17
"""Once there are so many, each of how many others takes the place of one: keeping a form takes
longer than an evaluation, and who changes it with each one gains nothing from any. A prime, so
that whoever comes in turn with others has a turn."""

_MOST_BESIDES: Final = 4096
"""The most bytes of a message beside the elements of its tensors."""

_REDUCED: Final = (Reduction.MEAN, Reduction.SUM)


class PreparedEvaluation:
    """One form: what its messages have in common, and its answer."""

    __slots__ = (
        "_address",
        "_answer",
        "_compute",
        "_head",
        "_memory",
        "kept_bytes",
        "peak_bytes",
        "small",
        "template",
        "writes_regions",
    )

    def __init__(
        self, template: Template, work: Work, compute: InMessage, answer: Template
    ) -> None:
        self.template = template
        self.peak_bytes = peak_bytes(work)
        self.small = work.input_bytes < SMALL_BYTES
        """Whether it takes a moment only."""
        self.writes_regions = bool(work.destinations)
        """Whether gradients go to memory that the caller shares."""
        self._compute = compute
        self._answer = answer
        self._head = result_prefix(answer.size)
        self.kept_bytes = len(self._head) + answer.size if self.small else 0
        """The bytes of the answer that is kept."""
        self._memory = ctypes.create_string_buffer(self.kept_bytes) if self.small else None
        self._address = self._lay_out(ctypes.addressof(self._memory)) if self._memory else 0

    def answer_of(self, sent: Slice) -> bytes | None:
        """Compute what is small: gives the EvaluateResponse. Belongs to one thread.

        None when the line has to look at this one.
        """
        memory = self._memory
        if memory is None or not self._compute(sent.request, sent.start, self._address, 0):
            return None
        return memory.raw

    def result_of(self, sent: Slice) -> bytes | None:
        """Compute what is small: gives its result alone, as `answer_of` does."""
        answer = self.answer_of(sent)
        return None if answer is None else answer[len(self._head) :]

    def large_answer_of(self, sent: Slice, waited: int) -> bytes | None:
        """Compute what is large: gives the EvaluateResponse. Belongs to one thread.

        It waited so many nanoseconds. None when the line has to look at this one.
        """
        message, address = new_bytes(len(self._head) + self._answer.size)
        address = self._lay_out(address)
        return message if self._compute(sent.request, sent.start, address, waited) else None

    def _lay_out(self, address: int) -> int:
        """Write what all answers have in common; gives the address of the result."""
        ctypes.memmove(address, self._head, len(self._head))
        address += len(self._head)
        for piece, start in self._answer.pieces:
            ctypes.memmove(address + start, piece, len(piece))
        return address


class PreparedCache:
    """The forms that were met so far, of evaluations that native rows compute.

    Belongs to the event loop.
    """

    def __init__(self, threads: int, map_region: MapRegion) -> None:
        """Begin without any; large evaluations are computed by so many threads.

        `map_region` gives the regions that some of their tensors lie in.
        """
        self._threads = threads
        self._borrow = map_region
        self._by_size: dict[int, list[PreparedEvaluation]] = {}
        self._count = 0
        self._kept_bytes = 0
        self._left_out = 0
        """How many forms were not kept for others of the same size."""

    def find(self, sent: Slice) -> PreparedEvaluation | None:
        """Give the form of an evaluation; None when it is not known."""
        request, start, stop = sent
        for known in self._by_size.get(stop - start, ()):
            if known.template.matches(request, start):
                return known
        return None

    def learn(
        self,
        sent: Slice,
        evaluation: evaluation_pb2.Evaluation,
        work: Work,
        result: Encoded,
    ) -> None:
        """Keep the form of an evaluation that took the line, if it is one of those."""
        inside = [name for name in work.inputs if evaluation.inputs[name].HasField("data")]
        elements = sum([work.inputs[name].nbytes for name in inside])
        besides = sent.stop - sent.start - elements
        if besides > _MOST_BESIDES or not _is_simple(evaluation, work):
            return
        same_size = self._by_size.get(sent.stop - sent.start, ())
        if len(same_size) == _SAME_SIZE:
            self._left_out += 1
            if self._left_out % _EACH:
                return
        known = self._known_form(sent, evaluation, work, result)
        if known is not None:
            self._keep(known)

    def _known_form(
        self, sent: Slice, evaluation: evaluation_pb2.Evaluation, work: Work, result: Encoded
    ) -> PreparedEvaluation | None:
        """Find what the messages of a form have in common, and prepare to compute them."""
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
            small=work.input_bytes < SMALL_BYTES,
        )
        compute = self._prepare(places)
        answer = Template(tensors + numbers(), placed)
        return (
            PreparedEvaluation(Template(message, payloads), work, compute, answer)
            if compute
            else None
        )

    def _prepare(self, places: MessageOffsets) -> InMessage | None:
        """Choose what computes evaluations of a form, with the same bits as the line."""
        work, form = places.work, places.work.native_form
        if form is None or work.form is None:
            return None
        alone = threads_of(work, self._threads) <= 1 and not (places.shared or work.destinations)
        if alone and form.native is not None and form.native.fits_message(work):
            return form.native.in_message(places)
        return in_place(places, work.form, self._borrow)

    def _keep(self, known: PreparedEvaluation) -> None:
        """Keep a form, in the place of others if there are very many."""
        if self._count >= _MOST or self._kept_bytes + known.kept_bytes > _MOST_BYTES:
            # Who changes forms all the time gains nothing from any of them.
            self._by_size.clear()
            self._count = self._kept_bytes = 0
        same_size = self._by_size.setdefault(known.template.size, [])
        if len(same_size) == _SAME_SIZE:
            self._count -= 1
            self._kept_bytes -= same_size.pop().kept_bytes
        same_size.insert(0, known)
        self._count += 1
        self._kept_bytes += known.kept_bytes


def _is_simple(evaluation: evaluation_pb2.Evaluation, work: Work) -> bool:
    """Tell whether an evaluation has nothing that only the line can do."""
    large = work.input_bytes >= SMALL_BYTES
    return (
        work.native_form is not None
        and work.form is not None
        # What is computed around the rows is little only where they are many.
        and (large or _fits_message(work.native_form, work))
        and work.reduction in _REDUCED
        and work.grad_output is None
        and work.sample_weight is None
        and not work.factored
        and all(_is_simple_source(work, name, tensor) for name, tensor in evaluation.inputs.items())
    )


def _is_simple_source(work: Work, name: str, tensor: tensor_pb2.Tensor) -> bool:
    """Tell whether a tensor is read where it lies, without a copy."""
    # It may name several sources, the last of which counts.
    source = tensor.WhichOneof("source")
    # What is checked is copied out of a region, where its caller could still change it.
    checked = work.record.inputs[name].rule_for(real=work.layout.inputs[name].real).enforced
    return source == "data" or (source == "region" and not checked)


def _fits_message(form: ClosedForm, work: Work) -> bool:
    return form.native is not None and form.native.fits_message(work)
