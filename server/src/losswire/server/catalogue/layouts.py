"""The accepted combinations of shapes and dtypes of a loss."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from losswire.server.catalogue.shapes import Axes
from losswire.wire import BY_NAME

FLOATS: Final = tuple(each.name for each in BY_NAME.values() if each.is_float)
INTEGERS: Final = ("uint8", "int8", "int16", "int32", "int64")


@dataclass(frozen=True)
class Spec:
    """One input in one layout: its axes and its dtypes."""

    axes: Axes
    dtypes: tuple[str, ...]

    @property
    def is_float(self) -> bool:
        """Whether it is converted to the compute dtype; else it holds indices."""
        return self.dtypes[0] in FLOATS


def floats(axes: str) -> Spec:
    """Describe an input of any floating dtype."""
    return Spec(Axes(axes), FLOATS)


def doubles(axes: str) -> Spec:
    """Describe an input of float32 or float64, for losses that torch lacks in half precision."""
    return Spec(Axes(axes), ("float32", "float64"))


def numbers(axes: str) -> Spec:
    """Describe an input of any floating or integer dtype."""
    return Spec(Axes(axes), FLOATS + INTEGERS)


def signed(axes: str) -> Spec:
    """Describe an input of any dtype that holds negative numbers."""
    return Spec(Axes(axes), tuple(each for each in FLOATS + INTEGERS if each != "uint8"))


def indices(axes: str, dtypes: tuple[str, ...] = ("int64", "uint8")) -> Spec:
    """Describe an input of indices."""
    return Spec(Axes(axes), dtypes)


@dataclass(frozen=True)
class Layout:
    """One accepted combination of shapes and dtypes."""

    name: str
    inputs: Mapping[str, Spec]
    values: Axes
    nonempty: tuple[str, ...] = ()
    """The axes whose length may not be 0, because torch has no result then."""


def layout(name: str, *, values: str, nonempty: tuple[str, ...] = (), **inputs: Spec) -> Layout:
    """Describe one accepted combination of shapes: the inputs by name, then the values.

    Each axis of the values is one of an input, or 1.
    """
    return Layout(name, inputs, Axes(values), nonempty)
