"""Factored gradients of a softmax, which a closed form writes instead of the dense gradient."""

import torch
from torch import Tensor

from losswire.server.catalogue.closed_form import Factors
from losswire.server.errors import InvalidEvaluationError
from losswire.wire import Violation


def fill_factors(
    factors: Factors, parts: tuple[Tensor, Tensor, Tensor], scale: Tensor, classes: int
) -> None:
    """Write the factors of some rows.

    `parts` add up to lse, the largest first: the highest logit of each row, the logarithm above it
    and its rounding error. They and `scale` have an axis of length 1 in place of `classes`.
    """
    highest, above, rest = parts[0].double(), parts[1], parts[2]
    # One addition and its rounding error, by Knuth's two-sum.
    lse = highest + above
    second = lse - highest
    tail = (highest - (lse - second)) + (above - second) + rest
    for found, target in zip((lse, scale, tail), factors, strict=True):
        target.copy_(found.squeeze(classes))


def refuse_negative(tensor: Tensor | None, name: str, concerned: Tensor | None = None) -> None:
    """Refuse negative numbers: a target distribution that cancels out has no factors.

    `concerned` are the rows that matter; None: all. Raises InvalidEvaluationError.
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
    """Return the factors of values without a gradient, in new memory."""
    lse = torch.full(shape, torch.inf, dtype=torch.float64)
    return Factors(lse, torch.zeros_like(lse), torch.zeros_like(lse))
