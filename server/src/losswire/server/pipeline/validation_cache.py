"""The cache of validated evaluations, which are found by a key after decoding.

A training loop sends the same loss, shapes, types and options over and over. The
first evaluation is checked in full; those that follow differ in their numbers only,
and only these are checked again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from losswire.server import thresholds
from losswire.server.catalogue.record import LossRecord
from losswire.server.catalogue.value_rules import Array, Context, Values
from losswire.server.compute.paths import remember
from losswire.server.compute.work import Work
from losswire.server.pipeline.decode import Request
from losswire.server.pipeline.validate import validate
from losswire.wire import BoundedCache


@dataclass(frozen=True, slots=True)
class Skeleton:
    """A form that was found valid: everything about an evaluation but its numbers."""

    work: Work
    """An evaluation of the form, with stand-ins for its arrays."""
    rules: Sequence[tuple[str, Values]]
    """The rules that values can break, each with the input's name."""

    @classmethod
    def of(cls, work: Work) -> Self:
        """Find the rules of a valid evaluation or of the work that its form shares."""
        rules = [
            (name, work.record.inputs[name].rule_for(is_float=work.layout.inputs[name].is_float))
            for name in work.inputs
        ]
        return cls(
            work,
            [(name, rule) for name, rule in rules if type(rule).violation is not Values.violation],
        )

    def allows(self, inputs: Mapping[str, Array]) -> bool:
        """Check the numbers of an evaluation of the form, which nothing else can break."""
        context = Context(self.work.bindings, self.work.options, inputs)
        # A loop, because a generator costs more than most checks.
        for name, rule in self.rules:  # noqa: SIM110
            if rule.violation(inputs[name], context):
                return False
        return True


class ValidationCache:
    """The forms that were found valid so far, by key. May be used by any thread."""

    def __init__(self, max_entries: int = thresholds.MAX_SKELETONS) -> None:
        """Begin without any."""
        self._cache: BoundedCache[Any, Skeleton] = BoundedCache(max_entries)

    def __len__(self) -> int:
        """Return how many forms are known."""
        return self._cache.entries

    def validate(self, request: Request, record: LossRecord) -> Work:
        """Validate a request, as `validate` does.

        Only its values are checked if its form was valid before.
        """
        key = key_of(request)
        skeleton = self._cache.get(key)
        if skeleton is None:
            work = validate(request, record)
            if key is None:
                return work
            skeleton = _skeleton_of(work)
            self._cache.put(key, skeleton)
            return _filled(skeleton.work, request)
        work = _filled(skeleton.work, request)
        if not skeleton.allows(work.inputs):
            return validate(request, record)  # raises the violation, with its path
        return work


def key_of(request: Request) -> Any:  # noqa: ANN401 (a key has whatever parts it has)
    """Return all that two requests of one form have in common; None when they cannot share one."""
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


def _skeleton_of(work: Work) -> Skeleton:
    """Copy an evaluation without its arrays, for all others of its form."""
    shared = replace(
        work,
        inputs={name: _stand_in(array) for name, array in work.inputs.items()},
        grad_output=None if work.grad_output is None else _stand_in(work.grad_output),
        sample_weight=None if work.sample_weight is None else _stand_in(work.sample_weight),
        resident_bytes=0,
    )
    remember(shared)
    return Skeleton.of(shared)


def _stand_in(array: Array) -> Array:
    """Return an array of the same type and shape that takes no memory."""
    return np.broadcast_to(np.zeros((), array.dtype), array.shape)


def _filled(form: Work, request: Request) -> Work:
    """Return the work of a form with the arrays of a request."""
    given = request.inputs
    inputs = {name: array for name in form.inputs if (array := given[name]) is not None}
    weight = request.sample_weight
    if weight is not None and form.sample_weight is not None:
        weight = weight.reshape(form.sample_weight.shape)
    return form.with_arrays(
        inputs, request.grad_output, weight, resident_bytes=request.resident_bytes
    )
