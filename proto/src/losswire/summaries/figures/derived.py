"""The figures that people expect instead of the mean of some losses."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Derived:
    """A figure that is a function of the mean, and grows with it."""

    name: str
    """Its name, as the attribute has it."""
    losses: frozenset[str]
    """The losses whose mean it is made of."""
    of_mean: Callable[[float], float]
    """The function."""

    def of(self, loss: str, mean: float) -> float:
        """Return the figure; ValueError where the loss has none."""
        if loss not in self.losses:
            known = ", ".join(sorted(self.losses))
            raise ValueError(f"{loss} has no {self.name}; these have: {known}")
        return self.of_mean(mean)


def _exp(mean: float) -> float:
    try:
        return math.exp(mean)
    except OverflowError:
        return math.inf


_CATEGORICAL: Final = frozenset({"cross_entropy", "linear_cross_entropy", "nll_loss"})
"""Losses whose mean is the cross entropy of one choice of many, in nats."""

_BINARY: Final = frozenset({"binary_cross_entropy", "binary_cross_entropy_with_logits"})
"""Losses whose mean is the cross entropy of yes or no, in nats. They have bits, but a perplexity,
which is a number of choices, means nothing where there are two."""

_LIKELIHOODS: Final = frozenset({"gaussian_nll_loss", "poisson_nll_loss"})
"""Other losses whose mean is a negative log-likelihood in nats, up to a constant."""

PERPLEXITY: Final = Derived("perplexity", _CATEGORICAL, _exp)
RMSE: Final = Derived(
    "rmse",
    frozenset({"mse_loss"}),
    lambda mean: math.sqrt(mean) if mean >= 0 or math.isnan(mean) else math.nan,
)
BITS_PER_DIMENSION: Final = Derived(
    "bits_per_dimension",
    _CATEGORICAL | _BINARY | _LIKELIHOODS,
    lambda mean: mean / math.log(2),
)
ALL: Final = (PERPLEXITY, RMSE, BITS_PER_DIMENSION)
