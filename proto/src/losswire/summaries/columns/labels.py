"""Columns of ids, slices and clusters, from arrays and lists."""

import datetime as dt
import re
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from losswire.summaries import Column

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
Labelled = tuple[Column, Mask | None]
"""A column, and which of its rows are null; None: none is."""

BOOLS: Final = ("false", "true")

_ZEROS: Final = re.compile(r"(?:\.0+|(\.\d*?[1-9])0+)(?![\d])")
"""The zeros at the end of the fraction of a second, and the point if there is nothing else."""

_EXACT: Final = 2.0**53
"""From here on neighbouring integers are one float."""


def column_of(value: Any, path: str) -> Labelled:
    """Return the column of an array or list of integers, bools, texts or dates.

    None, NaN and NaT are null. Floats are taken where each is an integer. `path` names the column
    in errors. Raises TypeError for values of other types, and ValueError for floats that are no
    integers, for integers that do not fit into int64, and for more than one axis.
    """
    categories = _categories_of(value)
    if categories is not None:
        return _from_categories(*categories, path)
    array = _as_flat_array(value, path)
    convert = _BY_KIND.get(array.dtype.kind)
    if convert is None:
        raise TypeError(f"{path}: {array.dtype} is not accepted; {ACCEPTED}")
    found = convert(array, path)
    _check_texts(found[0].labels or (), path)
    return found


def _check_texts(labels: Sequence[str], path: str) -> None:
    """Raise ValueError for a text that UTF-8 does not have, such as half of a surrogate pair."""
    try:
        "".join(labels).encode()
    except UnicodeEncodeError as error:
        wrong = error.object[error.start : error.end]
        raise ValueError(f"{path}: a text has {wrong!r}, which UTF-8 does not have") from None


ACCEPTED: Final = "ids, slices and clusters are integers, bools, texts or dates"


def _as_flat_array(value: Any, path: str) -> Array:
    if isinstance(value, (list, tuple)):
        plain = (each.item() if isinstance(each, np.generic) else each for each in value)
        array = np.fromiter(plain, object, len(value))
    else:
        array = np.asarray(value)
    if array.ndim != 1:
        raise ValueError(f"{path}: one value for each row was expected, not {array.ndim} axes")
    return array


def is_pandas(value: Any) -> bool:
    """Return whether a value is one of pandas."""
    return type(value).__module__.partition(".")[0] == "pandas"


def _categories_of(value: Any) -> tuple[Array, Sequence[Any]] | None:
    """Return the codes and categories of a pandas Categorical, alone or in a Series."""
    if not is_pandas(value):
        return None
    if type(value.dtype).__name__ != "CategoricalDtype":
        return None
    categorical = getattr(value, "cat", value)  # where a Series has them
    return np.asarray(categorical.codes), categorical.categories


def _from_categories(codes: Array, categories: Sequence[Any], path: str) -> Labelled:
    values, _ = column_of(np.asarray(categories), path)
    nulls = codes < 0
    return take(values, np.where(nulls, 0, codes)), nulls if nulls.any() else None


def take(values: Column, codes: Array) -> Column:
    """Return the column whose rows are these of the values."""
    if values.labels is None:
        # All rows are null where there are no values at all.
        known = values.codes if len(values.codes) else np.zeros(1, np.int64)
        return Column(known[codes], None)
    if not len(values.codes):
        return Column(np.zeros(len(codes), np.int64), ("",))
    return Column(values.codes[codes], values.labels)


def _from_integers(array: Array, path: str) -> Labelled:
    if array.dtype.kind == "u" and len(array) and int(array.max()) > np.iinfo(np.int64).max:
        raise ValueError(f"{path}: {int(array.max())} does not fit into int64; give it as text")
    return Column(array.astype(np.int64, copy=False)), None


def _from_bools(array: Array, _: str) -> Labelled:
    return Column(array.astype(np.int64), BOOLS), None


def _from_floats(array: Array, path: str) -> Labelled:
    nulls = np.isnan(array)
    whole = np.where(nulls, 0, array)
    wrong = (whole != np.rint(whole)) | (np.abs(whole) > _EXACT)
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(
            f"{path}: row {row} is {array[row]}, which is not an integer; "
            "cut floats into ranges first"
        )
    return Column(whole.astype(np.int64)), nulls if nulls.any() else None


def _from_dates(array: Array, path: str) -> Labelled:
    nulls = np.isnat(array)
    column, _ = _from_texts(np.datetime_as_string(array), path)
    return with_iso_times(column), nulls if nulls.any() else None


def _from_texts(array: Array, _: str) -> Labelled:
    return encode_texts(array.tolist()), None


def _from_bytes(array: Array, path: str) -> Labelled:
    try:
        return encode_texts([each.decode() for each in array.tolist()]), None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: bytes that are not UTF-8: {error}") from error


def encode_texts(texts: Sequence[str]) -> Column:
    """Return the column of some texts; labels are in the order in which they come first."""
    seen: dict[str, int] = {}
    codes = [seen.setdefault(text, len(seen)) for text in texts]
    return Column(np.array(codes, np.int64), list(seen))


def with_iso_times(column: Column) -> Column:
    """Return a column of dates and times with a `T` between them and no zeros at the end."""
    labels = [_ZEROS.sub(r"\1", label.replace(" ", "T", 1)) for label in column.labels or ()]
    return Column(column.codes, labels)


def _from_objects(array: Array, path: str) -> Labelled:
    values = array.tolist()
    nulls = np.fromiter(map(_is_null, values), bool, len(values))
    present = [value for value, null in zip(values, nulls, strict=True) if not null]
    kinds = {_kind_of(value) for value in present}
    if not kinds:
        return Column(np.zeros(len(values), np.int64)), nulls if len(values) else None
    if len(kinds) > 1 or None in kinds:
        names = ", ".join(sorted({type(value).__name__ for value in present}))
        raise TypeError(f"{path}: it holds values of {names}; {ACCEPTED}, all of one type")
    [kind] = kinds
    if kind is dt.date:
        column = with_iso_times(encode_texts([value.isoformat() for value in present]))
    elif kind is str:
        column = encode_texts(present)
    else:
        column, _ = column_of(_uniform(present, path), path)
    if not nulls.any():
        return column, None
    codes = np.zeros(len(values), np.int64)
    codes[~nulls] = column.codes
    return Column(codes, column.labels), nulls


def _uniform(values: list[Any], path: str) -> Array:
    array = np.array(values)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{path}: it holds an integer that does not fit into int64")
    return array


def _is_null(value: object) -> bool:
    # NaN and NaT are unlike themselves; the null of pandas' own types is neither true nor false.
    return value is None or type(value).__name__ in {"NAType", "NaTType"} or _is_nan(value)


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and value != value  # noqa: PLR0124 - only NaN is


_KINDS: Final[tuple[type, ...]] = (bool, int, float, str, dt.date)


def _kind_of(value: object) -> type | None:
    """Return which of the kinds a value is; a datetime is a date, and a bool no integer."""
    return next((kind for kind in _KINDS if isinstance(value, kind)), None)


_BY_KIND: Final[dict[str, Callable[[Array, str], Labelled]]] = {
    "b": _from_bools,
    "i": _from_integers,
    "u": _from_integers,
    "f": _from_floats,
    "U": _from_texts,
    "T": _from_texts,
    "S": _from_bytes,
    "M": _from_dates,
    "O": _from_objects,
}
