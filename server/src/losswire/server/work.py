"""What has been found valid: an evaluation that is safe to compute."""

from collections.abc import Mapping
from dataclasses import dataclass

from losswire.server.layouts import Layout
from losswire.server.records import LossRecord, Reduction
from losswire.server.shapes import Bindings, Shape
from losswire.server.values import Array
from losswire.wire import OptionScalar


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """An evaluation that is safe to compute."""

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
    """How much of the inputs is resident, in bytes."""

    def gradient_type(self, name: str) -> str:
        """Give the type in which the gradient of an input is computed.

        What the rows of a chunked call share is added up before it is converted.
        """
        if self.whole is not None and not self.whole.has_rows(name):
            return self.compute_dtype
        return self.gradient_dtype or self.inputs[name].dtype.name

    def has_rows(self, name: str) -> bool:
        """Tell whether an input is cut along its first axis, which is the values' too."""
        axes, shape = self.layout.inputs[name].axes, self.inputs[name].shape
        return axes.has_rows(self.layout.values, shape, self.bindings)
