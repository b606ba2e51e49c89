"""From the header of a chunked call to a plan: which inputs stream, and what a part computes.

A part is an evaluation of some of the header's rows. It is computed by the same path,
and everything that depends on all rows (the path itself, the mean's denominator) is
decided by the header alone.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from losswire.server.catalogue.record import Kind, LossRecord, Reduction
from losswire.server.catalogue.shapes import Bindings
from losswire.server.catalogue.value_rules import Array, Context
from losswire.server.compute.paths import native_form, remember
from losswire.server.compute.reduce import MEANS
from losswire.server.compute.tensors import numpy_type
from losswire.server.compute.work import Work
from losswire.server.errors import InvalidEvaluationError
from losswire.server.memory.regions.places import MapRegion
from losswire.server.pipeline.decode import decode
from losswire.server.pipeline.resolve import FindResident, resolve
from losswire.server.pipeline.validate import validate, wrong_values
from losswire.v1 import loss_service_pb2
from losswire.wire import (
    MalformedTensorError,
    Packing,
    TensorSpec,
    Violation,
    wire_type_of,
)

_MAX_STREAMED: Final = 64
_INSTEAD: Final = "use Evaluate or EvaluateMany"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A chunked call whose header was accepted."""

    whole: Work
    """The evaluation of all rows. The arrays of streamed inputs are stand-ins, which have a
    type and a shape but not the caller's values."""
    streamed: tuple[str, ...]
    """The inputs that stream, in the order of packing."""
    with_rows: tuple[str, ...]
    """The inputs that are cut into rows, streamed or not."""
    packing: Packing
    _templates: dict[int, Work] = field(default_factory=dict, init=False)
    """The template of parts with the last number of rows; all parts but the last have as many."""

    @property
    def count(self) -> int:
        """The number of rows."""
        return self.whole.values_shape[0]

    @property
    def streamed_gradients(self) -> tuple[str, ...]:
        """The inputs whose gradients stream, in the order of packing."""
        return tuple(name for name in self.streamed if name in self.whole.gradients_for)

    @property
    def shared_gradients(self) -> tuple[str, ...]:
        """The inputs whose gradients are summed over all rows."""
        return tuple(name for name in self.whole.gradients_for if name not in self.with_rows)

    @property
    def row_gradients(self) -> tuple[str, ...]:
        """The inputs that have rows but do not stream, whose gradients come with the result."""
        others = {*self.streamed, *self.shared_gradients}
        return tuple(name for name in self.whole.gradients_for if name not in others)

    @property
    def needs_denominator(self) -> bool:
        """Whether the gradients of a part depend on the denominator of the whole mean."""
        return bool(self.whole.gradients_for) and self.whole.reduction in MEANS

    def part(self, start: int, payload: memoryview, denominator: float | None) -> Work:
        """Return the evaluation of a payload's rows, the first of which is number `start`.

        `denominator` is that of the whole mean, if it is known. Raises InvalidEvaluationError
        for wrong values, with the positions of their rows.
        """
        try:
            arrays = self.packing.split(payload)
        except MalformedTensorError as error:
            raise InvalidEvaluationError(error.violations) from None
        if native_form(self.whole) is None:
            # torch reads numbers at multiples of their size only.
            arrays = [each if each.flags.aligned else each.copy() for each in arrays]
        rows = dict(zip(self.streamed, arrays, strict=True))
        part = self._cut(start, start + len(arrays[0]), rows, denominator)
        present = {name: part.inputs[name] for name in self.with_rows}
        context = Context(part.bindings, part.options, present, start)
        if found := list(wrong_values(part.record, part.layout, context)):
            raise InvalidEvaluationError(found)
        return part

    def sized(self, count: int) -> Work:
        """Return an evaluation of this many rows without values, to estimate its memory."""
        whole = self.whole
        grad_output, weight = whole.grad_output, whole.sample_weight
        inputs = dict(whole.inputs)
        for name in self.with_rows:
            inputs[name] = whole.inputs[name][:count]
        return replace(
            whole,
            whole=whole,
            inputs=inputs,
            bindings=self._bindings(count),
            grad_output=grad_output[:count]
            if grad_output is not None and grad_output.ndim
            else grad_output,
            sample_weight=None if weight is None else weight[:count],
            values_shape=(count, *whole.values_shape[1:]),
        )

    def _cut(
        self, start: int, stop: int, rows: Mapping[str, Array], denominator: float | None
    ) -> Work:
        """Return the evaluation of some rows; `rows` are those of the streamed inputs."""
        whole, count = self.whole, stop - start
        template = self._templates.get(count)
        if template is None:
            template = self.sized(count)
            if denominator is not None:
                template = replace(template, normalizer=denominator)
            remember(template)
            self._templates.clear()
            self._templates[count] = template
        inputs = dict(whole.inputs)
        for name in self.with_rows:
            inputs[name] = rows[name] if name in rows else whole.inputs[name][start:stop]
        grad_output, weight = whole.grad_output, whole.sample_weight
        return template.with_arrays(
            inputs,
            grad_output[start:stop]
            if grad_output is not None and grad_output.ndim
            else grad_output,
            None if weight is None else weight[start:stop],
            resident_bytes=whole.resident_bytes,
        )

    def _bindings(self, count: int) -> Bindings:
        """Return the lengths of the axes for this many rows."""
        bindings, values = self.whole.bindings, self.whole.layout.values
        axes, groups = dict(bindings.axes), dict(bindings.groups)
        first = values.first(bindings) or ""
        group = first.lstrip("#*")
        if group == first:
            axes[first] = count
        else:
            groups[group] = (count, *groups[group][1:])
        return Bindings(axes, groups)


def make_plan(
    header: loss_service_pb2.ChunkedHeader,
    record: LossRecord,
    max_value_bytes: int,
    find_resident: FindResident,
    map_region: MapRegion,
) -> Plan:
    """Return the plan of a header; InvalidEvaluationError when it is wrong or cannot stream.

    `max_value_bytes` limits the values of an unreduced loss, which come in one message.
    """
    names = tuple(header.streamed_inputs)
    wrong = [*_wrong_names(names, header), *_unfit(record)]
    if wrong:
        raise InvalidEvaluationError(wrong)
    request = decode(header.evaluation, names)
    whole = validate(resolve(request, record, find_resident, map_region), record)
    wrong = [*_rowless(whole, names), *_unanswerable(whole, names, max_value_bytes)]
    if wrong:
        raise InvalidEvaluationError(wrong)
    specs = tuple(_spec(whole.inputs[name]) for name in names)
    return Plan(
        whole=whole,
        streamed=names,
        with_rows=tuple(name for name in whole.inputs if name in whole.row_inputs),
        packing=Packing(specs),
    )


def _wrong_names(names: tuple[str, ...], header: loss_service_pb2.ChunkedHeader) -> list[Violation]:
    """Check the list of streamed inputs."""
    if not names:
        return [Violation("streamed_inputs", f"names no input; to send all in one, {_INSTEAD}")]
    if len(names) > _MAX_STREAMED:
        text = f"has {len(names)} entries; at most {_MAX_STREAMED} are accepted"
        return [Violation("streamed_inputs", text)]
    found = []
    if header.evaluation.gradient_destinations:
        text = f"has no meaning here, where gradients come with the parts; {_INSTEAD}"
        found.append(Violation("gradient_destinations", text))
    for position, name in enumerate(names):
        where = f"streamed_inputs[{position}]"
        if name not in header.evaluation.inputs:
            text = "is not among the inputs, where its data type and shape belong"
            found.append(Violation(where, text))
        elif name in names[:position]:
            found.append(Violation(where, "is named twice"))
    return found


def _unfit(record: LossRecord) -> list[Violation]:
    """Find the reasons why a function cannot be cut into rows."""
    if record.kind is Kind.ACTIVATION:
        text = f"{record.name} is an activation: it has nothing to add up; {_INSTEAD}"
        return [Violation("streamed_inputs", text)]
    if not record.separable:
        text = f"{record.name} cannot be cut into rows along its first axis; {_INSTEAD}"
        return [Violation("streamed_inputs", text)]
    return []


def _rowless(whole: Work, names: tuple[str, ...]) -> list[Violation]:
    """Find the reasons why these inputs cannot be cut into rows."""
    name = whole.record.name
    first = whole.layout.values.first(whole.bindings)
    if first is None:
        text = f"a {name} of this shape has one value and no rows; {_INSTEAD}"
        return [Violation("streamed_inputs", text)]
    for spec in whole.layout.inputs.values():
        if first in spec.axes.tokens and spec.axes.first(whole.bindings) != first:
            text = f"{name} cannot be cut into rows along its first axis; {_INSTEAD}"
            return [Violation("streamed_inputs", text)]
    found = [
        Violation(f"streamed_inputs[{position}]", f"all rows share {each}: send it in the header")
        for position, each in enumerate(names)
        if each not in whole.row_inputs
    ]
    if not found and whole.values_shape[0] and all(not whole.inputs[each].size for each in names):
        found.append(Violation("streamed_inputs", f"a row has no bytes; {_INSTEAD}"))
    return found


def _unanswerable(whole: Work, names: tuple[str, ...], max_value_bytes: int) -> list[Violation]:
    """Find requested results that are known only at the end, or that need unbounded memory."""
    if whole.reduction is Reduction.NONE:
        size = math.prod(whole.values_shape) * numpy_type(whole.loss_dtype).itemsize
        if size > max_value_bytes:
            text = (
                f"is none, and the values take {size} bytes of the {max_value_bytes} that come "
                "in one piece; ask for the sum or mean, or send fewer rows in each call"
            )
            return [Violation("reduction", text)]
    if whole.reduction not in MEANS or whole.normalizer is not None or not whole.gradients_for:
        return []
    known = whole.record.denominators.get(whole.layout.name)
    sources = [name for name in known.inputs if name in whole.inputs] if known else []
    end = "give a normalizer or ask for the sum"
    streamed = [name for name in sources if name in names]
    if streamed:
        text = (
            "is required for gradients of this mean: its denominator follows from "
            f"{' and '.join(streamed)}, which streams; send it in the header, {end}"
        )
        return [Violation("normalizer", text)]
    return [
        Violation(
            f"gradients_for[{whole.gradients_for.index(name)}]",
            f"the mean's denominator depends on {name}, and the mean that its gradient needs is "
            f"known only at the end; {end}",
        )
        for name in sources
        if name in whole.gradients_for
    ]


def _spec(array: Array) -> TensorSpec:
    wire_type = wire_type_of(array.dtype)
    if wire_type is None:
        message = f"no data type of the wire is {array.dtype}"
        raise TypeError(message)
    return TensorSpec(wire_type, array.shape)
