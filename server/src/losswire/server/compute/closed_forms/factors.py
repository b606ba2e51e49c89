"""Factored gradients of a softmax: what a closed form writes instead of the dense gradient."""

import torch
from torch import Tensor

from losswire.server.catalogue.closed_form import Factors
from losswire.server.errors import InvalidEvaluationError
from losswire.wire import Violation


def fill_factors(
    factors: Factors, parts: tuple[Tensor, Tensor, Tensor], scale: Tensor, classes: int
) -> None:
    """Write the factors of some rows.

    `parts` are what lse is the sum of, the largest first: the highest logit of each row and
    what there is above it. They and `scale` have an axis of length 1 in the place of `classes`.
    """
    highest, above, rest = parts[0].double(), parts[1], parts[2]
    # One addition without what rounding takes from it, by Knuth's two-sum.
    lse = highest + above
    second = lse - highest
    tail = (highest - (lse - second)) + (above - second) + rest
    for found, place in zip((lse, scale, tail), factors, strict=True):
        place.copy_(found.squeeze(classes))


def refuse_negative(tensor: Tensor | None, name: str, concerned: Tensor | None = None) -> None:
    """Refuse target distributions that may cancel out, which their sum cannot scale.

    `concerned` tells which rows matter; None: all. Raises InvalidEvaluationError.
    """
    if tensor is None or not bool((tensor.amin() < 0).item()):
        return
    if concerned is not None and not bool(((tensor < 0) & concerned).any().item()):
        return
    text = (
        f"{name} holds negative numbers, whose gradient cannot be factored; "
        "ask for GRADIENT_FORM_DENSE"
    )
    raise InvalidEvaluationError([Violation("gradient_form", text)])


def no_factors(shape: tuple[int, ...]) -> Factors:
    """Give the factors of values that have no gradient, in new memory: that of removed ones."""
    lse = torch.full(shape, torch.inf, dtype=torch.float64)
    return Factors(lse, torch.zeros_like(lse), torch.zeros_like(lse))
