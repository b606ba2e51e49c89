"""The modules of the console: tensors as numpy has them, and numbers as people write them."""

from base64 import b64decode, b64encode
from io import BytesIO
from typing import Any, Final

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

from tests.support.browser import Tab, needs_browser

pytestmark = needs_browser()

DTYPES: Final = (
    *("bool", "uint8", "int8", "int16", "int32", "int64"),
    *("float16", "bfloat16", "float32", "float64"),
)

_CALL: Final = """
async ([module, name, values]) => {
  const found = (await import(`/console/lib/${module}.js`))[name];
  return found(...values);
}
"""

_NPY: Final = """
async (text) => {
  const { readNpy, writeNpy, toNested } = await import("/console/lib/tensors.js");
  const read = readNpy(Uint8Array.from(atob(text), (each) => each.charCodeAt(0)).buffer);
  const written = writeNpy(read);
  return [read.dtype, read.shape, toNested(read), btoa(String.fromCharCode(...written))];
}
"""


def call(tab: Tab, module: str, name: str, *values: object) -> Any:  # noqa: ANN401 (any function's)
    """Call a function of a module in the page."""
    return tab.open("api").evaluate(_CALL, [module, name, list(values)])


def npy(array: npt.NDArray[Any]) -> bytes:
    """Return an array as a file."""
    file = BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize("dtype", DTYPES)
def test_files_of_numpy_are_read_and_written(tab: Tab, dtype: str) -> None:
    """Type, shape, values and bytes, in rows and in columns."""
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
    array = np.arange(6).reshape(2, 3).astype(kind)
    page = tab.open("api")
    for order in ("C", "F"):
        text = b64encode(npy(np.asarray(array, order=order))).decode()
        found, shape, nested, written = page.evaluate(_NPY, text)
        assert (found, shape) == (dtype, [2, 3])
        assert nested == array.astype("bool" if dtype == "bool" else "float64").tolist()
        assert np.load(BytesIO(b64decode(written))).tobytes() == array.tobytes()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_rounded_as_numpy_rounds(tab: Tab, dtype: str) -> None:
    """To nearest, ties to even; subnormal numbers, overflow and infinity too."""
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.float16
    numbers = [1.1, -2.5, 65504.0, 65519.0, 65520.0, 1e-8, 6e-8, 3e-5, 1 / 3, 2049.0, 2051.0, -3e38]
    with np.errstate(over="ignore"):
        expected = np.array(numbers).astype(kind).view(np.uint16).tolist()
    page = tab.open("api")
    found = [page.evaluate(_CALL, ["tensors", "halfBits", [each, dtype]]) for each in numbers]
    assert found == expected


PARSED: Final = {
    "3": ([3], []),
    "1 2 3": ([1, 2, 3], [3]),
    "1,2;3,4": ([1, 2, 3, 4], [2, 2]),
    "1\t2\n3\t4\n": ([1, 2, 3, 4], [2, 2]),
    "1\n2\n3": ([1, 2, 3], [3]),
    "a,b\n1,2\n3,4": ([1, 2, 3, 4], [2, 2]),
    "[[1, 2]]": ([1, 2], [1, 2]),
    "[[[1], [2]]]": ([1, 2], [1, 2, 1]),
    "inf -inf": ([float("inf"), float("-inf")], [2]),
}


@pytest.mark.parametrize("text", PARSED)
def test_typed_numbers_have_a_shape(tab: Tab, text: str) -> None:
    """Rows by lines or semicolons, values by spaces, commas or tabs; or JSON."""
    found = call(tab, "tensors", "parse", text)
    assert (found["numbers"], found["shape"]) == PARSED[text]


WRITTEN: Final = [
    ("withInterval", (0.31271, 0.30893, 0.31648), "0.3127 [0.3089, 0.3165]"),
    ("withInterval", (12345.6, 12300.0, 12391.2), "12,346 [12,300, 12,391]"),
    ("count", (12004,), "12,004"),
    ("compact", (1_234_567,), "1.23 M"),
    ("percent", (0.4137,), "41\u00a0%"),
    ("percent", (6e-7,), "< 0.01\u00a0%"),
    ("short", (-0.00001234,), "\u22121.23e-5"),
    ("short", (float("inf"),), "\u221e"),
    ("duration", (0.00034,), "340 \u00b5s"),
    ("duration", (125,), "2 min 5 s"),
    ("bytes", (1_572_864,), "1.5 MiB"),
    ("pValue", (0.0004,), "p < 0.001"),
    ("pValue", (0.031,), "p = 0.03"),
]


@pytest.mark.parametrize(("name", "values", "text"), WRITTEN)
def test_numbers_are_written_for_people(
    tab: Tab, name: str, values: tuple[float, ...], text: str
) -> None:
    """With as many digits as an interval justifies."""
    assert call(tab, "numbers", name, *values) == text


def test_units_in_the_last_place_are_counted(tab: Tab) -> None:
    """Of the result's type, at the size of the reference."""
    step = float(np.spacing(np.float32(1.5)))
    assert call(tab, "tensors", "ulps", 1.5 + 2 * step, 1.5, "float32") == 2
