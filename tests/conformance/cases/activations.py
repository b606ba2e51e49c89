"""Activations, whose values are not reduced."""

from tests.conformance.cases.given import LOGITS, TARGETS, f32, f64, i64, one

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
