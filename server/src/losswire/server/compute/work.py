"""A validated evaluation: all that compute needs to know of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, TypeVar, final

from losswire.server.catalogue.layouts import Layout
from losswire.server.catalogue.record import LossRecord, Reduction
from losswire.server.catalogue.shapes import Bindings, Shape
from losswire.server.catalogue.value_rules import Array
from losswire.server.memory.regions.places import Place
from losswire.wire import OptionScalar, wire_type_of

COMPUTED_IN: Final = ("float32", "float64")
"""The dtypes that closed forms compute in."""

FoundT = TypeVar("FoundT")


@final
@dataclass(frozen=True, kw_only=True)
class Work:
    """An evaluation that is safe to compute.

    Evaluations that share one validated skeleton differ in the elements of their arrays only:
    every cached property follows from dtypes and shapes.
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
    """The floating dtype of the gradients; None: each input's own."""
    compute_dtype: str
    loss_dtype: str
    """The dtype of the loss: the compute dtype, or the narrower one that torch rounds it to."""
    engine: int
    values_shape: Shape
    whole: "Work | None" = None
    """The evaluation of which this is some rows, in a chunked call."""
    factored: bool = False
    """Whether gradients are returned as numbers of each row, from which they can be rebuilt."""
    resident_bytes: int = 0
    """How many bytes of the inputs are resident or stay in regions."""
    destinations: Mapping[str, Place] = field(default_factory=dict)
    """Where gradients go that are not sent, by input name."""

    skeleton: "Work | None" = None
    """The validated skeleton that it shares with evaluations of other elements; None: none."""

    @cached_property
    def input_bytes(self) -> int:
        """The size of all inputs, in bytes."""
        return sum(array.nbytes for array in self.inputs.values())

    @cached_property
    def row_inputs(self) -> frozenset[str]:
        """The inputs that are cut along their first axis, which is the values' too."""
        layout, bindings = self.layout, self.bindings
        return frozenset(
            name
            for name, array in self.inputs.items()
            if layout.inputs[name].axes.has_rows(layout.values, array.shape, bindings)
        )

    def with_arrays(
        self,
        inputs: Mapping[str, Array],
        grad_output: Array | None,
        sample_weight: Array | None,
        *,
        resident_bytes: int,
    ) -> "Work":
        """Return an evaluation of the same skeleton; its arrays have the same dtypes and shapes."""
        other = object.__new__(Work)
        # Field by field, as a frozen dataclass is made, this would take longer than a loss.
        other.__dict__.update(
            self.__dict__,
            inputs=inputs,
            grad_output=grad_output,
            sample_weight=sample_weight,
            resident_bytes=resident_bytes,
            skeleton=self,
        )
        return other

    def written_to(self, destinations: Mapping[str, Place]) -> "Work":
        """Return the same evaluation, with destinations for its gradients."""
        other = object.__new__(Work)
        other.__dict__.update(self.__dict__, destinations=destinations)
        return other

    def gradient_type(self, name: str) -> str:
        """Return the dtype in which the gradient of an input is computed.

        Gradients that the rows of a chunked call share are added up before they are converted.
        """
        if self.whole is not None and name not in self.whole.row_inputs:
            return self.compute_dtype
        if self.gradient_dtype is not None:
            return self.gradient_dtype
        # numpy composes the name of a dtype anew each time.
        dtype = self.inputs[name].dtype
        known = wire_type_of(dtype)
        return known.name if known else str(dtype)


def of_skeleton(find: Callable[[Work], FoundT]) -> Callable[[Work], FoundT]:
    """Cache the result of a function for a work, and so for all works made of it.

    It may look at nothing but dtypes, shapes and the other fields that these share.
    """
    key = find.__qualname__

    def found(work: Work) -> FoundT:
        known = work.__dict__
        if key not in known:
            known[key] = find(work)
        result: FoundT = known[key]
        return result

    return found
