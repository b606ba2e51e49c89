"""How an evaluation becomes a message, and what is refused before it does."""

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from losswire.client import Client, Evaluation, EvaluationFields
from losswire.v1 import evaluation_pb2, tensor_pb2
from losswire.wire import OptionScalar, encode_option, encode_tensor
from tests.client.conftest import Call
from tests.support.scripted import Scripted

ONE = np.ones(2, "f4")


def test_every_field_reaches_its_place(call: Call, echoing: Scripted) -> None:
    """Each argument of `evaluate` is the field of the same meaning in the message."""
    call(
        echoing.address,
        "evaluate",
        "a_loss",
        {"input": ONE},
        {"real": 0.5, "whole": np.int32(-1), "switch": np.all([]), "text": "full"},
        reduction="batchmean",
        gradients=("input", "weight"),
        grad_output=ONE * 2,
        sample_weight=[1.0, 0.0],
        normalizer=7,
        gradient_dtype="float16",
        compute_dtype=np.float64,
        engine="autograd",
        gradient_form="factored",
    )
    options: dict[str, OptionScalar] = {"real": 0.5, "whole": -1, "switch": True, "text": "full"}
    assert echoing.evaluations == [
        evaluation_pb2.Evaluation(
            loss="a_loss",
            inputs={"input": encode_tensor(ONE)},
            options={name: encode_option(value) for name, value in options.items()},
            reduction=evaluation_pb2.REDUCTION_BATCHMEAN,
            gradients_for=["input", "weight"],
            grad_output=encode_tensor(ONE * 2),
            sample_weight=encode_tensor(np.array([1, 0], "f4")),
            normalizer=7.0,
            gradient_form=evaluation_pb2.GRADIENT_FORM_FACTORED,
            gradient_data_type=tensor_pb2.DATA_TYPE_FLOAT16,
            compute_data_type=tensor_pb2.DATA_TYPE_FLOAT64,
            engine=evaluation_pb2.ENGINE_AUTOGRAD,
        )
    ]


def test_absent_fields_stay_absent(call: Call, echoing: Scripted) -> None:
    """What a caller leaves out is left out of the message, for the server to decide."""
    call(echoing.address, "evaluate", "a_loss", {})
    assert echoing.evaluations == [
        evaluation_pb2.Evaluation(
            loss="a_loss",
            gradient_form=evaluation_pb2.GRADIENT_FORM_DENSE,
            engine=evaluation_pb2.ENGINE_AUTO,
        )
    ]


def test_many_carries_all_in_order(call: Call, echoing: Scripted) -> None:
    """Evaluations of one call come back in their order."""
    items = [Evaluation("any", {"x": [float(i)]}, gradients=["x"]) for i in range(5)]
    results = call(echoing.address, "evaluate_many", iter(items))
    assert [float(result.gradients["x"][0]) for result in results] == [0, 1, 2, 3, 4]
    assert call(echoing.address, "evaluate_many", []) == []


def test_keyword_arguments_are_the_fields_of_an_evaluation() -> None:
    """`EvaluationFields` has exactly the keyword-only fields of `Evaluation`, types included."""
    fields = {field.name: field.type for field in dataclasses.fields(Evaluation) if field.kw_only}
    assert dict(EvaluationFields.__annotations__) == fields


@pytest.mark.parametrize(
    ("dtype", "number"),
    [
        (None, tensor_pb2.DATA_TYPE_UNSPECIFIED),
        ("bfloat16", tensor_pb2.DATA_TYPE_BFLOAT16),
        (torch.bfloat16, tensor_pb2.DATA_TYPE_BFLOAT16),
        (torch.float64, tensor_pb2.DATA_TYPE_FLOAT64),
        (np.float16, tensor_pb2.DATA_TYPE_FLOAT16),
        (np.dtype(">f4"), tensor_pb2.DATA_TYPE_FLOAT32),
        (float, tensor_pb2.DATA_TYPE_FLOAT64),
    ],
    ids=str,
)
def test_dtypes_by_name_or_object(
    echoing: Scripted, dtype: npt.DTypeLike | torch.dtype, number: tensor_pb2.DataType.ValueType
) -> None:
    """A dtype may be a name, numpy's, torch's or ml_dtypes'."""
    with Client(echoing.address) as client:
        client.evaluate("any", {}, gradient_dtype=dtype)
    assert echoing.evaluations[0].gradient_data_type == number


@pytest.mark.parametrize(
    ("fields", "error", "text"),
    [
        ({"loss": 3}, TypeError, "loss: expected text, got int"),
        ({"inputs": [ONE]}, TypeError, "inputs: expected a mapping of names, got list"),
        ({"inputs": {1: ONE}}, TypeError, "inputs: names are text, got 1"),
        ({"inputs": {"x": "a"}}, TypeError, 'inputs["x"]: str is not an array'),
        ({"options": [1]}, TypeError, "options: expected a mapping of names, got list"),
        ({"options": {"a": [1]}}, TypeError, 'options["a"]: an option is a bool'),
        ({"options": {"a": 2**63}}, ValueError, 'options["a"]: '),
        (
            {"reduction": "avg"},
            ValueError,
            "reduction: expected one of None, 'none', 'mean', 'sum'",
        ),
        ({"reduction": ["mean"]}, ValueError, "reduction: expected one of"),
        ({"gradients": "input"}, TypeError, "gradients: expected a list of input names"),
        ({"gradients": ["x", 1]}, TypeError, "gradients[1]: expected text, got int"),
        ({"grad_output": "a"}, TypeError, "grad_output: str is not an array"),
        ({"sample_weight": [None]}, TypeError, "sample_weight: a list of numbers was expected"),
        ({"normalizer": "a"}, ValueError, "normalizer: "),
        ({"normalizer": [1]}, TypeError, "normalizer: "),
        (
            {"gradient_dtype": "int64"},
            ValueError,
            "gradient_dtype: expected one of float16, bfloat16",
        ),
        ({"compute_dtype": "float128x"}, ValueError, "compute_dtype: expected one of float16"),
        ({"engine": "cuda"}, ValueError, "engine: expected one of 'auto', 'autograd'"),
        ({"gradient_form": None}, ValueError, "gradient_form: expected one of 'dense', 'factored'"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_mistakes_that_never_need_the_server(
    call: Call, echoing: Scripted, fields: dict[str, Any], error: type[Exception], text: str
) -> None:
    """They raise TypeError or ValueError with the argument's path, item number included."""
    arguments = {"loss": "any", "inputs": {}, **fields}
    with pytest.raises(error) as caught:
        call(echoing.address, "evaluate", **arguments)
    assert str(caught.value).startswith(text)
    items = [Evaluation("any", {}), Evaluation(**arguments)]
    with pytest.raises(error) as caught:
        call(echoing.address, "evaluate_many", items)
    assert str(caught.value).startswith(f"evaluations[1].{text}")
    assert echoing.evaluations == []


def test_not_an_evaluation(call: Call, echoing: Scripted) -> None:
    """Anything but an Evaluation is a TypeError that tells which one."""
    with pytest.raises(TypeError, match=r"^evaluations\[1\]: expected an Evaluation, got dict"):
        call(echoing.address, "evaluate_many", [Evaluation("any", {}), {"loss": "any"}])


def test_unknown_keyword(call: Call, echoing: Scripted) -> None:
    """A misspelt keyword is a TypeError that names it."""
    with pytest.raises(TypeError, match="gradient_type"):
        call(echoing.address, "evaluate", "any", {}, gradient_type="float32")
