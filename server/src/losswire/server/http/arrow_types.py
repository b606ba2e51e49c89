"""Arrow columns that would grow without bounds once they are arrays: refused before that.

In memory that a caller sends, a few bytes can stand for very many values: nulls take none, views
and dictionaries repeat what they refer to.
"""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import pyarrow as pa

from losswire.server.errors import InvalidEvaluationError
from losswire.server.pipeline.field_path import path
from losswire.wire import Violation

_BYTES_A_VALUE: Final = 32
"""Memory of one value of a row while it is converted: codes of 8 bytes, and what sorting takes."""
_WIDEST_BITS: Final = 64
"""Integers and booleans may become int64 or float64, whatever their own width is."""
_VIEW_BYTES: Final = 16


def check_column(array: Any, name: str) -> None:  # noqa: ANN401 (of pyarrow)
    """Raise InvalidEvaluationError for a column that stands for more than it holds."""
    wrong = next(_wrong(array.type, is_item=False), None)
    texts = array.dictionary if pa.types.is_dictionary(array.type) else array
    if wrong is None and pa.types.is_string_view(texts.type) and _repeats(texts):
        wrong = "its views repeat texts; write texts as utf8"
    if wrong is not None:
        raise InvalidEvaluationError([Violation(path("columns", name), wrong)])


def needed_bytes(batch: Any, names: set[str]) -> int:  # noqa: ANN401 (of pyarrow)
    """Return the memory that the columns of a record batch take once they are arrays, at most."""
    columns = [batch.column(each) for each in batch.schema.names if each in names]
    grown = sum(each.nbytes * _growth(each.type) for each in columns)
    return int(batch.num_rows * len(columns) * _BYTES_A_VALUE + grown)


def _wrong(kind: Any, *, is_item: bool) -> Iterator[str]:  # noqa: ANN401 (a type of pyarrow)
    types = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        yield from _wrong(kind.storage_type, is_item=is_item)
    elif types.is_dictionary(kind):
        if not (types.is_primitive(kind.value_type) or _is_text(kind.value_type)):
            yield f"its type is {kind}; write its values instead of a dictionary"
    elif types.is_list_view(kind) or types.is_large_list_view(kind):
        yield f"its type is {kind}; write it as a list"
    elif types.is_null(kind) and is_item:
        yield "its lists hold nulls only"
    elif _is_list(kind):
        yield from _wrong(kind.value_type, is_item=True)


def _is_text(kind: Any) -> bool:  # noqa: ANN401 (likewise)
    types = pa.types
    return any(
        each(kind) for each in (types.is_string, types.is_large_string, types.is_string_view)
    )


def _is_list(kind: Any) -> bool:  # noqa: ANN401 (likewise)
    types = pa.types
    return any(
        each(kind) for each in (types.is_list, types.is_large_list, types.is_fixed_size_list)
    )


def _growth(kind: Any) -> int:  # noqa: ANN401 (likewise)
    """Return how many times larger the numbers of a column may become."""
    while _is_list(kind):
        kind = kind.value_type
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind):
        return _WIDEST_BITS // int(kind.bit_width)
    return 1


def _repeats(array: Any) -> bool:  # noqa: ANN401 (of pyarrow)
    """Return whether views of texts have more bytes than there are, but for a few."""
    views = array.buffers()[1]
    if views is None:
        return False
    lengths = np.frombuffer(views, np.int32).reshape(-1, 4)[array.offset :, 0]
    total = int(lengths[: len(array)].astype(np.int64).sum())
    return total > _VIEW_BYTES * int(array.nbytes)
