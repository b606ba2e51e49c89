"""Evaluations of known forms: the answers that the line gives, whatever was asked before."""

import asyncio
import gc
import math
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import product
from typing import Any

import grpc
import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
import torch

from losswire.server import thresholds
from losswire.server.app import App
from losswire.server.compute.native import binding
from losswire.server.compute.work import SMALL_BYTES, Work
from losswire.server.errors import ExpiredError
from losswire.server.pipeline import admit
from losswire.server.pipeline import evaluator as line_module
from losswire.server.pipeline.decode import Request, decode
from losswire.server.prepared import cache as known_module
from losswire.server.prepared.cache import PreparedEvaluation
from losswire.server.prepared.envelope import Slice
from losswire.server.rpc.handlers import EvaluateHandlers
from losswire.v1 import evaluation_pb2, loss_service_pb2, tensor_pb2, tensor_service_pb2_grpc
from losswire.wire import varint
from tests.support import resident
from tests.support.encodings import field, odd_evaluations, padded
from tests.support.harness import Child
from tests.support.inside import (
    CLOSED,
    PATIENCE,
    Gate,
    numbered,
    outcome,
    outcomes,
    running_evaluator,
    serving_app,
    until,
)
from tests.support.regions import region
from tests.support.requests import GOLDEN, Stub, by_call, essence, evaluation, item_status, trailing

pytestmark = pytest.mark.skipif(not binding.AVAILABLE, reason="there are no native rows here")

Evaluation = evaluation_pb2.Evaluation
Outcome = evaluation_pb2.EvaluationOutcome
Build = Callable[[int], Evaluation]
Raw = Callable[[str, bytes], Awaitable[bytes]]

_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
_SERVICE = "/losswire.v1.LossService/"
_MIB = 1 << 20


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The losses of what took the whole line."""
    seen: list[str] = []

    def spy(message: Evaluation, *rest: Any, **named: Any) -> Request:  # noqa: ANN401 (as decode takes them)
        seen.append(message.loss)
        return decode(message, *rest, **named)

    monkeypatch.setattr(line_module, "decode", spy)
    return seen


def _build(
    seed: int,
    rows: int = 6,
    classes: int = 11,
    *,
    dtype: npt.DTypeLike = np.float32,
    target: npt.DTypeLike = np.int64,
    weight: npt.DTypeLike | None = None,
    ignored: int | None = None,
    options: dict[str, Any] | None = None,
    loss: str = "cross_entropy",
    **fields: Any,  # noqa: ANN401 (any field of Evaluation)
) -> Evaluation:
    """Make an evaluation of cross entropy or nll_loss, with numbers that follow from a seed."""
    draw = np.random.default_rng(seed)
    inputs: dict[str, Any] = {
        "input": (draw.standard_normal((rows, classes)) * 3).astype(dtype),
        "target": draw.integers(0, min(classes, 100), rows).astype(target),
    }
    if ignored is not None:
        inputs["target"][:: 1 + seed % 3] = ignored
    if weight is not None:
        inputs["weight"] = draw.random(classes).astype(weight)
    fields.setdefault("gradients_for", ["input"])
    return evaluation(loss, inputs, options, **fields)


def _pair(
    seed: int,
    loss: str = "mse_loss",
    shape: tuple[int, ...] = (6, 11),
    *,
    dtype: npt.DTypeLike = np.float32,
    options: dict[str, Any] | None = None,
    weights: dict[str, tuple[int, ...]] | None = None,
    **fields: Any,  # noqa: ANN401 (any field of Evaluation)
) -> Evaluation:
    """Make an evaluation of a loss of single elements, with numbers that follow from a seed."""
    draw = np.random.default_rng(seed)
    inputs: dict[str, Any] = {
        "input": (draw.standard_normal(shape) * 3).astype(dtype),
        "target": draw.random(shape).astype(dtype),
    }
    for name, lengths in (weights or {}).items():
        inputs[name] = (draw.random(lengths) + 0.5).astype(dtype)
    fields.setdefault("gradients_for", ["input"])
    return evaluation(loss, inputs, options, **fields)


def _probabilities(seed: int, shape: tuple[int, ...] = (6, 11), **fields: Any) -> Evaluation:  # noqa: ANN401
    """Make an evaluation of binary_cross_entropy, whose numbers are checked."""
    message = _pair(seed, "binary_cross_entropy", shape, **fields)
    message.inputs["input"].CopyFrom(_pair(seed + 1, shape=shape, **fields).inputs["target"])
    return message


_BCE = partial(_pair, loss="binary_cross_entropy_with_logits")


def _with_logits(seed: int, *values: float) -> Evaluation:
    """Make one of given logits in its first row."""
    message = _build(seed)
    logits = np.random.default_rng(seed).standard_normal((6, 11)).astype(np.float32)
    logits[0, : len(values)] = values
    message.inputs["input"].data = logits.tobytes()
    return message


_FLOAT16, _BF16, _FLOAT32, _FLOAT64 = 7, 8, 9, 10
_SUM, _NONE = evaluation_pb2.REDUCTION_SUM, evaluation_pb2.REDUCTION_NONE

_KEPT: dict[str, Build] = {
    "plain": _build,
    "mean": partial(_build, reduction=evaluation_pb2.REDUCTION_MEAN),
    "sum": partial(_build, reduction=_SUM),
    "loss only": partial(_build, gradients_for=[]),
    "float64": partial(_build, dtype=np.float64),
    "float16": partial(_build, dtype=np.float16),
    "bfloat16": partial(_build, dtype=_BFLOAT16),
    "float16 with a gradient of float32": partial(
        _build, dtype=np.float16, gradient_data_type=_FLOAT32
    ),
    "bfloat16 with a gradient of float32": partial(
        _build, dtype=_BFLOAT16, gradient_data_type=_FLOAT32
    ),
    "the types said": partial(_build, gradient_data_type=_FLOAT32, compute_data_type=_FLOAT32),
    "the engine said": partial(_build, engine=evaluation_pb2.ENGINE_AUTO),
    "dense said": partial(_build, gradient_form=evaluation_pb2.GRADIENT_FORM_DENSE),
    "normalizer": partial(_build, normalizer=7.5),
    "ignored": partial(_build, ignored=-100),
    "all ignored": lambda seed: _build(3 * seed, ignored=-100),
    "all ignored, with logits that are no numbers": lambda seed: _with_logits(
        seed, math.nan, math.inf
    ),
    "a class ignored": partial(_build, ignored=3, options={"ignore_index": 3}),
    "ignored far away": partial(_build, ignored=-(2**63), options={"ignore_index": -(2**63)}),
    "smoothing": partial(_build, options={"label_smoothing": 0.1}),
    "all smooth": partial(_build, options={"label_smoothing": 1.0}),
    "weight": partial(_build, weight=np.float32),
    "weight of float64": partial(_build, rows=300, dtype=np.float64, weight=np.float64),
    "weight and sum": partial(_build, rows=300, weight=np.float32, reduction=_SUM),
    "weight and normalizer": partial(_build, weight=np.float32, normalizer=3.0),
    "weight, smoothing, ignored": partial(
        _build, rows=40, weight=np.float32, ignored=-100, options={"label_smoothing": 0.3}
    ),
    "not a number": lambda seed: _with_logits(seed, math.nan),
    "infinite": lambda seed: _with_logits(seed, math.inf, -math.inf),
    "all minus infinite": lambda seed: _with_logits(seed, *[-math.inf] * 11),
    "huge": lambda seed: _with_logits(seed, 3e38, -3e38),
    "one row": partial(_build, rows=1),
    "one class": partial(_build, classes=1),
    "a row of many classes": partial(_build, rows=1, classes=9001),
    "just small": partial(_build, rows=512, classes=29),
    "nll": partial(_build, loss="nll_loss"),
    "nll, weight, ignored": partial(
        _build, loss="nll_loss", rows=40, weight=np.float32, ignored=-100
    ),
    "nll of bfloat16": partial(_build, loss="nll_loss", dtype=_BFLOAT16),
    "elements": _pair,
    "elements, both gradients": partial(_pair, gradients_for=["input", "target"]),
    "elements, the target's gradient": partial(_pair, gradients_for=["target"]),
    "elements, loss only": partial(_pair, gradients_for=[]),
    "elements, sum": partial(_pair, reduction=_SUM),
    "elements, normalizer": partial(_pair, normalizer=7.5),
    "elements of float64": partial(_pair, dtype=np.float64),
    "elements of bfloat16": partial(_pair, dtype=_BFLOAT16),
    "elements of float16 with a gradient of float32": partial(
        _pair, dtype=np.float16, gradient_data_type=_FLOAT32
    ),
    "elements in a row": partial(_pair, shape=(123,)),
    "elements of several axes": partial(_pair, shape=(2, 3, 5, 7)),
    "one element": partial(_pair, shape=(1,)),
    "elements, weight": partial(_pair, shape=(40, 31), weights={"weight": (40, 31)}),
    "elements of bfloat16, weight": partial(
        _pair, dtype=_BFLOAT16, shape=(40, 31), weights={"weight": (40, 31)}
    ),
    "elements, weight and normalizer": partial(_pair, weights={"weight": (6, 11)}, normalizer=3.0),
    "l1": partial(_pair, loss="l1_loss", weights={"weight": (6, 11)}),
    "smooth l1": partial(_pair, loss="smooth_l1_loss", options={"beta": 0.4}),
    "smooth l1 that is l1": partial(_pair, loss="smooth_l1_loss", options={"beta": 0.0}),
    "huber": partial(_pair, loss="huber_loss", options={"delta": 0.7}),
    "huber, weight": partial(_pair, loss="huber_loss", weights={"weight": (6, 11)}),
    "bce with logits": _BCE,
    "bce with logits, weights of their own": partial(
        _BCE, weights={"weight": (6, 11), "pos_weight": (6, 11)}
    ),
    "bce with logits, weights that repeat": partial(
        _BCE, shape=(40, 11), weights={"weight": (11,), "pos_weight": (1, 11)}
    ),
    "bce with logits, one weight that repeats": partial(
        _BCE, shape=(40, 11), weights={"pos_weight": (11,)}
    ),
    "bce with logits, a weight for all": partial(_BCE, weights={"pos_weight": (1,)}),
    "bce": _probabilities,
    "bce of float64": partial(_probabilities, dtype=np.float64),
    "bce of float16": partial(_probabilities, dtype=np.float16),
    "bce of bfloat16": partial(_probabilities, dtype=_BFLOAT16, weights={"weight": (11,)}),
    "kl": partial(_pair, loss="kl_div"),
    "kl, log_target": partial(_pair, loss="kl_div", options={"log_target": True}),
    "elements, just small": partial(_pair, shape=(8191,)),
}
"""Small evaluations whose forms are kept."""

_KEPT_IF_LARGE: dict[str, Build] = {
    "of exactly the size": partial(_build, rows=512, classes=30),
    "of exactly the size, weighted": partial(_build, rows=511, classes=30, weight=np.float32),
    "1 MiB": partial(_build, rows=512, classes=512),
    "2 MiB, cut over threads": partial(_build, rows=1031, classes=511),
    "4 MiB, cut over threads": partial(_build, rows=1024, classes=1021),
    "float64": partial(_build, rows=1033, classes=300, dtype=np.float64),
    "float64 and weight": partial(
        _build, rows=1033, classes=300, dtype=np.float64, weight=np.float64
    ),
    "bfloat16": partial(_build, rows=700, classes=1021, dtype=_BFLOAT16),
    "sum": partial(_build, rows=512, classes=512, reduction=_SUM, gradients_for=[]),
    "ignored": partial(_build, rows=1033, classes=512, ignored=-100),
    "smoothing": partial(_build, rows=1033, classes=512, options={"label_smoothing": 0.1}),
    "normalizer": partial(_build, rows=1033, classes=512, normalizer=7.0),
    "classes of uint8": partial(_build, rows=512, classes=512, target=np.uint8),
    "weight of float16": partial(
        _build, rows=512, classes=512, dtype=np.float16, weight=np.float16
    ),
    "a gradient of float64": partial(_build, rows=512, classes=512, gradient_data_type=_FLOAT64),
    "nll, weight": partial(
        _build, loss="nll_loss", rows=1033, classes=300, weight=np.float32, ignored=-100
    ),
    "elements": partial(_pair, shape=(8192,)),
    "elements, cut over threads": partial(
        _pair, shape=(1, 3, 300_001), gradients_for=["input", "target"]
    ),
    "elements, weight": partial(_pair, shape=(300, 999), weights={"weight": (300, 999)}),
    "elements of float64, cut over threads": partial(_pair, dtype=np.float64, shape=(300, 999)),
    "elements of bfloat16": partial(_pair, dtype=_BFLOAT16, shape=(300, 999)),
    "bce": partial(_probabilities, shape=(300, 999)),
    "bce with logits, weights that repeat": partial(
        _BCE, shape=(999, 300), weights={"weight": (1,), "pos_weight": (300,)}
    ),
}
"""Large ones, which are answered without protobuf in calls of their own."""

_OTHERS: dict[str, Build] = {
    "another loss": partial(_pair, loss="poisson_nll_loss"),
    "elements of several types": lambda seed: evaluation(
        "mse_loss",
        {"input": np.ones(3, np.float32) * seed, "target": np.ones(3)},
        gradients_for=["input"],
    ),
    "one element without an axis": partial(_pair, shape=()),
    "a gradient of the weight": partial(
        _pair, weights={"weight": (6, 11)}, gradients_for=["weight"]
    ),
    "weights that repeat differently": partial(
        _BCE, shape=(4, 6, 11), weights={"weight": (11,), "pos_weight": (6, 11)}
    ),
    "a weight for each row": partial(_BCE, weights={"weight": (6, 1)}),
    "autograd": partial(_build, engine=evaluation_pb2.ENGINE_AUTOGRAD),
    "no reduction": partial(_build, reduction=_NONE, gradients_for=[]),
    "grad_output": partial(_build, grad_output=np.float32(2)),
    "sample_weight": partial(_build, sample_weight=np.ones(6, np.float32)),
    "factored": partial(_build, gradient_form=evaluation_pb2.GRADIENT_FORM_FACTORED),
    "computed in float64": partial(_build, compute_data_type=_FLOAT64),
    "computed in float16": partial(_build, dtype=np.float16, compute_data_type=_FLOAT16),
    "a gradient of float64": partial(_build, gradient_data_type=_FLOAT64),
    "a gradient of float16": partial(_build, gradient_data_type=_FLOAT16),
    "classes of uint8": partial(_build, target=np.uint8),
    "weight of float16": partial(_build, dtype=np.float16, weight=np.float16),
    "no rows": partial(_build, rows=0),
    "one row without its axis": lambda seed: evaluation(
        "cross_entropy", {"input": np.ones(5) * seed, "target": np.int64(3)}
    ),
    "pictures": lambda seed: evaluation(
        "cross_entropy", {"input": np.ones((2, 5, 3)) * seed, "target": np.ones((2, 3), np.int64)}
    ),
    "probabilities": lambda seed: evaluation(
        "cross_entropy", {"input": np.ones((2, 5)) * seed, "target": np.full((2, 5), 0.2)}
    ),
}
"""Evaluations that take the line each time."""


class _Doors:
    """The ways to a server inside of the test."""

    def __init__(self, app: App, channel: grpc.aio.Channel) -> None:
        self.app = app
        self.channel = channel

    async def raw(self, method: str, data: bytes) -> bytes:
        """Send bytes as they are; a stream of one item, for EvaluateStream."""
        if method != "EvaluateStream":
            call: Any = self.channel.unary_unary(_SERVICE + method)
            answer: bytes = await call(data, timeout=PATIENCE)
            return answer
        [answer] = [each async for each in self.stream([data])]
        return answer

    def stream(self, items: Iterable[bytes]) -> AsyncIterator[bytes]:
        """Send items of a stream."""
        call: Any = self.channel.stream_stream(_SERVICE + "EvaluateStream")
        answers: AsyncIterator[bytes] = call(iter(items), timeout=PATIENCE)
        return answers

    async def one(self, item: Evaluation) -> list[Outcome]:
        """Evaluate in a call of its own."""
        request = loss_service_pb2.EvaluateRequest(evaluation=item)
        try:
            answer = await self.raw("Evaluate", request.SerializeToString())
        except grpc.RpcError as error:
            return [Outcome(error=item_status(error))]
        return [Outcome(result=loss_service_pb2.EvaluateResponse.FromString(answer).result)]

    async def many(self, item: Evaluation) -> list[Outcome]:
        """Evaluate several times in one call."""
        request = loss_service_pb2.EvaluateManyRequest(evaluations=[item] * 3)
        answer = await self.raw("EvaluateMany", request.SerializeToString())
        return list(loss_service_pb2.EvaluateManyResponse.FromString(answer).outcomes)

    async def item(self, item: Evaluation) -> list[Outcome]:
        """Evaluate as an item of a stream."""
        request = loss_service_pb2.EvaluateStreamRequest(id=300, evaluation=item)
        answer = await self.raw("EvaluateStream", request.SerializeToString())
        response = loss_service_pb2.EvaluateStreamResponse.FromString(answer)
        assert response.id == 300
        return [response.outcome]


_DOORS: dict[str, Callable[[_Doors, Evaluation], Awaitable[list[Outcome]]]] = {
    "Evaluate": _Doors.one,
    "EvaluateMany": _Doors.many,
    "EvaluateStream": _Doors.item,
}


@asynccontextmanager
async def _serving(**changes: Any) -> AsyncIterator[_Doors]:  # noqa: ANN401 (any setting)
    """Serve on this event loop."""
    settings = {"threads": 2, "memory_budget_bytes": 512 * _MIB} | changes
    async with serving_app(Gate(), **settings) as (app, channel):
        yield _Doors(app, channel)


def _bits(outcomes: Iterable[Outcome]) -> list[bytes]:
    """Give all that must be the same of some outcomes; equal bits, for NaN is not equal."""
    return [
        (
            Outcome(result=essence(each.result)) if each.HasField("result") else each
        ).SerializeToString(deterministic=True)
        for each in outcomes
    ]


async def _compared(
    doors: _Doors, door: str, build: Build, seeds: Iterable[int] = (1, 1, 2, 3)
) -> None:
    """Ask for several numbers, and expect of each what the line says, which knows no forms."""
    for seed in seeds:
        expected = await outcome(doors.app.evaluator, build(seed), math.inf)
        answers = await _DOORS[door](doors, build(seed))
        assert _bits(answers) == _bits([expected] * len(answers))
        for each in answers:
            assert each.result.compute_nanoseconds > 0


def _run(body: Callable[[_Doors], Awaitable[None]], **changes: Any) -> None:  # noqa: ANN401
    async def run() -> None:
        async with _serving(**changes) as doors:
            await body(doors)

    asyncio.run(run())


async def _decoded_of(
    doors: _Doors, door: str, build: Build, decoded: list[str], seeds: Iterable[int] = (5, 6, 7)
) -> int:
    """Count what is decoded of evaluations by a door, each of which has a result."""
    decoded.clear()
    for seed in seeds:
        assert all(each.HasField("result") for each in await _DOORS[door](doors, build(seed)))
    return len(decoded)


@pytest.mark.parametrize("door", _DOORS)
@pytest.mark.parametrize("build", _KEPT.values(), ids=_KEPT)
def test_small_forms_are_answered_as_by_the_line(
    build: Build, door: str, decoded: list[str]
) -> None:
    """After the first one no message is decoded, and not one bit of an answer is another."""

    async def body(doors: _Doors) -> None:
        await _compared(doors, door, build)
        assert not await _decoded_of(doors, door, build, decoded)

    _run(body)


@pytest.mark.parametrize("build", _KEPT_IF_LARGE.values(), ids=_KEPT_IF_LARGE)
def test_large_forms_are_answered_as_by_the_line(build: Build, decoded: list[str]) -> None:
    """So are large ones in calls of their own, whatever threads share the rows."""

    async def body(doors: _Doors) -> None:
        await _compared(doors, "Evaluate", build)
        assert not await _decoded_of(doors, "Evaluate", build, decoded)

    _run(body)


@pytest.mark.parametrize("door", ["EvaluateMany", "EvaluateStream"])
def test_large_items_take_the_line(door: str, decoded: list[str]) -> None:
    """The event loop does not compute what is large, and by the line it has the same bits."""
    build = _KEPT_IF_LARGE["of exactly the size"]

    async def body(doors: _Doors) -> None:
        await _compared(doors, "Evaluate", build)
        await _compared(doors, door, build)
        assert await _decoded_of(doors, door, build, decoded) >= 3

    _run(body)


@pytest.mark.parametrize("door", _DOORS)
@pytest.mark.parametrize("build", _OTHERS.values(), ids=_OTHERS)
def test_other_forms_take_the_line(build: Build, door: str, decoded: list[str]) -> None:
    """What native code does not do in messages is decoded each time, and nothing is kept of it."""

    async def body(doors: _Doors) -> None:
        await _compared(doors, door, build)
        assert await _decoded_of(doors, door, build, decoded) >= 3

    _run(body)


_SMALL, _LARGE = partial(_build, rows=40), _KEPT_IF_LARGE["1 MiB"]
_WEIGHTED = partial(_build, rows=40, weight=np.float32)
_SIZES = pytest.mark.parametrize("build", [_SMALL, _LARGE], ids=["small", "large"])


def _wrong(message: Evaluation, position: int, target: int) -> Evaluation:
    """Give an evaluation with a class in the place of another."""
    wrong = Evaluation()
    wrong.CopyFrom(message)
    targets = np.frombuffer(message.inputs["target"].data, np.int64).copy()
    targets[position] = target
    wrong.inputs["target"].data = targets.tobytes()
    return wrong


_CUT = _KEPT_IF_LARGE["2 MiB, cut over threads"]


@pytest.mark.parametrize("target", [-1, 2**40, -(2**63), -101, 512])
@pytest.mark.parametrize(
    ("build", "door"),
    [*product([_SMALL, _WEIGHTED], _DOORS), *product([_LARGE, _CUT], ["Evaluate"])],
)
def test_wrong_classes_are_refused_as_by_the_line(build: Build, door: str, target: int) -> None:
    """A known form does not make a class right: the error names it and its place, as before."""

    async def body(doors: _Doors) -> None:
        bad = [_wrong(build(1), position, target) for position in (0, 7, -1)]
        expected = [await outcome(doors.app.evaluator, each, math.inf) for each in bad]
        assert await _DOORS[door](doors, build(1))
        for each, error in zip(bad, expected, strict=True):
            answers = await _DOORS[door](doors, each)
            assert answers == [error] * len(answers)
            assert str(target) in answers[0].error.violations[0].description
        await _compared(doors, door, build)

    _run(body)


@pytest.mark.parametrize("value", [-0.25, 1.25, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["input", "target"])
@pytest.mark.parametrize(
    ("build", "door"),
    [
        *product([partial(_probabilities, shape=(5, 3, 7))], _DOORS),
        (partial(_probabilities, dtype=_BFLOAT16), "Evaluate"),
        (partial(_probabilities, dtype=np.float64), "Evaluate"),
        (partial(_probabilities, shape=(9001,)), "Evaluate"),
    ],
)
def test_wrong_probabilities_are_refused_as_by_the_line(
    build: Build, door: str, name: str, value: float
) -> None:
    """A known form does not make a number right, wherever it stands: the error names its place."""

    async def body(doors: _Doors) -> None:
        assert await _DOORS[door](doors, build(1))
        for position in (0, 7, -1):
            bad = build(2)
            size = len(bad.inputs[name].data) // math.prod(bad.inputs[name].shape)
            kind = {2: _BFLOAT16, 4: np.float32, 8: np.float64}[size]
            numbers = np.frombuffer(bad.inputs[name].data, kind).copy()
            numbers[position] = value
            bad.inputs[name].data = numbers.tobytes()
            error = await outcome(doors.app.evaluator, bad, math.inf)
            answers = await _DOORS[door](doors, bad)
            assert answers == [error] * len(answers)
            assert "is not in [0, 1]" in answers[0].error.violations[0].description
        await _compared(doors, door, build)

    _run(body)


def test_refusals_have_a_number() -> None:
    """An error of a known form comes with all that errors come with."""

    async def body(doors: _Doors) -> None:
        await doors.one(_SMALL(1))
        request = loss_service_pb2.EvaluateRequest(evaluation=_wrong(_SMALL(1), 0, 99))
        for _ in range(2):
            with pytest.raises(grpc.RpcError) as refused:
                await doors.raw("Evaluate", request.SerializeToString())
            number = trailing(refused.value)["x-request-id"]
            assert len(number) == 16

    _run(body)


_LOGITS = np.random.default_rng(3).standard_normal((4, 3)).astype(np.float32)
_ODD = odd_evaluations(_LOGITS, np.array([0, 2, 1, 1]))


@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
@pytest.mark.parametrize("name", _ODD)
def test_odd_encodings(name: str, large: bool, decoded: list[str]) -> None:  # noqa: FBT001
    """However a message is written, it has one answer, no matter how often it comes."""
    odd = _ODD[name]
    if large:
        logits = np.random.default_rng(3).standard_normal((127, 700)).astype(np.float32)
        odd = odd_evaluations(logits, np.arange(127) % 700)[name]
    request = b"\x0a" + varint(len(odd.message)) + odd.message

    async def body(doors: _Doors) -> None:
        answers = [await _raw_outcome(doors, "Evaluate", request) for _ in range(3)]
        assert _bits(answers[1:]) == _bits(answers[:1] * 2)
        assert answers[0].HasField("result") is odd.valid
        if not odd.valid:
            return
        parsed = loss_service_pb2.EvaluateRequest.FromString(request).evaluation
        expected = await outcome(doors.app.evaluator, parsed, math.inf)
        assert _bits(answers[:1]) == _bits([expected])
        decoded.clear()
        await doors.raw("Evaluate", request)
        assert bool(decoded) is not odd.kept

    _run(body)


async def _raw_outcome(doors: _Doors, method: str, request: bytes) -> Outcome:
    """Send a request; gives the only outcome, or what is wrong with it."""
    try:
        answer = await doors.raw(method, request)
    except grpc.RpcError as error:
        return Outcome(error=item_status(error))
    if method == "Evaluate":
        return Outcome(result=loss_service_pb2.EvaluateResponse.FromString(answer).result)
    if method == "EvaluateStream":
        return loss_service_pb2.EvaluateStreamResponse.FromString(answer).outcome
    [outcome] = loss_service_pb2.EvaluateManyResponse.FromString(answer).outcomes
    return outcome


@pytest.mark.parametrize("name", ["grad_output", "sample_weight"])
def test_tensors_that_are_stored_are_read(child: Child, name: str) -> None:
    """A tensor that an evaluation names, and whose elements its message does not have, counts."""
    array = np.array(2.0, np.float32) if name == "grad_output" else np.arange(6, dtype=np.float32)
    sent: dict[str, Any] = {name: array}
    named: dict[str, Any] = {name: resident.named(array)}
    with child.channel() as channel:
        resident.put(tensor_service_pb2_grpc.TensorServiceStub(channel), array)
        stub = Stub(channel)
        for seed in (1, 1, 2):
            expected = by_call(stub, _build(seed, **sent))
            asked = by_call(stub, _build(seed, **named))
            assert _bits([asked]) == _bits([expected])
            assert asked.HasField("result")


@pytest.mark.parametrize("name", ["input", "target"])
def test_the_last_source_of_a_tensor_counts(child: Child, name: str) -> None:
    """Elements in a message mean nothing where a region comes after them, which changes."""
    with child.channel() as channel, region(channel) as held:
        stub, plain = Stub(channel), _build(1)
        tensor = plain.inputs.pop(name)
        dtype = np.float32 if name == "input" else np.int64
        array = held.array(tuple(tensor.shape), dtype)
        place = tensor_pb2.Tensor(region=held.place(array))
        both = tensor.SerializeToString() + place.SerializeToString()
        entry = field(2, field(1, name.encode()) + field(2, both))
        message = plain.SerializeToString() + entry
        call: Any = channel.unary_unary(_SERVICE + "Evaluate")
        for seed in (1, 2, 3):
            there = _build(seed).inputs[name]
            array.reshape(-1)[:] = np.frombuffer(there.data, dtype)
            answer = call(b"\x0a" + varint(len(message)) + message, timeout=PATIENCE)
            result = loss_service_pb2.EvaluateResponse.FromString(answer).result
            moved = Evaluation()
            moved.CopyFrom(plain)
            moved.inputs[name].CopyFrom(there)
            assert essence(result) == essence(by_call(stub, moved).result)


_PLAIN = _ODD["plain"].message
_GOOD = varint(len(_PLAIN)) + _PLAIN
_PART = varint(_PLAIN.index(b"\x12")) + _PLAIN[: _PLAIN.index(b"\x12")]
_REST = varint(len(_PLAIN) - _PLAIN.index(b"\x12")) + _PLAIN[_PLAIN.index(b"\x12") :]

_ENVELOPES: dict[str, tuple[str, bytes, bool]] = {
    "one": ("Evaluate", b"\x0a" + _GOOD, True),
    "one, its length of five bytes": (
        "Evaluate",
        b"\x0a" + padded(len(_PLAIN), 5) + _PLAIN,
        True,
    ),
    "one, its length of six bytes": ("Evaluate", b"\x0a" + padded(len(_PLAIN), 6) + _PLAIN, False),
    "one, its tag of two bytes": ("Evaluate", b"\x8a\x00" + _GOOD, True),
    "one in two parts": ("Evaluate", b"\x0a" + _PART + b"\x0a" + _REST, True),
    "one twice": ("Evaluate", (b"\x0a" + _GOOD) * 2, False),  # its gradients are named twice
    "one, and what is unknown": ("Evaluate", b"\x0a" + _GOOD + b"\x78\x01", True),
    "one, a byte too short": ("Evaluate", (b"\x0a" + _GOOD)[:-1], False),
    "one, a byte too long": ("Evaluate", b"\x0a" + _GOOD + b"\x00", False),
    "of many": ("EvaluateMany", b"\x0a" + _GOOD, True),
    "of many, its length of five bytes": (
        "EvaluateMany",
        b"\x0a" + padded(len(_PLAIN), 5) + _PLAIN,
        True,
    ),
    "of many, its length of six bytes": (
        "EvaluateMany",
        b"\x0a" + padded(len(_PLAIN), 6) + _PLAIN,
        False,
    ),
    "of many, and what is unknown": ("EvaluateMany", b"\x78\x01\x0a" + _GOOD, True),
    "of many, and a group": ("EvaluateMany", b"\x0a" + _GOOD + b"\x7b\x7c", True),
    "of many, a byte too short": ("EvaluateMany", (b"\x0a" + _GOOD)[:-1], False),
    "item": ("EvaluateStream", b"\x12" + _GOOD, True),
    "item with a number": ("EvaluateStream", b"\x08\x05\x12" + _GOOD, True),
    "item with the number 0": ("EvaluateStream", b"\x08\x00\x12" + _GOOD, True),
    "item with a padded number": (
        "EvaluateStream",
        b"\x08" + padded(5, 10) + b"\x12" + _GOOD,
        True,
    ),
    "item with the largest number": (
        "EvaluateStream",
        b"\x08" + varint(2**64 - 1) + b"\x12" + _GOOD,
        True,
    ),
    "item with a larger number": (
        "EvaluateStream",
        b"\x08\x85" + b"\x80" * 8 + b"\x7f\x12" + _GOOD,
        True,
    ),
    "item with a number of eleven bytes": (
        "EvaluateStream",
        b"\x08" + padded(5, 11) + b"\x12" + _GOOD,
        False,
    ),
    "item with two numbers": ("EvaluateStream", b"\x08\x05\x08\x06\x12" + _GOOD, True),
    "item with its number last": ("EvaluateStream", b"\x12" + _GOOD + b"\x08\x05", True),
    "item in two parts": ("EvaluateStream", b"\x08\x05\x12" + _PART + b"\x12" + _REST, True),
}


@pytest.mark.parametrize(("method", "request_bytes", "valid"), _ENVELOPES.values(), ids=_ENVELOPES)
def test_odd_envelopes(method: str, request_bytes: bytes, valid: bool) -> None:  # noqa: FBT001
    """However the message around an evaluation is written, its answer stays when that is known."""

    async def body(doors: _Doors) -> None:
        first = await _raw_outcome(doors, method, request_bytes)
        assert first.HasField("result") is valid
        await doors.raw("Evaluate", b"\x0a" + _GOOD)
        await doors.raw("Evaluate", b"\x0a" + _GOOD)
        later = await _raw_outcome(doors, method, request_bytes)
        assert _bits([later]) == _bits([first])

    _run(body)


@pytest.mark.parametrize(
    "name", [name for name, (_, _, valid) in _ENVELOPES.items() if valid and "item" in name]
)
def test_numbers_of_items(name: str) -> None:
    """The number of an item comes back as protobuf reads it, before its form is known and after."""
    method, request, _ = _ENVELOPES[name]
    expected = loss_service_pb2.EvaluateStreamRequest.FromString(request).id

    async def body(doors: _Doors) -> None:
        for _ in range(3):
            answer = await doors.raw(method, request)
            assert loss_service_pb2.EvaluateStreamResponse.FromString(answer).id == expected

    _run(body)


def test_an_answer_is_what_protobuf_writes_but_for_padded_numbers() -> None:
    """Both answers have the same fields; what the second one has more is padding of integers."""

    async def body(doors: _Doors) -> None:
        request = loss_service_pb2.EvaluateRequest(evaluation=_SMALL(1)).SerializeToString()
        first, second = [await doors.raw("Evaluate", request) for _ in range(2)]
        parsed = [loss_service_pb2.EvaluateResponse.FromString(each) for each in (first, second)]
        for each in parsed:
            assert not list(each.result.DESCRIPTOR.extensions)
            each.result.queue_nanoseconds = each.result.compute_nanoseconds = 0
        assert parsed[0] == parsed[1]
        assert len(second) - len(first) < 24

    _run(body)


@pytest.mark.parametrize("name", ["mixed", "unknown", "invalid", "malformed"])
def test_many_of_all_kinds(name: str, decoded: list[str]) -> None:
    """Known, unknown and invalid evaluations of one call have each its own outcome, in order."""
    others = {
        "mixed": [GOLDEN, _wrong(_SMALL(2), 1, 99), _KEPT["float64"](1), Evaluation(loss="?")],
        "unknown": [_KEPT["float64"](1)],
        "invalid": [_wrong(_SMALL(2), 1, 99)],
        "malformed": [
            evaluation("cross_entropy", {"input": np.ones((2, 2)), "target": np.ones(3)})
        ],
    }[name]
    items = [_SMALL(1), *others, _SMALL(3), _LARGE(1), *others, _SMALL(4)]

    async def body(doors: _Doors) -> None:
        await doors.one(_SMALL(1))
        expected = await outcomes(doors.app.evaluator, items, math.inf)
        decoded.clear()
        request = loss_service_pb2.EvaluateManyRequest(evaluations=items).SerializeToString()
        for _ in range(3):
            answer = await doors.raw("EvaluateMany", request)
            answered = loss_service_pb2.EvaluateManyResponse.FromString(answer).outcomes
            assert _bits(answered) == _bits(expected)
        assert len(decoded) == 3 * sum(each.loss != "?" for each in items)

    _run(body)


@pytest.mark.parametrize(("count", "fits"), [(63, True), (64, True), (65, False)])
def test_as_many_as_allowed(count: int, *, fits: bool) -> None:
    """More evaluations than one call may hold are refused, also when all of them are known."""

    async def body(doors: _Doors) -> None:
        await doors.one(_SMALL(1))
        request = loss_service_pb2.EvaluateManyRequest(evaluations=[_SMALL(1)] * count)
        for _ in range(2):
            if fits:
                answer = await doors.raw("EvaluateMany", request.SerializeToString())
                outcomes = loss_service_pb2.EvaluateManyResponse.FromString(answer).outcomes
                assert len(outcomes) == count
                continue
            with pytest.raises(grpc.RpcError, match="at most 64"):
                await doors.raw("EvaluateMany", request.SerializeToString())

    _run(body, max_evaluations_per_call=64)


def test_many_hold_their_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """While known evaluations of one call are computed, what all of them need is held."""
    held: list[int] = []
    result_of = PreparedEvaluation.result_of
    request = loss_service_pb2.EvaluateManyRequest(evaluations=[_SMALL(1)] * 50)

    async def run() -> None:
        async with _answers() as (_, answers):
            admission = answers.evaluator.budget

            def spy(known: PreparedEvaluation, sent: Slice) -> bytes | None:
                held.append(admission.reserved_bytes)
                return result_of(known, sent)

            monkeypatch.setattr(PreparedEvaluation, "result_of", spy)
            await answers.one(_request(_SMALL(1)), _no_end)
            await answers.many(request.SerializeToString(), _no_end)
            [known] = _kept(answers)
            assert held == [50 * known.peak_bytes] * 50
            assert admission.reserved_bytes == 0

    asyncio.run(run())


def test_many_let_others_have_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The event loop does not compute all known evaluations of a call in one go."""
    turns: list[str] = []
    result_of = PreparedEvaluation.result_of
    request = loss_service_pb2.EvaluateManyRequest(evaluations=[_SMALL(1)] * 64)

    def spy(known: PreparedEvaluation, sent: Slice) -> bytes | None:
        turns.append("one of many")
        return result_of(known, sent)

    async def other() -> None:
        turns.append("another")

    async def run() -> None:
        async with _answers() as (_, answers):
            await answers.one(_request(_SMALL(1)), _no_end)
            monkeypatch.setattr(PreparedEvaluation, "result_of", spy)
            many = asyncio.create_task(answers.many(request.SerializeToString(), _no_end))
            await asyncio.gather(many, other())
            assert 0 < turns.index("another") < 64

    asyncio.run(run())


@pytest.mark.parametrize("known", [False, True])
def test_many_together_are_admitted(known: bool) -> None:  # noqa: FBT001
    """Evaluations that are too large together are refused, known or not, and nothing stays held."""
    request = loss_service_pb2.EvaluateManyRequest(evaluations=[_build(1, 100, 100)] * 30)

    async def body(doors: _Doors) -> None:
        if known:
            await doors.one(_build(1, 100, 100))
        for _ in range(2):
            with pytest.raises(grpc.RpcError, match="the server's memory budget is"):
                await doors.raw("EvaluateMany", request.SerializeToString())
        assert doors.app.evaluator.budget.reserved_bytes == 0

    _run(body, memory_budget_bytes=2 * _MIB)


@pytest.mark.parametrize("door", _DOORS)
@_SIZES
def test_memory_in_use(build: Build, door: str) -> None:
    """While others use the memory a known form is OVERLOADED as any other, and then it is not."""

    async def body(doors: _Doors) -> None:
        admission = doors.app.evaluator.budget
        await doors.one(build(1))
        await doors.one(build(1))
        with admission.hold(admission.limit_bytes - 1000):
            if door == "EvaluateStream":
                [outcome] = await doors.item(build(2))
                assert outcome.error.reason == "OVERLOADED"
            else:
                kind = loss_service_pb2.EvaluateRequest(evaluation=build(2))
                with pytest.raises(grpc.RpcError) as refused:
                    await doors.raw(door, kind.SerializeToString())  # many of one look the same
                assert item_status(refused.value).reason == "OVERLOADED"
                assert int(trailing(refused.value)["grpc-retry-pushback-ms"]) > 0
        assert admission.reserved_bytes == 0
        await _compared(doors, door, build)

    _run(body)


@asynccontextmanager
async def _answers(
    **changes: Any,  # noqa: ANN401 (any setting)
) -> AsyncIterator[tuple[Gate, EvaluateHandlers]]:
    """Make the answers alone, without a door."""
    gate = Gate()
    with running_evaluator(gate, **changes) as alone:
        yield gate, EvaluateHandlers(alone, 64)


def _request(message: Evaluation) -> bytes:
    return loss_service_pb2.EvaluateRequest(evaluation=message).SerializeToString()


def _no_end() -> float:
    return math.inf


def test_expired_calls_are_not_computed() -> None:
    """What is large and known has a deadline, too."""

    async def run() -> None:
        async with _answers() as (_, answers):
            await answers.one(_request(_LARGE(1)), _no_end)
            with pytest.raises(ExpiredError):
                await answers.one(_request(_LARGE(1)), lambda: 0.0)
            assert answers.evaluator.budget.reserved_bytes == 0

    asyncio.run(run())


def test_cancelled_calls_are_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for the engine when its caller goes away never begins, and holds no memory."""
    begun: list[int] = []
    large_answer_of = PreparedEvaluation.large_answer_of

    def spy(known: PreparedEvaluation, *rest: Any) -> bytes | None:  # noqa: ANN401 (as it takes them)
        begun.append(1)
        return large_answer_of(known, *rest)

    monkeypatch.setattr(PreparedEvaluation, "large_answer_of", spy)

    async def run() -> None:
        async with _answers() as (gate, answers):
            await answers.one(_request(_LARGE(1)), _no_end)
            blocking = asyncio.create_task(
                answers.one(_request(numbered(CLOSED, SMALL_BYTES)), _no_end)
            )
            await until(gate.reached.is_set)
            held = answers.evaluator.budget.reserved_bytes
            waiting = asyncio.create_task(answers.one(_request(_LARGE(1)), _no_end))
            await until(lambda: answers.evaluator.budget.reserved_bytes > held)
            waiting.cancel()
            await asyncio.wait([waiting])
            assert waiting.cancelled()
            assert answers.evaluator.budget.reserved_bytes == held
            gate.open.set()
            await blocking
            assert not begun
            await answers.one(_request(_LARGE(1)), _no_end)
            assert begun

    asyncio.run(run())


@_SIZES
def test_calls_at_once_do_not_mix(build: Build, decoded: list[str]) -> None:
    """Many calls of one form at a time have each its own numbers."""

    async def body(doors: _Doors) -> None:
        line_itself = doors.app.evaluator
        expected = [await outcome(line_itself, build(seed), math.inf) for seed in range(8)]
        await doors.one(build(0))
        decoded.clear()
        for _ in range(3):
            answers = await asyncio.gather(*(doors.one(build(seed)) for seed in range(8)))
            assert [_bits(each) for each in answers] == [_bits([each]) for each in expected]
        assert not decoded

    _run(body, memory_budget_bytes=1024 * _MIB)


@_SIZES
def test_on_a_gpu_nothing_is_kept(
    build: Build, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Native rows compute on the processor: on another device all take the line."""

    async def run() -> None:
        with running_evaluator(Gate()) as alone:
            with monkeypatch.context() as patch:
                patch.setattr(alone.worker, "device", torch.device("cuda"))
                answers = EvaluateHandlers(alone, 64)
            for _ in range(3):
                await answers.one(_request(build(1)), _no_end)
            assert len(decoded) == 3

    asyncio.run(run())


@_SIZES
def test_without_native_rows_nothing_is_kept(
    build: Build, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An installation without the library answers all the same, by the line."""
    monkeypatch.setattr(binding, "AVAILABLE", False)

    async def body(doors: _Doors) -> None:
        assert await _decoded_of(doors, "Evaluate", build, decoded) == 3

    _run(body)


def test_losses_of_others_take_the_line(decoded: list[str]) -> None:
    """A loss that a package of its own brings is computed by its own function each time."""

    async def run() -> None:
        async with _answers() as (gate, answers):
            for number in (1.0, 2.0, 3.0):
                await answers.one(_request(numbered(number)), _no_end)
            assert gate.computed == [1.0, 2.0, 3.0]
            assert decoded == ["gate"] * 3

    asyncio.run(run())


def _kept(answers: EvaluateHandlers) -> list[PreparedEvaluation]:
    return [each for group in answers.prepared._by_size.values() for each in group]


def test_forms_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who changes forms all the time makes the server forget some, not grow."""
    monkeypatch.setattr(known_module, "_MOST", 8)

    async def run() -> None:
        async with _answers() as (_, answers):
            for rows in [*range(1, 30), *range(1, 30)]:
                await answers.one(_request(_build(rows, rows)), _no_end)
                kept = _kept(answers)
                assert len(kept) == answers.prepared._count <= 8
                assert answers.prepared._kept_bytes == sum(each.kept_bytes for each in kept)

    asyncio.run(run())


def test_answers_that_are_kept_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prepared evaluations are few enough that their answers fit into so many bytes."""
    monkeypatch.setattr(known_module, "_MOST_BYTES", 10_000)

    async def run() -> None:
        async with _answers() as (_, answers):
            for rows in range(1, 60):
                await answers.one(_request(_build(rows, rows)), _no_end)
                assert sum(each.kept_bytes for each in _kept(answers)) <= 10_000

    asyncio.run(run())


def test_forms_of_one_size_are_bounded(monkeypatch: pytest.MonkeyPatch, decoded: list[str]) -> None:
    """A number that changes with each step is a form of its own, of which few are kept."""
    made: list[int] = []
    keep = known_module.PreparedCache._keep

    def spy(forms: known_module.PreparedCache, known: PreparedEvaluation) -> None:
        made.append(1)
        keep(forms, known)

    monkeypatch.setattr(known_module.PreparedCache, "_keep", spy)

    async def run() -> None:
        async with _answers() as (_, answers):
            for step in range(1, 103):
                message = _build(step, normalizer=float(step))
                answer = await answers.one(_request(message), _no_end)
                assert isinstance(answer, loss_service_pb2.EvaluateResponse)
                assert answer.result.mean_denominator == step
            assert len(_kept(answers)) == answers.prepared._count == 4
            assert answers.prepared._kept_bytes == sum(each.kept_bytes for each in _kept(answers))
            assert len(made) == 4 + (102 - 4) // 17
            # One that comes often enough has its turn, whatever comes between.
            decoded.clear()
            for step in range(200, 300):
                await answers.one(_request(_build(step, normalizer=0.5)), _no_end)
                await answers.one(_request(_build(step, normalizer=float(step))), _no_end)
            assert len(decoded) < 2 * 100 - 50

    asyncio.run(run())


def test_one_call_teaches_few_forms() -> None:
    """A call of very many forms does not hold the event loop to keep them all."""
    request = loss_service_pb2.EvaluateManyRequest(
        evaluations=[_build(1, rows) for rows in range(1, 61)]
    )

    async def run() -> None:
        async with _answers() as (_, answers):
            await answers.many(request.SerializeToString(), _no_end)
            assert len(_kept(answers)) == thresholds.MAX_PREPARED_PER_CALL
            for _ in range(4):
                await answers.many(request.SerializeToString(), _no_end)
            assert len(_kept(answers)) == 60

    asyncio.run(run())


@pytest.mark.parametrize("build", [_SMALL, _WEIGHTED, _LARGE, _CUT])
def test_numbers_are_not_kept(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a form a few kilobytes are kept and, of a small one, an answer; but no array."""
    watched: list[weakref.ref[Any]] = []

    def spy(work: Work) -> int:
        watched.extend(weakref.ref(each) for each in work.inputs.values())
        return admit.peak_bytes(work)

    monkeypatch.setattr("losswire.server.prepared.cache.peak_bytes", spy)

    async def run() -> None:
        async with _answers(memory_budget_bytes=256 * _MIB) as (_, answers):
            answers.prepared._threads = 2
            for _ in range(2):
                await answers.one(_request(build(1)), _no_end)
            [known] = _kept(answers)
            pieces = [piece for piece, _ in (*known.template.pieces, *known._answer.pieces)]
            assert sum(map(len, pieces)) < 1000
            assert bool(known.kept_bytes) == known.small
            gc.collect()
            assert watched
            assert [each() for each in watched] == [None] * len(watched)

    asyncio.run(run())


def test_streams_of_known_forms() -> None:
    """Items keep their numbers, whatever these are and however often they come."""
    numbers = [0, 2**64 - 1, 7, 7, 0, 127, 128, 2**32]

    def items() -> Iterator[bytes]:
        for seed, number in enumerate(numbers):
            request = loss_service_pb2.EvaluateStreamRequest(id=number, evaluation=_SMALL(seed))
            yield request.SerializeToString()

    async def body(doors: _Doors) -> None:
        seeds = range(len(numbers))
        expected = [await outcome(doors.app.evaluator, _SMALL(seed), math.inf) for seed in seeds]
        for _ in range(2):
            answers = [
                loss_service_pb2.EvaluateStreamResponse.FromString(each)
                async for each in doors.stream(items())
            ]
            found = sorted((each.id, *_bits([each.outcome])) for each in answers)
            wanted = zip(numbers, _bits(expected), strict=True)
            assert found == sorted(wanted)

    _run(body)


def test_a_stream_that_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who sends without reading gets a few answers computed, and others are served meanwhile."""
    computed: list[int] = []
    result_of = PreparedEvaluation.result_of

    def spy(known: PreparedEvaluation, *rest: Any) -> bytes | None:  # noqa: ANN401 (as result_of takes them)
        computed.append(1)
        return result_of(known, *rest)

    message = _build(1, 100, 100)
    request = loss_service_pb2.EvaluateStreamRequest(evaluation=message).SerializeToString()

    async def body(doors: _Doors) -> None:
        await doors.one(message)
        monkeypatch.setattr(PreparedEvaluation, "result_of", spy)
        call: Any = doors.channel.stream_stream(_SERVICE + "EvaluateStream")
        stream = call(iter([request] * 2000), timeout=PATIENCE)
        await until(lambda: len(computed) > 4)
        before = -1
        while before < len(computed):
            before = len(computed)
            await asyncio.sleep(0.3)
        assert len(computed) < 1000
        await _compared(doors, "Evaluate", _SMALL)
        stream.cancel()

    _run(body, max_in_flight_per_stream=4)


@pytest.mark.parametrize("offset", range(8))
def test_tensors_at_odd_addresses(offset: int) -> None:
    """Wherever elements begin, they are read as they are."""

    def build(seed: int) -> bytes:
        unknown = b"\x7a" + bytes([offset]) + b"x" * offset
        message = _build(seed, 33, 17, dtype=np.float64, weight=np.float64).SerializeToString()
        return b"\x0a" + varint(len(unknown) + len(message)) + unknown + message

    async def body(doors: _Doors) -> None:
        for seed in (1, 1, 2):
            parsed = loss_service_pb2.EvaluateRequest.FromString(build(seed)).evaluation
            expected = await outcome(doors.app.evaluator, parsed, math.inf)
            assert _bits([await _raw_outcome(doors, "Evaluate", build(seed))]) == _bits([expected])

    _run(body)
