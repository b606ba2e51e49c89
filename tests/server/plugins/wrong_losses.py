"""Losses that a server must be able to serve, and `check-gradient` must not believe."""

from typing import Any

import torch
from torch import Tensor

from losswire.server.declare import Input, Terms, floats, layout, loss


class _WrongSlope(torch.autograd.Function):
    """The square, with a gradient a thousandth too large."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:  # noqa: ANN401 (torch's own)
        ctx.save_for_backward(values)
        return values * values

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Tensor:  # noqa: ANN401 (torch's own)
        (values,) = ctx.saved_tensors
        wrong: Tensor = grad_output * values * 2.002
        return wrong


@loss(
    layouts=(layout("any", json=floats("*S"), server=floats("*S"), values="*S"),),
    inputs={
        "json": Input(meaning="Anything.", differentiable=True),
        "server": Input(meaning="Anything else.", differentiable=True),
    },
    source="wrong on purpose",
)
def wrong_loss(json: Tensor, server: Tensor) -> Terms:
    """The square of a sum, whose gradient is wrong, of inputs named like options."""
    return Terms(_WrongSlope.apply(json + server))  # type: ignore[no-untyped-call]
