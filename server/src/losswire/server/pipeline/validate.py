"""Validate: check a request against the record of its loss.

All violations are collected and raised once. A request that passes is safe to
compute: no shape, index or range is checked again after this step.
"""

import math
from collections.abc import Iterator, Mapping, Sequence

from losswire.server.catalogue.layouts import FLOATS, Layout
from losswire.server.catalogue.options import OptionContext
from losswire.server.catalogue.record import Input, LossRecord, Reduction
from losswire.server.catalogue.shapes import Bindings, Shape
from losswire.server.catalogue.value_rules import Array, Context
from losswire.server.compute.work import Work
from losswire.server.errors import InvalidEvaluationError
from losswire.server.pipeline.decode import Request
from losswire.server.pipeline.factorable import unfactorable
from losswire.server.pipeline.field_path import path
from losswire.server.pipeline.match_layout import Attempt
from losswire.server.pipeline.promotion import input_dtype, loss_dtype, mixed_floats
from losswire.v1 import evaluation_pb2
from losswire.wire import DATA_TYPES, OptionScalar, Violation

_REDUCTIONS: Mapping[int, Reduction] = {
    evaluation_pb2.REDUCTION_NONE: Reduction.NONE,
    evaluation_pb2.REDUCTION_MEAN: Reduction.MEAN,
    evaluation_pb2.REDUCTION_SUM: Reduction.SUM,
    evaluation_pb2.REDUCTION_BATCHMEAN: Reduction.BATCHMEAN,
}
_MEANS = (Reduction.MEAN, Reduction.BATCHMEAN)


def validate(request: Request, record: LossRecord) -> Work:
    """Return the `Work` of a request; raises InvalidEvaluationError with all violations."""
    validator = _Validator(request, record)
    work = validator.run()
    if validator.found or work is None:
        raise InvalidEvaluationError(validator.found)
    return work


class _Validator:
    """One validation: the request, the record and the violations found so far."""

    def __init__(self, request: Request, record: LossRecord) -> None:
        self.request = request
        self.record = record
        self.found = list(request.violations)

    def note(self, field: str, description: str) -> None:
        """Add a violation."""
        self.found.append(Violation(field, description))

    def run(self) -> Work | None:
        """Run all checks; None when a violation was found."""
        arrays = self.present_inputs()
        layout, bindings = self.match_layout(arrays)
        options = self.options(OptionContext(layout, bindings))
        reduction = self.reduction()
        gradient_dtype = self.float_type("gradient_data_type", self.request.gradient_data_type)
        compute_dtype = self.compute_dtype(layout, arrays)
        self.engine()
        self.normalizer(reduction)
        if layout is None:
            self.gradient_names(None)
            return None
        self.gradient_names(layout)
        if problem := unfactorable(self.request, self.record, layout, compute_dtype):
            self.note("gradient_form", problem)
        self.values(layout, bindings, arrays, options)
        shape = layout.values.resolve(bindings)
        weight = self.sample_weight(shape)
        self.grad_output(reduction, shape)
        if self.found or reduction is None or compute_dtype is None:
            return None
        return Work(
            record=self.record,
            layout=layout,
            bindings=bindings,
            inputs=arrays,
            options=options,
            reduction=reduction,
            gradients_for=self.request.gradients_for,
            grad_output=self.request.grad_output,
            sample_weight=weight,
            normalizer=self.request.normalizer,
            gradient_dtype=gradient_dtype,
            compute_dtype=compute_dtype,
            loss_dtype=(
                compute_dtype
                if self.request.compute_data_type
                else loss_dtype(self.record, layout, arrays, compute_dtype)
            ),
            engine=self.request.engine,
            values_shape=shape,
            factored=self.request.factored and bool(self.request.gradients_for),
            resident_bytes=self.request.resident_bytes,
        )

    def present_inputs(self) -> dict[str, Array]:
        """Return the inputs that are known and well-formed, in the record's order."""
        given = self.request.inputs
        for name in given:
            if name not in self.record.inputs:
                known = ", ".join(self.record.inputs)
                self.note(
                    path("inputs", name), f"{self.record.name} has no such input; it has {known}"
                )
        for name in self.record.inputs:
            if name in self.record.required_inputs and name not in given:
                self.note(path("inputs", name), f"{self.record.name} needs this input")
        present = ((name, given.get(name)) for name in self.record.inputs)
        return {name: array for name, array in present if array is not None}

    def match_layout(self, arrays: Mapping[str, Array]) -> tuple[Layout | None, Bindings]:
        """Find the layout that all inputs fit, or add violations of the nearest one."""
        attempts = [Attempt(each, arrays) for each in self.record.layouts]
        fitting = [each for each in attempts if each.fits]
        if fitting and self.record.required_inputs <= set(arrays):
            self.found += mixed_floats(
                self.record, fitting[0].layout, arrays, self.request.gradients_for
            )
            self.empty_axes(fitting[0], arrays)
            return fitting[0].layout, fitting[0].bindings
        furthest = max(each.progress for each in attempts)
        nearest = [each for each in attempts if each.progress == furthest]
        for name in nearest[0].misfits:
            # An input that fits one of the nearest layouts may be right: another one is wrong.
            if all(name in each.misfits for each in nearest):
                self.note_misfit(name, arrays[name], nearest)
        return None, nearest[0].bindings

    def note_misfit(self, name: str, array: Array, nearest: Sequence[Attempt]) -> None:
        """Add the violation of an input's data type or shape, with the expected ones."""
        expected = [each for each in nearest if name in each.layout.inputs]
        if not expected:
            self.note(path("inputs", name), "is not accepted together with the other inputs")
            return
        typed = [each for each in expected if array.dtype.name in each.spec(name).dtypes]
        if not typed:
            dtypes = dict.fromkeys(each for one in expected for each in one.spec(name).dtypes)
            self.note(
                path("inputs", name) + ".data_type",
                f"is {array.dtype.name}; expected {either(list(dtypes))}",
            )
            return
        shapes = dict.fromkeys(each.spec(name).axes.describe(each.bindings) for each in typed)
        self.note(
            path("inputs", name) + ".shape",
            f"is {list(array.shape)}; expected {either(list(shapes))}",
        )

    def empty_axes(self, fitting: Attempt, arrays: Mapping[str, Array]) -> None:
        """Refuse an axis of length 0 where torch has no result for it."""
        for axis in fitting.layout.nonempty:
            if fitting.bindings.axes[axis]:
                continue
            name = next(name for name in arrays if axis in fitting.spec(name).axes.tokens)
            self.note(
                path("inputs", name) + ".shape",
                f"is {list(arrays[name].shape)}; the axis {axis} must not be empty",
            )

    def options(self, context: OptionContext) -> dict[str, OptionScalar | None]:
        """Check the options and fill in the defaults."""
        record, given = self.record, self.request.options
        for name in sorted(set(given) - set(record.options)):
            known = ", ".join(record.options) or "none"
            self.note(
                path("options", name), f"{record.name} has no such option; its options: {known}"
            )
        values: dict[str, OptionScalar | None] = {}
        for name, field in record.option_fields.items():
            if name not in given:
                values[name] = field.default
                if field.required:
                    self.note(path("options", name), f"{record.name} needs this option")
                    continue
                if field.default is None:
                    continue
            else:
                value = field.typed(given[name])
                if value is None:
                    self.note(path("options", name), f"must be {field.kind}")
                    values[name] = field.default
                    continue
                values[name] = value
            self.option_rules(name, values[name], context)
        return values

    def option_rules(self, name: str, value: OptionScalar | None, context: OptionContext) -> None:
        """Check the value of one option."""
        option = self.record.options[name]
        if option.choices and value not in option.choices:
            choices = either(list(option.choices))
            self.note(path("options", name), f"{str(value)[:64]!r} is not {choices}")
        for rule in option.rules:
            if problem := rule.violation(value, context):
                self.note(path("options", name), problem)

    def reduction(self) -> Reduction | None:
        """Return the requested reduction, or the default one."""
        number = self.request.reduction
        if number == evaluation_pb2.REDUCTION_UNSPECIFIED:
            return self.record.default_reduction
        reduction = _REDUCTIONS.get(number)
        if reduction not in self.record.reductions:
            asked = reduction.value if reduction else str(number)
            accepted = either([each.value for each in self.record.reductions])
            self.note("reduction", f"is {asked}; {self.record.name} accepts {accepted}")
            return None
        return reduction

    def float_type(self, field: str, number: int) -> str | None:
        """Return the requested floating type; None when there is none, or a wrong one."""
        if not number:
            return None
        wire_type = DATA_TYPES.get(number)
        if wire_type is None or wire_type.name not in FLOATS:
            given = wire_type.name if wire_type else str(number)
            self.note(field, f"is {given}; expected {either(FLOATS)}")
            return None
        return wire_type.name

    def compute_dtype(self, layout: Layout | None, arrays: Mapping[str, Array]) -> str | None:
        """Return the type to compute in."""
        asked = self.float_type("compute_data_type", self.request.compute_data_type)
        if layout is None:
            return None
        own = input_dtype(layout, arrays)
        if asked is None:
            if own is None and not self.record.promotes_integers:
                self.note("compute_data_type", "is required when the inputs are integers")
            return "float64" if own == "float64" else "float32"
        wider = ["float64"] if own == "float64" else ["float32", "float64"]
        accepted = list(dict.fromkeys([*([own] if own else FLOATS), *wider]))
        if asked not in accepted:
            self.note(
                "compute_data_type",
                f"is {asked}; {either(accepted)} can hold the inputs",
            )
        return asked

    def engine(self) -> None:
        """Refuse a number that is no engine of the contract."""
        if self.request.engine not in evaluation_pb2.Engine.values():
            known = either(evaluation_pb2.Engine.keys()[1:])
            self.note("engine", f"is {self.request.engine}; expected {known}")

    def normalizer(self, reduction: Reduction | None) -> None:
        """Check the normalizer."""
        value = self.request.normalizer
        if value is None:
            return
        if not (math.isfinite(value) and value > 0):
            self.note("normalizer", f"is {value:g}; expected a finite number greater than 0")
        if reduction is not None and reduction not in _MEANS:
            self.note("normalizer", f"has no meaning with reduction {reduction.value}")

    def gradient_names(self, layout: Layout | None) -> None:
        """Refuse gradients that torch does not have."""
        names = self.request.gradients_for
        for position, name in enumerate(names):
            where = f"gradients_for[{position}]"
            if name not in self.record.inputs:
                self.note(where, f'{self.record.name} has no input "{name[:64]}"')
                continue
            possible = self.record.differentiable_in(name)
            if not possible or (layout is not None and layout.name not in possible):
                why = "" if not possible else f" for this kind of inputs ({either(possible)} only)"
                self.note(where, f"torch gives no gradient with respect to {name}{why}")
            elif name not in self.request.inputs:
                self.note(where, f"{name} is not among the inputs of this evaluation")
            elif self.is_integer(name):
                self.note(where, f"{name} holds integers, which have no gradient")
            if name in names[:position]:
                self.note(where, f"{name} is named twice")

    def is_integer(self, name: str) -> bool:
        """Return whether an input holds integers."""
        array = self.request.inputs.get(name)
        return array is not None and array.dtype.name not in FLOATS

    def values(
        self,
        layout: Layout,
        bindings: Bindings,
        arrays: Mapping[str, Array],
        options: Mapping[str, OptionScalar | None],
    ) -> None:
        """Check the values of all inputs that do not stream."""
        present = {
            name: array for name, array in arrays.items() if name not in self.request.streamed
        }
        context = Context(bindings, options, present)
        self.found.extend(wrong_values(self.record, layout, context))

    def sample_weight(self, shape: Shape) -> Array | None:
        """Check the sample weight; returns it in a shape that broadcasts to the values."""
        weight = self.request.sample_weight
        if weight is None:
            return None
        if not self.weightable("sample_weight", weight):
            return None
        if weight.shape == shape:
            return weight
        if shape and weight.shape == shape[:1]:
            return weight.reshape(shape[:1] + (1,) * (len(shape) - 1))
        expected = [str(list(shape))]
        if len(shape) > 1:
            expected.append(str(list(shape[:1])))
        self.note("sample_weight.shape", f"is {list(weight.shape)}; expected {either(expected)}")
        return None

    def weightable(self, field: str, weight: Array) -> bool:
        """Return whether the loss accepts this kind of sample weight."""
        if self.record.reductions == (Reduction.NONE,):
            self.note(field, f"{self.record.name} is an activation and takes no weights")
            return False
        if weight.dtype.name not in FLOATS:
            self.note(field + ".data_type", f"is {weight.dtype.name}; expected {either(FLOATS)}")
            return False
        return True

    def grad_output(self, reduction: Reduction | None, shape: Shape) -> None:
        """Check the gradient of the caller's objective with respect to the loss."""
        given = self.request.grad_output
        if given is None:
            if reduction is Reduction.NONE and self.request.gradients_for and shape:
                malformed = any(each.field.startswith("grad_output") for each in self.found)
                if not malformed:
                    self.note(
                        "grad_output",
                        "is required for gradients of an unreduced loss (NONE) that is no scalar",
                    )
            return
        if not self.request.gradients_for:
            self.note("grad_output", "has no meaning without gradients_for")
        if given.dtype.name not in FLOATS:
            self.note("grad_output.data_type", f"is {given.dtype.name}; expected {either(FLOATS)}")
        if reduction is None:
            return
        expected = shape if reduction is Reduction.NONE else ()
        if given.shape != expected:
            self.note("grad_output.shape", f"is {list(given.shape)}; expected {list(expected)}")


def wrong_values(record: LossRecord, layout: Layout, context: Context) -> Iterator[Violation]:
    """Yield a violation for each input whose values break its rule."""
    for name, array in context.inputs.items():
        described: Input = record.inputs[name]
        rule = described.rule_for(is_float=layout.inputs[name].is_float)
        if problem := rule.violation(array, context):
            yield Violation(path("inputs", name), problem)


def either(names: Sequence[str]) -> str:
    """Return a list as a choice: `a`, `a or b`, `a, b or c`."""
    return " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
