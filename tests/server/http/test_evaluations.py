"""Evaluations over HTTP give what they give over gRPC, bit for bit, in every encoding."""

import io
import json
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch.nn import functional

from losswire.v1 import evaluation_pb2
from losswire.wire import decode_tensor
from tests.support.http_door import (
    MULTIPART,
    NPY,
    Door,
    as_json,
    as_parts,
    npy,
    parts_of,
    tensor_of,
    tensor_of_npy,
)
from tests.support.requests import GOLDEN, by_call, evaluation, f32, is_golden

Array = npt.NDArray[Any]

_DRAW = np.random.default_rng(11)
_X = _DRAW.standard_normal((6, 5)).astype(np.float32)
_Y = _DRAW.integers(0, 5, 6)
_NAN, _INF = float("nan"), float("inf")

EVALUATIONS = {
    "torch's own": GOLDEN,
    "a mean with gradients": evaluation(
        "cross_entropy",
        {"input": _X, "target": _Y, "weight": f32(1, 2, 0.5, 1, 3)},
        {"label_smoothing": 0.1, "ignore_index": 2},
        gradients_for=["input"],
        sample_weight=f32(1, 0, 2, 1, 0.5, 1),
        normalizer=7.5,
    ),
    "factored": evaluation(
        "cross_entropy",
        {"input": _X, "target": _Y},
        gradients_for=["input"],
        gradient_form=evaluation_pb2.GRADIENT_FORM_FACTORED,
    ),
    "bfloat16": evaluation(
        "mse_loss",
        {"input": _X.astype(ml_dtypes.bfloat16), "target": _X[::-1].astype(ml_dtypes.bfloat16)},
        gradients_for=["input", "target"],
        reduction=evaluation_pb2.REDUCTION_SUM,
    ),
    "float16 as float32": evaluation(
        "huber_loss",
        {"input": _X.astype(np.float16), "target": _X[::-1].astype(np.float16)},
        {"delta": 0.5},
        gradients_for=["input"],
        gradient_data_type=9,
    ),
    "float64 without a reduction": evaluation(
        "l1_loss",
        {"input": _X.astype(np.float64), "target": _X[::-1].astype(np.float64)},
        reduction=evaluation_pb2.REDUCTION_NONE,
        gradients_for=["input"],
        grad_output=_DRAW.standard_normal((6, 5)),
    ),
    "NaN and infinities": evaluation(
        "mse_loss",
        {"input": f32(_NAN, _INF, -_INF, 1), "target": f32(0, 0, 0, _INF)},
        reduction=evaluation_pb2.REDUCTION_NONE,
    ),
    "no rows": evaluation(
        "mse_loss", {"input": np.zeros((0, 3), np.float32), "target": np.zeros((0, 3), np.float32)}
    ),
    "a scalar": evaluation("mse_loss", {"input": np.float32(2), "target": np.float32(5)}),
    "an activation": evaluation("softmax", {"input": _X}, {"dim": 1}),
}


def _expected(door: Door, item: evaluation_pb2.Evaluation) -> evaluation_pb2.EvaluationResult:
    outcome = by_call(door.stub, item)
    assert not outcome.HasField("error"), outcome.error
    return outcome.result


def _number(value: Any) -> float:  # noqa: ANN401 (a number, or a text for one)
    return float(value)


def _check_figures(content: dict[str, Any], result: evaluation_pb2.EvaluationResult) -> None:
    """Check everything that is no tensor."""
    for name in ("sum", "mean_numerator", "mean_denominator", "count"):
        np.testing.assert_array_equal(_number(content[name]), getattr(result, name))
    receipt = content["receipt"]
    assert receipt["engine"] == result.receipt.engine
    assert receipt["server_version"] == result.receipt.server_version
    assert content["compute_nanoseconds"] >= 0
    assert content["queue_nanoseconds"] >= 0


@pytest.mark.parametrize("item", EVALUATIONS.values(), ids=EVALUATIONS)
def test_base64_has_the_bits_of_grpc(door: Door, item: evaluation_pb2.Evaluation) -> None:
    """Tensors in base64, both ways, are those of gRPC."""
    expected = _expected(door, item)
    response = door.evaluate(as_json(item))
    assert response.status_code == 200
    content = response.json()
    _check_figures(content, expected)
    assert tensor_of(content["loss"]) == expected.loss
    assert content["data_type"] == content["loss"]["data_type"]
    gradients = {name: tensor_of(each) for name, each in content["gradients"].items()}
    assert gradients == dict(expected.gradients)
    assert set(content["factored_gradients"]) == set(expected.factored_gradients)
    for name, parts in content["factored_gradients"].items():
        for part, each in parts.items():
            assert tensor_of(each) == getattr(expected.factored_gradients[name], part)


@pytest.mark.parametrize("item", EVALUATIONS.values(), ids=EVALUATIONS)
def test_npy_has_the_bits_of_grpc(door: Door, item: evaluation_pb2.Evaluation) -> None:
    """Tensors in the .npy format, both ways, are those of gRPC."""
    expected = _expected(door, item)
    response = door.client.post("/v1/evaluate", files=as_parts(item), headers={"accept": MULTIPART})
    assert response.status_code == 200
    parts = parts_of(response)
    content = json.loads(parts.pop("result"))
    _check_figures(content, expected)
    tensors = {"loss": expected.loss}
    tensors |= {f"gradients.{name}": each for name, each in expected.gradients.items()}
    for name, factors in expected.factored_gradients.items():
        for part in ("lse", "scale", "lse_tail"):
            tensors[f"factored_gradients.{name}.{part}"] = getattr(factors, part)
    assert set(parts) == set(tensors)
    for name, each in tensors.items():
        # numpy reads bfloat16 as two bytes without a meaning.
        array = np.load(io.BytesIO(parts[name]))
        assert array.tobytes() == each.data
        assert array.shape == tuple(each.shape)
        if array.dtype.kind != "V":
            assert tensor_of_npy(parts[name]) == each


@pytest.mark.parametrize("item", EVALUATIONS.values(), ids=EVALUATIONS)
def test_lists_have_the_bits_of_grpc(door: Door, item: evaluation_pb2.Evaluation) -> None:
    """Tensors as nested lists, both ways, have the very numbers, NaN and infinities included."""
    expected = _expected(door, item)
    content = as_json(item)
    content["inputs"] = {name: _listed(each) for name, each in item.inputs.items()}
    response = door.evaluate({**content, "encoding": "list"})
    assert response.status_code == 200, response.text
    found = response.json()
    _check_figures(found, expected)
    _check_list(found["loss"], decode_tensor(expected.loss))
    for name, each in expected.gradients.items():
        _check_list(found["gradients"][name], decode_tensor(each))


def _listed(tensor: Any) -> dict[str, Any]:  # noqa: ANN401 (a message)
    array = decode_tensor(tensor)
    wide = array.astype(np.float64) if array.dtype.kind not in "biu" else array
    return {"data_type": array.dtype.name, "values": _texts(wide.tolist())}


def _texts(content: Any) -> Any:  # noqa: ANN401 (nested lists)
    if isinstance(content, list):
        return [_texts(each) for each in content]
    return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}.get(str(content), content)


def _check_list(found: Any, expected: Array) -> None:  # noqa: ANN401 (nested lists)
    wide = np.array(found, np.float64)
    np.testing.assert_array_equal(wide, expected.astype(np.float64))


@pytest.mark.parametrize(
    ("loss", "inputs", "fields", "expected"),
    [
        ("mse_loss", {"input": [1, 2], "target": [0, 0]}, {}, "float32"),
        ("mse_loss", {"input": [1, 2.5], "target": [0, 0]}, {}, "float32"),
        (
            "mse_loss",
            {"input": [1, 2], "target": [0, 0]},
            {"compute_data_type": "float64"},
            "float64",
        ),
        ("cross_entropy", {"input": [[1, 2], [3, 4.5]], "target": [0, 1]}, {}, "float32"),
        ("cross_entropy", {"input": [[1.0, 2]], "target": [[0.25, 0.75]]}, {}, "float32"),
        ("mse_loss", {"input": [], "target": []}, {}, "float32"),
        ("mse_loss", {"input": 3, "target": 1.5}, {}, "float32"),
        ("mse_loss", {"input": ["NaN"], "target": [1]}, {}, "float32"),
    ],
)
def test_plain_lists_take_the_type_that_fits(
    door: Door, loss: str, inputs: object, fields: dict[str, str], expected: str
) -> None:
    """Lists without a data type are int64 where an input has classes, and float32 or float64."""
    response = door.evaluate({"loss": loss, "inputs": inputs, **fields})
    assert response.status_code == 200, response.text
    assert response.json()["data_type"] == expected


def test_values_are_torchs(door: Door) -> None:
    """A loss and its gradient, written as anybody would write them, are those of torch."""
    leaf = torch.tensor([[1.5, -2.25, 0.125], [0.0, 3.0, -1.0]], requires_grad=True)
    loss = functional.cross_entropy(leaf, torch.tensor([2, 0]))
    loss.backward()  # type: ignore[no-untyped-call]
    response = door.evaluate(
        {
            "loss": "cross_entropy",
            "inputs": {"input": leaf.tolist(), "target": [2, 0]},
            "gradients_for": ["input"],
            "engine": "autograd",
        }
    )
    assert leaf.grad is not None
    assert response.json()["loss"] == loss.item()
    assert response.json()["gradients"]["input"] == leaf.grad.tolist()


def test_a_null_is_an_absent_field(door: Door) -> None:
    """Fields that are null take their defaults."""
    content = {"loss": "mse_loss", "inputs": {"input": [1.0], "target": [0.0]}}
    nulls = {"options": None, "reduction": None, "normalizer": None, "grad_output": None}
    assert door.evaluate({**content, **nulls}).json()["loss"] == 1.0


def test_resident_tensors_are_found_by_their_id(door: Door) -> None:
    """A tensor that was put once is named by its id, which is that of gRPC."""
    put = [
        door.client.put("/v1/tensors", content=npy(_X), headers={"content-type": NPY}).json()
        for _ in range(2)
    ]
    assert [each["existed"] for each in put] == [False, True]
    assert put[0]["resident"] == put[1]["resident"]
    assert (put[0]["data_type"], put[0]["shape"]) == ("float32", [6, 5])
    inputs = {"input": {"resident": put[0]["resident"]}, "target": _Y.tolist()}
    response = door.evaluate({"loss": "cross_entropy", "inputs": inputs})
    item = evaluation("cross_entropy", {"input": _X, "target": _Y})
    _check_list(response.json()["loss"], decode_tensor(_expected(door, item).loss))


def test_a_large_evaluation_is_answered(door: Door) -> None:
    """Parts of several MiB, beyond the largest message, come and go."""
    logits = _DRAW.standard_normal((1024, 3000)).astype(np.float32)
    classes = _DRAW.integers(0, 3000, 1024)
    parts: dict[str, Any] = {
        "request": (None, json.dumps({"loss": "cross_entropy", "gradients_for": ["input"]})),
        "inputs.input": ("x.npy", npy(logits), NPY),
        "inputs.target": ("y.npy", npy(classes), NPY),
    }
    response = door.client.post("/v1/evaluate", files=parts, headers={"accept": MULTIPART})
    gradient = np.load(io.BytesIO(parts_of(response)["gradients.input"]))
    leaf = torch.from_numpy(logits).requires_grad_()
    functional.cross_entropy(leaf, torch.from_numpy(classes)).backward()  # type: ignore[no-untyped-call]
    assert leaf.grad is not None
    np.testing.assert_allclose(gradient, leaf.grad.numpy(), rtol=1e-4, atol=1e-9)


def test_a_body_without_a_length_is_read(door: Door) -> None:
    """A body in chunks, whose length nobody declared, is like any other."""
    text = json.dumps({"loss": "mse_loss", "inputs": {"input": [3.0], "target": [1.0]}}).encode()
    response = door.client.post(
        "/v1/evaluate",
        content=iter([text[:20], text[20:]]),
        headers={"content-type": "application/json"},
    )
    assert response.json()["loss"] == 4.0
    assert is_golden(by_call(door.stub, GOLDEN).result)


def test_the_bits_survive_both_ways(door: Door) -> None:
    """Every positive float32 that is sent as a number comes back as that number."""
    bits = _DRAW.integers(0, 2**31, 4000, np.uint32).view(np.float32)
    finite = bits[np.isfinite(bits)]
    inputs = {"input": finite.tolist(), "target": [0] * len(finite)}
    response = door.evaluate({"loss": "l1_loss", "inputs": inputs, "reduction": "none"})
    assert np.array(response.json()["loss"], np.float64).astype(np.float32).tobytes() == (
        finite.tobytes()
    )


def test_classes_are_written_as_integers(door: Door) -> None:
    """A class of 1.0 is a number of another type, and refused as such."""
    inputs = {"input": [[1.0, 2.0]], "target": [1.0]}
    response = door.evaluate({"loss": "cross_entropy", "inputs": inputs})
    assert response.status_code == 400
    assert response.json()["violations"][0]["field"].startswith('inputs["target"]')
