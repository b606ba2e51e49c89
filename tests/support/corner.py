"""A corner of a loss: one evaluation and its expected result."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from losswire.server.catalogue.record import Reduction
from losswire.wire import OptionScalar
from tests.support.caller import Array, Ask

NAN, INF = float("nan"), float("inf")
MEAN, SUM, NONE = Reduction.MEAN, Reduction.SUM, Reduction.NONE


def as_array(values: npt.ArrayLike) -> Array:
    """Convert floats to float32 and integers to int64; arrays stay as they are."""
    if isinstance(values, np.ndarray):
        return values
    array = np.asarray(values)
    return array.astype(np.int64 if array.dtype.kind == "i" else np.float32)


@dataclass(frozen=True, kw_only=True)
class Corner:
    """One evaluation and its expected result, to float32's precision."""

    name: str
    loss: str
    inputs: dict[str, npt.ArrayLike]
    expected: npt.ArrayLike
    gradients: dict[str, npt.ArrayLike] = field(default_factory=dict)
    auto: npt.ArrayLike | None = None
    """The result with `engine = auto`, where that takes a limit."""
    auto_gradients: dict[str, npt.ArrayLike] = field(default_factory=dict)
    options: dict[str, OptionScalar] = field(default_factory=dict)
    reduction: Reduction = MEAN

    def results(self, engine: str) -> tuple[npt.ArrayLike, dict[str, npt.ArrayLike]]:
        """Return the expected loss and gradients by an engine."""
        if engine == "autograd":
            return self.expected, self.gradients
        expected = self.expected if self.auto is None else self.auto
        return expected, self.gradients | self.auto_gradients

    def ask(self, engine: str) -> Ask:
        """Return it as an evaluation; an unreduced loss is differentiated as its sum."""
        _, gradients = self.results(engine)
        unreduced = bool(gradients) and self.reduction is NONE
        return Ask(
            loss=self.loss,
            inputs={name: as_array(values) for name, values in self.inputs.items()},
            options=self.options,
            reduction=self.reduction,
            gradients_for=tuple(gradients),
            grad_output=np.ones(np.shape(self.expected)) if unreduced else None,
            engine=engine,
        )
