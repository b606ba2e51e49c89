"""C++ and Python agree: structures, numbers, the layout of results, and the rules of values."""

import ctypes
import struct
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Final

import ml_dtypes
import numpy as np
import pytest

from losswire.server.catalogue.record import LossRecord
from losswire.server.catalogue.shapes import Bindings
from losswire.server.catalogue.value_rules import Context
from losswire.server.compute.native import binding
from losswire.server.compute.native.elementwise import ElementLoss, LossNumber
from losswire.server.compute.tensors import number_of
from losswire.server.http.json_numbers import ElementKind
from losswire.server.losses import builtin_registry
from losswire.server.prepared.zero_copy import numbers
from losswire.v1 import evaluation_pb2
from losswire.wire import DATA_TYPES
from tests.support.caller import Array

pytestmark = pytest.mark.skipif(
    not binding.AVAILABLE, reason="compiled where there was no compiler"
)

_REGISTRY = builtin_registry()
_STRUCTURES: Final[tuple[type[ctypes.Structure], ...]] = (
    binding.SoftmaxRows,
    binding.Elements,
    binding.SummaryRows,
    binding.JsonArray,
    binding.Answer,
    binding.SoftmaxMessage,
    binding.ElementsMessage,
)
_FLOATS: Final = ("float16", "bfloat16", "float32", "float64")
_NUMBERS: Final = evaluation_pb2.EvaluationResult(
    sum=1.5,
    mean_numerator=-2.5,
    mean_denominator=3.25,
    count=123_456_789,
    queue_nanoseconds=1 << 40,
    compute_nanoseconds=7,
)


class _Fact(ctypes.Structure):
    """An entry of the layout that the library exports; `layout.cc` has the same structure."""

    _fields_ = (("name", ctypes.c_char_p), ("number", ctypes.c_int64))


@cache
def _exported() -> Mapping[str, int]:
    """Read the layout that the library exports."""
    layout = ctypes.CDLL(str(binding.PATH)).losswire_layout
    layout.restype = ctypes.POINTER(_Fact)
    found: dict[str, int] = {}
    for fact in layout():
        if fact.name is None:
            break
        found[fact.name.decode()] = fact.number
    return found


def _declared() -> Iterator[tuple[str, int]]:
    """List the layout as Python declares it."""
    for each in _STRUCTURES:
        yield each.__name__, ctypes.sizeof(each)
        for name, *_ in each._fields_:
            yield f"{each.__name__}.{name}", getattr(each, name).offset
    for group in (binding.Result, ElementKind, LossNumber):
        for member in group:
            yield f"{group.__name__}.{member.name}", member.value
    yield "LossNumber.count", len(LossNumber)
    for known in DATA_TYPES.values():
        if known.name in _FLOATS:
            yield f"DataType.{known.name}", known.data_type


def test_structures_and_numbers_are_the_same() -> None:
    """Sizes and offsets of every structure, results, losses and dtypes; nothing is left out."""
    exported = {name: at for name, at in _exported().items() if not name.startswith("Numbers.")}
    assert exported == dict(_declared())


def test_the_numbers_of_a_result_have_one_layout() -> None:
    """Python packs the numbers at the offsets and in the widths that C++ writes."""
    result, layout = _NUMBERS, _exported()
    packed = numbers(
        result.sum,
        result.mean_numerator,
        result.mean_denominator,
        result.count,
        result.queue_nanoseconds,
        result.compute_nanoseconds,
    )
    for name, expected in (
        ("sum", result.sum),
        ("numerator", result.mean_numerator),
        ("denominator", result.mean_denominator),
    ):
        assert struct.unpack_from("<d", packed, layout[f"Numbers.{name}"]) == (expected,)
    count_width, time_width = layout["Numbers.count_width"], layout["Numbers.nanoseconds_width"]
    for name, width, expected in (
        ("count", count_width, result.count),
        ("queue", time_width, result.queue_nanoseconds),
        ("compute", time_width, result.compute_nanoseconds),
    ):
        start = layout[f"Numbers.{name}"]
        digits = packed[start : start + width]
        assert [digit >> 7 for digit in digits] == [1] * (width - 1) + [0]
        assert sum((digit & 0x7F) << 7 * at for at, digit in enumerate(digits)) == expected
    assert len(packed) == layout["Numbers.compute"] + time_width
    assert evaluation_pb2.EvaluationResult.FromString(packed) == result


def _call(call: binding.Message, message: bytes) -> tuple[int, bytes]:
    """Compute a message; returns the result and the answer, whose numbers come first."""
    call.answer.numbers_at, call.answer.loss_at = 0, len(numbers())
    answer = ctypes.create_string_buffer(numbers(), len(numbers()) + 8)
    compute = binding.message_function(type(call), small=True)
    result = compute(ctypes.addressof(call), message, 0, ctypes.addressof(answer))
    return result, answer.raw[: len(numbers())]


def _by_classes(target: Array, classes: int, ignore_index: int, *, likelihood: bool) -> int:
    logits = np.zeros((len(target), classes), np.float32)
    call = binding.SoftmaxMessage(
        rows=binding.SoftmaxRows(
            rows=len(target),
            classes=classes,
            ignore_index=ignore_index,
            read_type=number_of(logits.dtype),
            gradient_type=number_of(logits.dtype),
            most_vector_bytes=binding.WIDEST,
            likelihood=likelihood,
        ),
        target_at=logits.nbytes,
        weight_at=-1,
        gradient_at=-1,
    )
    return _call(call, logits.tobytes() + target.tobytes())[0]


@pytest.mark.parametrize("loss", ["cross_entropy", "nll_loss"])
@pytest.mark.parametrize("ignore_index", [-100, -1, 0, 2, 6, 7, 1 << 40])
def test_classes_are_judged_alike(loss: str, ignore_index: int) -> None:
    """C++ accepts an index just where the record's rule does, in whichever row it is."""
    classes, record = 7, _REGISTRY.find(loss)
    rule = record.inputs["target"].rule_for(is_float=False)
    context = Context(Bindings({"C": classes}), {"ignore_index": ignore_index}, {})
    edges = (0, 6, 7, -1, -100, 8, 255, 1 << 32, (1 << 32) + 1, 1 << 40, -(1 << 63), (1 << 63) - 1)
    judged = set()
    for index in edges:
        for row in range(3):
            target = np.full(3, 3, np.int64)
            target[row] = index
            accepted = rule.violation(target, context) is None
            found = _by_classes(target, classes, ignore_index, likelihood=loss == "nll_loss")
            assert found == (binding.Result.DONE if accepted else binding.Result.WRONG_CLASS)
            judged.add(accepted)
    assert judged == {True, False}


def _element_losses() -> list[tuple[LossRecord, ElementLoss]]:
    return [
        (record, form.native)
        for record in _REGISTRY
        for form in record.closed_forms.values()
        if isinstance(form.native, ElementLoss)
    ]


def _by_elements(loss: ElementLoss, record: LossRecord, arrays: Mapping[str, Array]) -> int:
    options = {name: each.default for name, each in record.option_fields.items()}
    number, option = loss.choose(arrays, options)
    array = arrays["input"]
    call = binding.ElementsMessage(
        elements=binding.Elements(
            count=array.size,
            line=array.size,
            option=option,
            loss=number,
            read_type=number_of(array.dtype),
            gradient_type=number_of(array.dtype),
            most_vector_bytes=binding.WIDEST,
        ),
        target_at=array.nbytes,
        weight_at=-1,
        pos_weight_at=-1,
        input_gradient_at=-1,
        target_gradient_at=-1,
    )
    return _call(call, arrays["input"].tobytes() + arrays["target"].tobytes())[0]


def _edges(dtype: np.dtype[np.generic]) -> Array:
    """List numbers at the edges of [0, 1] in a dtype, and those that are none."""
    info = ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]
    tiny, above = float(info.smallest_subnormal), 1 + float(info.eps)
    edges = [0.0, -0.0, 1.0, above, tiny, -tiny, 0.5, -1.0, 2.0, np.nan, np.inf, -np.inf]
    return np.array(edges).astype(dtype)


@pytest.mark.parametrize("dtype", _FLOATS)
@pytest.mark.parametrize(
    ("record", "loss"), _element_losses(), ids=lambda each: getattr(each, "name", "")
)
def test_numbers_are_judged_alike(record: LossRecord, loss: ElementLoss, dtype: str) -> None:
    """C++ refuses a number just where the record's rules do, in whichever element it is."""
    kind = next(each.numpy for each in DATA_TYPES.values() if each.name == dtype)
    refused = 0
    for name in ("input", "target"):
        rule = record.inputs[name].rule_for(is_float=True)
        for number in _edges(kind):
            for at in (0, 7, 15, 16, 18):
                arrays = {each: np.full(19, 0.5).astype(kind) for each in ("input", "target")}
                arrays[name][at] = number
                accepted = rule.violation(arrays[name], Context(Bindings(), {}, {})) is None
                found = _by_elements(loss, record, arrays)
                expected = binding.Result.DONE if accepted else binding.Result.WRONG_VALUE
                assert found == expected, (name, number, at)
                refused += not accepted
    enforced = [record.inputs[name].rule_for(is_float=True).enforced for name in arrays]
    assert bool(refused) is any(enforced)


def test_cpp_writes_the_numbers_of_a_result() -> None:
    """Sums, count and times that C++ writes are read by protobuf."""
    target = np.arange(5)
    logits = np.zeros((5, 10))
    call = binding.SoftmaxMessage(
        answer=binding.Answer(queue_nanoseconds=1 << 40, mean=1),
        rows=binding.SoftmaxRows(
            rows=5,
            classes=10,
            ignore_index=2,
            read_type=number_of(logits.dtype),
            gradient_type=number_of(logits.dtype),
            most_vector_bytes=binding.WIDEST,
        ),
        target_at=logits.nbytes,
        weight_at=-1,
        gradient_at=-1,
    )
    done, written = _call(call, logits.tobytes() + target.tobytes())
    assert done == binding.Result.DONE
    result = evaluation_pb2.EvaluationResult.FromString(written)
    assert result.sum == result.mean_numerator == pytest.approx(4 * np.log(10), rel=1e-15)
    assert (result.mean_denominator, result.count) == (4.0, 4)
    assert result.queue_nanoseconds == 1 << 40
    assert result.compute_nanoseconds >= 0
