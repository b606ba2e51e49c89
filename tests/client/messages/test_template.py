"""The cache of request templates: the same bytes as without it, whatever was sent before."""

import dataclasses
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from losswire.client import Evaluation
from losswire.client._messages.request import fill_evaluation
from losswire.client._messages.template import (
    ALONE,
    AMONG_MANY,
    TEMPLATES,
    RequestTemplates,
    in_stream,
    key_of,
    placed_key_of,
)
from losswire.client._messages.thresholds import (
    STAGED_BYTES,
    SURE_MESSAGE_BYTES,
    TEMPLATE_BYTES,
)
from losswire.client._messages.weights import with_float_weights
from losswire.v1 import loss_service_pb2
from losswire.wire import DATA_TYPES

Array = npt.NDArray[Any]


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """Begin without any template."""
    TEMPLATES.clear()
    yield
    TEMPLATES.clear()


def ordinary(evaluation: Evaluation) -> bytes:
    """Compose a request field by field, by protobuf alone; weights are floats before that."""
    message = loss_service_pb2.EvaluateRequest()
    fill_evaluation(message.evaluation, with_float_weights(evaluation))
    return message.SerializeToString()


def numbers(seed: int, dtype: npt.DTypeLike = "f4", shape: tuple[int, ...] = (3, 2)) -> Array:
    """Make an array of any type."""
    drawn = np.random.default_rng(seed).integers(0, 2, shape)
    return np.asarray(drawn).astype(dtype)


def tables(seed: int) -> dict[str, Evaluation]:
    """Make evaluations of all kinds that have templates, with numbers that follow from the seed."""
    one = numbers(seed)
    real = seed * 0.1
    found = {
        "nothing": Evaluation("any", {}),
        "gradients": Evaluation("any", {"input": one, "target": one}, gradients=["target"]),
        "tuple": Evaluation("any", {"input": one}, gradients=("input", "input")),
        "many": Evaluation(
            "any", {name: numbers(seed, shape=(len(name),)) for name in dir(Evaluation)}
        ),
        "names": Evaluation("än\x00y", {"": one, "ä" * 200: one}, gradients=["ä" * 200]),
        "options": Evaluation(
            "any", {"x": one}, {"a": real, "b": -1, "c": True, "d": "ö", "": 0.0}
        ),
        "int": Evaluation("any", {}, {"a": 2**63 - 1, "b": -(2**63), "c": 0}),
        "zero": Evaluation("any", {}, {"a": -0.0, "b": False, "c": ""}),
        "nan": Evaluation("any", {}, {"a": float("nan"), "b": float("inf")}),
        "output": Evaluation("any", {"x": one}, grad_output=numbers(seed, "f8", ())),
        "weight": Evaluation("any", {"x": one}, sample_weight=numbers(seed, "f2", (3,))),
        "both": Evaluation("any", {"x": one}, grad_output=one, sample_weight=one),
        "normalizer": Evaluation("any", {"x": one}, normalizer=real + 0.5),
        "whole": Evaluation("any", {"x": one}, normalizer=seed),
        "numpy": Evaluation("any", {"x": one}, normalizer=np.float32(real)),  # type: ignore[arg-type]
        "types": Evaluation("any", {}, gradient_dtype="float16", compute_dtype=np.float64),
        "kinds": Evaluation("any", {}, gradient_dtype=np.dtype(">f4"), compute_dtype=float),
        "empty": Evaluation(
            "any", {"x": numbers(seed, shape=(0, 4)), "y": numbers(seed, shape=())}
        ),
        "strided": Evaluation(
            "any", {"x": one.T, "y": one[::2], "z": np.broadcast_to(one[0], (9, 2))}
        ),
        "all": Evaluation(
            "any",
            {"input": one, "target": one.astype("i8")},
            {"smoothing": real, "index": -100},
            reduction="none",
            gradients=["input"],
            grad_output=one[:, 0],
            sample_weight=one[:, 1],
            normalizer=real,
            gradient_dtype="bfloat16",
            compute_dtype="float32",
            engine="autograd",
        ),
    }
    for wire_type in DATA_TYPES.values():
        found[wire_type.name] = Evaluation("any", {"x": numbers(seed, wire_type.numpy)})
    for rank in range(9):
        found[f"rank {rank}"] = Evaluation("any", {"x": numbers(seed, "i1", (1,) * rank)})
    for reduction in ("none", "mean", "sum", "batchmean"):
        found[reduction] = Evaluation("any", {"x": one}, reduction=reduction)
    return found


@pytest.mark.parametrize("name", tables(0))
def test_a_known_template_gives_the_same_bytes(name: str) -> None:
    """With other numbers, each evaluation is written as protobuf writes it, byte for byte."""
    first, *others = (tables(seed)[name] for seed in range(4))
    assert TEMPLATES.small_request(key_of(first), ALONE) is None
    assert TEMPLATES.request(first, ALONE)[0] == ordinary(first)
    for other in others:
        known = TEMPLATES.small_request(key_of(other), ALONE)
        assert known is not None
        assert known[0] == ordinary(other)
        assert TEMPLATES.request(other, ALONE)[0] == ordinary(other)


@pytest.mark.parametrize("number", [0, 1, 127, 128, 300, 2**31, 2**64 - 1])
def test_an_item_of_a_stream(number: int) -> None:
    """Items have their number in front, as protobuf writes it."""
    evaluation = tables(1)["all"]
    message = loss_service_pb2.EvaluateStreamRequest(id=number)
    fill_evaluation(message.evaluation, evaluation)
    for _ in range(2):
        written = TEMPLATES.request(evaluation, in_stream(number))[0]
        assert written == message.SerializeToString()


def test_many_items() -> None:
    """Evaluations of one message stand in it one after the other, as protobuf writes them."""
    evaluations = [tables(seed)["all"] for seed in range(3)]
    message = loss_service_pb2.EvaluateManyRequest()
    for evaluation in evaluations:
        fill_evaluation(message.evaluations.add(), evaluation)
    written = [TEMPLATES.request(each, AMONG_MANY)[0] for each in evaluations]
    assert b"".join(written) == message.SerializeToString()


class Named(np.ndarray):
    """An array that may mean something else by its numbers."""


UNKNOWN = {
    "list": Evaluation("any", {"x": [1.0]}),
    "number": Evaluation("any", {"x": 1.0}),
    "scalar": Evaluation("any", {"x": np.float32(1)}),
    "torch": Evaluation("any", {"x": torch.ones(2)}),
    "subclass": Evaluation("any", {"x": np.ones(2).view(Named)}),
    "big-endian": Evaluation("any", {"x": np.zeros(2, ">f4")}),
    "torch weight": Evaluation("any", {}, sample_weight=torch.ones(2)),
    "numpy option": Evaluation("any", {}, {"a": np.float32(1)}),  # type: ignore[dict-item]
    "torch dtype": Evaluation("any", {}, gradient_dtype=torch.float32),
    "set": Evaluation("any", {"x": np.ones(2)}, gradients={"x"}),  # type: ignore[arg-type]
    "factored": Evaluation("any", {}, gradient_form="factored"),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_has_no_form(name: str) -> None:
    """Anything but plain arrays is composed anew each time."""
    for _ in range(3):
        assert TEMPLATES.request(UNKNOWN[name], ALONE)[0] == ordinary(UNKNOWN[name])
    assert len(TEMPLATES) == 0


ONE = np.ones(2, "f4")
ALIKE = [
    *[
        Evaluation("any", {"x": ONE}, {"a": each})
        for each in (1, True, 1.0, "1", 0, False, 0.0, "")
    ],
    *[Evaluation("any", {"x": ONE}, {each: 1.0}) for each in ("", "b", "x")],
    *[Evaluation("any", {"x": ONE}, gradients=each) for each in (["x"], ["x", "x"], [""])],
    *[Evaluation(each, {"x": ONE}) for each in ("any", "", "x")],
    *[Evaluation("any", {each: ONE}) for each in ("", "a", "any")],
    *[Evaluation("any", {"x": ONE.astype(each)}) for each in ("i4", "u1", "i1", "?", "f2", "i2")],
    *[Evaluation("any", {"x": ONE.reshape(each)}) for each in ((1, 2), (2, 1), (2, 1, 1))],
    *[Evaluation("any", {"x": ONE}, normalizer=each) for each in (1, 2.0)],
    *[Evaluation("any", {"x": ONE}, reduction=each) for each in ("mean", "sum", "none")],
    *[Evaluation("any", {"x": ONE}, gradient_dtype=each) for each in ("float32", float, "float16")],
    *[Evaluation("any", {"x": ONE}, compute_dtype=each) for each in ("float32", float, "float16")],
    Evaluation("any", {"x": ONE}, engine="autograd"),
    Evaluation("any", {"x": ONE}, gradient_form="factored"),
    Evaluation("any", {"x": ONE}, grad_output=ONE),
    Evaluation("any", {"x": ONE}, sample_weight=ONE),
    Evaluation("any", {"x": ONE}, grad_output=ONE, sample_weight=ONE),
    Evaluation("any", {"x": ONE, "y": ONE}),
    Evaluation("any", {}),
]


@pytest.mark.parametrize("first", range(len(ALIKE)))
def test_what_is_alike_is_told_apart(first: int) -> None:
    """Evaluations that differ in one thing have each their own bytes, whichever was first."""
    for second in ALIKE:
        TEMPLATES.clear()
        for evaluation in (ALIKE[first], second, ALIKE[first]):
            assert TEMPLATES.request(evaluation, ALONE)[0] == ordinary(evaluation)


ZEROS: list[Any] = [0, False, 0.0, -0.0, np.float64(0), np.int64(0), "0", "", float("nan"), 1, True]
ARRAYS: list[Any] = [
    np.zeros(shape, dtype)
    for shape in [(), (0,), (1,), (2,), (1, 2), (2, 1)]
    for dtype in [
        "f4",
        ">f4",
        "i4",
        "u1",
        "i1",
        "?",
        "f2",
        "i2",
        ml_dtypes.bfloat16,
        "f8",
        "i8",
        "c8",
    ]
]
TENSORS = st.sampled_from([*ARRAYS, [0.0], 0.0, torch.zeros(1), np.ma.zeros(1), "text"])
NAMES = st.sampled_from(["a", "b", "", "ä", np.str_("a"), 1])
TYPES = st.sampled_from(
    [
        *["float32", "f4", np.float32, np.dtype("f4"), np.dtype(">f4"), float, "float64", True, 1],
        *[np.float32(1), torch.float32, torch.bfloat16, "bfloat16", "int64", None, [], "none"],
    ]
)


def rarely(strategy: st.SearchStrategy[Any], default: object) -> st.SearchStrategy[Any]:
    """Leave most fields as they are, so that keys are equal."""
    return st.one_of(st.just(default), st.just(default), strategy)


EVALUATIONS = st.builds(
    Evaluation,
    NAMES,
    st.dictionaries(NAMES, TENSORS, max_size=2),
    st.dictionaries(NAMES, st.sampled_from(ZEROS), max_size=2),
    reduction=rarely(st.sampled_from(["mean", "sum", "", 0, np.str_("mean")]), None),
    gradients=st.sampled_from([[], (), ["a"], ("a",), ["b", "a"], "a", {"a"}, [1], [[]], None]),
    grad_output=rarely(TENSORS, None),
    sample_weight=rarely(TENSORS, None),
    normalizer=rarely(st.sampled_from([*ZEROS, "1", 10**400]), None),
    gradient_dtype=rarely(TYPES, None),
    compute_dtype=rarely(TYPES, None),
    engine=rarely(st.sampled_from(["autograd", "", 1]), "auto"),
    gradient_form=rarely(st.sampled_from(["factored", 1]), "dense"),
)


def outcome(make: Any, evaluation: Evaluation) -> object:  # noqa: ANN401 - any function
    """Return the bytes that a function makes of an evaluation, or its error."""
    try:
        return make(evaluation)
    except (TypeError, ValueError, OverflowError) as error:
        return type(error), str(error)


@given(st.lists(EVALUATIONS, min_size=8, max_size=30))
def test_what_differs_never_shares(evaluations: list[Evaluation]) -> None:
    """Whatever was sent before, each evaluation gives its own bytes, or its own error."""
    for evaluation in evaluations:
        found = outcome(lambda each: TEMPLATES.request(each, ALONE)[0], evaluation)
        assert found == outcome(ordinary, evaluation)


def test_every_field_enters_the_key() -> None:
    """An evaluation that differs in any one field has another key."""
    plain = Evaluation("any", {"x": ONE})
    others: dict[str, Any] = {
        "loss": "other",
        "inputs": {"y": ONE},
        "options": {"a": 1},
        "reduction": "sum",
        "gradients": ["x"],
        "grad_output": ONE,
        "sample_weight": ONE,
        "normalizer": 1.0,
        "gradient_dtype": "float16",
        "compute_dtype": "float16",
        "engine": "autograd",
        "gradient_form": "factored",
    }
    assert list(others) == [field.name for field in dataclasses.fields(Evaluation)]
    key, numbers_of_plain = key_of(plain) or ((), [])
    assert len(numbers_of_plain) == 1
    for name, value in others.items():
        keyed = key_of(dataclasses.replace(plain, **{name: value}))
        assert keyed is not None
        assert keyed[0] != key, name


PLACED = np.ones(2, "f4")
OTHER = np.ones(2, "f4")
"""Two arrays of the caller's region, which the table below names by these."""

PLACES: dict[str, tuple[dict[str, Array], dict[str, Array] | None, dict[int, tuple[int, int]]]] = {
    "no region": ({"x": PLACED}, None, {}),
    "a region": ({"x": PLACED}, None, {id(PLACED): (1, 0)}),
    "another region": ({"x": PLACED}, None, {id(PLACED): (2, 0)}),
    "another offset": ({"x": PLACED}, None, {id(PLACED): (1, 8)}),
    "an output": ({"x": PLACED}, {"x": OTHER}, {id(PLACED): (1, 0), id(OTHER): (1, 8)}),
    "an output alone": ({"x": PLACED}, {"x": OTHER}, {id(OTHER): (1, 8)}),
    "another output": ({"x": PLACED}, {"y": OTHER}, {id(PLACED): (1, 0), id(OTHER): (1, 8)}),
    "an output elsewhere": ({"x": PLACED}, {"x": OTHER}, {id(PLACED): (1, 0), id(OTHER): (1, 16)}),
    "two inputs": ({"x": PLACED, "y": OTHER}, None, {id(PLACED): (1, 0)}),
    "two inputs, the other one": ({"x": PLACED, "y": OTHER}, None, {id(OTHER): (1, 0)}),
}


def _place(places: dict[int, tuple[int, int]], array: Array) -> tuple[int, int] | None:
    return places.get(id(array))


def test_places_belong_to_the_key() -> None:
    """Where an array is in a region enters the key, and the array itself is not sent."""
    keys = []
    for inputs, out, places in PLACES.values():
        keyed = placed_key_of(key_of(Evaluation("any", inputs)), partial(_place, places), out)
        assert keyed is not None
        assert [*map(id, keyed[1])] == [id(x) for x in inputs.values() if id(x) not in places]
        keys.append(keyed[0])
    assert len(set(keys)) == len(PLACES)


def test_outputs_outside_of_regions_have_no_key() -> None:
    """A gradient that has to be copied to its output takes the longer way."""
    plain = key_of(Evaluation("any", {"x": PLACED}))
    assert placed_key_of(plain, lambda _: None, {"x": OTHER}) is None


def test_templates_are_bounded() -> None:
    """With many templates in many threads, the oldest are evicted."""
    templates = RequestTemplates(max_entries=5)

    def work(seed: int) -> bool:
        arrays = [numbers(seed, shape=(1 + (seed + each) % 13,)) for each in range(40)]
        return all(
            templates.request(evaluation, ALONE)[0] == ordinary(evaluation)
            for evaluation in (Evaluation("any", {"x": each}) for each in arrays)
        )

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(8) as threads:
            assert all(threads.map(work, range(40)))
    finally:
        sys.setswitchinterval(interval)
    assert 0 < len(templates) <= 5


def test_long_texts_are_not_kept() -> None:
    """The constant bytes of a template are bounded: one with a long text is not kept."""
    long = Evaluation("any", {"x": np.ones(2)}, {"a": "b" * TEMPLATE_BYTES})
    for _ in range(2):
        assert TEMPLATES.request(long, ALONE)[0] == ordinary(long)
    assert len(TEMPLATES) == 0


def test_large_evaluations_are_composed_only() -> None:
    """The transport of a large evaluation is chosen each time, though its template is known."""
    assert TEMPLATE_BYTES * 5 <= STAGED_BYTES
    assert TEMPLATE_BYTES <= SURE_MESSAGE_BYTES
    for seed in range(2):
        draw = np.random.default_rng(seed)
        large = Evaluation("any", {"x": draw.integers(0, 9, TEMPLATE_BYTES).astype("i1")})
        assert TEMPLATES.request(large, ALONE)[0] == ordinary(large)
        assert TEMPLATES.small_request(key_of(large), ALONE) is None
    assert len(TEMPLATES) == 1
