"""Weights that callers give as masks, integers and lists."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
import torch

from losswire.client import (
    ArrayInput,
    AsyncClient,
    Client,
    Evaluation,
    EvaluationResult,
    InvalidArgumentError,
)
from losswire.client._messages.template import TEMPLATES
from losswire.client._messages.weights import EQUAL_TYPES, WEIGHTS, with_float_weights
from losswire.server.losses import builtin_registry
from losswire.wire import BY_NAME

Array = npt.NDArray[Any]
Results = Sequence[EvaluationResult]

_INF = float("inf")
_INPUT: Any = np.array([[0.0, 0.0], [np.nan, 0.0], [1.0, 0.0]], np.float32)
_TARGET: Any = np.array([0, 1, 1])
_MASKS: dict[str, ArrayInput] = {
    "bools": np.array([True, False, True]),
    "a list of bools": [True, False, True],
    "a list of integers": [1, 0, 1],
    "a tuple of both": (1, False, 1.0),
    "int64": np.array([1, 0, 1]),
    "uint8": np.array([1, 0, 1], np.uint8),
    "uint64": np.array([1, 0, 1], np.uint64),
    "big-endian": np.array([1, 0, 1], ">i4"),
    "torch": torch.tensor([True, False, True]),
    "float64": np.array([1.0, 0.0, 1.0]),
}


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """Begin without any template."""
    TEMPLATES.clear()
    yield
    TEMPLATES.clear()


def _masked(mask: ArrayInput, *, weight: ArrayInput = (1, 2), form: Any = "dense") -> Evaluation:  # noqa: ANN401 (a literal)
    return Evaluation(
        "cross_entropy",
        {"input": _INPUT, "target": _TARGET, "weight": weight},
        sample_weight=mask,
        gradients=["input"],
        gradient_form=form,
    )


def _one_by_one(address: str, items: Sequence[Evaluation]) -> Results:
    with Client(address) as client:
        return [client.evaluate(**vars(each)) for each in items]


def _one_by_one_async(address: str, items: Sequence[Evaluation]) -> Results:
    async def run() -> Results:
        async with AsyncClient(address) as client:
            return [await client.evaluate(**vars(each)) for each in items]

    return asyncio.run(run())


def _many(address: str, items: Sequence[Evaluation]) -> Results:
    with Client(address) as client:
        return [each for each in client.evaluate_many(items) if isinstance(each, EvaluationResult)]


def _stream(address: str, items: Sequence[Evaluation]) -> Results:
    with Client(address) as client, client.stream() as stream:
        return [stream.submit(each).result() for each in items]


_WAYS = {
    "Client": _one_by_one,
    "AsyncClient": _one_by_one_async,
    "evaluate_many": _many,
    "streams": _stream,
}


@pytest.mark.parametrize("way", _WAYS)
def test_every_kind_of_mask_removes_rows(server: str, way: str) -> None:
    """By every method, dense and factored: the loss and gradient of the rows that are left."""
    forms = ("dense", "factored")
    items = [_masked(mask, form=form) for mask in _MASKS.values() for form in forms]
    results = _WAYS[way](server, [*items, *items])
    assert len(results) == 2 * len(items)
    [expected] = _one_by_one(server, [_masked(np.array([1, 0, 1], np.float32))])
    assert (expected.count, expected.mean_denominator) == (2, 3.0)
    for result in results:
        assert (result.loss, result.count) == (expected.loss, 2)
        assert result.gradients["input"][1].tolist() == [0.0, 0.0]
        np.testing.assert_allclose(
            result.gradients["input"], expected.gradients["input"], rtol=1e-6
        )


@pytest.mark.parametrize("dtype", ["bool", "int32", "int64", "uint8"])
@pytest.mark.parametrize("way", _WAYS)
def test_no_mask_is_taken_for_an_earlier_one(server: str, way: str, dtype: str) -> None:
    """Masks of one type and shape keep their numbers; one of them has the bytes of float zeros."""
    masks = [np.array(each, dtype) for each in ([0, 0, 0], [1, 0, 1], [1, 0, 0], [0, 0, 1])]
    results = _WAYS[way](server, [_masked(mask) for mask in masks])
    assert [each.count for each in results] == [0, 2, 1, 1]
    assert [each.mean_denominator for each in results] == [0.0, 3.0, 1.0, 2.0]


def test_a_mask_streams_with_its_rows(server: str) -> None:
    """A batch that goes in chunks has a mask like any other; `weight` takes the input's type."""
    rows = np.random.default_rng(1).standard_normal((3000, 1000))
    mask = np.arange(3000) % 3 == 0
    classes = np.arange(3000) % 1000
    weight: ArrayInput = [1, 2] * 500
    seen: list[int] = []
    with Client(server) as client:
        found = client.evaluate(
            "cross_entropy",
            {"input": rows, "target": classes, "weight": weight},
            gradients=["input"],
            sample_weight=mask,
            progress=lambda done, _: seen.append(done),
        )
        kept = {"input": rows[mask], "target": classes[mask], "weight": weight}
        expected = client.evaluate("cross_entropy", kept, gradients=["input"])
    assert (found.transport, found.count, bool(seen)) == ("chunked", 1000, True)
    np.testing.assert_allclose(found.loss, expected.loss, rtol=1e-13)
    np.testing.assert_allclose(found.gradients["input"][mask], expected.gradients["input"])
    assert not found.gradients["input"][~mask].any()


def test_a_0_in_a_weight_multiplies(server: str) -> None:
    """As in torch, 0 times infinity is NaN there; in `sample_weight` it removes the value."""
    inputs: dict[str, ArrayInput] = {"input": np.array([_INF, 1.0]), "target": np.zeros(2)}
    with Client(server) as client:
        weighted = client.evaluate("mse_loss", {**inputs, "weight": [0, 1]}, reduction="sum")
        masked = client.evaluate("mse_loss", inputs, reduction="sum", sample_weight=[0, 1])
    assert np.isnan(weighted.loss)
    assert (weighted.count, float(masked.loss), masked.count) == (2, 1.0, 1)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize(
    "weight", [[1, 2], [0.1, 2.0], [True, False], np.array([1, 2]), np.array([True, False])]
)
def test_a_class_weight_takes_the_type_of_the_input(
    server: str, dtype: str, weight: ArrayInput
) -> None:
    """Where torch wants both of one type, a list or integers are accepted in any of them."""
    logits = np.array([[0.0, 1.0], [2.0, 0.0]], BY_NAME[dtype].numpy)
    inputs: dict[str, ArrayInput] = {"input": logits, "target": [0, 1]}
    typed = np.asarray(weight).astype(logits.dtype)
    with Client(server) as client:
        found = client.evaluate("cross_entropy", {**inputs, "weight": weight})
        expected = client.evaluate("cross_entropy", {**inputs, "weight": typed})
    assert found.loss == expected.loss


@pytest.mark.parametrize(
    ("loss", "beside", "weight", "expected"),
    [
        ("mse_loss", "float64", [0.1], "float64"),
        ("mse_loss", "float32", [0.1], "float32"),
        ("mse_loss", "float16", [0.1], "float32"),
        ("nll_loss", "float16", [0.1], "float16"),
        ("nll_loss", "float16", [1e5], "float32"),
        ("mse_loss", "float16", [1, 2048], "float16"),
        ("mse_loss", "float16", [1, 2049], "float32"),
        ("mse_loss", "float16", [65536], "float32"),
        ("mse_loss", "bfloat16", [257], "float32"),
        ("mse_loss", "bfloat16", [2**60], "bfloat16"),
        ("mse_loss", "float32", [2**24], "float32"),
        ("mse_loss", "float32", [2**24 + 1], "float64"),
        ("mse_loss", "float32", [-(2**63), 3], "float32"),
        ("mse_loss", "int64", [1], "float32"),
        ("mse_loss", "int64", [0.1], "float32"),
        ("mse_loss", "float32", np.array([0.1]), "float64"),
        ("mse_loss", "float64", np.array([0.1], np.float32), "float32"),
        ("mse_loss", "float64", [], "float64"),
    ],
)
def test_integers_keep_their_values(
    loss: str, beside: str, weight: ArrayInput, expected: str
) -> None:
    """They become the type of `input` if it holds them, or a wider one; arrays of floats stay."""
    given = np.zeros(1, BY_NAME[beside].numpy)
    evaluation = Evaluation(loss, {"input": given, "weight": weight, "pos_weight": weight})
    found = with_float_weights(evaluation).inputs
    for name in WEIGHTS:
        array = found[name]
        assert isinstance(array, np.ndarray)
        assert array.dtype.name == expected
        if isinstance(weight, list) and all(isinstance(each, int) for each in weight):
            assert [int(each) for each in array] == weight


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        ([True], "float32"),
        (np.array([2**24]), "float32"),
        (np.array([2**24 + 1]), "float64"),
        (np.array([2**64 - 2048], np.uint64), "float64"),
        ([0.5], "float32"),
        (True, "float32"),
        (0, "float32"),
        (np.array(-(2**63)), "float32"),
        (torch.tensor([1, 0]), "float32"),
    ],
)
def test_a_sample_weight_has_a_type_of_its_own(mask: ArrayInput, expected: str) -> None:
    """It is float32 where that holds all numbers, whatever the input's type is."""
    inputs = {"input": np.zeros(1, ml_dtypes.bfloat16)}
    found = with_float_weights(Evaluation("mse_loss", inputs, sample_weight=mask)).sample_weight
    assert isinstance(found, np.ndarray)
    assert found.dtype.name == expected


def test_floats_are_not_touched() -> None:
    """An evaluation whose weights are arrays of floats is passed on itself."""
    array = np.ones(2, np.float32)
    plain = Evaluation("mse_loss", {"input": array, "weight": array}, sample_weight=array)
    assert with_float_weights(plain) is plain
    half = torch.ones(2, dtype=torch.bfloat16)
    given = Evaluation("mse_loss", {"input": half, "weight": half}, sample_weight=half)
    assert with_float_weights(given) is given
    bare = Evaluation("mse_loss", {"input": [1.0], "target": [1]})
    assert with_float_weights(bare) is bare


@pytest.mark.parametrize("number", [2**53 + 1, -(2**63) + 1])
def test_numbers_that_no_float_holds_are_refused_by_name(server: str, number: int) -> None:
    """The error says which field of which evaluation they are in."""
    text = "holds an integer that float64 does not hold exactly"
    good, bad = _masked([1, 1, 1]), _masked(np.array([1, 0, number]))
    with Client(server) as client:
        with pytest.raises(ValueError, match=rf"^sample_weight: {text}"):
            client.evaluate(**vars(bad))
        with pytest.raises(ValueError, match=rf"^evaluations\[1\]\.sample_weight: {text}"):
            client.evaluate_many([good, bad])
        with pytest.raises(ValueError, match=rf'^inputs\["weight"\]: {text}'):
            client.evaluate(**vars(replace(good, inputs={"input": _INPUT, "weight": [1, number]})))


def test_what_is_no_weight_stays_what_it_is(server: str) -> None:
    """Other inputs are converted as before; a masked array would lose its mask, and is refused."""
    with Client(server) as client:
        with pytest.raises(InvalidArgumentError, match=r'inputs\["target"\].data_type: is int64'):
            client.evaluate("mse_loss", {"input": [1.0], "target": [1]})
        masked = np.ma.masked_array([1, 0, 1], [False, True, False])
        with pytest.raises(TypeError, match=r"^sample_weight: a masked array cannot be sent"):
            client.evaluate(**vars(_masked(masked)))


def test_losses_whose_weight_has_the_type_of_the_input_are_known() -> None:
    """They are those of the catalogue whose weight promotes nothing in some layout."""
    found = {
        record.name
        for record in builtin_registry()
        for name in WEIGHTS.intersection(record.inputs)
        for layout in record.layouts
        if not record.inputs[name].promotes_in(layout.name)
    }
    assert found == EQUAL_TYPES
