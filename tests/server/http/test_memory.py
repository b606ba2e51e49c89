"""What is reserved for JSON is what it takes."""

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest

from losswire.server.http import limits
from losswire.server.http.json_numbers import JsonText
from losswire.server.http.json_text import dump
from losswire.server.http.npy import copied_bytes, read_npy
from losswire.server.http.tensors import Reading, read_tensor, to_lists
from tests.support.http_door import npy

_COUNT = 50_000


def _list(item: Callable[[int], str]) -> bytes:
    return f"[{','.join(item(each) for each in range(_COUNT))}]".encode()


TEXTS = {
    "short numbers": _list(lambda _: "1.5"),
    "long numbers": _list(lambda _: "1.23456789012345"),
    "integers": _list(str),
    "numbers far from 1": _list(lambda each: f"1.5e-{each % 300}"),
    "bools as float64": b'{"data_type":"float64","values":%b}' % _list(lambda _: "true"),
    "integers as uint64": b'{"data_type":"uint64","values":%b}' % _list(str),
    "numbers as uint8": b'{"data_type":"uint8","values":%b}' % _list(lambda _: "1.0"),
    "rows of two": _list(lambda _: "[1.5,2.5]"),
    "empty lists": _list(lambda _: "[]"),
    "empty objects": _list(lambda _: "{}"),
    "objects": _list(lambda _: '{"a":1}'),
    "texts for numbers": _list(lambda _: '"NaN"'),
    "texts": _list(lambda each: f'"text{each}"'),
    "names": ("{" + ",".join(f'"{each}":1' for each in range(_COUNT)) + "}").encode(),
    "eight axes": _list(lambda _: "[[[[[[1.5]]]]]]"),
    "one long text": f'["{"x" * _COUNT * 9}"]'.encode(),
}


@pytest.mark.parametrize("numbers", [True, False], ids=["arrays", "lists"])
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_reading_json_stays_within_what_was_reserved(text: bytes, *, numbers: bool) -> None:
    """The peak while a text is parsed and becomes a tensor is below the reservation."""
    tracemalloc.start()
    try:
        read = [JsonText(text, numbers=numbers)]
        reserved = read[0].values_bytes + read[0].parser_bytes
        content = read.pop().load()
        read_tensor(content, "x", ("float32", "float32"), Reading(lambda _: None))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= reserved
    assert reserved <= 5 * peak


@pytest.mark.parametrize("shape", [(_COUNT,), (_COUNT // 100, 100), (1, _COUNT), (_COUNT, 1)])
@pytest.mark.parametrize(
    "number",
    [np.float16(-0.00012207), np.float32(-1.1754943508222875e-38), -2.2250738585072014e-308, -1],
)
def test_writing_lists_stays_within_what_was_reserved(
    shape: tuple[int, ...], number: np.generic
) -> None:
    """The peak while an answer is written, of whatever data type."""
    array = np.full(shape, number)
    tracemalloc.start()
    try:
        dump({"x": to_lists(array)})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    set_aside = limits.HTTP_NUMBERS_WRITTEN * 300
    assert peak <= array.size * limits.HTTP_LIST_NUMBER_BYTES + set_aside


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("code", ["<f4", ">f4"])
def test_reading_npy_stays_within_what_was_reserved(code: str, order: str) -> None:
    """Elements in another order are copied, and so often as was said."""
    array = np.ones((1000, 500), code)
    data = memoryview(npy(np.asarray(array, order="F" if order == "F" else "C")))
    reserved = copied_bytes(data)
    tracemalloc.start()
    try:
        read_npy(data, "x")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= reserved + 100_000
    assert (reserved > 0) == (code == ">f4" or order == "F")
