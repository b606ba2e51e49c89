"""Native rows over the wire: one batch has the same bits whichever door it takes, in any parts."""

import asyncio
from collections.abc import Iterator
from typing import Any

import grpc
import ml_dtypes
import numpy as np
import pytest

from losswire.server.compute.native import binding
from losswire.server.compute.native.binding import AVAILABLE
from losswire.v1 import evaluation_pb2, loss_service_pb2
from losswire.wire import decode_tensor, encode_tensor
from tests.support.chunks import TIMEOUT, cuts_of, evaluate_chunked
from tests.support.exact import same_bits
from tests.support.harness import UNLIMITED, Child
from tests.support.inside import Gate, serving_app
from tests.support.regions import region, relocate
from tests.support.requests import Array, Stub, by_call, evaluation

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="compiled where there was no compiler")

_ROWS, _CLASSES = 1500, 401
_DTYPES = [np.float32, np.float64, ml_dtypes.bfloat16]
_NONE = evaluation_pb2.REDUCTION_NONE


@pytest.fixture(scope="module")
def channel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[grpc.Channel]:
    """A connection to a server of two threads, which ends as it should."""
    log = tmp_path_factory.mktemp("native") / "log"
    with Child(log, "--threads", "2", "--max-message-mib", "16") as child:
        with grpc.insecure_channel(child.address, UNLIMITED) as channel:
            yield channel
        child.terminate()
        assert child.wait() == 0


def _classes(draw: np.random.Generator, dtype: type) -> tuple[dict[str, Array], dict[str, Any]]:
    target = draw.integers(0, _CLASSES, _ROWS)
    target[::11] = -100
    return {
        "input": draw.standard_normal((_ROWS, _CLASSES)).astype(dtype),
        "target": target,
        "weight": draw.uniform(0.5, 2.0, _CLASSES).astype(dtype),
    }, {"label_smoothing": 0.1}


def _log_probabilities(
    draw: np.random.Generator, dtype: type
) -> tuple[dict[str, Array], dict[str, Any]]:
    return _classes(draw, dtype)[0], {"ignore_index": -100}


def _pairs(draw: np.random.Generator, dtype: type) -> tuple[dict[str, Array], dict[str, Any]]:
    shape = (_ROWS, 3, 101)
    return {
        "input": draw.standard_normal(shape).astype(dtype),
        "target": draw.standard_normal(shape).astype(dtype),
        "weight": draw.uniform(0.5, 2.0, shape).astype(dtype),
    }, {}


def _logits(draw: np.random.Generator, dtype: type) -> tuple[dict[str, Array], dict[str, Any]]:
    shape = (_ROWS, _CLASSES)
    return {
        "input": draw.standard_normal(shape).astype(dtype),
        "target": draw.random(shape).astype(dtype),
        "pos_weight": draw.uniform(0.5, 2.0, _CLASSES).astype(dtype),
    }, {}


def _distributions(
    draw: np.random.Generator, dtype: type
) -> tuple[dict[str, Array], dict[str, Any]]:
    shape = (_ROWS, _CLASSES)
    return {
        "input": -draw.random(shape).astype(dtype) * 9,
        "target": draw.random(shape).astype(dtype),
    }, {"log_target": False}


_BATCHES = {
    "cross_entropy": _classes,
    "nll_loss": _log_probabilities,
    "mse_loss": _pairs,
    "huber_loss": _pairs,
    "binary_cross_entropy_with_logits": _logits,
    "kl_div": _distributions,
}


def _batch(loss: str, dtype: type, *, values: bool) -> evaluation_pb2.Evaluation:
    """Return a batch of a few megabytes, with some removed rows."""
    draw = np.random.default_rng(5)
    inputs, options = _BATCHES[loss](draw, dtype)
    weight = draw.uniform(0.5, 2.0, _ROWS).astype(np.float32)
    weight[::7] = 0
    fields = {"normalizer": 123.0} if not values else {"reduction": _NONE}
    return evaluation(
        loss,
        inputs,
        options=options,
        sample_weight=weight,
        gradients_for=[] if values else ["input"],
        **fields,
    )


def _rows_of(item: evaluation_pb2.Evaluation) -> list[str]:
    """Name the inputs that are cut, in the order of packing."""
    return [name for name in sorted(item.inputs) if item.inputs[name].shape[0] == _ROWS]


def _parts(item: evaluation_pb2.Evaluation, step: int) -> list[evaluation_pb2.Evaluation]:
    """Cut a batch into evaluations of some rows."""
    names = _rows_of(item)
    arrays = [decode_tensor(item.inputs[name]) for name in names]
    weight = decode_tensor(item.sample_weight)
    rest = evaluation_pb2.Evaluation()
    rest.CopyFrom(item)
    for name in names:
        del rest.inputs[name]
    parts = []
    for start in range(0, _ROWS, step):
        part = evaluation_pb2.Evaluation()
        part.CopyFrom(rest)
        for name, array in zip(names, arrays, strict=True):
            part.inputs[name].CopyFrom(encode_tensor(array[start : start + step]))
        part.sample_weight.CopyFrom(encode_tensor(weight[start : start + step]))
        parts.append(part)
    return parts


def _gathered(results: list[evaluation_pb2.EvaluationResult]) -> Array:
    """Concatenate the values or gradients of all parts."""
    assert {each.receipt.engine for each in results} == {"closed_form"}
    parts = [each.gradients["input"] if each.gradients else each.loss for each in results]
    return np.concatenate([decode_tensor(each) for each in parts])


@pytest.mark.parametrize("loss", _BATCHES)
@pytest.mark.parametrize("dtype", _DTYPES)
@pytest.mark.parametrize("values", [False, True])
def test_a_batch_has_the_same_bits_through_every_door(
    channel: grpc.Channel, loss: str, dtype: type, *, values: bool
) -> None:
    """Whole, in many small evaluations, in larger ones, in chunks and in a region."""
    stub = Stub(channel)
    item = _batch(loss, dtype, values=values)
    whole = by_call(stub, item).result
    expected = _gathered([whole])
    for step in (3, 17, 999):
        parts = _parts(item, step)
        found = []
        for start in range(0, len(parts), 64):
            request = loss_service_pb2.EvaluateManyRequest(evaluations=parts[start : start + 64])
            outcomes = stub.EvaluateMany(request, timeout=TIMEOUT).outcomes
            found += [each.result for each in outcomes]
        assert same_bits(_gathered(found), expected)
        assert sum(each.sum for each in found) == pytest.approx(whole.sum, rel=1e-13)

    for sizes in ([0], [1], [700, 3], [_ROWS]):
        answer = evaluate_chunked(stub, item, _rows_of(item), cuts_of(_ROWS, sizes))
        rows = decode_tensor(answer.result.loss) if values else answer.gradients["input"]
        assert same_bits(rows, expected)
        assert answer.result.sum == pytest.approx(whole.sum, rel=1e-13)
        assert answer.result.count == whole.count

    with region(channel, 1 << 25) as held:
        moved, gradients = relocate(item, held)
        result = by_call(stub, moved).result
        rows = decode_tensor(result.loss) if values else gradients["input"]
        assert same_bits(rows, expected)
        assert (result.sum, result.loss) == (whole.sum, whole.loss)


@pytest.mark.parametrize("available", [False, True])
def test_the_server_tells_when_there_are_none(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, *, available: bool
) -> None:
    """An operator reads in the log that torch computes instead, and nothing where it does not."""
    monkeypatch.setattr(binding, "AVAILABLE", available)

    async def start() -> None:
        async with serving_app(Gate()):
            pass

    asyncio.run(start())
    told = [each for each in caplog.records if "no native rows" in each.getMessage()]
    assert [each.levelname for each in told] == ([] if available else ["WARNING"])
