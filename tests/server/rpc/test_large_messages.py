"""Large tensors in one message, which are not parsed by protobuf: the answers are the same."""

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from losswire.v1 import evaluation_pb2
from losswire.wire import encode_tensor
from tests.support.requests import Stub, by_call, by_many, essence, evaluation

_DRAW = np.random.default_rng(5)
_SQUARE = _DRAW.standard_normal((400, 300)).astype(np.float32)
_OTHER = _DRAW.standard_normal((400, 300)).astype(np.float32)
_NONE = evaluation_pb2.REDUCTION_NONE

Build = Callable[[], evaluation_pb2.Evaluation]


def _mse(**fields: Any) -> evaluation_pb2.Evaluation:  # noqa: ANN401 (any field)
    return evaluation("mse_loss", {"input": _SQUARE, "target": _OTHER}, **fields)


_ITEMS: dict[str, Build] = {
    "loss only": _mse,
    "one gradient": lambda: _mse(gradients_for=["input"]),
    "two gradients": lambda: _mse(gradients_for=["target", "input"]),
    "large values": lambda: _mse(reduction=_NONE),
    "large upstream": lambda: _mse(
        reduction=_NONE, gradients_for=["input"], grad_output=_OTHER, sample_weight=_SQUARE**2
    ),
    "halves of odd lengths": lambda: evaluation(
        "l1_loss",
        {
            "input": _SQUARE.reshape(-1)[:99_991].astype(ml_dtypes.bfloat16),
            "target": _OTHER.reshape(-1)[:99_991].astype(ml_dtypes.bfloat16),
        },
        gradients_for=["input"],
    ),
    "more axes": lambda: evaluation(
        "cross_entropy",
        {"input": _SQUARE.reshape(20, 60, 100), "target": _DRAW.integers(0, 60, (20, 100))},
        gradients_for=["input"],
    ),
    "factors": lambda: evaluation(
        "cross_entropy",
        {"input": _DRAW.standard_normal((30_000, 3)), "target": _DRAW.integers(0, 3, 30_000)},
        gradients_for=["input"],
        gradient_form=evaluation_pb2.GRADIENT_FORM_FACTORED,
    ),
    "an activation": lambda: evaluation("softmax", {"input": _SQUARE}, {"dim": 1}, reduction=_NONE),
    "bools": lambda: evaluation("mse_loss", {"input": _SQUARE > 0, "target": _OTHER}),
    "no such loss": lambda: evaluation("nothing", {"input": _SQUARE}),
    "no such input": lambda: evaluation("mse_loss", {"input": _SQUARE, "x" * 99: _OTHER}),
    "wrong shapes": lambda: evaluation("mse_loss", {"input": _SQUARE, "target": _OTHER.T}),
    "wrong classes": lambda: evaluation(
        "cross_entropy", {"input": _SQUARE, "target": np.full(400, 300)}
    ),
}


@pytest.mark.parametrize("name", _ITEMS)
def test_one_message_gives_what_many_in_one_give(stub: Stub, name: str) -> None:
    """EvaluateMany parses everything by protobuf: result or error are equal, twice over."""
    item = _ITEMS[name]()
    for _ in range(2):
        found, expected = by_call(stub, item), by_many(stub, item)
        assert found.WhichOneof("outcome") == expected.WhichOneof("outcome")
        assert essence(found.result) == essence(expected.result)
        assert found.error == expected.error


def _cut(item: evaluation_pb2.Evaluation) -> None:
    item.inputs["target"].data = item.inputs["target"].data[:-1]


def _neither(item: evaluation_pb2.Evaluation) -> None:
    item.inputs["target"].CopyFrom(encode_tensor(np.ones(400 * 300, bool).reshape(400, 300)))
    item.inputs["target"].data = b"\x02" * (400 * 300)


def _missing(item: evaluation_pb2.Evaluation) -> None:
    item.inputs["target"].ClearField("data")


def _empty(item: evaluation_pb2.Evaluation) -> None:
    item.inputs["target"].data = b""


_SPOILS = {"cut": _cut, "neither": _neither, "missing": _missing, "empty": _empty}


@pytest.mark.parametrize("name", _SPOILS)
def test_wrong_data_is_told_as_ever(stub: Stub, name: str) -> None:
    """A violation of a tensor's bytes has its path and its true length."""
    item = _mse()
    _SPOILS[name](item)
    found, expected = by_call(stub, item).error, by_many(stub, item).error
    assert found.violations[0].field.startswith('inputs["target"]')
    assert found == expected
