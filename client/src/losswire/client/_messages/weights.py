"""Weights as callers write them: masks, integers and lists become floats that hold them exactly.

Servers take weights of floating types only. A mask of bools or integers has one meaning as a
weight, so nobody has to convert it; numbers that no floating type holds are refused.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from losswire.client._messages.arrays import ArrayInput, as_array, is_python_numbers
from losswire.client._messages.evaluation import Evaluation
from losswire.client._messages.placed_array import PlacedArray
from losswire.client._messages.resident import StoredTensor
from losswire.wire import exact_floats, wire_type_of

Array = npt.NDArray[Any]
DType = np.dtype[Any]

WEIGHTS: Final = frozenset({"weight", "pos_weight"})
"""The inputs that are weights, by the names of torch's parameters."""

_DECISIVE: Final = "input"
"""The input whose type its weights take."""

EQUAL_TYPES: Final = frozenset(
    {"cross_entropy", "linear_cross_entropy", "multi_margin_loss", "nll_loss"}
)
"""The losses that refuse a weight of another type than that of the input, in some layout."""

_DEFAULT: Final = np.dtype(np.float32)


def with_float_weights(evaluation: Evaluation, prefix: str = "") -> Evaluation:
    """Return an evaluation whose weights are floats: `sample_weight`, and the inputs WEIGHTS.

    Integers and bools take a floating type that holds them: that of `input` for an input,
    else float32, else float64. Python floats in an input take the type of `number_dtype`. Others
    stay as they are: an evaluation without such weights is returned itself. Arguments of wrong
    types, too: serialization refuses them.

    `prefix` is put before the names of arguments in errors. Raises ValueError for integers that
    float64 does not hold, and as `as_array` does.
    """
    if not isinstance(evaluation, Evaluation):
        return evaluation
    if not isinstance(evaluation.inputs, Mapping):
        return evaluation
    changes: dict[str, Any] = {}
    given = evaluation.sample_weight
    if given is not None and not _is_settled(given):
        path = f"{prefix}sample_weight"
        changes["sample_weight"] = exact_floats(as_array(given, path), path)
    names = [
        name
        for name, value in evaluation.inputs.items()
        if name in WEIGHTS and not _is_settled(value)
    ]
    if names:
        inputs = dict(evaluation.inputs)
        beside = _decisive_dtype(inputs, prefix)
        for name in names:
            path = f'{prefix}inputs["{name}"]'
            inputs[name] = float_weight(inputs[name], path, evaluation.loss, beside)
        changes["inputs"] = inputs
    return replace(evaluation, **changes) if changes else evaluation


def float_weight(value: ArrayInput, path: str, loss: str, beside: DType | None) -> Array:
    """Return an input that is a weight as floats; `beside` is the type of `input`, if it has one.

    `path` names the argument in errors. Raises as `with_float_weights` does.
    """
    array = as_array(value, path)
    if array.dtype.kind in "biu":
        return exact_floats(array, path, beside)
    if is_python_numbers(value):
        # From float64, so that numbers are rounded once.
        return _rounded(np.asarray(value, np.float64), number_dtype(loss, beside))
    return array


def number_dtype(loss: str, beside: DType | None) -> DType:
    """Return the type of Python floats in a weight; `beside` is the type of `input`.

    It is the type of `input`, but a half precision only where the loss refuses any other.
    """
    known = None if beside is None else wire_type_of(beside)
    if known is None or not known.is_float:
        return _DEFAULT
    if known.item_size < _DEFAULT.itemsize and loss not in EQUAL_TYPES:
        return _DEFAULT
    return known.numpy


def _rounded(numbers: Array, dtype: DType) -> Array:
    """Round to a type, or to float32 where a number would become infinite in a half precision."""
    with np.errstate(over="ignore"):
        found = numbers.astype(dtype)
        if dtype.itemsize < _DEFAULT.itemsize and (np.isfinite(numbers) > np.isfinite(found)).any():
            return numbers.astype(_DEFAULT)
    return found


def _is_settled(value: object) -> bool:
    """Return whether a weight is sent as it is: an array of floats, or one that a server has."""
    if isinstance(value, np.ndarray):
        return value.dtype.kind not in "biu"
    # The names of dtypes are the same in all libraries; torch's begin with "torch.".
    is_float = "float" in str(getattr(value, "dtype", ""))
    return is_float or isinstance(value, (StoredTensor, PlacedArray))


def _decisive_dtype(inputs: dict[str, Any], prefix: str) -> DType | None:
    """Return the type of `input`, which is converted to an array for that; None: there is none."""
    value = inputs.get(_DECISIVE)
    if value is None:
        return None
    if isinstance(value, (StoredTensor, PlacedArray)):
        return value.array.dtype
    array = inputs[_DECISIVE] = as_array(value, f'{prefix}inputs["{_DECISIVE}"]')
    return array.dtype
