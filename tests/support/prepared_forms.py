"""Evaluations with numbers that follow from a seed: of forms that servers prepare, and others."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

from losswire.server.compute.native import binding
from losswire.v1 import evaluation_pb2
from tests.support.requests import evaluation

Evaluation = evaluation_pb2.Evaluation

Build = Callable[[int], Evaluation]
"""Makes an evaluation of one form from a seed."""

NEEDS_NATIVE = pytest.mark.skipif(not binding.AVAILABLE, reason="there are no native rows here")

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def classes(
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


def elements(
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


def probabilities(seed: int, shape: tuple[int, ...] = (6, 11), **fields: Any) -> Evaluation:  # noqa: ANN401
    """Make an evaluation of binary_cross_entropy, whose numbers are checked."""
    message = elements(seed, "binary_cross_entropy", shape, **fields)
    message.inputs["input"].CopyFrom(elements(seed + 1, shape=shape, **fields).inputs["target"])
    return message


BCE = partial(elements, loss="binary_cross_entropy_with_logits")


def with_logits(seed: int, *values: float) -> Evaluation:
    """Make one of given logits in its first row."""
    message = classes(seed)
    logits = np.random.default_rng(seed).standard_normal((6, 11)).astype(np.float32)
    logits[0, : len(values)] = values
    message.inputs["input"].data = logits.tobytes()
    return message


FLOAT16, _BF16, FLOAT32, FLOAT64 = 7, 8, 9, 10
SUM, NONE = evaluation_pb2.REDUCTION_SUM, evaluation_pb2.REDUCTION_NONE

SMALL_FORMS: dict[str, Build] = {
    "plain": classes,
    "mean": partial(classes, reduction=evaluation_pb2.REDUCTION_MEAN),
    "sum": partial(classes, reduction=SUM),
    "loss only": partial(classes, gradients_for=[]),
    "float64": partial(classes, dtype=np.float64),
    "float16": partial(classes, dtype=np.float16),
    "bfloat16": partial(classes, dtype=BFLOAT16),
    "float16 with a gradient of float32": partial(
        classes, dtype=np.float16, gradient_data_type=FLOAT32
    ),
    "bfloat16 with a gradient of float32": partial(
        classes, dtype=BFLOAT16, gradient_data_type=FLOAT32
    ),
    "the types said": partial(classes, gradient_data_type=FLOAT32, compute_data_type=FLOAT32),
    "the engine said": partial(classes, engine=evaluation_pb2.ENGINE_AUTO),
    "dense said": partial(classes, gradient_form=evaluation_pb2.GRADIENT_FORM_DENSE),
    "normalizer": partial(classes, normalizer=7.5),
    "ignored": partial(classes, ignored=-100),
    "all ignored": lambda seed: classes(3 * seed, ignored=-100),
    "all ignored, with logits that are no numbers": lambda seed: with_logits(
        seed, math.nan, math.inf
    ),
    "a class ignored": partial(classes, ignored=3, options={"ignore_index": 3}),
    "ignored far away": partial(classes, ignored=-(2**63), options={"ignore_index": -(2**63)}),
    "smoothing": partial(classes, options={"label_smoothing": 0.1}),
    "all smooth": partial(classes, options={"label_smoothing": 1.0}),
    "weight": partial(classes, weight=np.float32),
    "weight of float64": partial(classes, rows=300, dtype=np.float64, weight=np.float64),
    "weight and sum": partial(classes, rows=300, weight=np.float32, reduction=SUM),
    "weight and normalizer": partial(classes, weight=np.float32, normalizer=3.0),
    "weight, smoothing, ignored": partial(
        classes, rows=40, weight=np.float32, ignored=-100, options={"label_smoothing": 0.3}
    ),
    "not a number": lambda seed: with_logits(seed, math.nan),
    "infinite": lambda seed: with_logits(seed, math.inf, -math.inf),
    "all minus infinite": lambda seed: with_logits(seed, *[-math.inf] * 11),
    "huge": lambda seed: with_logits(seed, 3e38, -3e38),
    "one row": partial(classes, rows=1),
    "one class": partial(classes, classes=1),
    "a row of many classes": partial(classes, rows=1, classes=9001),
    "just small": partial(classes, rows=512, classes=29),
    "nll": partial(classes, loss="nll_loss"),
    "nll, weight, ignored": partial(
        classes, loss="nll_loss", rows=40, weight=np.float32, ignored=-100
    ),
    "nll of bfloat16": partial(classes, loss="nll_loss", dtype=BFLOAT16),
    "elements": elements,
    "elements, both gradients": partial(elements, gradients_for=["input", "target"]),
    "elements, the target's gradient": partial(elements, gradients_for=["target"]),
    "elements, loss only": partial(elements, gradients_for=[]),
    "elements, sum": partial(elements, reduction=SUM),
    "elements, normalizer": partial(elements, normalizer=7.5),
    "elements of float64": partial(elements, dtype=np.float64),
    "elements of bfloat16": partial(elements, dtype=BFLOAT16),
    "elements of float16 with a gradient of float32": partial(
        elements, dtype=np.float16, gradient_data_type=FLOAT32
    ),
    "elements in a row": partial(elements, shape=(123,)),
    "elements of several axes": partial(elements, shape=(2, 3, 5, 7)),
    "one element": partial(elements, shape=(1,)),
    "elements, weight": partial(elements, shape=(40, 31), weights={"weight": (40, 31)}),
    "elements of bfloat16, weight": partial(
        elements, dtype=BFLOAT16, shape=(40, 31), weights={"weight": (40, 31)}
    ),
    "elements, weight and normalizer": partial(
        elements, weights={"weight": (6, 11)}, normalizer=3.0
    ),
    "l1": partial(elements, loss="l1_loss", weights={"weight": (6, 11)}),
    "smooth l1": partial(elements, loss="smooth_l1_loss", options={"beta": 0.4}),
    "smooth l1 that is l1": partial(elements, loss="smooth_l1_loss", options={"beta": 0.0}),
    "huber": partial(elements, loss="huber_loss", options={"delta": 0.7}),
    "huber, weight": partial(elements, loss="huber_loss", weights={"weight": (6, 11)}),
    "bce with logits": BCE,
    "bce with logits, weights of their own": partial(
        BCE, weights={"weight": (6, 11), "pos_weight": (6, 11)}
    ),
    "bce with logits, weights that repeat": partial(
        BCE, shape=(40, 11), weights={"weight": (11,), "pos_weight": (1, 11)}
    ),
    "bce with logits, one weight that repeats": partial(
        BCE, shape=(40, 11), weights={"pos_weight": (11,)}
    ),
    "bce with logits, a weight for all": partial(BCE, weights={"pos_weight": (1,)}),
    "bce": probabilities,
    "bce of float64": partial(probabilities, dtype=np.float64),
    "bce of float16": partial(probabilities, dtype=np.float16),
    "bce of bfloat16": partial(probabilities, dtype=BFLOAT16, weights={"weight": (11,)}),
    "kl": partial(elements, loss="kl_div"),
    "kl, log_target": partial(elements, loss="kl_div", options={"log_target": True}),
    "elements, just small": partial(elements, shape=(8191,)),
}
"""Small evaluations whose forms are kept."""

LARGE_FORMS: dict[str, Build] = {
    "of exactly the size": partial(classes, rows=512, classes=30),
    "of exactly the size, weighted": partial(classes, rows=511, classes=30, weight=np.float32),
    "1 MiB": partial(classes, rows=512, classes=512),
    "2 MiB, cut over threads": partial(classes, rows=1031, classes=511),
    "4 MiB, cut over threads": partial(classes, rows=1024, classes=1021),
    "float64": partial(classes, rows=1033, classes=300, dtype=np.float64),
    "float64 and weight": partial(
        classes, rows=1033, classes=300, dtype=np.float64, weight=np.float64
    ),
    "bfloat16": partial(classes, rows=700, classes=1021, dtype=BFLOAT16),
    "sum": partial(classes, rows=512, classes=512, reduction=SUM, gradients_for=[]),
    "ignored": partial(classes, rows=1033, classes=512, ignored=-100),
    "smoothing": partial(classes, rows=1033, classes=512, options={"label_smoothing": 0.1}),
    "normalizer": partial(classes, rows=1033, classes=512, normalizer=7.0),
    "classes of uint8": partial(classes, rows=512, classes=512, target=np.uint8),
    "weight of float16": partial(
        classes, rows=512, classes=512, dtype=np.float16, weight=np.float16
    ),
    "a gradient of float64": partial(classes, rows=512, classes=512, gradient_data_type=FLOAT64),
    "nll, weight": partial(
        classes, loss="nll_loss", rows=1033, classes=300, weight=np.float32, ignored=-100
    ),
    "elements": partial(elements, shape=(8192,)),
    "elements, cut over threads": partial(
        elements, shape=(1, 3, 300_001), gradients_for=["input", "target"]
    ),
    "elements, weight": partial(elements, shape=(300, 999), weights={"weight": (300, 999)}),
    "elements of float64, cut over threads": partial(elements, dtype=np.float64, shape=(300, 999)),
    "elements of bfloat16": partial(elements, dtype=BFLOAT16, shape=(300, 999)),
    "bce": partial(probabilities, shape=(300, 999)),
    "bce with logits, weights that repeat": partial(
        BCE, shape=(999, 300), weights={"weight": (1,), "pos_weight": (300,)}
    ),
}
"""Large ones, which are answered without protobuf in calls of their own."""

OTHER_FORMS: dict[str, Build] = {
    "another loss": partial(elements, loss="poisson_nll_loss"),
    "elements of several types": lambda seed: evaluation(
        "mse_loss",
        {"input": np.ones(3, np.float32) * seed, "target": np.ones(3)},
        gradients_for=["input"],
    ),
    "one element without an axis": partial(elements, shape=()),
    "a gradient of the weight": partial(
        elements, weights={"weight": (6, 11)}, gradients_for=["weight"]
    ),
    "weights that repeat differently": partial(
        BCE, shape=(4, 6, 11), weights={"weight": (11,), "pos_weight": (6, 11)}
    ),
    "a weight for each row": partial(BCE, weights={"weight": (6, 1)}),
    "autograd": partial(classes, engine=evaluation_pb2.ENGINE_AUTOGRAD),
    "no reduction": partial(classes, reduction=NONE, gradients_for=[]),
    "grad_output": partial(classes, grad_output=np.float32(2)),
    "sample_weight": partial(classes, sample_weight=np.ones(6, np.float32)),
    "factored": partial(classes, gradient_form=evaluation_pb2.GRADIENT_FORM_FACTORED),
    "computed in float64": partial(classes, compute_data_type=FLOAT64),
    "computed in float16": partial(classes, dtype=np.float16, compute_data_type=FLOAT16),
    "a gradient of float64": partial(classes, gradient_data_type=FLOAT64),
    "a gradient of float16": partial(classes, gradient_data_type=FLOAT16),
    "classes of uint8": partial(classes, target=np.uint8),
    "weight of float16": partial(classes, dtype=np.float16, weight=np.float16),
    "no rows": partial(classes, rows=0),
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
"""Evaluations that take the pipeline each time."""


SMALL, LARGE = partial(classes, rows=40), LARGE_FORMS["1 MiB"]
WEIGHTED = partial(classes, rows=40, weight=np.float32)
SIZES = pytest.mark.parametrize("build", [SMALL, LARGE], ids=["small", "large"])


def with_class(message: Evaluation, position: int, target: int) -> Evaluation:
    """Copy an evaluation, with another class at a position."""
    wrong = Evaluation()
    wrong.CopyFrom(message)
    targets = np.frombuffer(message.inputs["target"].data, np.int64).copy()
    targets[position] = target
    wrong.inputs["target"].data = targets.tobytes()
    return wrong


CUT = LARGE_FORMS["2 MiB, cut over threads"]
