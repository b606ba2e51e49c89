"""Values that are missing in the columns and tables of other libraries; NaN is a number.

numpy has nothing for them: pandas, Polars and pyarrow convert them to NaN. No library is imported
here: each is known by the name of its module.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np


def refuse_nulls(value: object) -> None:
    """Raise TypeError for a column or table in which a value is missing."""
    for each in type(value).__mro__:
        look = _LIBRARIES.get(each.__module__.partition(".")[0])
        if look is None:
            continue
        if look(value):
            raise TypeError(
                f"this {type(value).__name__} has nulls, which cannot be sent; fill them and give "
                "their rows a sample_weight of 0"
            )
        return


def _in_pandas(value: Any) -> bool:
    """Look at columns of pandas' own types; those of numpy's have no nulls."""
    if hasattr(value, "columns"):
        return any(_in_pandas(column) for _, column in value.items())
    own_type = not isinstance(getattr(value, "dtype", np.dtype(float)), np.dtype)
    return own_type and bool(value.isna().any())


def _in_polars(value: Any) -> bool:
    if hasattr(value, "iter_columns"):
        return any(map(_in_polars, value.iter_columns()))
    if value.null_count():
        return True
    return value.dtype.is_nested() and _in_polars(value.explode())


def _in_pyarrow(value: Any) -> bool:
    if hasattr(value, "columns"):
        return any(map(_in_pyarrow, value.columns))
    if getattr(value, "null_count", 0):
        return True
    inner = getattr(value, "storage", None)  # of an array of tensors
    return inner is not None and bool(inner.flatten().null_count)


_LIBRARIES: Final[Mapping[str, Callable[[Any], bool]]] = {
    "pandas": _in_pandas,
    "polars": _in_polars,
    "pyarrow": _in_pyarrow,
}
"""Finds nulls in the values of a library."""
