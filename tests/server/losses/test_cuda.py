"""A GPU gives the results of a CPU, within a tolerance; all tests are skipped without one.

The tolerance is 128 units in the last place of the largest number of a result, in the coarser
of its own type and the one computed in: sums are added in another order, and functions such
as exp are other approximations. Which values are NaN or infinite must be the same.
"""

from collections.abc import Iterator, Mapping

import grpc
import ml_dtypes
import numpy as np
import pytest
import torch

from losswire.server.catalogue.record import LossRecord
from losswire.server.compute import autograd, reduce
from losswire.server.compute import dispatch as compute_module
from losswire.server.compute.closed_forms import blocks as driver
from losswire.server.compute.devices import transfers
from losswire.server.compute.devices.cuda import cuda_lanes, pinned
from losswire.server.compute.devices.pinned_staging import Staging
from losswire.server.compute.dispatch import Outcome, compute
from losswire.server.losses import builtin_registry
from losswire.server.pipeline.decode import decode
from losswire.server.pipeline.validate import validate
from losswire.v1 import evaluation_pb2, loss_service_pb2, loss_service_pb2_grpc
from losswire.wire import decode_tensor
from tests.support.caller import Array, Ask
from tests.support.chunks import cuts_of, evaluate_chunked
from tests.support.process import running_server
from tests.support.table import plan

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

_REGISTRY = builtin_registry()
_RECORDS = list(_REGISTRY)
_CPU, _GPU = torch.device("cpu"), torch.device("cuda:0")
_CELLS = 40
"""The number of cells of each loss that are computed."""
_UNITS = 128
_ULP = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24, "float64": 2.0**-53}

_RNG = np.random.default_rng(15)
_LOGITS = _RNG.standard_normal((4099, 1000)).astype(np.float32)
_CLASSES = _RNG.integers(0, 1000, 4099)
_CLASSES[::9] = -100
_LARGE: Mapping[str, Ask] = {
    "classes": Ask(
        loss="cross_entropy",
        inputs={"input": _LOGITS, "target": _CLASSES},
        gradients_for=("input",),
        normalizer=4000.0,
    ),
    "bfloat16": Ask(
        loss="cross_entropy",
        inputs={"input": _LOGITS.astype(ml_dtypes.bfloat16), "target": _CLASSES},
        gradients_for=("input",),
        normalizer=4000.0,
    ),
    "weighted": Ask(
        loss="mse_loss",
        inputs={"input": _LOGITS, "target": _LOGITS[::-1].copy()},
        gradients_for=("input", "target"),
        sample_weight=(_LOGITS > 0).astype(np.float32),
    ),
}


def _near(found: Array, expected: Array, compute_dtype: str) -> None:
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    x, y = found.astype(np.float64), expected.astype(np.float64)
    finite = np.isfinite(y)
    assert np.array_equal(np.where(finite, 0, y), np.where(np.isfinite(x), 0, x), equal_nan=True)
    largest = np.abs(y[finite]).max(initial=0.0)
    allowed = _UNITS * max(_ULP[compute_dtype], _ULP[expected.dtype.name]) * largest
    np.testing.assert_allclose(x[finite], y[finite], rtol=0, atol=allowed)


def _near_all(found: Outcome, expected: Outcome) -> None:
    assert found.device == str(_GPU)
    assert found.count == expected.count
    assert found.compute_dtype == expected.compute_dtype
    _near(found.loss, expected.loss, expected.compute_dtype)
    assert found.gradients.keys() == expected.gradients.keys()
    for name, gradient in expected.gradients.items():
        _near(found.gradients[name], gradient, expected.compute_dtype)


@pytest.mark.parametrize("record", _RECORDS, ids=lambda record: record.name)
def test_every_loss_is_near_that_of_a_cpu(
    monkeypatch: pytest.MonkeyPatch, record: LossRecord
) -> None:
    """All of its inputs and results go through slabs, however small they are."""
    stage = Staging(_GPU, cuda_lanes(_GPU), pinned, slabs=3, slab_bytes=64, smallest=1)
    direct = transfers.transfers_for
    for module in (autograd, reduce, compute_module, driver):
        monkeypatch.setattr(
            module, "transfers_for", lambda device: stage if device == _GPU else direct(device)
        )
    cells = list(plan(record))
    for cell in cells[:: max(1, len(cells) // _CELLS)]:
        work = validate(decode(cell.ask.message()), record)
        _near_all(compute(work, _GPU), compute(work, _CPU))


@pytest.fixture(scope="module")
def stub() -> Iterator[loss_service_pb2_grpc.LossServiceStub]:
    """A server that computes on the GPU."""
    options = [("grpc.max_receive_message_length", -1)]
    arguments = ("--device", "cuda", "--max-message-mib", "64")
    with (
        running_server(*arguments) as address,
        grpc.insecure_channel(address, options) as channel,
    ):
        yield loss_service_pb2_grpc.LossServiceStub(channel)


def _on_cpu(ask: Ask) -> Outcome:
    return compute(validate(decode(ask.message()), _REGISTRY.find(ask.loss)), _CPU)


def _is_near(
    result: evaluation_pb2.EvaluationResult, gradients: Mapping[str, Array], expected: Outcome
) -> None:
    assert result.receipt.device == str(_GPU)
    assert result.count == expected.count
    _near(decode_tensor(result.loss), expected.loss, expected.compute_dtype)
    assert gradients.keys() == expected.gradients.keys()
    for name, gradient in expected.gradients.items():
        _near(gradients[name], gradient, expected.compute_dtype)


@pytest.mark.parametrize("ask", _LARGE.values(), ids=_LARGE.keys())
def test_large_evaluations(stub: loss_service_pb2_grpc.LossServiceStub, ask: Ask) -> None:
    """One call, again and again: no bytes of earlier calls are left in the slabs."""
    expected = _on_cpu(ask)
    request = loss_service_pb2.EvaluateRequest(evaluation=ask.message())
    for _ in range(5):
        result = stub.Evaluate(request).result
        found = {name: decode_tensor(each) for name, each in result.gradients.items()}
        _is_near(result, found, expected)


@pytest.mark.parametrize("ask", _LARGE.values(), ids=_LARGE.keys())
@pytest.mark.parametrize("rows", [4099, 1000, 17])
def test_chunked_calls(stub: loss_service_pb2_grpc.LossServiceStub, ask: Ask, rows: int) -> None:
    """However the rows are cut."""
    streamed = tuple(ask.inputs)
    cuts = cuts_of(len(_LOGITS), [rows])
    answer = evaluate_chunked(stub, ask.message(), streamed, cuts)
    _is_near(answer.result, answer.gradients, _on_cpu(ask))


def test_many_small_evaluations(stub: loss_service_pb2_grpc.LossServiceStub) -> None:
    """Those of one form are computed as one, and have the bits they have alone."""
    asks = [
        Ask(
            loss="cross_entropy",
            inputs={"input": _LOGITS[first : first + 32, :10], "target": np.arange(32) % 10},
            gradients_for=("input",),
            engine="auto",
        )
        for first in range(0, 3200, 32)
    ]
    items = [each.message() for each in asks]
    outcomes = stub.EvaluateMany(loss_service_pb2.EvaluateManyRequest(evaluations=items)).outcomes
    for ask, item, outcome in zip(asks, items, outcomes, strict=True):
        alone = stub.Evaluate(loss_service_pb2.EvaluateRequest(evaluation=item)).result
        assert outcome.result.loss == alone.loss
        assert outcome.result.gradients == alone.gradients
        found = {name: decode_tensor(each) for name, each in alone.gradients.items()}
        _is_near(alone, found, _on_cpu(ask))
