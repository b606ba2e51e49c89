"""Margins and embeddings."""

from tests.conformance.cases.given import LOGITS, f32, f64, i64, one

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
