"""Inputs that break plain torch get a precise error or the right answer; others see nothing."""

from collections.abc import Callable, Mapping

import grpc
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from losswire.server.catalogue.record import Reduction
from losswire.v1 import status_pb2
from tests.server.hazards import showing
from tests.server.hazards.requests import (
    BLANK_LABEL,
    CTC,
    LABEL_ABOVE,
    LABEL_BELOW,
    LABEL_FAR,
    REFUSALS,
    Refusal,
    with_targets,
)
from tests.support.caller import Array, Ask, Caller

Inputs = Mapping[str, Array]

_LOGITS = np.array([[1.0, -2.0, 0.5], [0.25, 0.0, -1.0]], np.float32)
_CLASSES = np.array([2, 0])

INVALID = grpc.StatusCode.INVALID_ARGUMENT.value[0]


def _golden(caller: Caller) -> None:
    """Evaluate a valid request, which must be exact after any other."""
    logits = torch.tensor(_LOGITS, requires_grad=True)
    values = F.cross_entropy(logits, torch.tensor(_CLASSES), reduction="none")
    loss = (values.detach().double().sum() / 2).float()
    [gradient] = torch.autograd.grad(values, [logits], torch.full((2,), 0.5))
    ask = Ask(
        loss="cross_entropy",
        inputs={"input": _LOGITS, "target": _CLASSES},
        gradients_for=("input",),
    )
    result = caller.evaluate(ask)
    assert result.loss == loss.numpy()
    np.testing.assert_array_equal(result.gradients["input"], gradient.numpy())


def _refusal(caller: Caller, ask: Ask) -> status_pb2.Status:
    [outcome] = caller.outcomes([ask])
    assert isinstance(outcome, status_pb2.Status), f"{ask} was not refused"
    return outcome


@pytest.mark.parametrize(
    ("demonstration", "misbehaves", "refusal"),
    [
        ("ctc_label_above", showing.reads_its_neighbours, LABEL_ABOVE),
        ("ctc_label_below", showing.reads_its_neighbours, LABEL_BELOW),
        ("ctc_label_far", showing.crashes, LABEL_FAR),
        ("ctc_blank_label", showing.gives_a_number, BLANK_LABEL),
    ],
)
def test_inputs_that_break_torch_are_refused(
    caller: Caller, demonstration: str, misbehaves: showing.Judge, refusal: Refusal
) -> None:
    """Labels with which torch leaves its tensors, or its process, are named in the error."""
    shown = showing.show(demonstration)
    assert misbehaves(shown), shown
    status = _refusal(caller, refusal.ask)
    assert [each.field for each in status.violations] == [refusal.path]
    _golden(caller)


@pytest.mark.parametrize("refusal", REFUSALS, ids=str)
def test_refusal_names_the_field(caller: Caller, refusal: Refusal) -> None:
    """An unsafe part of a request is INVALID_ARGUMENT with its path, and others stay exact."""
    status = _refusal(caller, refusal.ask)
    assert status.code == INVALID
    assert status.reason == "INVALID_EVALUATION"
    assert [each.field for each in status.violations] == [refusal.path]
    assert refusal.says in status.violations[0].description
    _golden(caller)


@pytest.mark.parametrize(
    ("loss", "demonstration", "target"),
    [
        ("multi_margin_loss", "multi_margin_of_nothing", np.zeros(0, np.int64)),
        ("multilabel_margin_loss", "multilabel_margin_of_nothing", np.zeros((0, 3), np.int64)),
    ],
)
def test_no_rows_disclose_no_memory(
    caller: Caller, loss: str, demonstration: str, target: Array
) -> None:
    """No rows have the mean NaN and the sum 0, where torch returns uninitialized memory."""
    shown = showing.show(demonstration)
    assert showing.gives_what_memory_held(shown), shown
    inputs = {"input": np.zeros((0, 3), np.float32), "target": target}
    asks = [
        Ask(
            loss=loss,
            inputs=inputs,
            reduction=reduction,
            gradients_for=("input",),
            grad_output=np.zeros(0, np.float32) if reduction is Reduction.NONE else None,
        )
        for reduction in (Reduction.NONE, Reduction.MEAN, Reduction.SUM)
    ]
    for _ in range(20):
        none, mean, total = caller.results(asks)
        assert none.loss.shape == (0,)
        assert np.isnan(mean.loss)
        assert total.loss == 0
        for result in (none, mean, total):
            assert result.gradients["input"].shape == (0, 3)
            assert (result.sum, result.mean_numerator, result.mean_denominator) == (0, 0, 0)
            assert result.count == 0
    _golden(caller)


def test_padding_may_hold_anything(caller: Caller) -> None:
    """Labels after a target's length are not read, and change no bit."""
    clean = caller.evaluate(CTC)
    for padding in (0, -7, 99, 10**9, -(2**63)):
        result = caller.evaluate(with_targets([[1, 2], [3, padding]]))
        assert result.loss == clean.loss
        np.testing.assert_array_equal(result.gradients["log_probs"], clean.gradients["log_probs"])


def _bytes(*values: int) -> Array:
    return np.array(values, np.uint8)


@pytest.mark.parametrize(
    ("loss", "torch_loss", "inputs", "options"),
    [
        (
            "linear_cross_entropy",
            F.linear_cross_entropy,
            {
                "input": np.ones((1, 1), np.float32),
                "linear_weight": np.linspace(-1, 1, 200, dtype=np.float32).reshape(200, 1),
                "target": _bytes(156),
            },
            {"label_smoothing": 0.1},
        ),
        (
            "poisson_nll_loss",
            F.poisson_nll_loss,
            {"input": _bytes(3), "target": _bytes(100)},
            {},
        ),
        (
            "margin_ranking_loss",
            F.margin_ranking_loss,
            {"input1": _bytes(1), "input2": _bytes(2), "target": np.array([1], np.int8)},
            {},
        ),
    ],
)
def test_bytes_do_not_wrap(
    caller: Caller,
    loss: str,
    torch_loss: Callable[..., Tensor],
    inputs: Mapping[str, Array],
    options: Mapping[str, float],
) -> None:
    """Where torch calculates in uint8 and wraps around, the answer is that for wider integers."""
    tensors = {name: torch.tensor(array) for name, array in inputs.items()}
    wider = {n: each if each.is_floating_point() else each.long() for n, each in tensors.items()}
    expected = torch_loss(**wider, **options, reduction="none")
    wrapped = torch_loss(**tensors, **options, reduction="none")
    assert not torch.equal(wrapped, expected)
    ask = Ask(loss=loss, inputs=inputs, options=options, reduction=Reduction.NONE)
    np.testing.assert_array_equal(caller.evaluate(ask).loss, expected.numpy())


def _list_of_classes(classes: int) -> Ask:
    """Ask for all pairs of one half of the classes with the other."""
    target = np.full((1, classes), -1, np.int64)
    target[0, : classes // 2] = np.arange(classes // 2)
    inputs: Inputs = {"input": np.zeros((1, classes), np.float32), "target": target}
    return Ask(loss="multilabel_margin_loss", inputs=inputs)


def _many_logits(length: int) -> Ask:
    """Ask for length x length logits."""
    column = np.zeros((length, 1), np.float32)
    inputs: Inputs = {
        "input": column,
        "linear_weight": column,
        "target": np.zeros(length, np.uint8),
    }
    return Ask(loss="linear_cross_entropy", inputs=inputs)


def _many_alignments(length: int) -> Ask:
    """Ask for the alignments of a long target with as many frames."""
    inputs: Inputs = {
        "log_probs": np.zeros((length, 2), np.float32),
        "targets": np.ones(length, np.uint8),
        "input_lengths": np.array(length),
        "target_lengths": np.array(length),
    }
    return Ask(loss="ctc_loss", inputs=inputs)


@pytest.mark.parametrize(
    "ask",
    [_list_of_classes(400_000), _many_logits(300_000), _many_alignments(400_000)],
    ids=lambda ask: ask.loss,
)
def test_quadratic_work_is_refused_before_it_begins(caller: Caller, ask: Ask) -> None:
    """A few megabytes that ask for hours or terabytes are RESOURCE_EXHAUSTED before any work."""
    assert sum(array.nbytes for array in ask.inputs.values()) < 8 * 2**20
    with pytest.raises(grpc.RpcError) as refused:
        caller.evaluate(ask)
    # The work itself would end as DEADLINE_EXCEEDED, or end the server.
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    _golden(caller)
