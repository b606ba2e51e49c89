"""Arrow arrays as numpy arrays and columns, without a copy where memory allows it."""

import importlib
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from losswire.summaries import Column
from losswire.summaries.columns.labels import (
    Labelled,
    Mask,
    column_of,
    encode_texts,
    take,
    with_iso_times,
)
from losswire.summaries.columns.place import Place

Array = npt.NDArray[Any]
Dense = tuple[Array, Mask | None]
"""An array of shape (N, ...), and which of its rows are null or hold one; None: none does."""


def pyarrow(module: str = "") -> Any:
    """Import pyarrow, or one of its modules; raises ImportError that says how to install it."""
    try:
        package = importlib.import_module("pyarrow")
        return importlib.import_module(f"pyarrow.{module}") if module else package
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "pyarrow reads data frames and files: pip install 'losswire[arrow]'"
        ) from error


def exports_arrow(value: object) -> bool:
    """Return whether an object hands out Arrow arrays or streams of them."""
    return hasattr(value, "__arrow_c_stream__") or hasattr(value, "__arrow_c_array__")


def as_arrow_array(value: Any) -> Any:
    """Return one Arrow array of a Series or an array of any library."""
    arrow = pyarrow()
    if hasattr(value, "__arrow_c_stream__"):
        joined = arrow.chunked_array(value).combine_chunks()
        # Older versions keep what has one chunk, or none, as it is.
        return joined if isinstance(joined, arrow.Array) else arrow.concat_arrays(joined.chunks)
    return arrow.array(value)


def tensor_of(array: Any, place: Place, column: str) -> Dense:
    """Return an Arrow array of numbers, or of lists of them, as a numpy array.

    Lists of fixed size and tensors of fixed shape become further axes without a copy, lists of
    variable size after a check that all are as long as the first. What is at the place of a null
    is not defined. Raises TypeError for other types and ValueError for lists of uneven length.
    """
    return _Tensors(place, column).dense(array, 1)


class _Tensors:
    """One conversion; the place and the column are for errors."""

    def __init__(self, place: Place, column: str) -> None:
        self._types = pyarrow().types
        self._place = place
        self._column = column

    def dense(self, array: Any, per_row: int) -> Dense:
        """Return an array with all axes; `per_row` of its items belong to one row of the data."""
        if isinstance(array.type, pyarrow().FixedShapeTensorType):
            return self._fixed_shape(array, per_row)
        array = _plain(array)
        types, kind = self._types, array.type
        if types.is_fixed_size_list(kind):
            width = kind.list_size
            items = array.values.slice(array.offset * width, len(array) * width)
            return self._with_axis(array, items, width, per_row)
        if any(is_list(kind) for is_list in _list_types(types)):
            return self._variable(array, per_row)
        if types.is_null(kind):
            return np.zeros(len(array), np.float32), np.ones(len(array), np.bool_)
        if types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind):
            return _flat(array), nulls_of(array)
        raise TypeError(
            f"{self._place.column(self._column)}: its type is {kind}, and a loss takes integers, "
            "floats, bools and lists of these; cast it to one of them, such as float64"
        )

    def _fixed_shape(self, array: Any, per_row: int) -> Dense:
        values, nulls = self.dense(array.storage, per_row)
        values = values.reshape(len(array), *array.type.shape)
        order = array.type.permutation
        if order is None:
            return values, nulls
        # The logical axis i is the physical axis order[i].
        return values.transpose(0, *(axis + 1 for axis in order)), nulls

    def _with_axis(self, array: Any, items: Any, width: int, per_row: int) -> Dense:
        """Return the items of lists of one length, with an axis for them."""
        values, inner = self.dense(items, per_row * width)
        nulls = nulls_of(array)
        if inner is not None:
            rows: Mask = np.logical_or.reduce(inner.reshape(len(array), width), axis=1)
            nulls = rows if nulls is None else nulls | rows
        return values.reshape(len(array), width, *values.shape[1:]), nulls

    def _variable(self, array: Any, per_row: int) -> Dense:
        nulls = nulls_of(array)
        if nulls is not None:
            if nulls.all():
                return np.zeros(len(array), np.float32), nulls
            # A null has no length: a neighbour's items take its place.
            array = array.take(pyarrow().array(_nearest_valid(nulls)))
        lengths = pyarrow("compute").list_value_length(array).to_numpy(zero_copy_only=False)
        width = int(lengths[0]) if len(lengths) else 0
        if (lengths != width).any():
            index = int((lengths != width).argmax())
            row = self._place.row(index // per_row)
            raise ValueError(
                f"{self._place.column(self._column)}: {row} has a list of {lengths[index]} values, "
                f"and {self._place.row(0)} one of {width}; all must be equally long"
            )
        values, inner = self._with_axis(array, array.flatten(), width, per_row)
        if nulls is None or inner is None:
            return values, inner if nulls is None else nulls
        return values, nulls | inner


def _plain(array: Any) -> Any:
    """Return an array of what an extension type or a dictionary stands for."""
    arrow = pyarrow()
    while True:
        if isinstance(array.type, arrow.BaseExtensionType):
            array = array.storage
        elif arrow.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        else:
            return array


def _list_types(types: Any) -> tuple[Any, ...]:
    return types.is_list, types.is_large_list, types.is_list_view, types.is_large_list_view


def _flat(array: Any) -> Array:
    """Return an array of numbers or bools, with 0 at the places of nulls."""
    arrow = pyarrow()
    if array.null_count:
        array = array.fill_null(arrow.scalar(0).cast(array.type))
    if arrow.types.is_boolean(array.type):  # Arrow has 8 of them in a byte
        return np.asarray(array.cast(arrow.uint8()).to_numpy()).view(np.bool_)
    return np.asarray(array.to_numpy(zero_copy_only=True))


def nulls_of(array: Any) -> Mask | None:
    """Return which items of an Arrow array are null; None: none is."""
    if not array.null_count:
        return None
    return np.asarray(array.is_null().to_numpy(zero_copy_only=False), np.bool_)


def _nearest_valid(nulls: Mask) -> npt.NDArray[np.int64]:
    """Return for each row the last one before it that is not null, or the first of all."""
    places = np.where(nulls, int((~nulls).argmax()), np.arange(len(nulls)))
    return np.maximum.accumulate(places)


def column_of_arrow(array: Any, path: str) -> Labelled:
    """Return the column of an Arrow array of integers, bools, texts or dates.

    Dictionaries keep their codes. Raises as `labels.column_of` does.
    """
    if isinstance(array.type, pyarrow().BaseExtensionType):
        return column_of_arrow(array.storage, path)
    types, kind = pyarrow().types, array.type
    if types.is_dictionary(kind):
        return _from_dictionary(array, path)
    if types.is_null(kind):
        return Column(np.zeros(len(array), np.int64)), np.ones(len(array), np.bool_)
    if types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind):
        column, nan = column_of(_flat(array), path)
        nulls = nulls_of(array)
        return column, nan if nulls is None else nulls if nan is None else nulls | nan
    return _from_castable(array, path)


def _from_castable(array: Any, path: str) -> Labelled:
    """Return the column of texts, and of types that are read as texts or integers."""
    arrow, types, kind = pyarrow(), pyarrow().types, array.type
    if types.is_decimal(kind) and kind.scale == 0:
        try:
            return column_of_arrow(array.cast(arrow.int64()), path)
        except arrow.ArrowInvalid as error:
            raise ValueError(f"{path}: {error}") from error
    if types.is_temporal(kind) and not types.is_duration(kind) and not types.is_interval(kind):
        column, nulls = _from_dictionary(array.dictionary_encode(), path)
        return with_iso_times(column), nulls
    if any(is_text(kind) for is_text in (types.is_string, types.is_large_string)):
        return _from_dictionary(array.dictionary_encode(), path)
    if types.is_string_view(kind):
        return _from_dictionary(array.cast(arrow.large_string()).dictionary_encode(), path)
    raise TypeError(
        f"{path}: its type is {kind}; ids, slices and clusters are integers, bools, texts or dates"
    )


_FEW: Final = 4
"""A dictionary may have this many times as many values as there are rows; larger ones are cut to
those that the rows have before they become Python texts."""


def _from_dictionary(array: Any, path: str) -> Labelled:
    nulls = nulls_of(array)
    codes = array.indices.fill_null(0) if nulls is not None else array.indices
    codes = codes.to_numpy(zero_copy_only=False).astype(np.int64, copy=False)
    dictionary = array.dictionary
    if len(dictionary) > _FEW * max(len(array), 1):
        # Not decoded: a long text may be that of many rows.
        used, codes = np.unique(codes, return_inverse=True)
        if pyarrow().types.is_string_view(dictionary.type):  # of which nothing can be taken
            dictionary = dictionary.cast(pyarrow().large_string())
        dictionary = dictionary.take(pyarrow().array(used))
    values, null_values = _dictionary_values(dictionary, path)
    if null_values is not None:
        own = null_values[codes] if len(null_values) else np.zeros(len(codes), np.bool_)
        nulls = own if nulls is None else nulls | own
    return take(values, codes), nulls


def _dictionary_values(values: Any, path: str) -> Labelled:
    """Return the values of a dictionary as a column, with null texts as empty ones."""
    types, kind = pyarrow().types, values.type
    texts = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    temporal = types.is_temporal(kind)
    if texts or temporal:
        listed = (values if texts else values.cast(pyarrow().string())).to_pylist()
        return encode_texts([text or "" for text in listed]), nulls_of(values)
    return column_of_arrow(values, path)
