"""The fields of a case, and numbers that many cases share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from losswire.v1 import evaluation_pb2
from losswire.wire import OptionScalar
from tests.conformance.exact import Array

NAN, INF = float("nan"), float("inf")


@dataclass(frozen=True, kw_only=True)
class Failure:
    """The error that an evaluation must be answered with."""

    code: int
    reason: str
    fields: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Given:
    """One evaluation, and how precise its answer must be."""

    loss: str
    inputs: Mapping[str, Array]
    options: Mapping[str, OptionScalar] = field(default_factory=dict)
    reduction: str | None = None
    """None leaves it to the loss's default."""
    gradients_for: tuple[str, ...] = ()
    grad_output: Array | None = None
    sample_weight: Array | None = None
    normalizer: float | None = None
    gradient_dtype: str | None = None
    compute_dtype: str | None = None
    engine: str = "ENGINE_AUTOGRAD"
    ulps: int = 0
    spoil: Callable[[evaluation_pb2.Evaluation], None] | None = None
    """A last change to the message, for what a careful sender would never write."""
    failure: Failure | None = None


@dataclass(frozen=True, kw_only=True)
class Case:
    """One vector."""

    name: str
    about: str
    evaluations: tuple[Given, ...]
    """More than one go into an EvaluateMany."""


def f16(values: npt.ArrayLike) -> Array:
    """Make a float16 array."""
    return np.array(values, np.float16)


def bf16(values: npt.ArrayLike) -> Array:
    """Make a bfloat16 array."""
    return np.array(values, ml_dtypes.bfloat16)


def f32(values: npt.ArrayLike) -> Array:
    """Make a float32 array."""
    return np.array(values, np.float32)


def f64(values: npt.ArrayLike) -> Array:
    """Make a float64 array."""
    return np.array(values, np.float64)


def i64(values: npt.ArrayLike) -> Array:
    """Make an int64 array."""
    return np.array(values, np.int64)


def u8(values: npt.ArrayLike) -> Array:
    """Make a uint8 array."""
    return np.array(values, np.uint8)


def one(name: str, about: str, **given: Any) -> Case:  # noqa: ANN401 (the fields of Given)
    """Describe a vector of one evaluation."""
    return Case(name=name, about=about, evaluations=(Given(**given),))


# Shared by many cases. The first has no short numbers, the second only short ones.
LOGITS = [[0.3, -1.2, 2.1], [1.7, 0.4, -0.6], [-0.9, 0.8, 0.1], [2.5, -2.5, 0.7]]
SHORT = [[0.5, -1.25, 2.0], [1.75, 0.0, -0.5], [-1.0, 0.75, 0.25], [2.5, -2.5, 1.5]]
TARGETS = [[1.5, -1.0, 2.25], [0.0, 0.25, -1.5], [-1.0, 1.0, 0.5], [0.5, -2.0, -0.5]]
CLASSES = [2, 0, 1, 0]
LOG_PROBABILITIES = [[-0.5, -1.25, -2.0], [-1.75, -0.25, -0.5], [-3.0, -0.75, -1.5]]
PROBABILITIES = [[0.1, 0.2, 0.7], [0.6, 0.3, 0.1], [0.25, 0.25, 0.5], [0.05, 0.9, 0.05]]
FEATURES = [[[0.3, -1.2], [1.1, 0.2]], [[-0.7, 0.5], [2.1, -0.4]], [[0.9, 0.0], [-1.6, 1.3]]]
IMAGE = [FEATURES, [[[each / 2 for each in row] for row in plane] for plane in FEATURES]]
