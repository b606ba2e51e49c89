"""Factored gradients by the contract: who has them, how chunks pack them, who is refused."""

import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import grpc
import numpy as np
import pytest
import torch

from losswire.server.compute.dispatch import compute
from losswire.server.losses import builtin_registry, classification, regression
from losswire.server.pipeline.decode import decode
from losswire.server.pipeline.validate import validate
from losswire.v1 import evaluation_pb2, loss_service_pb2, tensor_pb2
from losswire.wire import decode_tensor
from tests.support.chunks import TIMEOUT, cuts_of, parts_of
from tests.support.requests import Stub, by_call, evaluation, f32

FACTORED = evaluation_pb2.GRADIENT_FORM_FACTORED

_DRAW = np.random.default_rng(3)
_LOGITS = _DRAW.standard_normal((700, 300)).astype(np.float32)
_CLASSES = _DRAW.integers(0, 300, 700)
_CLASSES[::9] = -100
_NAMES = ("lse", "scale", "lse_tail")


def _item(rows: int = 700, **fields: Any) -> evaluation_pb2.Evaluation:  # noqa: ANN401 (of the message)
    inputs: dict[str, Any] = {"input": _LOGITS[:rows], "target": _CLASSES[:rows]}
    given = {"gradients_for": ["input"], "gradient_form": FACTORED, **fields}
    return evaluation("cross_entropy", inputs, **given)


def _streamed(
    stub: Stub, item: evaluation_pb2.Evaluation, streamed: Sequence[str], sizes: Sequence[int]
) -> tuple[list[bytes], evaluation_pb2.EvaluationResult]:
    """Call in chunks; returns the messages of rows, and the result."""
    requests = parts_of(item, streamed, cuts_of(700, sizes))
    *parts, last = stub.EvaluateChunked(requests, timeout=TIMEOUT)
    return [each.gradient_rows for each in parts], last.result.result


@pytest.mark.parametrize("sizes", [[1], [3, 1, 17], [0]])
def test_parts_are_packed_as_the_contract_says(chunked_stub: Stub, sizes: Sequence[int]) -> None:
    """Each part has lse, scale and lse_tail of its rows; together they are the whole's."""
    whole = by_call(chunked_stub, _item()).result
    rows, result = _streamed(chunked_stub, _item(), ["input"], sizes)
    cuts = cuts_of(700, sizes)
    assert {sum(map(len, rows[: n + 1])) // 24 for n in range(len(rows))} <= set(cuts)
    assert sum(map(len, rows)) == 24 * 700
    parts = [np.frombuffer(each).reshape(3, -1) for each in rows]
    found = np.concatenate(parts, axis=1)
    assert not result.factored_gradients
    assert not result.gradients
    for name, values in zip(_NAMES, found, strict=True):
        expected = decode_tensor(getattr(whole.factored_gradients["input"], name))
        # By torch, vector units end elsewhere when rows are cut; float32 does not show it.
        np.testing.assert_allclose(values, expected, 1e-8, 1e-8)
    assert result.count == whole.count


def test_factors_of_what_does_not_stream_come_with_the_result(chunked_stub: Stub) -> None:
    """When the classes stream and the logits do not, there is nothing in between."""
    item = _item(sample_weight=np.ones(700), reduction=evaluation_pb2.REDUCTION_SUM)
    item.inputs["input"].CopyFrom(evaluation("x", {"input": _LOGITS[:, :9]}).inputs["input"])
    item.inputs["target"].CopyFrom(evaluation("x", {"t": _CLASSES % 9}).inputs["t"])
    whole = by_call(chunked_stub, item).result
    rows, result = _streamed(chunked_stub, item, ["target"], [301])
    assert rows == []
    for name in _NAMES:
        found, expected = (
            decode_tensor(getattr(each.factored_gradients["input"], name))
            for each in (result, whole)
        )
        np.testing.assert_allclose(found, expected, 1e-8, 1e-8)


def test_no_rows_at_all(chunked_stub: Stub) -> None:
    """An empty call has a result and no factors."""
    item = evaluation(
        "cross_entropy",
        {"input": np.zeros((0, 5), np.float32), "target": np.zeros(0, np.int64)},
        gradients_for=["input"],
        gradient_form=FACTORED,
    )
    [last] = chunked_stub.EvaluateChunked(parts_of(item, ["input"], []), timeout=TIMEOUT)
    assert not last.result.result.factored_gradients


_SHARES = {"input": f32([1, 2]), "target": f32([0.5, 0.5])}
_REFUSALS = {
    "a loss without": (
        evaluation("mse_loss", {"input": f32(1), "target": f32(2)}, gradients_for=["input"]),
        "mse_loss has no factored gradients; ask for GRADIENT_FORM_DENSE",
    ),
    "another input": (
        evaluation("cross_entropy", _SHARES, gradients_for=["input", "target"]),
        "the gradient of target cannot be factored; only that of input can",
    ),
    "torch's own path": (
        _item(2, engine=evaluation_pb2.ENGINE_AUTOGRAD),
        "dense gradients only; ask for ENGINE_AUTO or GRADIENT_FORM_DENSE",
    ),
    "half precision": (
        evaluation(
            "cross_entropy",
            {"input": f32([1, 2]).astype(np.float16), "target": np.array([1])},
            gradients_for=["input"],
            compute_data_type=tensor_pb2.DATA_TYPE_FLOAT16,
        ),
        "not computed in float16; leave compute_data_type unset",
    ),
    "negative weights": (
        evaluation(
            "cross_entropy",
            {"input": f32([1, 2]), "target": np.array([1]), "weight": f32(1, -1)},
            options={"label_smoothing": 0.5},
            gradients_for=["input"],
        ),
        "weight holds negative numbers",
    ),
}


@pytest.mark.parametrize("case", _REFUSALS)
def test_what_cannot_be_factored_is_refused(stub: Stub, case: str) -> None:
    """The violation is at gradient_form and names the alternative."""
    item, text = _REFUSALS[case]
    item.gradient_form = FACTORED
    request = loss_service_pb2.EvaluateManyRequest(evaluations=[item])
    [outcome] = stub.EvaluateMany(request, timeout=TIMEOUT).outcomes
    assert outcome.error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    [violation] = outcome.error.violations
    assert violation.field == "gradient_form"
    assert text in violation.description


def test_without_gradients_the_form_does_not_matter(stub: Stub) -> None:
    """A loss without gradients can be asked for in either form."""
    item = evaluation("mse_loss", {"input": f32(1), "target": f32(2)}, gradient_form=FACTORED)
    assert not by_call(stub, item).result.factored_gradients


def test_the_catalogue_tells_which_gradients_can_be_factored(stub: Stub) -> None:
    """ListLosses names the layouts, input by input."""
    losses = stub.ListLosses(loss_service_pb2.ListLossesRequest(), timeout=TIMEOUT).losses
    told = {
        (loss.name, each.name): list(each.factored_in)
        for loss in losses
        for each in loss.inputs
        if each.factored_in
    }
    layouts = [each.name for each in builtin_registry().find("cross_entropy").layouts]
    assert told == {("cross_entropy", "input"): layouts}


@pytest.mark.parametrize("gradients", [(), ("input",)])
def test_loss_only_builds_no_graph(gradients: tuple[str, ...]) -> None:
    """Torch records operations for the gradients asked for, and for nothing else."""
    record = regression.mse_loss
    seen: list[bool] = []

    def watched(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 (the function's own)
        terms = record.function(*args, **kwargs)
        seen.append(torch.is_grad_enabled() and terms.values.grad_fn is not None)
        return terms

    item = evaluation(
        "mse_loss",
        {"input": f32(1, 2), "target": f32(2, 3)},
        gradients_for=gradients,
        engine=evaluation_pb2.ENGINE_AUTOGRAD,
    )
    work = validate(decode(item), record)
    compute(replace(work, record=replace(record, function=watched)), torch.device("cpu"))
    # The unreduced values are for the sums only.
    assert seen == [False, bool(gradients)]


@pytest.mark.parametrize("target", [_CLASSES, np.full_like(_LOGITS, 1 / 300)])
@pytest.mark.parametrize("form", [evaluation_pb2.GRADIENT_FORM_DENSE, FACTORED])
@pytest.mark.parametrize("native", [True, False])
def test_only_dense_gradients_take_memory_of_their_size(
    monkeypatch: pytest.MonkeyPatch,
    target: Any,  # noqa: ANN401 (an array)
    form: evaluation_pb2.GradientForm.ValueType,
    *,
    native: bool,
) -> None:
    """Loss alone, or with factors, makes nothing of the logits' size but kept blocks."""
    made: list[int] = []
    empty = torch.empty

    def watched(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 (torch's own)
        tensor = empty(*args, **kwargs)
        made.append(tensor.nbytes)
        return tensor

    monkeypatch.setattr(torch, "empty", watched)
    monkeypatch.setattr("losswire.server.compute.thresholds.BLOCK_BYTES", 64 * 1024)
    if not native:
        monkeypatch.setattr("losswire.server.compute.native.binding.AVAILABLE", False)
    for gradients in ((), ("input",)):
        made.clear()
        item = evaluation(
            "cross_entropy",
            {"input": _LOGITS, "target": target},
            gradients_for=gradients,
            gradient_form=form,
        )
        work = validate(decode(item), classification.cross_entropy)
        # numpy reports its allocations; torch does not.
        tracemalloc.start()
        outcome = compute(work, torch.device("cpu"))
        made.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert outcome.engine == "closed_form"
        dense = bool(gradients) and form != FACTORED
        assert (max(made) >= _LOGITS.nbytes) is dense
