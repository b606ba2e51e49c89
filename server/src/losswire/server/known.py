"""Evaluations whose form was met before, computed where their messages lie.

A training loop sends one form over and over: its messages differ in the elements of their
tensors and in nothing else. After the first, which takes the whole line, what the line found
out is kept with what such messages have in common. For those that follow, decoding is a
comparison, validation a look at the values, and encoding the same answer with other numbers.
Whatever is unusual about one, such as a value that is refused, takes the line.
"""

import ctypes
import struct
from typing import Final

from losswire.server.admit import price
from losswire.server.closed_forms.block import InMessage, Places
from losswire.server.encode import Encoded
from losswire.server.envelopes import Sent
from losswire.server.records import Reduction
from losswire.server.work import SMALL_BYTES, Work
from losswire.v1 import evaluation_pb2
from losswire.wire import Template, find_payloads, new_bytes

_MOST: Final = 1024
"""How many forms are kept, each of a few kilobytes and, if it is small, an answer."""

_SAME_SIZE: Final = 4
"""How many of them may have messages of one size, which are compared one by one."""

_MOST_BESIDES: Final = 4096
"""The most bytes of a message beside the elements of its tensors."""

_REDUCED: Final = (Reduction.MEAN, Reduction.SUM)

_EIGHT_BYTES: Final = 1


def _tag(name: str, kind: int = 0) -> int:
    """Give the tag of a field of a result, one byte because its number is below 16."""
    described = evaluation_pb2.EvaluationResult.DESCRIPTOR.fields_by_name[name]
    return described.number << 3 | kind


# Numbers of fixed widths behind their tags, so that the size of an answer follows from its form:
# protobuf allows integers to have more bytes than they need. The native code fills them in.
_NUMBERS: Final = struct.pack(
    "<B8xB8xB8xB5xB9xB9x",
    _tag("sum", _EIGHT_BYTES),
    _tag("mean_numerator", _EIGHT_BYTES),
    _tag("mean_denominator", _EIGHT_BYTES),
    _tag("count"),
    _tag("queue_nanoseconds"),
    _tag("compute_nanoseconds"),
)


class Known:
    """One form: what its messages have in common, and its answer."""

    __slots__ = ("_answer", "_compute", "_memory", "price", "size", "small", "template")

    def __init__(
        self, template: Template, work: Work, compute: InMessage, answer: Template
    ) -> None:
        self.template = template
        self.price = price(work)
        self.small = work.input_bytes < SMALL_BYTES
        """Whether it takes a moment only."""
        self.size = answer.size
        """The bytes of a result."""
        self._compute = compute
        self._answer = answer
        self._memory = ctypes.create_string_buffer(self.size) if self.small else None
        if self._memory is not None:
            self._lay_out(ctypes.addressof(self._memory))

    def result_of(self, sent: Sent) -> bytes | None:
        """Compute what is small: gives the message of its result. Belongs to one thread.

        None when the line has to look at this one.
        """
        memory = self._memory
        if memory is None:
            return None
        address = ctypes.addressof(memory)
        return memory.raw if self._compute(sent.request, sent.start, address, 0) else None

    def answer_to(self, sent: Sent, head: bytes, waited: int) -> bytes | None:
        """Compute what is large: gives its result behind a head. Belongs to one thread.

        It waited so many nanoseconds. None when the line has to look at this one.
        """
        message, address = new_bytes(len(head) + self.size)
        ctypes.memmove(address, head, len(head))
        address += len(head)
        self._lay_out(address)
        return message if self._compute(sent.request, sent.start, address, waited) else None

    def _lay_out(self, address: int) -> None:
        """Write what all answers have in common."""
        for piece, start in self._answer.pieces:
            ctypes.memmove(address + start, piece, len(piece))


class KnownForms:
    """The forms that were met so far, of evaluations that native rows compute.

    Belongs to the event loop.
    """

    def __init__(self) -> None:
        """Begin without any."""
        self._by_size: dict[int, list[Known]] = {}
        self._count = 0

    def find(self, sent: Sent) -> Known | None:
        """Give the form of an evaluation; None when it is not known."""
        request, start, stop = sent
        for known in self._by_size.get(stop - start, ()):
            if known.template.matches(request, start):
                return known
        return None

    def learn(
        self,
        sent: Sent,
        evaluation: evaluation_pb2.Evaluation,
        work: Work,
        result: Encoded,
    ) -> None:
        """Keep the form of an evaluation that took the line, if it is one of those."""
        # A tensor may name several sources, the last of which counts.
        if not _is_simple(work) or any(
            each.WhichOneof("source") != "data" for each in evaluation.inputs.values()
        ):
            return
        known = _known_form(sent.message, work, result)
        if known is None:
            return
        if self._count >= _MOST:
            # Who changes forms all the time gains nothing from any of them.
            self._by_size.clear()
            self._count = 0
        same_size = self._by_size.setdefault(known.template.size, [])
        if len(same_size) == _SAME_SIZE:
            same_size.pop()
        else:
            self._count += 1
        same_size.insert(0, known)


def _is_simple(work: Work) -> bool:
    """Tell whether an evaluation has nothing that only the line can do."""
    form = work.native_form
    return (
        form is not None
        and form.in_message is not None
        and work.reduction in _REDUCED
        and work.grad_output is None
        and work.sample_weight is None
        and not (work.factored or work.resident_bytes or work.destinations)
    )


def _known_form(message: bytes, work: Work, result: Encoded) -> Known | None:
    """Find what the messages of a form have in common, and prepare to compute them."""
    found = result.message
    bare = evaluation_pb2.EvaluationResult(
        loss=found.loss, gradients=found.gradients, receipt=found.receipt
    )
    tensors = b"".join(Encoded(bare, result.apart).parts())
    try:
        payloads = find_payloads(message, evaluation_pb2.Evaluation)
        placed = find_payloads(tensors, evaluation_pb2.EvaluationResult)
    except ValueError:
        return None
    inputs = {f'inputs["{name}"]': name for name in work.inputs}
    template = Template(message, payloads)
    besides = sum(len(piece) for piece, _ in template.pieces)
    form = work.native_form
    prepare = form.in_message if form is not None else None
    if {each.path for each in payloads} != inputs.keys() or besides > _MOST_BESIDES or not prepare:
        return None
    starts = {each.path: each.start for each in placed}
    compute = prepare(
        Places(
            work=work,
            inputs={inputs[each.path]: each.start for each in payloads},
            gradients={name: starts[f'gradients["{name}"]'] for name in work.gradients_for},
            loss=starts["loss"],
            numbers=len(tensors),
            small=work.input_bytes < SMALL_BYTES,
        )
    )
    return Known(template, work, compute, Template(tensors + _NUMBERS, placed)) if compute else None
