"""Promotion: which floating types may be mixed, and in which the loss is computed and returned.

The rules are torch's, whose functions differ in this; the records name the differences. Integers
that enter arithmetic are converted to the compute type.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from losswire.server.catalogue.layouts import FLOATS, Layout
from losswire.server.catalogue.record import LossRecord
from losswire.server.catalogue.value_rules import Array
from losswire.server.pipeline.field_path import path
from losswire.wire import Violation

_HALVES: Final = ("float16", "bfloat16")


def mixed_floats(
    record: LossRecord,
    layout: Layout,
    arrays: Mapping[str, Array],
    gradients_for: Sequence[str],
) -> Iterator[Violation]:
    """Yield a violation for each floating type that torch does not promote.

    Where torch promotes in the loss but not in its gradients, it is one with gradients only.
    """
    fixed: str | None = None
    for name, array in arrays.items():
        own = array.dtype.name
        if not layout.inputs[name].is_float or own not in FLOATS:
            continue
        described = record.inputs[name]
        needed = [each for each in described.fixed_for_gradients if each in gradients_for]
        if described.promotes_in(layout.name) and not needed:
            continue
        if fixed is None:
            fixed = name
        elif own != (wanted := arrays[fixed].dtype.name):
            when = f" for the gradient of {needed[0]}" if needed else ""
            text = f"is {own}; it must be {wanted}{when}, as {fixed} is"
            yield Violation(path("inputs", name) + ".data_type", text)


def input_dtype(layout: Layout, arrays: Mapping[str, Array]) -> str | None:
    """Return the floating type that holds all inputs; None: all of them are integers."""
    return _promoted([array for name, array in arrays.items() if layout.inputs[name].is_float])


def loss_dtype(
    record: LossRecord, layout: Layout, arrays: Mapping[str, Array], compute_dtype: str
) -> str:
    """Return the type of the loss unless the request names the compute type.

    It is torch's, except that a loss in half precision is returned in float32.
    """
    decisive = record.result_inputs or tuple(arrays)
    found = input_dtype(layout, {name: arrays[name] for name in decisive if name in arrays})
    return "float32" if compute_dtype == "float64" and found != "float64" else compute_dtype


def _promoted(arrays: Sequence[Array]) -> str | None:
    """Return the type to which torch promotes the floats among some arrays; None: none is one."""
    floats = [array for array in arrays if array.dtype.name in FLOATS]
    # A scalar takes the type of the arrays beside it.
    decisive = [array for array in floats if array.ndim] or floats
    distinct = sorted({array.dtype.name for array in decisive}, key=FLOATS.index)
    if not distinct:
        return None
    return "float32" if distinct == list(_HALVES) else distinct[-1]
