"""Several evaluations in one message."""

from tests.conformance.cases.given import LOG_PROBABILITIES, LOGITS, Case, Failure, Given, f32, i64

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
