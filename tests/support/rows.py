"""Rows of an evaluation: the selection of some, with everything that belongs to them."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from losswire.server.catalogue.shapes import Axes, Shape
from tests.support.caller import Array, Ask
from tests.support.sampling import Ground


def row_axis(axes: Axes, ground: Ground, shape: Shape) -> int | None:
    """Return the axis of an input along which its rows are; None: all rows share it."""
    values_shape = ground.values_shape
    if not values_shape:
        return None
    if axes.broadcasts:
        has_rows = len(shape) == len(values_shape) and shape[0] == values_shape[0]
        return 0 if has_rows else None
    tokens = ground.layout.values.tokens
    first = next(token for token in tokens if Axes(token).resolve(ground.bindings))
    if first not in axes.tokens:
        return None
    before = axes.tokens[: axes.tokens.index(first)]
    return sum(len(Axes(token).resolve(ground.bindings)) for token in before)


def batchmean_denominator(ground: Ground, arrays: Mapping[str, Array]) -> dict[str, int]:
    """Return the inputs that have rows, and the axis of their rows."""
    found = {
        name: row_axis(ground.layout.inputs[name].axes, ground, array.shape)
        for name, array in arrays.items()
    }
    return {name: axis for name, axis in found.items() if axis is not None}


def broadcasts_over_rows(ground: Ground, arrays: Mapping[str, Array]) -> bool:
    """Return whether an input broadcasts over rows, so that these cannot be cut from it."""
    found = batchmean_denominator(ground, arrays)
    return any(ground.layout.inputs[name].axes.broadcasts and name not in found for name in arrays)


def take_rows(ground: Ground, ask: Ask, rows: Array) -> Ask:
    """Return the evaluation of some of the rows."""
    axes = batchmean_denominator(ground, ask.inputs)
    inputs = {
        name: np.take(array, rows, axes[name]) if name in axes else array
        for name, array in ask.inputs.items()
    }
    output = ask.grad_output
    if output is not None and output.ndim:
        output = np.take(output, rows, 0)
    return replace(ask, inputs=inputs, grad_output=output)
