"""What rows add to a summary, against the mean that one evaluation of the same rows has."""

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from losswire.server.catalogue.record import Kind, LossRecord
from losswire.server.compute.dispatch import Outcome, compute
from losswire.server.compute.work import Work
from losswire.server.losses import builtin_registry
from losswire.server.pipeline.decode import decode
from losswire.server.pipeline.validate import validate
from losswire.server.summaries.row_losses import RowLosses, row_losses, row_weights
from losswire.v1 import evaluation_pb2
from losswire.wire import decode_tensor
from tests.support.exact import MEANS, near
from tests.support.plain import PLAIN
from tests.support.requests import Array, evaluation, f32, i64
from tests.support.table import plan

_REGISTRY = builtin_registry()
_LOSSES = [each for each in _REGISTRY if each.kind is Kind.LOSS]
_ENGINES = {"auto": evaluation_pb2.ENGINE_AUTO, "autograd": evaluation_pb2.ENGINE_AUTOGRAD}
_HOST = torch.device("cpu")


def _computed(message: evaluation_pb2.Evaluation) -> tuple[Work, Outcome]:
    work = validate(decode(message), _REGISTRY.find(message.loss))
    return work, compute(work, _HOST)


def _rows(message: evaluation_pb2.Evaluation) -> RowLosses:
    """Return what the rows of an evaluation of a mean add."""
    weight = decode_tensor(message.sample_weight) if message.HasField("sample_weight") else None
    unreduced = evaluation_pb2.Evaluation()
    unreduced.CopyFrom(message)
    unreduced.reduction = evaluation_pb2.REDUCTION_NONE
    unreduced.ClearField("sample_weight")
    batchmean = message.reduction == evaluation_pb2.REDUCTION_BATCHMEAN
    return row_losses(*_computed(unreduced), weight, batchmean=batchmean)


def _sums(message: evaluation_pb2.Evaluation) -> tuple[float, float, float]:
    """Return the sums of numerators, of their magnitudes and of denominators, as documented."""
    rows = _rows(message)
    weight = decode_tensor(message.sample_weight) if message.HasField("sample_weight") else None
    weights = row_weights(weight)
    if weights is None:
        weights = np.ones(rows.values.shape)
    chosen = np.ones(rows.values.shape, bool) if rows.counted is None else rows.counted
    assert not (chosen & (weights == 0)).any()
    with np.errstate(invalid="ignore"):
        numerators = weights * rows.values if rows.numerators is None else rows.numerators
    denominators = weights if rows.denominators is None else rows.denominators
    with np.errstate(invalid="ignore"):
        total = float(numerators[chosen].sum())
    return total, float(np.abs(numerators[chosen]).sum()), float(denominators[chosen].sum())


def _means(record: LossRecord, engine: str) -> Iterator[evaluation_pb2.Evaluation]:
    """Return the evaluations of a mean among the cells of the table, each once."""
    for cell in plan(record):
        ask = cell.ask
        if ask.reduction in MEANS and not ask.gradients_for and ask.normalizer is None:
            message = ask.message()
            message.engine = _ENGINES[engine]
            yield message
        elif ask.reduction in MEANS and ask.sample_weight is not None:
            message = ask.message()
            for name in ("gradients_for", "grad_output", "gradient_data_type"):
                message.ClearField(name)
            message.engine = _ENGINES[engine]
            yield message


@pytest.mark.parametrize("engine", _ENGINES)
@pytest.mark.parametrize("record", _LOSSES, ids=lambda each: each.name)
def test_mean_is_that_of_an_evaluation(record: LossRecord, engine: str) -> None:
    """For every loss, layout, data type, option and weight, the sums are those of the mean."""
    wrong = []
    count = 0
    for message in _means(record, engine):
        count += 1
        _, expected = _computed(message)
        numerator, magnitude, denominator = _sums(message)
        small = 1e-12 * magnitude if np.isfinite(magnitude) else 0.0
        same = near(numerator, expected.mean_numerator, small)
        if not (same and near(denominator, expected.mean_denominator, 1e-12 * abs(denominator))):
            found = (numerator, denominator, expected.mean_numerator, expected.mean_denominator)
            wrong.append(f"{message.loss} {dict(message.options)} {found}")
    assert count > 10
    assert not wrong, "\n".join([f"{len(wrong)} of {count}:", *wrong[:10]])


def _plain(message: evaluation_pb2.Evaluation) -> Array:
    """Return the values by the formula, in plain numpy."""
    inputs = {name: np.asarray(decode_tensor(each)) for name, each in message.inputs.items()}
    wide = {name: a.astype(float) if a.dtype.kind == "f" else a for name, a in inputs.items()}
    return PLAIN[message.loss](wide, {}).values


_TOKENS = evaluation(
    "cross_entropy",
    {
        "input": np.random.default_rng(5).standard_normal((3, 7, 4)).astype(np.float32),
        "target": i64([0, 1, -100, 6], [-100, -100, -100, -100], [2, 3, 5, 1]),
    },
)


def test_value_of_a_row_is_the_mean_of_its_values() -> None:
    """A row of tokens has the mean of those that are not ignored, and one without any has none."""
    rows = _rows(_TOKENS)
    values = _plain(_TOKENS)
    kept = decode_tensor(_TOKENS.inputs["target"]) != -100
    assert rows.counted is not None
    assert rows.counted.tolist() == [True, False, True]
    expected = [values[row][kept[row]].mean() for row in (0, 2)]
    np.testing.assert_allclose(rows.values[[0, 2]], expected, rtol=1e-6)
    assert rows.denominators is not None
    assert rows.denominators.tolist() == [3, 0, 4]
    assert rows.numerators is not None
    np.testing.assert_allclose(rows.numerators, [expected[0] * 3, 0, expected[1] * 4], rtol=1e-6)


def test_weights_of_values() -> None:
    """A weight for each value makes a weighted mean, and a row weight of those that are not 0."""
    weight = np.array([[1, 0, 3], [0, 0, 0], [0.5, 0.5, 0.5]])
    value = f32([1, np.nan, 3], [4, np.inf, 5], [6, 7, 8])
    message = evaluation(
        "l1_loss", {"input": value, "target": np.zeros_like(value)}, sample_weight=weight
    )
    rows = _rows(message)
    assert rows.counted is not None
    assert rows.counted.tolist() == [True, False, True]
    assert rows.values[[0, 2]].tolist() == [(1 + 9) / 4, 7]
    assert rows.numerators is not None
    assert rows.numerators.tolist() == [10, 0, 10.5]
    assert rows.denominators is not None
    assert rows.denominators.tolist() == [4, 0, 1.5]
    found = row_weights(weight)
    assert found is not None
    assert found.tolist() == [2, 0, 0.5]


def test_batchmean_adds_up_a_row() -> None:
    """With batchmean, the value of a row is the sum of its values, and each counts once."""
    log_p = np.log(np.array([[0.25, 0.75], [0.5, 0.5]]))
    target = np.array([[0.5, 0.5], [0.1, 0.9]])
    message = evaluation(
        "kl_div",
        {"input": log_p, "target": target},
        reduction=evaluation_pb2.REDUCTION_BATCHMEAN,
        sample_weight=np.array([2.0, 1.0]),
    )
    rows = _rows(message)
    expected = (target * (np.log(target) - log_p)).sum(axis=1)
    np.testing.assert_allclose(rows.values, expected, rtol=1e-14)
    assert rows.numerators is not None
    np.testing.assert_allclose(rows.numerators, expected * [2, 1], rtol=1e-14)
    assert rows.denominators is not None
    assert rows.denominators.tolist() == [2, 1]


def test_ctc_divides_by_the_lengths() -> None:
    """The numerator of a sequence is its value over its number of labels, times its weight."""
    log_p = np.log(np.full((6, 3, 4), 0.25, np.float32))
    message = evaluation(
        "ctc_loss",
        {
            "log_probs": log_p,
            "targets": i64([1, 2, 3], [1, 0, 0], [0, 0, 0]),
            "input_lengths": i64(6, 5, 4),
            "target_lengths": i64(3, 1, 0),
        },
        sample_weight=f32(1, 2, 1),
    )
    rows = _rows(message)
    np.testing.assert_allclose(rows.values, _plain(message), rtol=1e-6)
    assert rows.numerators is not None
    np.testing.assert_allclose(rows.numerators, rows.values / [3, 0.5, 1], rtol=1e-12)


_SPECIAL = tuple(itertools.product(_ENGINES, ("float32", "float64", "float16", "bfloat16")))


@pytest.mark.parametrize(("engine", "dtype"), _SPECIAL)
def test_nan_and_infinity_stay(engine: str, dtype: str) -> None:
    """Rows that are NaN or infinite are so in their value, and no others are."""
    logits = np.zeros((5, 3))
    logits[1, 2], logits[2, 0], logits[3, 1] = np.nan, -np.inf, np.nan
    message = evaluation(
        "cross_entropy",
        {"input": f32(*logits).astype(dtype), "target": i64(0, 1, 0, -100, 2)},
        engine=_ENGINES[engine],
        sample_weight=f32(1, 1, 2, 1, 3),
    )
    rows = _rows(message)
    assert rows.counted is not None
    assert rows.counted.tolist() == [True, True, True, False, True]
    np.testing.assert_allclose(rows.values[[0, 4]], np.log(3), rtol=1e-6)
    assert np.isnan(rows.values[1])
    assert rows.values[2] == np.inf


def test_loss_without_rows_is_one() -> None:
    """A scalar loss is one row, with or without a weight."""
    message = evaluation("cross_entropy", {"input": f32(0, 0), "target": np.int64(1)})
    rows = _rows(message)
    assert rows.values.shape == (1,)
    np.testing.assert_allclose(rows.values, np.log(2), rtol=1e-6)
    assert row_weights(np.array(2.0)) == [2.0]
