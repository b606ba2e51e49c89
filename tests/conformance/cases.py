"""The table of the conformance vectors. To add one, add a line here and run `make conformance`.

A case with `ulps=0` must come out exactly: its numbers are so short that no step of any correct
implementation rounds. Other cases go through exp, log or a division and name how far off a result
may be; README.md says how that is measured.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from losswire.v1 import evaluation_pb2, tensor_pb2
from losswire.wire import OptionScalar
from tests.conformance.exact import Array

NAN, INF = float("nan"), float("inf")


@dataclass(frozen=True, kw_only=True)
class Failure:
    """The error that an evaluation must be answered with."""

    code: int
    reason: str
    fields: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Given:
    """One evaluation, and how precise its answer must be."""

    loss: str
    inputs: Mapping[str, Array]
    options: Mapping[str, OptionScalar] = field(default_factory=dict)
    reduction: str | None = None
    """None leaves it to the loss's default."""
    gradients_for: tuple[str, ...] = ()
    grad_output: Array | None = None
    sample_weight: Array | None = None
    normalizer: float | None = None
    gradient_dtype: str | None = None
    compute_dtype: str | None = None
    engine: str = "ENGINE_AUTOGRAD"
    ulps: int = 0
    spoil: Callable[[evaluation_pb2.Evaluation], None] | None = None
    """A last change to the message, for what a careful sender would never write."""
    failure: Failure | None = None


@dataclass(frozen=True, kw_only=True)
class Case:
    """One vector."""

    name: str
    about: str
    evaluations: tuple[Given, ...]
    """More than one go into an EvaluateMany."""


def f16(values: npt.ArrayLike) -> Array:
    """Make a float16 array."""
    return np.array(values, np.float16)


def bf16(values: npt.ArrayLike) -> Array:
    """Make a bfloat16 array."""
    return np.array(values, ml_dtypes.bfloat16)


def f32(values: npt.ArrayLike) -> Array:
    """Make a float32 array."""
    return np.array(values, np.float32)


def f64(values: npt.ArrayLike) -> Array:
    """Make a float64 array."""
    return np.array(values, np.float64)


def i64(values: npt.ArrayLike) -> Array:
    """Make an int64 array."""
    return np.array(values, np.int64)


def u8(values: npt.ArrayLike) -> Array:
    """Make a uint8 array."""
    return np.array(values, np.uint8)


def one(name: str, about: str, **given: Any) -> Case:  # noqa: ANN401 (the fields of Given)
    """Describe a vector of one evaluation."""
    return Case(name=name, about=about, evaluations=(Given(**given),))


# Shared by many cases. The first has no short numbers, the second only short ones.
LOGITS = [[0.3, -1.2, 2.1], [1.7, 0.4, -0.6], [-0.9, 0.8, 0.1], [2.5, -2.5, 0.7]]
SHORT = [[0.5, -1.25, 2.0], [1.75, 0.0, -0.5], [-1.0, 0.75, 0.25], [2.5, -2.5, 1.5]]
TARGETS = [[1.5, -1.0, 2.25], [0.0, 0.25, -1.5], [-1.0, 1.0, 0.5], [0.5, -2.0, -0.5]]
CLASSES = [2, 0, 1, 0]
LOG_PROBABILITIES = [[-0.5, -1.25, -2.0], [-1.75, -0.25, -0.5], [-3.0, -0.75, -1.5]]
PROBABILITIES = [[0.1, 0.2, 0.7], [0.6, 0.3, 0.1], [0.25, 0.25, 0.5], [0.05, 0.9, 0.05]]
FEATURES = [[[0.3, -1.2], [1.1, 0.2]], [[-0.7, 0.5], [2.1, -0.4]], [[0.9, 0.0], [-1.6, 1.3]]]
IMAGE = [FEATURES, [[[each / 2 for each in row] for row in plane] for plane in FEATURES]]

CROSS_ENTROPY = (
    one(
        "cross_entropy_float32",
        "Class indices, the mean, the gradient: the most common call.",
        loss="cross_entropy",
        inputs={"input": f32(LOGITS), "target": i64(CLASSES)},
        reduction="mean",
        gradients_for=("input",),
        ulps=4,
    ),
    one(
        "cross_entropy_float64",
        "float64 all the way.",
        loss="cross_entropy",
        inputs={"input": f64(LOGITS), "target": i64(CLASSES)},
        reduction="mean",
        gradients_for=("input",),
        ulps=4,
    ),
    one(
        "cross_entropy_float16",
        "float16 in, computed in float32: a float32 loss and a float16 gradient.",
        loss="cross_entropy",
        inputs={"input": f16(LOGITS), "target": i64(CLASSES)},
        reduction="mean",
        gradients_for=("input",),
        ulps=4,
    ),
    one(
        "cross_entropy_bfloat16",
        "bfloat16 in, computed in float32: a float32 loss and a bfloat16 gradient.",
        loss="cross_entropy",
        inputs={"input": bf16(LOGITS), "target": i64(CLASSES)},
        reduction="mean",
        gradients_for=("input",),
        ulps=4,
    ),
    one(
        "cross_entropy_auto_engine",
        "Nothing but inputs: default reduction, default engine, no gradient.",
        loss="cross_entropy",
        inputs={"input": f32(LOGITS), "target": i64(CLASSES)},
        engine="ENGINE_UNSPECIFIED",
        ulps=4,
    ),
    one(
        "cross_entropy_auto_engine_gradient",
        "Whatever path ENGINE_AUTO takes is as precise as torch's own.",
        loss="cross_entropy",
        inputs={"input": f32(LOGITS), "target": i64(CLASSES)},
        gradients_for=("input",),
        engine="ENGINE_AUTO",
        ulps=4,
    ),
    one(
        "cross_entropy_uint8_ignored",
        "uint8 classes with an ignore_index of their own; ignored rows have gradient 0.",
        loss="cross_entropy",
        inputs={"input": f32(LOGITS), "target": u8([2, 255, 1, 255])},
        options={"ignore_index": 255},
        reduction="sum",
        gradients_for=("input",),
        ulps=4,
    ),
    one(
        "cross_entropy_all_ignored",
        "Every row ignored: the mean is 0 / 0 = NaN, the gradient is 0.",
        loss="cross_entropy",
        inputs={"input": f32(LOGITS), "target": i64([-100] * 4)},
        reduction="mean",
        gradients_for=("input",),
        ulps=0,
    ),
    one(
        "cross_entropy_weight_smoothing",
        "The mean divides by the sum of the targets' class weights, also with smoothing.",
        loss="cross_entropy",
        inputs={
            "input": f32(LOGITS),
            "target": i64([2, 0, -100, 0]),
            "weight": f32([0.5, 2.0, 1.5]),
        },
        options={"label_smoothing": 0.1},
        reduction="mean",
        gradients_for=("input",),
        ulps=4,
    ),
    one(
        "cross_entropy_probabilities",
        "A distribution as target has a gradient too; the mean divides by the rows.",
        loss="cross_entropy",
        inputs={"input": f32(LOGITS), "target": f32(PROBABILITIES)},
        reduction="mean",
        gradients_for=("input", "target"),
        ulps=4,
    ),
    one(
        "cross_entropy_spatial",
        "Classes lie on the second axis: (N, C, H, W) against (N, H, W).",
        loss="cross_entropy",
        inputs={
            "input": f32(IMAGE),
            "target": i64([[[0, 1], [2, -100]], [[2, 2], [1, 0]]]),
        },
        reduction="mean",
        gradients_for=("input",),
        ulps=4,
    ),
    one(
        "cross_entropy_unbatched",
        "One row without a batch axis: a 0-d target and a 0-d loss.",
        loss="cross_entropy",
        inputs={"input": f64([0.3, -1.2, 2.1]), "target": i64(1)},
        reduction="none",
        gradients_for=("input",),
        grad_output=f64(1.0),
        ulps=4,
    ),
    one(
        "cross_entropy_sample_weight",
        "Weights of rows; a weight of 0 takes out even a row of NaN.",
        loss="cross_entropy",
        inputs={
            "input": f32([*LOGITS[:2], [NAN, INF, 0.0], LOGITS[3]]),
            "target": i64(CLASSES),
        },
        reduction="mean",
        sample_weight=f32([1.0, 0.25, 0.0, 3.0]),
        gradients_for=("input",),
        ulps=4,
    ),
    one(
        "cross_entropy_none_grad_output",
        "Without reduction the caller's own gradient of the values is required.",
        loss="cross_entropy",
        inputs={"input": f32(LOGITS), "target": i64(CLASSES)},
        reduction="none",
        gradients_for=("input",),
        grad_output=f64([1.0, -0.5, 0.0, 2.0]),
        ulps=4,
    ),
    one(
        "cross_entropy_normalizer",
        "A shard of a larger batch: the denominator is given, losses of shards add up.",
        loss="cross_entropy",
        inputs={"input": f32(LOGITS), "target": i64(CLASSES)},
        reduction="mean",
        normalizer=10.0,
        gradients_for=("input",),
        ulps=4,
    ),
    one(
        "nll_loss_exact",
        "Class weights over given log-probabilities; the denominator is 4, a power of two.",
        loss="nll_loss",
        inputs={
            "input": f32(LOG_PROBABILITIES),
            "target": i64([2, 0, 0]),
            "weight": f32([1.25, 8.0, 1.5]),
        },
        reduction="mean",
        gradients_for=("input",),
    ),
    one(
        "nll_loss_spatial_sum",
        "Spatial, ignored positions, uint8 classes, the sum.",
        loss="nll_loss",
        inputs={
            "input": f64([[[-0.5, -1.25], [-2.0, -0.75], [-0.25, -4.0]]]),
            "target": u8([[2, 9]]),
        },
        options={"ignore_index": 9},
        reduction="sum",
        gradients_for=("input",),
    ),
)

BINARY = (
    one(
        "binary_cross_entropy_float32",
        "Probabilities against probabilities, with gradients by both.",
        loss="binary_cross_entropy",
        inputs={"input": f32(PROBABILITIES), "target": f32(np.flip(PROBABILITIES, 1))},
        reduction="mean",
        gradients_for=("input", "target"),
        ulps=4,
    ),
    one(
        "binary_cross_entropy_weight",
        "A weight that broadcasts over the rows; the mean still divides by the count.",
        loss="binary_cross_entropy",
        inputs={
            "input": f64(PROBABILITIES),
            "target": f64([[0, 1, 1], [1, 0, 0], [0, 0, 1], [1, 1, 0]]),
            "weight": f64([0.5, 2.0, 1.0]),
        },
        reduction="mean",
        gradients_for=("input",),
        ulps=4,
    ),
    one(
        "binary_cross_entropy_with_logits_weights",
        "Both weights at once.",
        loss="binary_cross_entropy_with_logits",
        inputs={
            "input": f32(LOGITS),
            "target": f32([[1.0, 0.0, 1.0], [0.0, 0.5, 1.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.25]]),
            "weight": f32([[1.0], [0.5], [2.0], [1.0]]),
            "pos_weight": f32([2.0, 1.0, 0.5]),
        },
        reduction="mean",
        gradients_for=("input", "target"),
        ulps=4,
    ),
    one(
        "binary_cross_entropy_with_logits_large",
        "Logits far outside of where exp(x) fits: nothing overflows.",
        loss="binary_cross_entropy_with_logits",
        inputs={
            "input": f32([200.0, -200.0, 200.0, -200.0, 20.0]),
            "target": f32([1.0, 0.0, 0.0, 1.0, 1.0]),
        },
        reduction="none",
        gradients_for=("input",),
        grad_output=f32([1.0] * 5),
        ulps=4,
    ),
    one(
        "binary_cross_entropy_with_logits_bfloat16",
        "bfloat16 logits, the gradient asked for in float32.",
        loss="binary_cross_entropy_with_logits",
        inputs={"input": bf16(LOGITS), "target": bf16([[1, 0, 1]] * 4)},
        reduction="sum",
        gradients_for=("input",),
        gradient_dtype="float32",
        ulps=4,
    ),
)

REGRESSION = (
    one(
        "mse_loss_exact",
        "Short numbers: every bit is known.",
        loss="mse_loss",
        inputs={"input": f32(SHORT), "target": f32(TARGETS)},
        reduction="sum",
        gradients_for=("input", "target"),
    ),
    one(
        "mse_loss_weight",
        "The mean divides by the sum of the weight, so the weight's gradient has two terms.",
        loss="mse_loss",
        inputs={
            "input": f64([0.5, -1.25, 2.0]),
            "target": f64([1.5, -1.0, 2.25]),
            "weight": f64([0.5, 2.0, 1.5]),
        },
        reduction="mean",
        gradients_for=("input", "weight"),
    ),
    one(
        "mse_loss_scalar",
        "Tensors without axes.",
        loss="mse_loss",
        inputs={"input": f32(1.5), "target": f32(-0.25)},
        reduction="mean",
        gradients_for=("input",),
    ),
    one(
        "mse_loss_empty",
        "Tensors without elements: the mean is 0 / 0 = NaN, the gradient has no elements.",
        loss="mse_loss",
        inputs={"input": f32(np.zeros((0, 3))), "target": f32(np.zeros((0, 3)))},
        reduction="mean",
        gradients_for=("input",),
    ),
    one(
        "mse_loss_empty_sum",
        "The sum of nothing is 0.",
        loss="mse_loss",
        inputs={"input": f64(np.zeros((2, 0))), "target": f64(np.zeros((2, 0)))},
        reduction="sum",
        gradients_for=("input",),
    ),
    one(
        "mse_loss_float16_own_type",
        "Computed in float16 because the request says so: a float16 loss.",
        loss="mse_loss",
        inputs={"input": f16(SHORT), "target": f16(TARGETS)},
        reduction="none",
        compute_dtype="float16",
        gradients_for=("input",),
        grad_output=f16([[1.0, 2.0, 0.5]] * 4),
    ),
    one(
        "mse_loss_bfloat16_wider",
        "bfloat16 inputs computed in float64.",
        loss="mse_loss",
        inputs={"input": bf16(SHORT), "target": bf16(TARGETS)},
        reduction="sum",
        compute_dtype="float64",
        gradients_for=("input",),
    ),
    one(
        "mse_loss_infinite",
        "Infinity and NaN are results like any other.",
        loss="mse_loss",
        inputs={"input": f32([1.0, INF, NAN, -INF]), "target": f32([0.5, 0.5, 0.5, 0.5])},
        reduction="none",
        gradients_for=("input",),
        grad_output=f32([1.0, 1.0, 1.0, 1.0]),
    ),
    one(
        "l1_loss_exact",
        "The gradient at x = y is 0; a grad_output scales a reduced loss's gradient.",
        loss="l1_loss",
        inputs={"input": f32(SHORT), "target": f32(TARGETS)},
        reduction="sum",
        grad_output=f32(-2.5),
        gradients_for=("input",),
    ),
    one(
        "l1_loss_sample_weight",
        "A weight for every value; numerator and denominator both carry it.",
        loss="l1_loss",
        inputs={"input": f64(SHORT), "target": f64(TARGETS)},
        reduction="mean",
        sample_weight=f64([[1.0, 0.5, 0.0], [0.5, 0.5, 0.5], [0.0, 0.0, 1.0], [2.0, 1.0, 1.0]]),
        gradients_for=("input",),
    ),
    one(
        "smooth_l1_loss_beta",
        "Both sides of beta.",
        loss="smooth_l1_loss",
        inputs={"input": f32(SHORT), "target": f32(TARGETS)},
        options={"beta": 0.5},
        reduction="sum",
        gradients_for=("input", "target"),
    ),
    one(
        "huber_loss_delta",
        "Both sides of delta; an integer is taken where a number is asked for.",
        loss="huber_loss",
        inputs={"input": f64(SHORT), "target": f64(TARGETS)},
        options={"delta": 2},
        reduction="sum",
        gradients_for=("input", "target"),
    ),
)

DIVERGENCE = (
    one(
        "kl_div_batchmean",
        "batchmean divides by the length of the first axis only.",
        loss="kl_div",
        inputs={
            "input": f32([*LOG_PROBABILITIES, [-1.0, -1.0, -1.0]]),
            "target": f32(PROBABILITIES),
        },
        reduction="batchmean",
        gradients_for=("input", "target"),
        ulps=4,
    ),
    one(
        "kl_div_log_target",
        "The target holds logarithms.",
        loss="kl_div",
        inputs={"input": f64(LOG_PROBABILITIES), "target": f64(np.flip(LOG_PROBABILITIES, 0))},
        options={"log_target": True},
        reduction="mean",
        gradients_for=("input", "target"),
        ulps=4,
    ),
)

ACTIVATIONS = (
    one(
        "softmax_float32",
        "An activation: no reduction, all sums 0.",
        loss="softmax",
        inputs={"input": f32(LOGITS)},
        options={"dim": -1},
        gradients_for=("input",),
        grad_output=f32(TARGETS),
        ulps=4,
    ),
    one(
        "log_softmax_first_axis",
        "Along the first axis.",
        loss="log_softmax",
        inputs={"input": f64(LOGITS)},
        options={"dim": 0},
        gradients_for=("input",),
        grad_output=f64(TARGETS),
        ulps=4,
    ),
    one(
        "sigmoid_integers",
        "Integers are computed in float32.",
        loss="sigmoid",
        inputs={"input": i64([[-3, 0, 2]])},
        ulps=4,
    ),
)

MORE_ACTIVATIONS = (
    one(
        "softmin_float32",
        "Softmax of the negated input.",
        loss="softmin",
        inputs={"input": f32(LOGITS)},
        options={"dim": 1},
        gradients_for=("input",),
        grad_output=f32(TARGETS),
        ulps=4,
    ),
    one(
        "logsigmoid_large",
        "Far on either side nothing overflows.",
        loss="logsigmoid",
        inputs={"input": f32([-200.0, -1.5, 0.0, 1.5, 20.0])},
        gradients_for=("input",),
        grad_output=f32([1.0] * 5),
        ulps=4,
    ),
)

LIKELIHOOD = (
    one(
        "poisson_nll_loss_log_input",
        "The input is the logarithm of the rate.",
        loss="poisson_nll_loss",
        inputs={"input": f32(LOGITS), "target": f32([[0, 1, 7], [3, 2, 0], [1, 1, 2], [9, 0, 4]])},
        reduction="mean",
        gradients_for=("input", "target"),
        ulps=4,
    ),
    one(
        "poisson_nll_loss_full",
        "The input is the rate itself, with Stirling's term, which nearly cancels, where y > 1.",
        loss="poisson_nll_loss",
        inputs={"input": f64([0.5, 1.5, 4.0, 9.0]), "target": f64([0, 1, 3, 12])},
        options={"log_input": False, "full": True},
        reduction="sum",
        gradients_for=("input",),
        ulps=16,
    ),
    one(
        "gaussian_nll_loss_full",
        "A variance of each element, one of them below eps.",
        loss="gaussian_nll_loss",
        inputs={
            "input": f64([[0.5, -1.25], [2.0, 0.75]]),
            "target": f64([[1.5, -1.0], [2.25, 0.5]]),
            "var": f64([[0.5, 2.0], [0.01, 1.5]]),
        },
        options={"full": True, "eps": 0.0625},
        reduction="mean",
        gradients_for=("input", "target", "var"),
        ulps=4,
    ),
    one(
        "gaussian_nll_loss_per_row",
        "One variance for each row.",
        loss="gaussian_nll_loss",
        inputs={
            "input": f32([[0.5, -1.25], [2.0, 0.75]]),
            "target": f32([[1.5, -1.0], [2.25, 0.5]]),
            "var": f32([0.5, 3.0]),
        },
        reduction="mean",
        gradients_for=("input", "var"),
        ulps=4,
    ),
)

MARGINS = (
    one(
        "margin_ranking_loss_exact",
        "Both sides of the hinge.",
        loss="margin_ranking_loss",
        inputs={
            "input1": f32([0.5, -1.25, 2.0, 1.0]),
            "input2": f32([1.5, -1.0, 0.25, 0.0]),
            "target": f32([1, 1, 1, -1]),
        },
        options={"margin": 0.5},
        reduction="mean",
        gradients_for=("input1", "input2"),
    ),
    one(
        "hinge_embedding_loss_exact",
        "Similar and dissimilar, near and far.",
        loss="hinge_embedding_loss",
        inputs={"input": f32([0.5, 1.25, 0.25, 3.0]), "target": f32([1, 1, -1, -1])},
        options={"margin": 1.5},
        reduction="mean",
        gradients_for=("input",),
    ),
    one(
        "soft_margin_loss_float32",
        "The logistic loss.",
        loss="soft_margin_loss",
        inputs={
            "input": f32(LOGITS),
            "target": f32([[1, -1, 1], [-1, 1, 1], [1, 1, -1], [-1, -1, 1]]),
        },
        reduction="mean",
        gradients_for=("input",),
        ulps=4,
    ),
    one(
        "multi_margin_loss_squared",
        "Four classes, so that the division by their number is exact; squares and weights.",
        loss="multi_margin_loss",
        inputs={
            "input": f32([[0.5, -1.25, 2.0, 0.0], [1.75, 0.25, -0.5, 1.5]]),
            "target": i64([2, 3]),
            "weight": f32([1.0, 1.0, 0.5, 2.0]),
        },
        options={"p": 2, "margin": 2.0},
        reduction="mean",
        gradients_for=("input",),
    ),
    one(
        "multilabel_margin_loss_exact",
        "Lists of labels that end at -1.",
        loss="multilabel_margin_loss",
        inputs={
            "input": f64([[0.5, -1.25, 2.0, 0.25], [1.75, 0.25, -0.5, 1.5]]),
            "target": i64([[3, 0, -1, 1], [1, -1, 2, 2]]),
        },
        reduction="mean",
        gradients_for=("input",),
    ),
    one(
        "multilabel_soft_margin_loss_weight",
        "One value for each row: the mean over its classes.",
        loss="multilabel_soft_margin_loss",
        inputs={
            "input": f32(LOGITS),
            "target": f32([[1, 0, 1], [0, 1, 1], [1, 1, 0], [0, 0, 1]]),
            "weight": f32([1.0, 0.5, 2.0]),
        },
        reduction="none",
        grad_output=f32([1.0, 0.5, -1.0, 2.0]),
        gradients_for=("input",),
        ulps=4,
    ),
)

EMBEDDINGS = (
    one(
        "cosine_embedding_loss_margin",
        "Similar, dissimilar within and beyond the margin.",
        loss="cosine_embedding_loss",
        inputs={
            "input1": f32([[0.5, 1.0], [1.0, 0.25], [1.0, -1.0]]),
            "input2": f32([[1.0, 0.75], [0.75, 0.5], [0.5, 2.0]]),
            "target": f32([1, -1, -1]),
        },
        options={"margin": 0.25},
        reduction="mean",
        gradients_for=("input1", "input2"),
        ulps=4,
    ),
    one(
        "triplet_margin_loss_swap",
        "Euclidean distances; with swap the negative may be nearer to the positive.",
        loss="triplet_margin_loss",
        inputs={
            "anchor": f64([[0.5, 1.0], [1.0, 0.25]]),
            "positive": f64([[1.0, 0.75], [0.75, -0.5]]),
            "negative": f64([[1.5, 0.5], [-0.5, 1.0]]),
        },
        options={"swap": True, "margin": 2.0},
        reduction="mean",
        gradients_for=("anchor", "positive", "negative"),
        ulps=4,
    ),
    one(
        "triplet_margin_with_distance_loss_cosine",
        "The distance is named.",
        loss="triplet_margin_with_distance_loss",
        inputs={
            "anchor": f64([[0.5, 1.0], [1.0, 0.25]]),
            "positive": f64([[1.0, 0.75], [0.75, -0.5]]),
            "negative": f64([[1.5, 0.5], [-0.5, 1.0]]),
        },
        options={"distance_function": "cosine"},
        reduction="sum",
        gradients_for=("anchor", "positive", "negative"),
        ulps=4,
    ),
)

FRAMES = np.log(
    [
        [[0.5, 0.25, 0.25], [0.125, 0.5, 0.375]],
        [[0.25, 0.5, 0.25], [0.25, 0.25, 0.5]],
        [[0.125, 0.125, 0.75], [0.5, 0.25, 0.25]],
        [[0.5, 0.125, 0.375], [0.25, 0.5, 0.25]],
    ]
).round(6)

OTHERS = (
    one(
        "ctc_loss_padded",
        "Padded labels, a repeated one among them; the mean divides by the labels' number first.",
        loss="ctc_loss",
        inputs={
            "log_probs": f64(FRAMES),
            "targets": i64([[1, 2], [2, 2]]),
            "input_lengths": i64([4, 4]),
            "target_lengths": i64([2, 2]),
        },
        reduction="mean",
        gradients_for=("log_probs",),
        ulps=8,
    ),
    one(
        "ctc_loss_zero_infinity",
        "Two frames are too few for a repeated label: infinite, and 0 on request.",
        loss="ctc_loss",
        inputs={
            "log_probs": f32(FRAMES),
            "targets": i64([[1, 2], [2, 2]]),
            "input_lengths": i64([3, 2]),
            "target_lengths": i64([1, 2]),
        },
        options={"zero_infinity": True},
        reduction="sum",
        gradients_for=("log_probs",),
        ulps=8,
    ),
    one(
        "linear_cross_entropy_bias",
        "Features travel instead of logits; gradients by features, matrix and bias.",
        loss="linear_cross_entropy",
        inputs={
            "input": f32([[0.5, -1.25], [2.0, 0.75], [-0.5, 1.0]]),
            "linear_weight": f32([[1.0, 0.5], [-0.25, 1.5], [0.75, -1.0], [0.0, 0.25]]),
            "linear_bias": f32([0.1, -0.2, 0.3, 0.0]),
            "target": i64([3, 0, 2]),
        },
        reduction="mean",
        gradients_for=("input", "linear_weight", "linear_bias"),
        ulps=4,
    ),
)

_GOOD = Given(
    loss="l1_loss", inputs={"input": f32([1.5, -2.0]), "target": f32([0.5, 0.5])}, reduction="sum"
)
_BAD = Given(
    loss="nll_loss",
    inputs={"input": f32(LOG_PROBABILITIES), "target": i64([0, 3, 1])},
    failure=Failure(code=3, reason="INVALID_EVALUATION", fields=('inputs["target"]',)),
)
_SOFT = Given(
    loss="softmax", inputs={"input": f32(LOGITS[0])}, options={"dim": 0}, ulps=4, gradients_for=()
)

MANY = (
    Case(
        name="many_with_a_bad_one",
        about="One bad evaluation among good ones: the call succeeds, the item says what is wrong.",
        evaluations=(_GOOD, _BAD, _SOFT),
    ),
)


def _no_data_type(evaluation: evaluation_pb2.Evaluation) -> None:
    evaluation.inputs["input"].data_type = tensor_pb2.DATA_TYPE_UNSPECIFIED


def _short_of_data(evaluation: evaluation_pb2.Evaluation) -> None:
    tensor = evaluation.inputs["input"]
    tensor.data = tensor.data[:-1]


def _invalid(*fields: str) -> Failure:
    return Failure(code=3, reason="INVALID_EVALUATION", fields=fields)


ERRORS = (
    one(
        "error_unknown_loss",
        "There is no such loss.",
        loss="cross_entrpy",
        inputs={},
        failure=Failure(code=5, reason="UNKNOWN_LOSS", fields=("loss",)),
    ),
    one(
        "error_class_out_of_range",
        "A class that does not exist: never an index into memory.",
        loss="cross_entropy",
        inputs={"input": f32(LOGITS), "target": i64([0, 1, 3, -1])},
        failure=_invalid('inputs["target"]'),
    ),
    one(
        "error_shape",
        "The batch axes differ.",
        loss="cross_entropy",
        inputs={"input": f32(LOGITS), "target": i64([0, 1, 2])},
        failure=_invalid('inputs["target"].shape'),
    ),
    one(
        "error_no_silent_broadcast",
        "Where torch would broadcast with a warning, the request is refused.",
        loss="mse_loss",
        inputs={"input": f32(SHORT), "target": f32(TARGETS[:1])},
        failure=_invalid('inputs["target"].shape'),
    ),
    one(
        "error_data_type",
        "int32 classes, which torch does not take.",
        loss="cross_entropy",
        inputs={"input": f32(LOGITS), "target": np.array(CLASSES, np.int32)},
        failure=_invalid('inputs["target"].data_type'),
    ),
    one(
        "error_data_type_missing",
        "A tensor that does not say what its bytes are.",
        loss="sigmoid",
        inputs={"input": f32(LOGITS)},
        spoil=_no_data_type,
        failure=_invalid('inputs["input"].data_type'),
    ),
    one(
        "error_byte_count",
        "One byte is missing.",
        loss="sigmoid",
        inputs={"input": f32(LOGITS)},
        spoil=_short_of_data,
        failure=_invalid('inputs["input"].data'),
    ),
    one(
        "error_probability_out_of_range",
        "A probability above 1.",
        loss="binary_cross_entropy",
        inputs={"input": f32([0.5, 1.5]), "target": f32([0.0, 1.0])},
        failure=_invalid('inputs["input"]'),
    ),
    one(
        "error_everything_at_once",
        "All violations are reported together.",
        loss="cross_entropy",
        inputs={"input": f32(LOGITS), "target": i64(CLASSES), "targets": i64(CLASSES)},
        options={"label_smoothing": 1.5, "smoothing": 0.1, "ignore_index": 0.5},
        reduction="batchmean",
        gradients_for=("target",),
        failure=_invalid(
            'inputs["targets"]',
            'options["label_smoothing"]',
            'options["smoothing"]',
            'options["ignore_index"]',
            "reduction",
            "gradients_for[0]",
        ),
    ),
    one(
        "error_grad_output_missing",
        "The gradient of an unreduced loss is not defined without a grad_output.",
        loss="mse_loss",
        inputs={"input": f32(SHORT), "target": f32(TARGETS)},
        reduction="none",
        gradients_for=("input",),
        failure=_invalid("grad_output"),
    ),
    one(
        "error_normalizer",
        "A denominator of 0, for a sum.",
        loss="mse_loss",
        inputs={"input": f32(SHORT), "target": f32(TARGETS)},
        reduction="sum",
        normalizer=0.0,
        failure=_invalid("normalizer"),
    ),
)

CASES: tuple[Case, ...] = (
    *CROSS_ENTROPY,
    *BINARY,
    *REGRESSION,
    *DIVERGENCE,
    *ACTIVATIONS,
    *MORE_ACTIVATIONS,
    *LIKELIHOOD,
    *MARGINS,
    *EMBEDDINGS,
    *OTHERS,
    *MANY,
    *ERRORS,
)
