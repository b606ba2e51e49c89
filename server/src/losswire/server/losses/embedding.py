"""Losses over the distance between embeddings."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from losswire.server.declare import (
    SIGNS,
    FiniteIfEmpty,
    Input,
    Option,
    Range,
    Terms,
    floats,
    layout,
    loss,
    numbers,
    signed,
)

_TRIPLET: Final = {
    "anchor": Input(meaning="Embeddings.", differentiable=True, promotes=True),
    "positive": Input(
        meaning="Embeddings that are like the anchor.", differentiable=True, promotes=True
    ),
    "negative": Input(
        meaning="Embeddings that are unlike the anchor.", differentiable=True, promotes=True
    ),
}
_MARGIN = Option(
    meaning="The distance by which the negative should be farther away than the positive.",
    rules=(Range(low=0.0, open_low=True),),
)
_SWAP = Option(
    meaning="Whether the negative's distance is the smaller of those to anchor and positive."
)


@loss(
    layouts=(
        layout("unbatched", input1=numbers("D"), input2=numbers("D"), target=signed(""), values=""),
        layout(
            "batched", input1=numbers("N D"), input2=numbers("N D"), target=signed("N"), values="N"
        ),
    ),
    inputs={
        "input1": Input(meaning="Embeddings.", differentiable=True, promotes=True),
        "input2": Input(
            meaning="Embeddings to compare them with.", differentiable=True, promotes=True
        ),
        "target": Input(
            meaning="1 for similar, -1 for dissimilar.", promotes=True, values=(SIGNS,)
        ),
    },
    result_inputs=("input1", "input2"),
    options={
        "margin": Option(
            meaning="The cosine similarity up to which dissimilar pairs have a loss of 0."
        )
    },
    promotes_integers=True,
    source="torch.nn.functional.cosine_embedding_loss",
)
def cosine_embedding_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0.0,
    *,
    reduction: str = "none",
) -> Terms:
    """Cosine distance of similar pairs, excess similarity of dissimilar ones.

    The value of a row is `1 - cos(x1, x2)` where the target is 1,
    `max(0, cos(x1, x2) - margin)` where it is -1, and 0 for any other target, with
    `cos(a, b) = sum(a * b) / sqrt((sum(a * a) + 1e-12) * (sum(b * b) + 1e-12))`.
    Integers are converted to the compute type before anything is computed.
    """
    values = F.cosine_embedding_loss(input1, input2, target, margin=margin, reduction=reduction)
    return Terms(values)


@loss(
    layouts=(
        layout(
            "rows",
            anchor=numbers("*S D"),
            positive=numbers("*S D"),
            negative=numbers("*S D"),
            values="*S",
        ),
    ),
    inputs=_TRIPLET,
    options={
        "margin": _MARGIN,
        "p": Option(
            meaning="The degree of the norm that measures distances.",
            rules=(Range(), FiniteIfEmpty(axis="D")),
        ),
        "eps": Option(
            meaning="A number that is added to each difference before its norm is taken."
        ),
        "swap": _SWAP,
    },
    promotes_integers=True,
    source="torch.nn.functional.triplet_margin_loss",
)
def triplet_margin_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    reduction: str = "none",
) -> Terms:
    """Hinge loss on an anchor's distances to a positive and a negative example.

    The value of a row is `max(0, d(anchor, positive) - d(anchor, negative) + margin)`
    with `d(a, b) = norm(a - b + eps, p)`; with `swap`, the second distance is the
    smaller of `d(anchor, negative)` and `d(positive, negative)`. Integers are
    converted to the compute type before anything is computed.
    """
    return Terms(
        F.triplet_margin_loss(
            anchor, positive, negative, margin=margin, p=p, eps=eps, swap=swap, reduction=reduction
        )
    )


def _cosine(first: Tensor, second: Tensor) -> Tensor:
    return 1 - F.cosine_similarity(first, second, dim=-1)


def _squared_euclidean(first: Tensor, second: Tensor) -> Tensor:
    return (first - second).square().sum(-1)


_DISTANCES: Final[Mapping[str, Callable[[Tensor, Tensor], Tensor]]] = {
    "euclidean": torch.pairwise_distance,
    "manhattan": partial(torch.pairwise_distance, p=1.0),
    "squared_euclidean": _squared_euclidean,
    "cosine": _cosine,
}


@loss(
    layouts=(
        layout(
            "rows",
            anchor=floats("*S D"),
            positive=floats("*S D"),
            negative=floats("*S D"),
            values="*S",
        ),
    ),
    inputs=_TRIPLET,
    options={
        "distance_function": Option(
            meaning="The distance between two rows.", choices=tuple(_DISTANCES)
        ),
        "margin": _MARGIN,
        "swap": _SWAP,
    },
    source="torch.nn.functional.triplet_margin_with_distance_loss",
)
def triplet_margin_with_distance_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    distance_function: str = "euclidean",
    margin: float = 1.0,
    swap: bool = False,
    reduction: str = "none",
) -> Terms:
    """Hinge loss on an anchor's distances, with a choice of distances.

    The value of a row is `max(0, margin + d(anchor, positive) - d(anchor, negative))`;
    with `swap`, the second distance is the smaller of `d(anchor, negative)` and
    `d(positive, negative)`. torch takes any function as the distance; here it is
    `euclidean` (torch's default) for `norm(a - b + 1e-6, 2)`, `manhattan` for
    `norm(a - b + 1e-6, 1)`, `squared_euclidean` for `sum((a - b) ** 2)`, or `cosine`
    for `1 - sum(a * b) / (max(norm(a), 1e-8) * max(norm(b), 1e-8))`.
    """
    return Terms(
        F.triplet_margin_with_distance_loss(
            anchor,
            positive,
            negative,
            distance_function=_DISTANCES[distance_function],
            margin=margin,
            swap=swap,
            reduction=reduction,
        )
    )
