"""Activations: functions whose output has the shape of their input."""

import torch.nn.functional as F
from torch import Tensor

from losswire.server.declare import (
    AxisOf,
    Input,
    Option,
    Terms,
    activation,
    floats,
    layout,
    numbers,
)

_LAYOUTS = (layout("any", input=numbers("*S"), values="*S"),)
_INPUT = Input(meaning="Logits.", differentiable=True)
_DIM = Option(meaning="The axis along which to normalize.", rules=(AxisOf(group="S"),))


@activation(
    layouts=_LAYOUTS,
    inputs={"input": _INPUT},
    options={"dim": _DIM},
    source="torch.nn.functional.softmax",
)
def softmax(input: Tensor, dim: int) -> Terms:
    """Exponentials along an axis, scaled so that they add up to 1."""
    return Terms(F.softmax(input, dim))


@activation(
    layouts=_LAYOUTS,
    inputs={"input": _INPUT},
    options={"dim": _DIM},
    source="torch.nn.functional.log_softmax",
)
def log_softmax(input: Tensor, dim: int) -> Terms:
    """The logarithm of softmax, without its loss of precision."""
    return Terms(F.log_softmax(input, dim))


@activation(
    layouts=_LAYOUTS,
    inputs={"input": _INPUT},
    promotes_integers=True,
    source="torch.nn.functional.sigmoid",
)
def sigmoid(input: Tensor) -> Terms:
    """The logistic function `1 / (1 + exp(-x))`."""
    return Terms(F.sigmoid(input))


@activation(
    layouts=_LAYOUTS,
    inputs={"input": _INPUT},
    options={"dim": _DIM},
    source="torch.nn.functional.softmin",
)
def softmin(input: Tensor, dim: int) -> Terms:
    """The softmax of the negative input: exponentials of -x that add up to 1 along an axis.

    Integers are converted to the compute type before their sign is changed.
    """
    return Terms(F.softmin(input, dim))


@activation(
    layouts=(layout("any", input=floats("*S"), values="*S"),),
    inputs={"input": _INPUT},
    source="torch.nn.functional.logsigmoid",
)
def logsigmoid(input: Tensor) -> Terms:
    """The logarithm of the logistic function, `log(1 / (1 + exp(-x)))`."""
    return Terms(F.logsigmoid(input))
