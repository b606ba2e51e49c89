"""What has been found valid: an evaluation that is safe to compute."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, final

from losswire.server.catalogue.closed_form import ClosedForm
from losswire.server.catalogue.layouts import Layout
from losswire.server.catalogue.record import LossRecord, Reduction
from losswire.server.catalogue.shapes import Bindings, Shape
from losswire.server.catalogue.value_rules import Array
from losswire.server.memory.regions.places import Place
from losswire.v1 import evaluation_pb2
from losswire.wire import OptionScalar, wire_type_of

SMALL_BYTES: Final = 64 << 10
"""Below this size of all inputs, an evaluation is small. One thread computes it: torch
splits some operations over its threads however small they are, and then waits until each
of them gets a processor, which on a busy machine takes a hundred times as long as the work."""

_LARGE_BYTES: Final = 512 << 10
"""Below this size of all inputs, walking blocks costs more than autograd does."""

_FLOAT32_BYTES: Final = 4

COMPUTED_IN: Final = ("float32", "float64")
"""The types that closed forms compute in."""


@final
@dataclass(frozen=True, kw_only=True)
class Work:
    """An evaluation that is safe to compute.

    Nothing but what is said of its arrays' elements may differ between evaluations of one
    form (see forms.py): the properties that are kept follow from types and shapes.
    """

    record: LossRecord
    layout: Layout
    bindings: Bindings
    inputs: Mapping[str, Array]
    options: Mapping[str, OptionScalar | None]
    reduction: Reduction
    gradients_for: tuple[str, ...]
    grad_output: Array | None
    sample_weight: Array | None
    """In a shape that broadcasts to the values."""
    normalizer: float | None
    gradient_dtype: str | None
    """The floating type of the gradients; None: each input's own."""
    compute_dtype: str
    engine: int
    values_shape: Shape
    whole: "Work | None" = None
    """The evaluation of which this is some rows, in a chunked call."""
    factored: bool = False
    """Whether gradients are given as numbers of each row, from which they can be rebuilt."""
    resident_bytes: int = 0
    """How much of the inputs is resident or stays in regions, in bytes."""
    destinations: Mapping[str, Place] = field(default_factory=dict)
    """Where gradients go that are not sent, by input name."""

    form: "Work | None" = None
    """What it shares with all evaluations that differ from it in their elements only."""

    @cached_property
    def input_bytes(self) -> int:
        """The size of all inputs."""
        return sum(array.nbytes for array in self.inputs.values())

    @cached_property
    def _form_of_any_size(self) -> ClosedForm | None:
        """The closed form of its layout, where that can compute it; its size aside."""
        form = self.record.closed_forms.get(self.layout.name)
        if (
            form is None
            or self.engine == evaluation_pb2.ENGINE_AUTOGRAD
            or self.compute_dtype not in COMPUTED_IN
            or not self.values_shape
            or not set(self.gradients_for) <= set(form.gradients)
            or any(array.size == 0 for array in self.inputs.values())
        ):
            return None
        return form

    @cached_property
    def native_form(self) -> ClosedForm | None:
        """The closed form by whose native rows it is computed on a CPU; None where there is none.

        It depends on nothing but the form of the evaluation; how a chunked call is cut makes
        no difference, here and below.
        """
        if self.whole is not None:
            return self.whole.native_form
        form = self._form_of_any_size
        if (
            form is None
            or form.native is None
            or not form.native.fits(self.inputs, self.options)
            or any(self._natural_type(name) != self.compute_dtype for name in form.gradients)
        ):
            return None
        return form

    def _natural_type(self, name: str) -> str:
        """Name the type that an input is computed in if nothing else is asked for."""
        dtype = self.inputs[name].dtype
        return "float32" if dtype.itemsize < _FLOAT32_BYTES else dtype.name

    @cached_property
    def small_form(self) -> ClosedForm | None:
        """The closed form by whose torch operators it is computed if it is small, else None."""
        if self.whole is not None:
            return self.whole.small_form
        form = self._form_of_any_size
        if (
            form is None
            or self.factored
            or form.small is None
            or self.sample_weight is not None
            or self.input_bytes >= SMALL_BYTES
            or not form.fits(self.inputs, self.options)
        ):
            return None
        return form

    @cached_property
    def closed_form(self) -> ClosedForm | None:
        """The closed form by whose blocks it is computed on a CPU if it is large, else None."""
        if self.whole is not None:
            return self.whole.closed_form
        if self.factored or self.input_bytes < _LARGE_BYTES:
            return None
        return self._form_of_any_size

    def stackable_on(self, device_type: str) -> bool:
        """Tell whether evaluations of its form may be computed as one."""
        form = self.small_form
        return (
            self.form is not None
            and form is not None
            and device_type in form.row_stable_on
            and self._only_has_rows
        )

    @cached_property
    def _only_has_rows(self) -> bool:
        return self.row_inputs == self.inputs.keys()

    @cached_property
    def row_inputs(self) -> frozenset[str]:
        """The inputs that are cut along their first axis, which is the values' too."""
        layout, bindings = self.layout, self.bindings
        return frozenset(
            name
            for name, array in self.inputs.items()
            if layout.inputs[name].axes.has_rows(layout.values, array.shape, bindings)
        )

    def remember(self) -> None:
        """Find out now what evaluations of this form will be asked, each of which inherits it."""
        _ = (
            self.native_form,
            self.small_form,
            self.closed_form,
            self.input_bytes,
            self._only_has_rows,
        )

    def with_arrays(
        self,
        inputs: Mapping[str, Array],
        grad_output: Array | None,
        sample_weight: Array | None,
        *,
        resident_bytes: int,
    ) -> "Work":
        """Give an evaluation of the same form: the arrays have the types and shapes of its own."""
        other = object.__new__(Work)
        # Field by field, as a frozen dataclass is made, this would take longer than a loss.
        other.__dict__.update(
            self.__dict__,
            inputs=inputs,
            grad_output=grad_output,
            sample_weight=sample_weight,
            resident_bytes=resident_bytes,
            form=self,
        )
        return other

    def written_to(self, destinations: Mapping[str, Place]) -> "Work":
        """Give the same evaluation, with places for its gradients."""
        other = object.__new__(Work)
        other.__dict__.update(self.__dict__, destinations=destinations)
        return other

    def gradient_type(self, name: str) -> str:
        """Give the type in which the gradient of an input is computed.

        What the rows of a chunked call share is added up before it is converted.
        """
        if self.whole is not None and name not in self.whole.row_inputs:
            return self.compute_dtype
        if self.gradient_dtype is not None:
            return self.gradient_dtype
        # numpy composes the name of a type anew each time.
        dtype = self.inputs[name].dtype
        known = wire_type_of(dtype)
        return known.name if known else str(dtype)
