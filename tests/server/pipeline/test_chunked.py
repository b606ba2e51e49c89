"""EvaluateChunked has the results of Evaluate for any cut of the rows, or names the reason."""

from collections.abc import Mapping, Sequence
from typing import Any

import grpc
import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

from losswire.server.catalogue.record import Kind, LossRecord, Reduction
from losswire.server.losses import builtin_registry
from losswire.v1 import evaluation_pb2, loss_service_pb2
from losswire.wire import decode_tensor
from tests.support.chunks import (
    TIMEOUT,
    Answer,
    cuts_of,
    evaluate_chunked,
)
from tests.support.exact import Cell
from tests.support.requests import (
    Stub,
    by_call,
    evaluation,
    f32,
)
from tests.support.rows import row_axis
from tests.support.table import plan

Array = npt.NDArray[Any]
Evaluation = evaluation_pb2.Evaluation

NONE, MEAN, SUM = (
    evaluation_pb2.REDUCTION_NONE,
    evaluation_pb2.REDUCTION_MEAN,
    evaluation_pb2.REDUCTION_SUM,
)
_CUTS = {"one row a part": [1], "odd": [3, 1, 17], "all at once": [0]}
_SEPARABLE = [
    record for record in builtin_registry() if record.kind is Kind.LOSS and record.separable
]
_CELLS = 24
"""The number of each loss's cells that are cut."""

_ULP = {
    "float16": 2.0**-11,
    "bfloat16": 2.0**-8,
    "float32": 2.0**-24,
    "float64": 2.0**-53,
}


def _distance(found: Array, expected: Array) -> float:
    """Measure by how many units in the last place of the largest number two arrays differ."""
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    x, y = found.astype(np.float64), expected.astype(np.float64)
    same = (x == y) | (np.isnan(x) & np.isnan(y))
    if same.all():
        return 0.0
    largest = np.abs(y[np.isfinite(y)]).max(initial=1e-300)
    return float(np.abs(x - y)[~same].max() / largest / _ULP[expected.dtype.name])


def _assert_same(answer: Answer, result: evaluation_pb2.EvaluationResult, most_ulp: float) -> None:
    """Compare with the answer to the whole."""
    assert answer.result.count == result.count
    assert answer.result.receipt == result.receipt
    assert set(answer.gradients) == set(result.gradients)
    loss = decode_tensor(result.loss)
    for name, tensor in result.gradients.items():
        # A gradient in float64 of a loss in float32 is no more exact than that.
        coarse = max(1.0, _ULP[loss.dtype.name] / _ULP[decode_tensor(tensor).dtype.name])
        found = _distance(answer.gradients[name], decode_tensor(tensor))
        assert found <= most_ulp * coarse, name
    assert _distance(decode_tensor(answer.result.loss), loss) <= 4
    # Values themselves may differ in their last place, so their sums may, too.
    for name in ("sum", "mean_numerator", "mean_denominator"):
        found, expected = getattr(answer.result, name), getattr(result, name)
        np.testing.assert_allclose(found, expected, rtol=4 * _ULP[loss.dtype.name], err_msg=name)


def _streamable(cell: Cell) -> list[str]:
    """Name the inputs whose first axis is the batch."""
    ground, ask = cell.ground, cell.ask
    return [
        name
        for name, array in ask.inputs.items()
        if row_axis(ground.layout.inputs[name].axes, ground, array.shape) == 0
    ]


def _is_refused(cell: Cell, streamed: Sequence[str]) -> bool:
    """Return whether the denominator of a mean is known too late for gradients."""
    ask, record = cell.ask, cell.ground.record
    known = record.denominators.get(cell.ground.layout.name)
    if not ask.gradients_for or ask.normalizer is not None or known is None:
        return False
    late = {*streamed, *ask.gradients_for}
    return ask.reduction in (Reduction.MEAN, Reduction.BATCHMEAN) and any(
        name in late and name in ask.inputs for name in known.inputs
    )


@pytest.mark.parametrize("record", _SEPARABLE, ids=lambda record: record.name)
def test_every_loss_is_the_same_in_parts(chunked_stub: Stub, record: LossRecord) -> None:
    """Data types, options, reductions, weights, gradients: 4 ulp at most from the whole."""
    cells = [cell for cell in plan(record) if cell.ground.values_shape]
    refused = 0
    for cell in cells[:: max(1, len(cells) // _CELLS)]:
        rows, message = _streamable(cell), cell.ask.message()
        whole = by_call(chunked_stub, message).result
        for streamed in dict.fromkeys([tuple(rows), tuple(rows[:1])]):
            cuts = cuts_of(cell.ground.values_shape[0], [1, 2])
            if _is_refused(cell, streamed):
                refused += 1
                with pytest.raises(grpc.RpcError, match="give a normalizer or ask for the sum"):
                    evaluate_chunked(chunked_stub, message, streamed, cuts)
            else:
                _assert_same(evaluate_chunked(chunked_stub, message, streamed, cuts), whole, 4)
    assert refused < _CELLS


_DRAW = np.random.default_rng(11)
_MANY = _DRAW.standard_normal((1000, 300)).astype(np.float32)
_LOGITS = _MANY[:700]
_CLASSES = _DRAW.integers(0, 300, 1000)
_CLASSES[::9] = -100
_BY_ROWS: Mapping[str, tuple[str, Mapping[str, Array], tuple[str, ...]]] = {
    "classes": ("cross_entropy", {"input": _LOGITS, "target": _CLASSES[:700]}, ("input",)),
    "few": ("cross_entropy", {"input": _LOGITS[:41], "target": _CLASSES[:41]}, ("input",)),
    "bfloat16": (
        "cross_entropy",
        {"input": _MANY.astype(ml_dtypes.bfloat16), "target": _CLASSES},
        ("input",),
    ),
    "float64": (
        "cross_entropy",
        {"input": _MANY[:230].astype(np.float64), "target": _CLASSES[:230]},
        ("input",),
    ),
    "nll": ("nll_loss", {"input": -np.abs(_LOGITS), "target": _CLASSES[:700]}, ("input",)),
}


@pytest.mark.parametrize("engine", [evaluation_pb2.ENGINE_AUTO, evaluation_pb2.ENGINE_AUTOGRAD])
@pytest.mark.parametrize("reduction", [MEAN, SUM, NONE])
@pytest.mark.parametrize("case", _BY_ROWS)
def test_gradients_of_rows_have_the_same_bits(
    chunked_stub: Stub,
    case: str,
    reduction: evaluation_pb2.Reduction.ValueType,
    engine: evaluation_pb2.Engine.ValueType,
) -> None:
    """Losses over the rows of a matrix: cutting changes no bit of a gradient."""
    loss, inputs, gradients = _BY_ROWS[case]
    fields: dict[str, Any] = {"reduction": reduction, "engine": engine, "gradients_for": gradients}
    if reduction == NONE:
        fields["grad_output"] = f32(*_DRAW.standard_normal(len(inputs["target"])))
    item = evaluation(loss, inputs, **fields)
    whole = by_call(chunked_stub, item).result
    assert whole.receipt.engine == (
        "autograd" if engine == evaluation_pb2.ENGINE_AUTOGRAD else "closed_form"
    )
    for sizes in _CUTS.values():
        answer = evaluate_chunked(
            chunked_stub, item, ["input"], cuts_of(len(inputs["input"]), sizes)
        )
        assert answer.rows == len(inputs["input"])
        _assert_same(answer, whole, 0)


def test_order_of_packing_is_that_of_the_header(chunked_stub: Stub) -> None:
    """Streamed inputs and their gradients are packed in the order in which they are named."""
    pair = {"input": f32([1, 2], [3, 4], [5, 6]), "target": f32([0, 1], [0, 1], [0, 1])}
    item = evaluation("mse_loss", pair, gradients_for=["input", "target"])
    whole = by_call(chunked_stub, item).result
    for streamed in (["target", "input"], ["input", "target"], ["target"]):
        for sizes in _CUTS.values():
            _assert_same(
                evaluate_chunked(chunked_stub, item, streamed, cuts_of(3, sizes)), whole, 0
            )


def test_no_rows_at_all(chunked_stub: Stub) -> None:
    """Over an empty batch the result is that of Evaluate; empty parts are passed over."""
    item = evaluation(
        "cross_entropy",
        {
            "input": np.zeros((0, 5), np.float32),
            "target": np.zeros(0, np.int64),
            "weight": f32(*range(5)),
        },
        reduction=SUM,
        gradients_for=["input"],
    )
    whole = by_call(chunked_stub, item).result
    for cuts in ([], [0, 0]):
        answer = evaluate_chunked(chunked_stub, item, ["input"], cuts)
        _assert_same(answer, whole, 0)
        assert (answer.rows, answer.parts) == (0, 0)


def test_nothing_comes_back_but_what_was_asked_for(chunked_stub: Stub) -> None:
    """Without gradients of streamed inputs there is the result alone."""
    inputs: dict[str, Array] = {"input": _LOGITS[:8], "target": _CLASSES[:8]}
    answer = evaluate_chunked(
        chunked_stub, evaluation("cross_entropy", inputs), ["input"], [3, 3, 8]
    )
    assert (answer.parts, answer.rows) == (0, 8)
    item = evaluation(
        "mse_loss", {"input": _LOGITS[:8], "target": _LOGITS[8:16]}, gradients_for=["target"]
    )
    answer = evaluate_chunked(chunked_stub, item, ["input"], [3, 8])
    _assert_same(answer, by_call(chunked_stub, item).result, 0)
    assert answer.parts == 0


def test_the_server_says_that_it_takes_chunks(chunked_stub: Stub) -> None:
    """GetServerInfo names the transport."""
    info = chunked_stub.GetServerInfo(loss_service_pb2.GetServerInfoRequest(), timeout=TIMEOUT)
    assert info.transports.chunked
