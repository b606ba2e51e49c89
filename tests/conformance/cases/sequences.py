"""Sequences, and projections of features to classes."""

import numpy as np

from tests.conformance.cases.given import f32, f64, i64, one

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
