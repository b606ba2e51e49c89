"""Evaluations whose form was met before, computed where their messages lie.

A training loop sends one form over and over: its messages differ in the elements of their
tensors and in nothing else. After the first, which takes the whole line, what the line found
out is kept with what such messages have in common. For those that follow, decoding is a
comparison, validation a look at the values, and encoding the same answer with other numbers.
Whatever is unusual about one (a value that is refused, memory that is in use) takes the line.
"""

import ctypes
import struct
import time
from typing import Final

from losswire.server.admit import Admission, price
from losswire.server.closed_forms.block import InMessage, Places
from losswire.server.records import Reduction
from losswire.server.work import SMALL_BYTES, Work
from losswire.v1 import evaluation_pb2
from losswire.wire import Template, find_payloads, varint

_MOST: Final = 1024
"""How many forms are kept, each of a few kilobytes and an answer."""

_SAME_SIZE: Final = 4
"""How many of them may have messages of one size, which are compared one by one."""

_MOST_BESIDES: Final = 4096
"""The most bytes of a message beside the elements of its tensors."""

_REDUCED: Final = (Reduction.MEAN, Reduction.SUM)

_FIELDS: Final = evaluation_pb2.EvaluationResult.DESCRIPTOR.fields_by_name
_EIGHT_BYTES: Final = 1


def _tag(name: str, kind: int = 0) -> int:
    """Give the tag of a field of a result, one byte because its number is below 16."""
    return _FIELDS[name].number << 3 | kind


_NUMBERS: Final = struct.Struct("<BdBdBd")
_SUM: Final = _tag("sum", _EIGHT_BYTES)
_NUMERATOR: Final = _tag("mean_numerator", _EIGHT_BYTES)
_DENOMINATOR: Final = _tag("mean_denominator", _EIGHT_BYTES)
_COUNT: Final = bytes([_tag("count")])
_NANOSECONDS: Final = bytes([_tag("compute_nanoseconds")])


class _Known:
    """One form: what its messages have in common, and its answer. Belongs to one thread."""

    __slots__ = ("_answer", "_compute", "_memory", "price", "template")

    def __init__(
        self,
        template: Template,
        work: Work,
        compute: InMessage,
        memory: "ctypes.Array[ctypes.c_char]",
    ) -> None:
        self.template = template
        self.price = price(work)
        self._compute = compute
        self._memory = memory

    def evaluate(self, message: bytes) -> bytes | None:
        """Give the result's message; None when the line has to look at this one."""
        start = time.perf_counter_ns()
        found = self._compute(message)
        if found is None:
            return None
        total, denominator, count = found
        numbers = _NUMBERS.pack(_SUM, total, _NUMERATOR, total, _DENOMINATOR, denominator)
        spent = time.perf_counter_ns() - start
        return b"".join((self._memory, numbers, _COUNT, varint(count), _NANOSECONDS, varint(spent)))


class KnownForms:
    """The forms that were met so far, of small evaluations that are computed by native rows.

    Belongs to the event loop.
    """

    def __init__(self, admission: Admission) -> None:
        """Take the memory budget, which each evaluation has to fit into."""
        self._admission = admission
        self._by_size: dict[int, list[_Known]] = {}
        self._count = 0

    def evaluate(self, message: bytes) -> bytes | None:
        """Evaluate an `Evaluation` in serialized form; gives its result, serialized.

        None when its form is not known, or when there is something unusual about it.
        """
        for known in self._by_size.get(len(message), ()):
            if known.template.matches(message):
                # It is computed at once: what is free now is free until it is done.
                if known.price > self._admission.free_bytes:
                    return None
                return known.evaluate(message)
        return None

    def holds(self, message: bytes) -> bool:
        """Tell whether the form of an `Evaluation` in serialized form is known."""
        same_size = self._by_size.get(len(message), ())
        return any(known.template.matches(message) for known in same_size)

    def learn(
        self,
        message: bytes,
        evaluation: evaluation_pb2.Evaluation,
        work: Work,
        result: evaluation_pb2.EvaluationResult,
    ) -> None:
        """Keep the form of an evaluation that took the line, if it is one of those."""
        if not _is_simple(work) or len(message) > SMALL_BYTES + _MOST_BESIDES:
            return
        # A tensor may name several sources, the last of which counts.
        if any(each.WhichOneof("source") != "data" for each in evaluation.inputs.values()):
            return
        known = _known_form(message, work, result)
        if known is None:
            return
        if self._count >= _MOST:
            # Who changes forms all the time gains nothing from any of them.
            self._by_size.clear()
            self._count = 0
        same_size = self._by_size.setdefault(len(message), [])
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
        and work.input_bytes < SMALL_BYTES
        and work.reduction in _REDUCED
        and work.grad_output is None
        and work.sample_weight is None
        and not (work.factored or work.resident_bytes or work.destinations)
    )


def _known_form(
    message: bytes, work: Work, result: evaluation_pb2.EvaluationResult
) -> _Known | None:
    """Find what the messages of a form have in common, and prepare to compute them."""
    answer = evaluation_pb2.EvaluationResult(
        loss=result.loss, gradients=result.gradients, receipt=result.receipt
    ).SerializeToString()
    try:
        payloads = find_payloads(message, evaluation_pb2.Evaluation)
        placed = find_payloads(answer, evaluation_pb2.EvaluationResult)
    except ValueError:
        return None
    inputs = {f'inputs["{name}"]': name for name in work.inputs}
    if {each.path for each in payloads} != inputs.keys():
        return None
    template = Template(message, payloads)
    if sum(len(piece) for piece, _ in template.pieces) > _MOST_BESIDES:
        return None
    memory = (ctypes.c_char * len(answer)).from_buffer_copy(answer)
    addresses = {each.path: ctypes.addressof(memory) + each.start for each in placed}
    form = work.native_form
    prepare = form.in_message if form is not None else None
    compute = prepare and prepare(
        Places(
            work=work,
            inputs={inputs[each.path]: each.start for each in payloads},
            loss=addresses["loss"],
            gradients={name: addresses[f'gradients["{name}"]'] for name in work.gradients_for},
        )
    )
    return _Known(template, work, compute, memory) if compute else None
