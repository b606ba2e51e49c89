"""Gradients are the derivatives of the losses: central differences of the service in float64."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest

from losswire.server.catalogue.layouts import Layout
from losswire.server.catalogue.record import Kind, LossRecord, Reduction
from losswire.server.losses import builtin_registry
from tests.support.caller import Array, Ask, Caller
from tests.support.extras import ONLY_COMPOSED, SMOOTH
from tests.support.sampling import (
    Ground,
    draw_ground,
    draw_inputs,
    generator,
    gradient_choices,
    option_variants,
    presences,
)

RECORDS = list(builtin_registry())
CASES = [
    (record, layout)
    for record in RECORDS
    if record.name not in ONLY_COMPOSED
    for layout in record.layouts
]

_STEP = 1e-5
_RELATIVE, _ABSOLUTE = 1e-6, 2e-8
"""The error of a central difference: step**2 times a third derivative of a few hundreds,
and the rounding of the loss over twice the step."""


def _objective(caller: Caller, asks: Sequence[Ask]) -> list[float]:
    """Evaluate, and combine the loss with its gradient coefficients."""
    plain = [replace(ask, gradients_for=(), grad_output=None) for ask in asks]
    found = []
    for ask, result in zip(asks, caller.results(plain), strict=True):
        coefficients = 1.0 if ask.grad_output is None else ask.grad_output
        found.append(float((result.loss * coefficients).sum()))
    return found


def _moved(array: Array) -> Iterator[Array]:
    """Return the array with each element moved up, and down."""
    for index in np.ndindex(array.shape):
        for step in (_STEP, -_STEP):
            moved = array.copy()
            moved[index] += step
            yield moved


def _differences(measured: Sequence[float], array: Array) -> Array:
    """Return the derivatives, from the objective measured at the moved arrays."""
    pairs = np.reshape(measured, (-1, 2))
    return np.asarray((pairs[:, 0] - pairs[:, 1]) / (2 * _STEP)).reshape(array.shape)


def derivatives(caller: Caller, ask: Ask, name: str) -> Array:
    """Measure the derivative of the objective along every element of one input."""
    array = ask.inputs[name]
    asks = [replace(ask, inputs={**ask.inputs, name: each}) for each in _moved(array)]
    return _differences(_objective(caller, asks), array)


def _ground(record: LossRecord, layout: Layout) -> tuple[Ground, np.random.Generator]:
    rng = generator("slopes", record.name, layout.name)
    return draw_ground(record, layout, rng, longest=3), rng


def _asks(record: LossRecord, layout: Layout) -> list[Ask]:
    """Return smooth points with all inputs present: every option value and every reduction."""
    ground, rng = _ground(record, layout)
    dtypes = {
        name: "float64" if layout.inputs[name].is_float else layout.inputs[name].dtypes[0]
        for name in presences(ground)[-1]
    }
    gradients = gradient_choices(ground, dtypes)[-1]
    asks = []
    for options in option_variants(ground, rng):
        for reduction in record.reductions:
            inputs = draw_inputs(ground, dtypes, options, rng)
            for name, shift in SMOOTH.get(record.name, {}).items():
                inputs[name] = np.asarray(inputs[name] + shift)
            shape = ground.values_shape if reduction is Reduction.NONE else ()
            ask = Ask(
                loss=record.name,
                inputs=inputs,
                options=options,
                reduction=reduction,
                gradients_for=gradients,
                grad_output=np.asarray(rng.uniform(0.5, 1.5, shape)),
            )
            asks.append(ask)
    if record.kind is Kind.LOSS:
        weight = np.asarray(rng.uniform(0.5, 1.5, ground.values_shape[:1]))
        asks += [replace(ask, sample_weight=weight) for ask in asks[: len(record.reductions)]]
        asks += [
            replace(ask, normalizer=2.5)
            for ask in asks[: len(record.reductions)]
            if ask.reduction in (Reduction.MEAN, Reduction.BATCHMEAN)
        ]
    return asks


def _close(found: Array, expected: Array) -> bool:
    scale = max(1.0, float(np.abs(expected).max(initial=0.0)))
    return np.allclose(found, expected, rtol=_RELATIVE, atol=_ABSOLUTE * scale)


@pytest.mark.parametrize(
    ("record", "layout"), CASES, ids=[f"{record.name}-{layout.name}" for record, layout in CASES]
)
def test_gradient_is_the_derivative(caller: Caller, record: LossRecord, layout: Layout) -> None:
    """Each gradient equals the derivative of the loss, whatever options, reduction and weights."""
    asks = _asks(record, layout)
    wrong = []
    for ask, result in zip(asks, caller.results(asks), strict=True):
        for name in ask.gradients_for:
            if record.kind is Kind.LOSS and not result.count:
                # Everything is ignored: the mean is NaN, and torch's gradient 0.
                expected = np.zeros_like(ask.inputs[name])
            else:
                expected = derivatives(caller, ask, name)
            if not _close(result.gradients[name], expected):
                wrong.append(f"{ask} {name}: {result.gradients[name]}, derivative {expected}")
    assert not wrong, "\n".join([f"{len(wrong)} differ:", *wrong[:5]])


@pytest.mark.parametrize("reduction", [Reduction.MEAN, Reduction.SUM])
@pytest.mark.parametrize("blank", [0, 3])
def test_gradient_of_ctc_is_the_derivative_along_logits(
    caller: Caller, blank: int, reduction: Reduction
) -> None:
    """The gradient of ctc_loss, through log_softmax, is its derivative along the logits."""
    rng = generator("slopes", "ctc_loss", str(blank), reduction.value)
    labels = np.array([[1, 2, 2], [2, 1, 0]])
    fixed = {
        "targets": np.where(labels == blank, 3, labels),
        "input_lengths": np.array([5, 4]),
        "target_lengths": np.array([3, 2]),
    }

    def softmaxes(points: Sequence[Array]) -> list[Array]:
        asks = [Ask(loss="log_softmax", inputs={"input": x}, options={"dim": -1}) for x in points]
        return [each.loss for each in caller.results(asks)]

    def asks_at(points: Sequence[Array]) -> list[Ask]:
        return [
            Ask(
                loss="ctc_loss",
                inputs={"log_probs": each, **fixed},
                options={"blank": blank},
                reduction=reduction,
                gradients_for=("log_probs",),
            )
            for each in softmaxes(points)
        ]

    logits = rng.standard_normal((5, 2, 4))
    [own] = caller.results(asks_at([logits]))
    [passed] = caller.results(
        [
            Ask(
                loss="log_softmax",
                inputs={"input": logits},
                options={"dim": -1},
                gradients_for=("input",),
                grad_output=own.gradients["log_probs"],
            )
        ]
    )
    measured = _objective(caller, asks_at(list(_moved(logits))))
    assert _close(passed.gradients["input"], _differences(measured, logits))


def test_only_losses_of_the_catalogue_are_left_to_composition() -> None:
    """Every loss is differentiated by itself, except those that torch defines only composed."""
    assert {record.name for record in RECORDS} - {record.name for record, _ in CASES} == set(
        ONLY_COMPOSED
    )
