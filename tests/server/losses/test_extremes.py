"""The corners of torch's losses: infinities, empty and ignored batches, and refusals."""

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pytest

from losswire.server.catalogue.engine_difference import EngineDifference
from losswire.server.catalogue.record import Kind, LossRecord, Reduction
from losswire.server.losses import builtin_registry
from losswire.wire import OptionScalar
from tests.support.caller import Array, Ask, Caller, floats
from tests.support.corner import Corner, as_array
from tests.support.corners import CORNERS
from tests.support.exact import same_bits
from tests.support.sampling import (
    Ground,
    doubles,
    draw_ground,
    draw_inputs,
    generator,
    gradient_choices,
    presences,
    required_options,
)

MEAN, SUM, NONE = Reduction.MEAN, Reduction.SUM, Reduction.NONE
LOSSES = {each.name: each for each in builtin_registry() if each.kind is Kind.LOSS}
NEVER_EMPTY = ("ctc_loss",)
"""Losses that refuse an empty batch, because torch has no result for it."""


@pytest.mark.parametrize("engine", ["autograd", "auto"])
@pytest.mark.parametrize("corner", CORNERS, ids=lambda corner: f"{corner.loss}: {corner.name}")
def test_corner(caller: Caller, corner: Corner, engine: str) -> None:
    """Where a formula has a corner, the result is torch's, or with `auto` the formula's limit."""
    result = caller.evaluate(corner.ask(engine))
    loss, gradients = corner.results(engine)
    np.testing.assert_allclose(result.loss, np.asarray(loss), rtol=1e-6)
    for name, expected in gradients.items():
        np.testing.assert_allclose(result.gradients[name], np.asarray(expected), rtol=1e-6)


_DIFFERENCES = [(record, each) for record in LOSSES.values() for each in record.differences]


@pytest.mark.parametrize("engine", ["autograd", "auto"])
@pytest.mark.parametrize(
    ("record", "difference"),
    _DIFFERENCES,
    ids=[f"{record.name}: {each.where}, {each.result}" for record, each in _DIFFERENCES],
)
@pytest.mark.parametrize("rows", [1, 5000])
def test_where_the_engines_differ(
    caller: Caller, record: LossRecord, difference: EngineDifference, engine: str, rows: int
) -> None:
    """The examples in the documentation are what the engines give, small and large."""
    inputs = difference.arrays()
    kind, _, name = difference.result.rpartition(" ")
    count = len(inputs["input"])
    cut = {name for name, each in inputs.items() if len(each) == count}
    if record.name == "linear_cross_entropy":
        cut, rows = {"input", "target"}, 1
    ask = Ask(
        loss=record.name,
        inputs={
            name: np.tile(each, (rows, *(1 for _ in each.shape[1:]))) if name in cut else each
            for name, each in inputs.items()
        },
        options=difference.options,
        reduction=NONE,
        grad_output=np.ones(count * rows) if kind else None,
        gradients_for=(name,) if kind else (),
        engine=engine,
    )
    result = caller.evaluate(ask)
    expected = as_array(difference.auto if engine == "auto" else difference.autograd)
    found = result.gradients[name] if kind else result.loss
    expected = np.tile(expected, (rows, *(1 for _ in expected.shape[1:])))
    np.testing.assert_array_equal(found, expected)


def _empty(record: LossRecord) -> list[Ask]:
    """Return an evaluation without rows for every layout that has rows, and every reduction."""
    asks = []
    for layout in record.layouts:
        if not layout.values.tokens:
            continue
        rng = generator("empty", record.name, layout.name)
        ground = draw_ground(record, layout, rng, rows=0)
        if ground.values_shape[:1] != (0,):
            ground.bindings.groups["S"] = (0, 2)
        asks += _asks_on(ground, rng)
    return asks


def _asks_on(ground: Ground, rng: np.random.Generator) -> list[Ask]:
    """Return an evaluation with all inputs and gradients for every reduction."""
    options = required_options(ground)
    dtypes = doubles(ground, presences(ground)[-1])
    inputs = draw_inputs(ground, dtypes, options, rng)
    ask = Ask(
        loss=ground.record.name,
        inputs=inputs,
        options=options,
        gradients_for=gradient_choices(ground, dtypes)[-1],
    )
    return [
        replace(
            ask,
            reduction=reduction,
            grad_output=np.ones(ground.values_shape) if reduction is NONE else None,
        )
        for reduction in ground.record.reductions
    ]


@pytest.mark.parametrize("name", [name for name in LOSSES if name not in NEVER_EMPTY])
def test_empty_batch(caller: Caller, name: str) -> None:
    """A batch without rows has the mean NaN, the sum 0, no values and the gradient 0."""
    asks = _empty(LOSSES[name])
    assert asks
    for ask, result in zip(asks, caller.results(asks), strict=True):
        assert (result.sum, result.mean_numerator, result.count) == (0.0, 0.0, 0), str(ask)
        assert result.mean_denominator == 0.0, str(ask)
        if ask.reduction is NONE:
            assert result.loss.size == 0
        else:
            assert np.array_equal(
                result.loss, 0.0 if ask.reduction is SUM else np.nan, equal_nan=True
            )
        for gradient in result.gradients.values():
            assert not gradient.any(), str(ask)


@pytest.mark.parametrize("name", NEVER_EMPTY)
def test_empty_batch_is_refused_where_torch_has_no_result(caller: Caller, name: str) -> None:
    """A loss that torch does not have for an empty batch refuses it, naming the input."""
    refusal = caller.refusal(
        Ask(
            loss=name,
            inputs={
                "log_probs": np.zeros((3, 0, 4), np.float32),
                "targets": np.zeros((0, 2), np.int64),
                "input_lengths": np.zeros(0, np.int64),
                "target_lengths": np.zeros(0, np.int64),
            },
        )
    )
    assert 'inputs["log_probs"].shape' in refusal
    assert "the axis N must not be empty" in refusal


@pytest.mark.parametrize("name", ["multi_margin_loss", "multilabel_margin_loss"])
def test_empty_batch_never_shows_memory(caller: Caller, name: str) -> None:
    """The losses whose empty batch torch reduces to stale memory answer 0 and NaN every time."""
    [ask, *_] = [each for each in _empty(LOSSES[name]) if each.reduction is SUM]
    for _ in range(20):
        total, mean = caller.results([ask, replace(ask, reduction=MEAN)])
        assert total.loss == 0.0
        assert np.isnan(mean.loss)


@dataclass(frozen=True, kw_only=True)
class Refused:
    """An evaluation that must be refused, and a part of the error's text."""

    loss: str
    inputs: dict[str, npt.ArrayLike]
    says: str
    options: dict[str, OptionScalar] = field(default_factory=dict)


_SCORES = [[1.0, 2.0, 3.0]]
_EMBEDDINGS: dict[str, npt.ArrayLike] = {
    "anchor": [[1.0]],
    "positive": [[1.0]],
    "negative": [[2.0]],
}


def _frames(**changes: npt.ArrayLike) -> dict[str, npt.ArrayLike]:
    """Return the inputs of ctc_loss: one row, four frames, four classes."""
    return {
        "log_probs": np.full((4, 1, 4), -1.0, np.float32),
        "targets": [[1, 2]],
        "input_lengths": [4],
        "target_lengths": [2],
        **changes,
    }


REFUSED = [
    Refused(loss="cross_entropy", inputs={"input": _SCORES, "target": [3]}, says="index 3 at [0]"),
    Refused(loss="cross_entropy", inputs={"input": _SCORES, "target": [-1]}, says="index -1"),
    Refused(
        loss="cross_entropy",
        inputs={"input": _SCORES, "target": [-100]},
        options={"ignore_index": 1},
        says="index -100",
    ),
    Refused(
        loss="cross_entropy",
        inputs={"input": _SCORES, "target": _SCORES},
        options={"ignore_index": 0},
        says='options["ignore_index"]',
    ),
    Refused(
        loss="cross_entropy",
        inputs={"input": _SCORES, "target": [1]},
        options={"label_smoothing": 1.5},
        says='options["label_smoothing"]: 1.5 is not in [0, 1]',
    ),
    Refused(
        loss="cross_entropy",
        inputs={"input": _SCORES, "target": np.array([1], np.int32)},
        says='inputs["target"].data_type: is int32',
    ),
    Refused(loss="nll_loss", inputs={"input": _SCORES, "target": [3]}, says="index 3 at [0]"),
    *(
        Refused(
            loss="binary_cross_entropy",
            inputs={"input": [0.5, value], "target": [1.0, 0.0]},
            says=f"{value} at [1]",
        )
        for value in (-0.5, 1.5, float("nan"))
    ),
    Refused(
        loss="binary_cross_entropy",
        inputs={"input": [0.5], "target": [1.5]},
        says='inputs["target"]',
    ),
    Refused(
        loss="smooth_l1_loss",
        inputs={"input": [1.0], "target": [0.0]},
        options={"beta": -1.0},
        says='options["beta"]',
    ),
    Refused(
        loss="huber_loss",
        inputs={"input": [1.0], "target": [0.0]},
        options={"delta": 0.0},
        says='options["delta"]',
    ),
    Refused(
        loss="mse_loss",
        inputs={"input": [1.0, 2.0], "target": [0.0]},
        says='inputs["target"].shape',
    ),
    Refused(
        loss="gaussian_nll_loss",
        inputs={"input": [1.0], "target": [0.0], "var": [-1.0]},
        says='inputs["var"]',
    ),
    Refused(
        loss="triplet_margin_loss",
        inputs=_EMBEDDINGS,
        options={"margin": 0.0},
        says='options["margin"]',
    ),
    Refused(
        loss="triplet_margin_with_distance_loss",
        inputs=_EMBEDDINGS,
        options={"distance_function": "eval"},
        says='options["distance_function"]',
    ),
    Refused(loss="multi_margin_loss", inputs={"input": _SCORES, "target": [3]}, says="index 3"),
    Refused(
        loss="multi_margin_loss",
        inputs={"input": _SCORES, "target": [1]},
        options={"p": 3},
        says='options["p"]',
    ),
    *(
        Refused(
            loss="multilabel_margin_loss",
            inputs={"input": _SCORES, "target": [labels]},
            says='inputs["target"]',
        )
        for labels in ([0, 3, -1], [0, -2, -1], [0, -1, 3])
    ),
    Refused(loss="ctc_loss", inputs=_frames(targets=[[1, 4]]), says="label 4 at [0, 1]"),
    Refused(loss="ctc_loss", inputs=_frames(targets=[[1, -1]]), says="label -1 at [0, 1]"),
    Refused(loss="ctc_loss", inputs=_frames(targets=[[1, 0]]), says="is the blank"),
    Refused(loss="ctc_loss", inputs=_frames(input_lengths=[5]), says='inputs["input_lengths"]'),
    Refused(loss="ctc_loss", inputs=_frames(target_lengths=[3]), says='inputs["target_lengths"]'),
    Refused(loss="ctc_loss", inputs=_frames(target_lengths=[-1]), says='inputs["target_lengths"]'),
    Refused(
        loss="ctc_loss",
        inputs=_frames(targets=[1, 2, 3], target_lengths=[2]),
        says="the lengths add up to 2",
    ),
    Refused(loss="ctc_loss", inputs=_frames(), options={"blank": 4}, says='options["blank"]'),
    Refused(loss="softmax", inputs={"input": _SCORES}, options={"dim": 2}, says='options["dim"]'),
]


@pytest.mark.parametrize("refused", REFUSED, ids=lambda each: f"{each.loss}: {each.says}")
def test_unsafe_values_are_refused(caller: Caller, refused: Refused) -> None:
    """Inputs that torch refuses, or would index memory with, are refused by name."""
    inputs = {name: as_array(values) for name, values in refused.inputs.items()}
    refusal = caller.refusal(Ask(loss=refused.loss, inputs=inputs, options=refused.options))
    assert refused.says in refusal


def test_halves_are_added_up_in_full(caller: Caller) -> None:
    """A mean of bfloat16 is float32 by default, and of the inputs' own type when asked for."""
    values = np.array([100.0, 101.0, 103.0])
    ask = Ask(
        loss="l1_loss",
        inputs={"input": floats(values, "bfloat16"), "target": floats(values * 0, "bfloat16")},
    )
    full, own = caller.results([ask, replace(ask, compute_dtype="bfloat16")])
    assert (full.loss.dtype.name, float(full.loss)) == ("float32", float(np.float32(304 / 3)))
    assert (own.loss.dtype.name, float(own.loss)) == ("bfloat16", 101.5)


def test_only_a_half_overflows(caller: Caller) -> None:
    """A sum beyond float16 is infinite in float16 alone; the double beside it stays right."""
    ones = np.ones(131072, np.float16)
    ask = Ask(loss="mse_loss", inputs={"input": ones, "target": ones * 0}, reduction=SUM)
    full, own = caller.results([ask, replace(ask, compute_dtype="float16")])
    assert (float(full.loss), float(own.loss)) == (131072.0, float("inf"))
    assert own.sum == 131072.0


def test_values_of_multilabel_soft_margin_are_rows(caller: Caller) -> None:
    """The unreduced values of multilabel_soft_margin_loss have no class axis."""
    scores = np.zeros((2, 3), np.float32)
    ask = Ask(
        loss="multilabel_soft_margin_loss",
        inputs={"input": scores, "target": scores},
        reduction=NONE,
    )
    assert caller.evaluate(ask).loss.tolist() == [np.float32(np.log(2))] * 2


def test_mean_of_ctc_divides_each_row_by_its_labels(caller: Caller) -> None:
    """The mean of ctc_loss averages values that were divided by their target_length."""
    rng = generator("ctc")
    logits = rng.standard_normal((6, 2, 4))
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    inputs: dict[str, Array] = {
        "log_probs": log_probs,
        "targets": np.array([[1, 2], [3, 3]]),
        "input_lengths": np.array([6, 6]),
        "target_lengths": np.array([2, 1]),
    }
    ask = Ask(loss="ctc_loss", inputs=inputs, reduction=NONE)
    values, mean = caller.results([ask, replace(ask, reduction=MEAN)])
    assert same_bits(mean.loss, np.asarray((values.loss[0] / 2 + values.loss[1]) / 2))


@pytest.mark.parametrize("poison", [np.inf, np.nan])
def test_removed_row_does_not_meet_its_class_weight(caller: Caller, poison: float) -> None:
    """The weight of a class that only removed rows have may be anything, and changes nothing."""
    ask = Ask(
        loss="cross_entropy",
        inputs={
            "input": floats([[0.0, 0.0], [1.0, 2.0]]),
            "target": np.array([0, 1]),
            "weight": floats([2.0, poison]),
        },
        gradients_for=("input",),
        sample_weight=floats([1.0, 0.0]),
    )
    result = caller.evaluate(ask)
    assert (result.mean_denominator, result.count) == (2.0, 1)
    assert result.loss == np.float32(np.log(2.0))
    assert result.gradients["input"].tolist() == [[-0.5, 0.5], [0.0, 0.0]]
