"""What is known of an evaluation before its numbers are looked at, checked once.

A training loop sends the same loss, shapes, types and options over and over. The
first of them is judged in full; those that follow differ in their numbers only, and
only these are judged again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from losswire.server.catalogue.record import LossRecord
from losswire.server.catalogue.value_rules import Array, Context, Values
from losswire.server.compute.paths import remember
from losswire.server.compute.work import Work
from losswire.server.pipeline.decode import Request
from losswire.server.pipeline.validate import validate

_MOST_FORMS: Final = 1024
"""How many forms are remembered, each of about two kilobytes."""


@dataclass(frozen=True, slots=True)
class _Form:
    """A form that was found valid."""

    work: Work
    """What all evaluations of the form share; its arrays are stand-ins."""
    rules: Sequence[tuple[str, Values]]
    """The rules that values can break, each with the input's name."""


class ValidationCache:
    """The forms that were found valid so far. May be used by any thread."""

    def __init__(self, most: int = _MOST_FORMS) -> None:
        """Take how many to remember."""
        self._most = most
        self._known: dict[Any, _Form] = {}

    def validate(self, request: Request, record: LossRecord) -> Work:
        """Make a request `Work`, as `validate` does.

        Only its values are looked at if its form was valid before.
        """
        key = _key_of(request)
        form = self._known.get(key)
        if form is None:
            work = validate(request, record)
            if key is None:
                return work
            form = _form_of(work)
            if len(self._known) >= self._most:
                # Who changes forms all the time gains nothing from any of them.
                self._known.clear()
            self._known[key] = form
            return _filled(form.work, request)
        work = _filled(form.work, request)
        context = Context(work.bindings, work.options, work.inputs)
        for name, rule in form.rules:
            if rule.violation(work.inputs[name], context):
                return validate(request, record)  # which says what is wrong, with its path
        return work


def _key_of(request: Request) -> Any:  # noqa: ANN401 (a key has whatever parts it has)
    """Give what two requests of one form have in common; None when that is not all there is."""
    if request.violations or request.streamed:
        return None
    return (
        request.loss,
        tuple([(name, _shape_of(array)) for name, array in request.inputs.items()]),
        # As text, in which True, 1 and 1.0 differ, and 0.0 and -0.0.
        tuple([(name, repr(value)) for name, value in request.options.items()]),
        request.reduction,
        request.gradients_for,
        _shape_of(request.grad_output),
        _shape_of(request.sample_weight),
        request.normalizer,
        request.gradient_data_type,
        request.compute_data_type,
        request.engine,
        request.factored,
    )


def _shape_of(array: Array | None) -> Any:  # noqa: ANN401 (part of a key)
    return None if array is None else (array.dtype, array.shape)


def _form_of(work: Work) -> _Form:
    """Take out of the first evaluation of a form what the others share, and no array."""
    rules = [
        (name, work.record.inputs[name].rule_for(is_float=work.layout.inputs[name].is_float))
        for name in work.inputs
    ]
    shared = replace(
        work,
        inputs={name: _stand_in(array) for name, array in work.inputs.items()},
        grad_output=None if work.grad_output is None else _stand_in(work.grad_output),
        sample_weight=None if work.sample_weight is None else _stand_in(work.sample_weight),
        resident_bytes=0,
    )
    remember(shared)
    return _Form(
        work=shared,
        rules=[
            (name, rule) for name, rule in rules if type(rule).violation is not Values.violation
        ],
    )


def _stand_in(array: Array) -> Array:
    """Make an array of the same type and shape that takes no memory."""
    return np.broadcast_to(np.zeros((), array.dtype), array.shape)


def _filled(form: Work, request: Request) -> Work:
    """Put the arrays of a request in the place of the form's."""
    given = request.inputs
    inputs = {name: array for name in form.inputs if (array := given[name]) is not None}
    weight = request.sample_weight
    if weight is not None and form.sample_weight is not None:
        weight = weight.reshape(form.sample_weight.shape)
    return form.with_arrays(
        inputs, request.grad_output, weight, resident_bytes=request.resident_bytes
    )
