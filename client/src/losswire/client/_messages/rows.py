"""The inputs of an evaluation that have rows, and so can stream."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy.typing as npt

from losswire.client._messages.catalogue import LayoutInfo, LossInfo

Arrays = Mapping[str, npt.NDArray[Any]]

_ONE: Final = "#1 "
"""The mark in front of a shape of which one axis may have length 1."""


def row_inputs(loss: LossInfo | None, arrays: Arrays) -> list[str]:
    """Return the inputs whose first axis is the batch, by the loss's own layouts.

    Where there is no such loss, or no layout fits, the server refuses the evaluation: the
    inputs as long as the largest one are chosen, so that it can be sent.
    """
    for layout in loss.layouts if loss and loss.separable else ():
        rows = _rows_in(layout, arrays)
        if rows:
            return rows
    with_axes = {name: array for name, array in arrays.items() if array.ndim}
    if not with_axes:
        return []
    length = len(max(with_axes.values(), key=lambda array: array.nbytes))
    return [name for name, array in with_axes.items() if len(array) == length]


def _rows_in(layout: LayoutInfo, arrays: Arrays) -> list[str] | None:
    """Return the inputs that have rows in a layout; None when it does not fit."""
    groups: dict[str, int] = {}
    for name, array in arrays.items():
        text = layout.inputs.get(name)
        if text is None or array.dtype.name not in layout.dtypes.get(name, ()):
            return None
        # Behind the mark all axes are there, though one may have length 1.
        exact = text.removeprefix(_ONE)
        if not exact.startswith("#") and not _fits(exact.split(), array.ndim, groups):
            return None
    first = _first(layout.values.split(), groups)
    rank = sum(groups.get(each[1:], 0) if each[0] == "*" else 1 for each in layout.values.split())
    rows = {
        name
        for name in arrays
        if first is not None and _first(layout.inputs[name].split(), groups) == first
    }
    length = next((len(arrays[name]) for name in arrays if name in rows), 0)
    broadcast = {
        name
        for name, array in arrays.items()
        if rows
        and layout.inputs[name].startswith("#")
        and array.ndim == rank
        and len(array) == length
    }
    return [name for name in arrays if name in rows | broadcast]


def _fits(tokens: Sequence[str], rank: int, groups: dict[str, int]) -> bool:
    """Return whether a number of axes fits; `groups` gets the number of axes of each group."""
    named = [token[1:] for token in tokens if token.startswith("*")]
    spare = rank - (len(tokens) - len(named))
    if not named:
        return spare == 0
    return spare >= 0 and groups.setdefault(named[0], spare) == spare


def _first(tokens: Sequence[str], groups: Mapping[str, int]) -> str | None:
    """Return the token of the outermost axis; None when there is no axis."""
    return next((each for each in tokens if each[0] != "*" or groups.get(each[1:])), None)
