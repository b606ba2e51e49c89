"""A summary's data as multipart/form-data: a part for each column, all rows in one batch."""

from collections.abc import Collection, Mapping
from typing import Final

from losswire.server.catalogue.value_rules import Array
from losswire.server.errors import InvalidEvaluationError
from losswire.server.http.call import REQUEST
from losswire.server.http.columns import Columns, Part, Wanted, batch_of, column_error, refuse_null
from losswire.server.http.json_numbers import JsonText
from losswire.server.http.json_text import load, parsed_bytes, parser_bytes
from losswire.server.http.multipart import Part as FormPart
from losswire.server.http.npy import copied_bytes, read_array
from losswire.server.http.tensors import Reading, read_tensor
from losswire.server.pipeline.field_path import path
from losswire.summaries import Column
from losswire.summaries.columns.labels import column_of
from losswire.wire import MalformedTensorError, Violation, decode_tensor

_NPY: Final = b"\x93NUMPY"

_CODE_BYTES: Final = 8
"""Codes are converted to int64, whatever their type is."""


def form_batch(parts: Mapping[str, FormPart], columns: Columns) -> Part:
    """Return the batch of some parts; raises as `batch_of`, and for a part that nothing reads."""
    names = [name for name in parts if name != REQUEST]
    unused = [name for name in names if name not in columns.names]
    if unused:
        raise InvalidEvaluationError(
            [Violation(path("columns", name), "nothing reads it") for name in unused]
        )
    return batch_of(columns, _Parts({name: parts[name] for name in names}))


def needed_bytes(parts: Mapping[str, FormPart], columns: Columns) -> int:
    """Return the memory that the columns take beside their bytes once they are arrays, at most."""
    files = [each for each in parts.values() if bytes(each.data[:6]) == _NPY]
    texts = [each.data for each in parts.values() if bytes(each.data[:6]) != _NPY]
    codes = {*columns.slices, columns.clusters, columns.ids}
    small = sum(each.data.nbytes for name, each in parts.items() if name in codes)
    # One text is parsed at a time; what it becomes stays.
    parsed = sum(parsed_bytes(bytes(each)) for each in texts)
    parser = max((parser_bytes(each) for each in texts), default=0)
    return parsed + parser + small * _CODE_BYTES + sum(copied_bytes(each.data) for each in files)


class _Parts:
    """Columns in the .npy format, or as lists in JSON."""

    is_table = False

    def __init__(self, parts: Mapping[str, FormPart]) -> None:
        self._parts = parts

    @property
    def names(self) -> Collection[str]:
        """The names of the parts."""
        return self._parts

    def array(self, wanted: Wanted) -> Array:
        """Return an array as it is, or nested lists as one."""
        part, where = self._parts[wanted.column], path("columns", wanted.column)
        if bytes(part.data[:6]) == _NPY:
            return _array(part, where)
        reading = Reading(lambda _: None)
        content = JsonText(bytes(part.data), numbers=True).load()
        tensor = read_tensor(content, where, wanted.types, reading)
        if tensor is None or where not in reading.detached:
            text = Violation(where, "must be a list of numbers, or .npy")
            raise InvalidEvaluationError(reading.violations or [text])
        return decode_tensor(tensor, where, detached=reading.detached[where])

    def column(self, name: str) -> Column:
        """Return integers of an array, or a list of integers, bools or texts."""
        part, where = self._parts[name], path("columns", name)
        values = _array(part, where) if bytes(part.data[:6]) == _NPY else load(bytes(part.data))
        try:
            if not hasattr(values, "dtype") and not isinstance(values, list):
                raise TypeError("must be a list, or .npy")  # noqa: TRY301 (caught just below)
            column, nulls = column_of(values, where)
        except (TypeError, ValueError) as error:
            raise column_error(error, where) from None
        refuse_null(nulls, 0, name)
        return column


def _array(part: FormPart, where: str) -> Array:
    try:
        return read_array(part.data, where)
    except MalformedTensorError as error:
        raise InvalidEvaluationError(error.violations) from None
