"""Where `engine = auto` and torch give different numbers: each case with an example of both."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from losswire.wire import OptionScalar

Numbers = Any
"""A number, or nested lists of them."""


@dataclass(frozen=True, kw_only=True)
class EngineDifference:
    """A case in which `auto` takes a limit of the formula, and torch gives something else."""

    where: str
    """The case, in a few words."""
    result: str = "loss"
    """The number that differs: `loss`, or `gradient of` and an input."""
    inputs: Mapping[str, Numbers]
    """An example, floats in float32 and integers in int64. Its loss is unreduced, and its gradients
    are those of the sum."""
    options: Mapping[str, OptionScalar] = field(default_factory=dict)
    auto: Numbers
    """The result in this example with `engine = auto`."""
    autograd: Numbers
    """The result in this example with `engine = autograd`, which is torch's."""

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the inputs of the example as arrays."""
        return {name: as_array(numbers) for name, numbers in self.inputs.items()}


def as_array(numbers: Numbers) -> npt.NDArray[Any]:
    """Return numbers as an array in float32, or in int64 if they are integers."""
    array = np.asarray(numbers)
    return array.astype(np.int64 if array.dtype.kind == "i" else np.float32)


def text_of(numbers: Numbers) -> str:
    """Return numbers as text, such as `[0.5, nan]`; only one number if all are equal."""
    array = np.asarray(numbers, np.float64)
    if len(distinct := np.unique(array)) == 1:
        return f"{float(distinct[0]):g}"
    return f"[{', '.join(text_of(each) for each in array)}]"
