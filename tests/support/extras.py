"""The few facts about single losses that no rule of one input can express."""

from losswire.wire import OptionScalar

POSITIVE = ("weight", "pos_weight")
"""Inputs of any sign that are drawn positive, because that is what they are used for: torch
adds up weighted parts in the compute type, and parts that cancel each other say nothing."""

ONLY_COMPOSED = ("ctc_loss",)
"""Losses whose gradient torch defines only in composition with log_softmax."""

WHILE_WEIGHTED: dict[str, dict[str, OptionScalar]] = {"ctc_loss": {"zero_infinity": True}}
"""Options with which every row is finite: torch's gradient of what has the weight 0 is NaN where
the row's value is infinite, the service's is 0."""

SMOOTH: dict[str, dict[str, float]] = {
    # torch's gradient below eps is that of the raised variance.
    "gaussian_nll_loss": {"var": 3.0},
    # Stirling's term begins with a jump at the count 1.
    "poisson_nll_loss": {"target": 0.5},
}
"""What is added to drawn inputs to keep them off the places where a loss has no slope."""

DENOMINATOR_INPUTS = {"l1_loss": ("weight",), "mse_loss": ("weight",)}
"""Inputs that enter the denominator of a mean, and so have a gradient through it."""
