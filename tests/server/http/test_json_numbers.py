"""Long arrays of numbers that are read by themselves are what orjson reads, errors included."""

import json
import math
from typing import Any

import hypothesis
import numpy as np
import orjson
import pytest
from hypothesis import strategies

from losswire.server.compute.native import binding
from losswire.server.errors import InvalidEvaluationError, LosswireServerError
from losswire.server.http import limits
from losswire.server.http.evaluation_json import read_evaluation
from losswire.server.http.json_numbers import JsonText, Numbers
from losswire.server.http.json_text import dump
from losswire.server.http.tensors import Reading, read_lists, to_lists
from losswire.server.losses import builtin_registry
from losswire.wire import json_values
from tests.support.json_bodies import Bodies
from tests.support.soak import tier

_RECORD = builtin_registry().find("mse_loss")
_LEAST = limits.JSON_NUMBERS_APART

native = pytest.mark.skipif(not binding.AVAILABLE, reason="compiled where there was no compiler")


def _load(text: bytes, *, numbers: bool) -> tuple[Any, object]:
    """Return the content of a text, or the kind and the text of the error."""
    try:
        return JsonText(bytearray(text), numbers=numbers).load(), None
    except LosswireServerError as error:
        return None, (type(error), str(error))


def _check_same(found: object, expected: object) -> int:
    """Check that arrays have the elements of the lists; returns how many arrays there are."""
    if isinstance(found, Numbers):
        reading = Reading(lambda _: None)
        array = read_lists(expected, "x", reading)
        assert not reading.violations
        assert array is not None
        assert array.size >= _LEAST
        assert (array.dtype, array.shape) == (found.array.dtype, found.array.shape)
        assert array.tobytes() == found.array.tobytes()
        return 1
    if isinstance(found, dict):
        assert isinstance(expected, dict)
        assert list(found) == list(expected)
        return sum(_check_same(each, expected[name]) for name, each in found.items())
    assert repr(found) == repr(expected)
    return 0


def _check_text(text: bytes) -> int:
    """Check that a text is read alike in both ways; returns how many arrays were read apart."""
    found, error = _load(text, numbers=True)
    expected, expected_error = _load(text, numbers=False)
    assert error == expected_error
    return _check_same(found, expected)


def test_bodies_are_read_as_by_orjson() -> None:
    """Of all forms: blanks, exponents, many digits, subnormals, words, ragged, deep and wrong."""
    bodies = Bodies(20261130)
    found = sum(_check_text(bodies.body()) for _ in range(tier(short=300, soak=10_000)))
    assert found > 50 or not binding.AVAILABLE


def test_spoilt_bodies_are_refused_as_by_orjson() -> None:
    """With the same text, which names the same place."""
    bodies = Bodies(20261201)
    for _ in range(tier(short=300, soak=10_000)):
        body = bodies.body()
        for _ in range(5):
            _check_text(bodies.spoilt(body))


@hypothesis.given(
    strategies.lists(
        strategies.floats(allow_nan=False, allow_infinity=False, max_value=1e307, min_value=-1e307),
        min_size=1,
    ),
    strategies.sampled_from(["r", ".1e", ".15g", ".17e", ".30f", ".330f"]),
)
def test_floats_have_the_bits_that_python_reads(numbers: list[float], form: str) -> None:
    """However many digits they are written with."""
    texts = [repr(each) if form == "r" else format(each, form) for each in numbers]
    expected = np.array([float(each) for each in texts])
    texts += ["0.5"] * _LEAST
    found, _ = _load(f"[{','.join(texts)}]".encode(), numbers=True)
    if isinstance(found, Numbers):
        reals = found.array[: len(numbers)]
        # "-0" is an integer, which has no negative zero.
        assert (reals == expected).all()
        assert (np.signbit(reals) == np.signbit(expected))[expected != 0].all()
    _check_text(f"[{','.join(texts)}]".encode())


@hypothesis.given(strategies.integers(1 - 10**19, 10**19 - 1), strategies.integers(-60, 60))
def test_nineteen_digits_are_rounded_correctly(digits: int, exponent: int) -> None:
    """At every exponent, also where two doubles are equally near."""
    _check_text(f"[{','.join([f'{digits}e{exponent}'] * _LEAST)}]".encode())


def _array(item: str, count: int = _LEAST) -> str:
    return f"[{','.join([item] * count)}]"


APART: dict[str, str] = {
    "integers": _array("12"),
    "numbers": _array("1.5"),
    "words among numbers": _array('"NaN",1,"-Infinity","Infinity"'),
    "bools": _array("true,false"),
    "rows": _array("[1.5, 2]"),
    "eight axes": _array("[[[[[[[1]]]]]]]"),
    "in an object": f'{{"a": {_array("1")}}}',
    "in objects": f'{{"a": {{"b": 1, "c": {_array("1")}}}}}',
    "behind a list": f'{{"a": [1, "]", [2]], "c": {_array("1")}}}',
    "the smallest integer": _array("-9223372036854775808"),
}


@native
@pytest.mark.parametrize("text", APART.values(), ids=APART)
def test_usual_arrays_are_read_apart(text: str) -> None:
    """And are what they are as lists."""
    assert _check_text(text.encode()) == 1


KEPT: dict[str, str] = {
    "a short array": _array("1", _LEAST - 1),
    "words alone, which may be texts": _array('"NaN"'),
    "a bool among numbers": _array("1,true"),
    "null": _array("1,null"),
    "another text": _array('1,"x"'),
    "an escaped word": _array('1,"N\\u0061N"'),
    "rows of two lengths": _array("[1],[1,2]"),
    "a number beside a row": _array("[1],2"),
    "empty rows": _array("[]"),
    "nine axes": _array("[[[[[[[[1]]]]]]]]"),
    "an integer beyond 64 bits": _array("1,9223372036854775808"),
    "an integer beyond all": _array("1,123456789012345678901234567890"),
    "beyond the largest double": _array("1e309"),
    "a leading zero": _array("01"),
    "a point without digits": _array("1."),
    "hexadecimal": _array("0x10"),
    "a name that JSON lacks": _array("NaN"),
    "no comma": _array("1 1"),
    "a comma too many": _array("1,"),
    "no end": _array("1")[:-1],
    "in a list": f"[{_array('1')},2]",
    "in place of a name": f"{{{_array('1')}:1}}",
    "without a colon": f'{{"a"{_array("1")}}}',
    "too deep": '{"a":' * 30 + _array("[[1]]") + "}" * 30,
    "behind an end too many": f'}}{{"a":{_array("1")}}}',
}


@pytest.mark.parametrize("text", KEPT.values(), ids=KEPT)
def test_what_is_unusual_is_left_to_orjson(text: str) -> None:
    """Which reads it, or says what is wrong."""
    assert _check_text(text.encode()) == 0


WRONG: dict[str, str] = {
    "behind": f'{{"a":{_array("1")}x}}',
    "in the second line": f'{{"a":\n{_array("1")},\n"b" 1}}',
    "behind a line that ends in an array": f'{{"a":{_array(chr(10) + "1")},"b" 1}}',
    "behind other characters": f'{{"\u00e9\U0001f600":{_array("1")},"\u00e9" 1}}',
    "between two": f'{{"a":{_array("1")},"b":tru,"c":{_array("1")}}}',
    "without an end": f'{{"a":{_array("1")}',
    "too large a number": f'{{"a":{_array("1")},"b":{_array("1e999")}}}',
    "one that is nested too deeply": f'{{"a":{_array("1")},"b":{"[" * 33}{"]" * 33}}}',
}


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG)
def test_mistakes_beside_arrays_are_found_where_they_are(text: str) -> None:
    """Line, column and character are those of the whole text."""
    _, error = _load(text.encode(), numbers=True)
    assert error
    _check_text(text.encode())


def test_without_the_library_orjson_reads_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists are lists then."""
    monkeypatch.setattr(binding, "AVAILABLE", False)
    assert JsonText(b'{"a":%b}' % _array("1").encode(), numbers=True).load() == {"a": [1] * _LEAST}


def test_other_texts_are_left_alone() -> None:
    """Where arrays are not asked for, there are lists only."""
    assert JsonText(_array("1.5").encode(), numbers=False).load() == [1.5] * _LEAST


def _evaluation(text: bytes, *, numbers: bool) -> object:
    content = JsonText(text, numbers=numbers).load()
    try:
        read = read_evaluation(content, _RECORD, lambda _: None)
    except InvalidEvaluationError as error:
        return error.violations
    elements = {name: bytes(each) for name, each in read.detached.items()}
    return read.evaluation, elements, read.encoding


_ONES, _HALVES = [1] * _LEAST, [0.5] * _LEAST
FIELDS: dict[str, dict[str, Any]] = {
    "integers": {"inputs": {"input": _ONES}},
    "numbers": {"inputs": {"input": _HALVES, "target": [_ONES, _HALVES]}, "sample_weight": _ONES},
    "wide": {"compute_data_type": "float64", "inputs": {"input": _HALVES}, "grad_output": _ONES},
    "bools": {"inputs": {"input": [True] * _LEAST}},
    "values": {"inputs": {"input": {"data_type": "int8", "values": _ONES}}},
    "values that do not fit": {
        "inputs": {
            "input": {"data_type": "int8", "values": [_ONES, [*_ONES[1:], 300]]},
            "target": {"data_type": "int64", "values": [0.5, *_ONES]},
        }
    },
    "as a data type": {"inputs": {"input": {"data_type": _ONES, "values": _ONES}}},
    "as base64": {"inputs": {"input": {"data_type": "int8", "shape": [1], "data": _ONES}}},
    "as an id": {"inputs": {"input": {"resident": _ONES}}},
    "as a shape": {"inputs": {"input": {"data_type": "int8", "shape": _ONES, "data": "AA=="}}},
    "as no shape": {
        "inputs": {
            name: {"data_type": "int8", "shape": each, "data": "AA=="}
            for name, each in {"a": _HALVES, "b": [_ONES], "c": [True] * _LEAST}.items()
        }
    },
}
for _name in ("loss", "inputs", "options", "reduction", "gradients_for", "normalizer", "engine"):
    for _kind, _list in {"integers": _ONES, "numbers": _HALVES, "words": ["NaN"] * _LEAST}.items():
        FIELDS[f"{_kind} as {_name}"] = {_name: _list}
FIELDS["as an option"] = {"options": {"a": _ONES}}
FIELDS["as an encoding"] = {"encoding": _ONES, "compute_data_type": _ONES, "gradient_form": _ONES}
FIELDS["as another field"] = {"los": _ONES}


@pytest.mark.parametrize("content", FIELDS.values(), ids=FIELDS)
def test_evaluations_are_the_same_with_arrays_and_with_lists(content: dict[str, Any]) -> None:
    """In each field, also where no tensor belongs: messages, elements and violations."""
    text = json.dumps(content).encode()
    assert _evaluation(text, numbers=True) == _evaluation(text, numbers=False)


def _values(array: np.ndarray) -> Any:  # noqa: ANN401 (a number, or nested lists)
    """Return an array as nested lists, all at once."""
    if array.dtype.kind != "f":
        return array.tolist()
    return json_values(array.astype(np.float64).tolist())


_MANY = 3 * limits.HTTP_NUMBERS_WRITTEN + 7


@pytest.mark.parametrize(
    "shape", [(), (0,), (3, 0, 2), (5,), (_MANY,), (2, _MANY), (300, 50), (1, 1, _MANY), (_MANY, 1)]
)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int64", "bool"])
def test_answers_written_in_parts_are_those_written_whole(
    shape: tuple[int, ...], dtype: str
) -> None:
    """Byte for byte, whatever their shape is; NaN and infinities are texts in any part."""
    array = (np.random.default_rng(7).standard_normal(shape) * 100).astype(dtype)
    assert dump({"x": to_lists(array)}) == orjson.dumps({"x": _values(array)})
    if array.dtype.kind == "f" and array.size:
        array.flat[0], array.flat[array.size // 2], array.flat[-1] = math.nan, -math.inf, math.inf
        assert dump({"x": to_lists(array)}) == orjson.dumps({"x": _values(array)})
