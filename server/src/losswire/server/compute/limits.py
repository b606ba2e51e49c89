"""Limits: products of 0 and infinity in formulas, which are NaN as torch's operators multiply them.

The formulas of `engine = auto` are made of them; see the `formula` of a record.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def product(share: Tensor, other: Tensor) -> Tensor:
    """Return `share * other`, which is 0 where `share` is 0 and `other` infinite.

    Both are of one shape. The gradient of `share` is `other`, that of `other` is `share`.
    """
    found: Tensor = _Product.apply(share, other)  # type: ignore[no-untyped-call]
    return found


def replaced(values: Tensor, others: Tensor) -> Tensor:
    """Return other values, with the gradient of these."""
    found: Tensor = _Replaced.apply(values, others)  # type: ignore[no-untyped-call]
    return found


def differentiated(values: Tensor, derivatives: Mapping[Tensor, Tensor]) -> Tensor:
    """Return values whose derivatives by some inputs are given, all in one shape."""
    pairs = (*derivatives.keys(), *derivatives.values())
    found: Tensor = _Differentiated.apply(values, *pairs)  # type: ignore[no-untyped-call]
    return found


def times(share: Tensor, other: Tensor) -> Tensor:
    """Return `share * other` as `product` does, without a graph."""
    return (share * other).masked_fill_((share == 0) & other.isinf(), 0)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, share: Tensor, other: Tensor) -> Tensor:  # noqa: ANN401 (torch's context)
        ctx.save_for_backward(share, other)
        return times(share, other)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN401 (as above)
        [gradient] = gradients
        share, other = ctx.saved_tensors
        return gradient * other, gradient * share


class _Replaced(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, others: Tensor) -> Tensor:  # noqa: ANN401 (as above)
        del ctx, values
        return others.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401 (as above)
        del ctx
        return gradients[0], None


class _Differentiated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, *pairs: Tensor) -> Tensor:  # noqa: ANN401 (as above)
        ctx.save_for_backward(*pairs[len(pairs) // 2 :])
        return values.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401 (as above)
        [gradient] = gradients
        derivatives = ctx.saved_tensors
        found = [gradient * derivative for derivative in derivatives]
        return (None, *found, *(None for _ in derivatives))
