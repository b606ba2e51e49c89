"""Factored gradients over the wire: by one argument, the same gradient in fewer bytes."""

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

from losswire.client import AsyncClient, Client, Evaluation, EvaluationResult, InternalError
from losswire.v1 import evaluation_pb2
from losswire.wire import encode_tensor
from tests.client.conftest import Call
from tests.support.harness import Child
from tests.support.scripted import Scripted, serving

Array = npt.NDArray[Any]

_DRAW = np.random.default_rng(8)
_LOGITS = _DRAW.standard_normal((1500, 500)).astype(np.float32)
_CLASSES = _DRAW.integers(0, 500, 1500)
_CLASSES[::11] = -100
_SHARES = _DRAW.dirichlet(np.ones(500), 1500).astype(np.float32)
_PIXELS = _DRAW.standard_normal((40, 21, 30, 20)).astype(np.float32)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that takes messages of 1 MiB: what is larger goes in chunks."""
    with Child(tmp_path_factory.mktemp("small") / "log", "--max-message-mib", "1") as child:
        yield child.address


_CASES: Mapping[str, tuple[Mapping[str, Array], dict[str, Any]]] = {
    "one row": ({"input": _LOGITS[0], "target": np.array(7)}, {}),
    "few rows": ({"input": _LOGITS[:9], "target": _CLASSES[:9]}, {}),
    "uint8": ({"input": _LOGITS[:9], "target": np.arange(9, dtype=np.uint8)}, {}),
    "chunks": ({"input": _LOGITS, "target": _CLASSES}, {}),
    "sum": ({"input": _LOGITS, "target": _CLASSES}, {"reduction": "sum"}),
    "none": (
        {"input": _LOGITS, "target": _CLASSES},
        {"reduction": "none", "grad_output": _DRAW.standard_normal(1500)},
    ),
    "float64": ({"input": _LOGITS.astype(np.float64), "target": _CLASSES}, {}),
    "bfloat16": ({"input": np.tile(_LOGITS, 2).astype(ml_dtypes.bfloat16), "target": _CLASSES}, {}),
    "gradient type": (
        {"input": _LOGITS.astype(np.float16), "target": _CLASSES},
        {"gradient_dtype": "float32"},
    ),
    "columns first": ({"input": np.asfortranarray(_LOGITS), "target": _CLASSES}, {}),
    "other byte order": ({"input": _LOGITS.astype(">f4"), "target": _CLASSES}, {}),
    "all options": (
        {"input": _LOGITS, "target": _CLASSES, "weight": np.abs(_LOGITS[0])},
        {
            "options": {"label_smoothing": 0.1},
            "sample_weight": _DRAW.random(1500) * (_DRAW.random(1500) < 0.7),
            "grad_output": -2.0,
        },
    ),
    "probabilities": ({"input": _LOGITS, "target": _SHARES}, {"options": {"label_smoothing": 0.2}}),
    "pixels": ({"input": _PIXELS, "target": _DRAW.integers(0, 21, (40, 30, 20))}, {}),
}


_EPSILONS = {"bfloat16": 2.0**-7, "float32": 2.0**-23, "float64": 2.0**-52}


def _factored(call: Call, address: str, inputs: Mapping[str, Array], **fields: Any) -> Any:  # noqa: ANN401
    result = call(
        address,
        "evaluate",
        "cross_entropy",
        inputs,
        gradients=["input"],
        gradient_form="factored",
        **fields,
    )
    assert isinstance(result, EvaluationResult)
    return result


@pytest.mark.parametrize("case", _CASES)
def test_the_gradient_is_the_dense_one(call: Call, small: str, case: str) -> None:
    """One argument changes the form; loss, count and gradient stay, and the factors are at hand."""
    inputs, fields = _CASES[case]
    found = _factored(call, small, inputs, **fields)
    dense = call(small, "evaluate", "cross_entropy", inputs, gradients=["input"], **fields)
    gradient, expected = found.gradients["input"], dense.gradients["input"]
    assert (gradient.dtype, gradient.shape) == (expected.dtype, expected.shape)
    precise = max(_EPSILONS[gradient.dtype.name], 1e-15)
    wide, other = gradient.astype(np.float64), expected.astype(np.float64)
    largest = np.abs(other).max()
    np.testing.assert_allclose(wide, other, 40 * precise, 4 * precise * largest)
    np.testing.assert_allclose(found.loss, dense.loss, rtol=1e-6)
    assert found.count == dense.count
    assert found.mean_denominator == pytest.approx(dense.mean_denominator)
    factors = found.factored_gradients["input"]
    values = inputs["input"].shape[:1] + inputs["input"].shape[2:]
    for each in factors.arrays:
        assert each.shape == (values if inputs["input"].ndim > 1 else ())
        assert each.dtype == np.float64
    assert found.receipt.engine == "closed_form"


@pytest.mark.parametrize("rows", [2, 1500])
def test_it_is_rebuilt_where_asked(call: Call, small: str, rows: int) -> None:
    """`out` is filled in place and is what the result holds, in one message and in chunks."""
    out = np.full((rows, 500), np.nan, np.float32)
    inputs: dict[str, Array] = {"input": _LOGITS[:rows], "target": _CLASSES[:rows]}
    told: list[tuple[int, int]] = []
    found = _factored(
        call, small, inputs, out={"input": out}, progress=lambda *each: told.append(each)
    )
    assert found.gradients["input"] is out
    np.testing.assert_array_equal(out, _factored(call, small, inputs).gradients["input"])
    assert told == ([] if rows == 2 else [(524, 1500), (1048, 1500), (1500, 1500)])


def test_a_target_that_streams_alone(small: str) -> None:
    """Factors of logits that stay on the server come with the result, and are rebuilt then."""
    with Client(small) as client:
        logits = client.put(_LOGITS[:450])
        inputs: dict[str, Any] = {"input": logits, "target": np.repeat(_SHARES[:450], 1, axis=0)}
        found = client.evaluate(
            "cross_entropy", inputs, gradients=["input"], gradient_form="factored"
        )
        dense = client.evaluate("cross_entropy", inputs, gradients=["input"])
    np.testing.assert_allclose(found.gradients["input"], dense.gradients["input"], 1e-4, 1e-9)


def _items() -> list[Evaluation]:
    return [
        Evaluation(
            "cross_entropy",
            {"input": _LOGITS[start : start + 3], "target": _CLASSES[start : start + 3]},
            gradients=["input"],
            gradient_form=form,
        )
        for start in range(0, 12, 3)
        for form in ("dense", "factored")
    ]


def _check(outcomes: list[Any]) -> None:
    for dense, factored in zip(outcomes[::2], outcomes[1::2], strict=True):
        assert not dense.factored_gradients
        np.testing.assert_allclose(
            factored.gradients["input"], dense.gradients["input"], 1e-5, 1e-8
        )


def test_many_at_once(call: Call, small: str) -> None:
    """Items in either form share a message."""
    _check(call(small, "evaluate_many", _items()))


def test_streams(small: str) -> None:
    """Items of either form share a stream, through both clients."""
    with Client(small) as client, client.stream() as stream:
        _check(list(stream.map(_items())))

    async def run() -> list[Any]:
        async with AsyncClient(small) as client, client.stream() as stream:
            return [each async for each in stream.map(_items())]

    _check(asyncio.run(run()))


def test_factors_of_another_shape(call: Call) -> None:
    """What does not fit the logits is an error of the server's, not a wrong gradient."""
    three = encode_tensor(np.zeros(3))
    factors = evaluation_pb2.FactoredGradient(lse=three, scale=three, lse_tail=three)
    answer = evaluation_pb2.EvaluationResult(
        loss=encode_tensor(np.float32(1)), factored_gradients={"input": factors}
    )
    inputs: dict[str, Array] = {"input": _LOGITS[:2], "target": _CLASSES[:2]}
    wrong = pytest.raises(InternalError, match="factors have not the shape of the values")
    with serving(Scripted(lambda *_: answer)) as service, wrong:
        _factored(call, service.address, inputs)
