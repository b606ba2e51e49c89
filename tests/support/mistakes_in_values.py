"""Evaluations whose tensors are well-formed and mean nothing: shapes, types, values."""

import ml_dtypes
import numpy as np

from losswire.v1 import evaluation_pb2
from tests.support.mistakes import mistake
from tests.support.requests import Array, evaluation, f32, i64

_X = f32([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
_P = f32([0.1, 0.2, 0.7], [0.4, 0.5, 0.1])
_Y = i64(0, 2)
_V = f32(0.25, 0.5)
_NAN = float("nan")
_INF = float("inf")

_TARGET = 'inputs["target"]'
_INPUT = 'inputs["input"]'


def _classes(
    target: Array, loss: str = "cross_entropy", **options: float
) -> evaluation_pb2.Evaluation:
    return evaluation(loss, {"input": _X, "target": target}, options)


def _pair(loss: str, target: Array, **options: float) -> evaluation_pb2.Evaluation:
    return evaluation(loss, {"input": _V, "target": target}, options)


def _smoothing(value: float) -> evaluation_pb2.Evaluation:
    return _classes(_Y, label_smoothing=value)


def _binary(input: Array, target: Array) -> evaluation_pb2.Evaluation:
    return evaluation("binary_cross_entropy", {"input": input, "target": target})


def _weighted(loss: str, target: Array, weight: Array) -> evaluation_pb2.Evaluation:
    return evaluation(loss, {"input": _X, "target": target, "weight": weight})


_NOT_A_CLASS = "is not in [0, 3) and is not ignore_index (-100)"

CLASS_INDICES = (
    mistake("index C", _classes(i64(0, 3)), (_TARGET, f"class index 3 at [1] {_NOT_A_CLASS}")),
    mistake("index -1", _classes(i64(-1, 0)), (_TARGET, f"class index -1 at [0] {_NOT_A_CLASS}")),
    mistake("index 1e9", _classes(i64(0, 10**9)), (_TARGET, "class index 1000000000 at [1]")),
    mistake(
        "index at the lowest int64",
        _classes(i64(-(2**63), 0)),
        (_TARGET, "class index -9223372036854775808 at [0]"),
    ),
    mistake(
        "index that is the lowest int64 plus a class, as if wrapped to 32 bits",
        _classes(i64(0, 2**32 + 1)),
        (_TARGET, "class index 4294967297 at [1]"),
    ),
    mistake(
        "index of uint8",
        _classes(np.array([255, 0], np.uint8)),
        (_TARGET, f"class index 255 at [0] {_NOT_A_CLASS}"),
    ),
    mistake(
        "the default ignore_index where another is given",
        _classes(i64(-100, 0), ignore_index=-1),
        (_TARGET, "class index -100 at [0] is not in [0, 3) and is not ignore_index (-1)"),
    ),
    mistake(
        "index in the last of many axes",
        evaluation(
            "cross_entropy",
            {"input": np.zeros((2, 3, 2), np.float32), "target": i64([0, 1], [2, 5])},
        ),
        (_TARGET, "class index 5 at [1, 1]"),
    ),
    mistake(
        "index of a single row",
        evaluation("cross_entropy", {"input": f32(1, 2, 3), "target": np.array(7)}),
        (_TARGET, "class index 7 at []"),
    ),
    mistake(
        "index where there are no classes",
        evaluation("nll_loss", {"input": np.zeros((1, 0), np.float32), "target": i64(0)}),
        (_TARGET, "class index 0 at [0] is not in [0, 0)"),
    ),
    mistake(
        "nll_loss, index C",
        _classes(i64(3, 0), "nll_loss"),
        (_TARGET, f"class index 3 at [0] {_NOT_A_CLASS}"),
    ),
    mistake(
        "nll_loss, uint8 that is not the ignore_index 255",
        evaluation(
            "nll_loss",
            {"input": _X, "target": np.array([255, 254], np.uint8)},
            {"ignore_index": 255},
        ),
        (_TARGET, "class index 254 at [1] is not in [0, 3) and is not ignore_index (255)"),
    ),
)

SHAPES = (
    mistake("a row too many", _classes(i64(0, 1, 2)), (_TARGET + ".shape", "is [3]; expected [2]")),
    mistake(
        "indices over classes", _classes(i64([0, 1, 2], [0, 1, 2])), (_TARGET + ".shape", "[2]")
    ),
    mistake(
        "probabilities without classes",
        _classes(f32(0, 1)),
        (_TARGET + ".shape", "is [2]; expected [2, 3]"),
    ),
    mistake(
        "a scalar of logits",
        evaluation("cross_entropy", {"input": np.float32(1), "target": i64(0)}),
        (_INPUT + ".shape", "is []; expected [C]"),
    ),
    mistake(
        "a class weight too few",
        _weighted("cross_entropy", _Y, f32(1, 1)),
        ('inputs["weight"].shape', "is [2]; expected [3]"),
    ),
    mistake(
        "silent broadcasting of rows",
        evaluation("mse_loss", {"input": _X, "target": f32(1, 2, 3)}),
        (_TARGET + ".shape", "is [3]; expected [2, 3]"),
    ),
    mistake(
        "silent broadcasting of a column",
        evaluation("l1_loss", {"input": _X, "target": f32([1], [2])}),
        (_TARGET + ".shape", "is [2, 1]; expected [2, 3]"),
    ),
    mistake(
        "a weight that would broadcast where torch's does not",
        _weighted("mse_loss", _X, f32(1, 1, 1)),
        ('inputs["weight"].shape', "is [3]; expected [2, 3]"),
    ),
    mistake(
        "binary_cross_entropy of two sizes",
        _binary(_V, f32(1)),
        (_TARGET + ".shape", "is [1]; expected [2]"),
    ),
    mistake(
        "a weight that does not broadcast",
        _weighted("binary_cross_entropy", _P, f32(1, 1)),
        ('inputs["weight"].shape', "is [2]; expected a shape that broadcasts to [2, 3]"),
    ),
    mistake(
        "a weight that is larger than the input",
        _weighted("binary_cross_entropy", _P, f32([[1, 1, 1]])),
        ('inputs["weight"].shape', "is [1, 1, 3]; expected a shape that broadcasts to [2, 3]"),
    ),
    mistake(
        "a pos_weight that does not broadcast",
        evaluation(
            "binary_cross_entropy_with_logits",
            {"input": _X, "target": _P, "pos_weight": f32(1, 1)},
        ),
        ('inputs["pos_weight"].shape', "broadcasts to [2, 3]"),
    ),
    mistake(
        "kl_div of two sizes",
        evaluation("kl_div", {"input": _X, "target": f32(1, 0, 0)}),
        (_TARGET + ".shape", "is [3]; expected [2, 3]"),
    ),
)

DATA_TYPES = (
    mistake(
        "int32 classes",
        _classes(np.array([0, 2], np.int32)),
        (_TARGET + ".data_type", "is int32; expected int64, uint8, float16, bfloat16, float32"),
    ),
    mistake(
        "bool classes",
        _classes(np.array([True, False])),
        (_TARGET + ".data_type", "is bool; expected"),
    ),
    mistake(
        "nll_loss with classes as floats",
        _classes(f32(0, 1), "nll_loss"),
        (_TARGET + ".data_type", "is float32; expected int64 or uint8"),
    ),
    mistake(
        "logits as integers",
        evaluation("cross_entropy", {"input": i64([1, 2, 3]), "target": i64(0)}),
        (_INPUT + ".data_type", "is int64; expected float16, bfloat16, float32 or float64"),
    ),
    mistake(
        "mse_loss of integers",
        evaluation("mse_loss", {"input": i64(1), "target": i64(1)}),
        (_INPUT + ".data_type", "is int64; expected float16"),
        (_TARGET + ".data_type", "is int64; expected float16"),
    ),
    mistake(
        "a class weight of another type",
        _weighted("cross_entropy", _Y, np.ones(3)),
        ('inputs["weight"].data_type', "is float64; it must be float32, as input is"),
    ),
    mistake(
        "a class weight of integers",
        _weighted("cross_entropy", _Y, i64(1, 1, 1)),
        ('inputs["weight"].data_type', "is int64; expected float16"),
    ),
    mistake(
        "binary_cross_entropy with a target of another type",
        _binary(_V, np.array([0.0, 1.0])),
        (_TARGET + ".data_type", "is float64; it must be float32, as input is"),
    ),
    mistake(
        "binary_cross_entropy_with_logits with a target of integers",
        _pair("binary_cross_entropy_with_logits", i64(0, 1)),
        (_TARGET + ".data_type", "is int64; expected float16"),
    ),
    mistake(
        "the gradient of huber_loss with a target of another type",
        evaluation(
            "huber_loss", {"input": _V, "target": np.array([0.0, 1.0])}, gradients_for=["input"]
        ),
        (
            _TARGET + ".data_type",
            "is float64; it must be float32 for the gradient of input, as input is",
        ),
    ),
    mistake(
        "sigmoid of truth values",
        evaluation("sigmoid", {"input": np.array([True])}),
        (_INPUT + ".data_type", "is bool; expected float16"),
    ),
)

PROBABILITIES = tuple(
    mistake(
        f"binary_cross_entropy, {value} as {name} in {dtype}",
        _binary(
            *(
                np.array([0.5, value if name == each else 0.5]).astype(dtype)
                for each in ("input", "target")
            )
        ),
        (f'inputs["{name}"]', "at [1] is not in [0, 1]"),
    )
    for name in ("input", "target")
    for dtype in ("float16", ml_dtypes.bfloat16, "float32", "float64")
    for value in (-0.125, 1.0078125, _NAN, _INF, -_INF)
)

OPTIONS = (
    *(
        mistake(
            f"label_smoothing {value}",
            _smoothing(value),
            ('options["label_smoothing"]', "is not in [0, 1]"),
        )
        for value in (-0.1, 1.5, _NAN, _INF, -_INF)
    ),
    mistake(
        "ignore_index 0 with probabilities",
        _classes(_P, ignore_index=0),
        ('options["ignore_index"]', "0 must be negative with class probabilities"),
    ),
    *(
        mistake(
            f"beta {value}",
            _pair("smooth_l1_loss", _V, beta=value),
            ('options["beta"]', "is not in [0, inf]"),
        )
        for value in (-0.5, -_INF, _NAN)
    ),
    *(
        mistake(
            f"delta {value}",
            _pair("huber_loss", _V, delta=value),
            ('options["delta"]', "is not in (0, inf]"),
        )
        for value in (0.0, -0.0, -1.0, -_INF, _NAN)
    ),
    *(
        mistake(
            f"softmax along axis {axis} of 2",
            evaluation("softmax", {"input": _X}, {"dim": axis}),
            ('options["dim"]', f"{axis} is not in [-2, 2)"),
        )
        for axis in (2, -3, 2**63 - 1, -(2**63))
    ),
    mistake(
        "log_softmax along axis 1 of a scalar",
        evaluation("log_softmax", {"input": np.float32(1)}, {"dim": 1}),
        ('options["dim"]', "1 is not in [-1, 1)"),
    ),
    mistake(
        "softmax along no axis",
        evaluation("softmax", {"input": _X}),
        ('options["dim"]', "softmax needs this option"),
    ),
    mistake(
        "an option of another loss",
        _classes(_Y, "nll_loss", label_smoothing=0.1),
        ('options["label_smoothing"]', "nll_loss has no such option; its options: ignore_index"),
    ),
    mistake(
        "an option where there are none",
        _pair("mse_loss", _V, beta=1.0),
        ('options["beta"]', "mse_loss has no such option; its options: none"),
    ),
    mistake(
        "a truth value for a number",
        evaluation("smooth_l1_loss", {"input": _V, "target": _V}, {"beta": True}),
        ('options["beta"]', "must be a number (double)"),
    ),
    mistake(
        "a text for an integer",
        evaluation("cross_entropy", {"input": _X, "target": _Y}, {"ignore_index": "1"}),
        ('options["ignore_index"]', "must be an integer (int64)"),
    ),
    mistake(
        "a number for an integer",
        _classes(_Y, ignore_index=1.0),
        ('options["ignore_index"]', "must be an integer (int64)"),
    ),
    mistake(
        "an integer for a truth value",
        evaluation("kl_div", {"input": _X, "target": _P}, {"log_target": 1}),
        ('options["log_target"]', "must be a bool"),
    ),
    mistake(
        "an option without a value",
        evaluation(
            "kl_div",
            {"input": _X, "target": _P},
            {"log_target": evaluation_pb2.OptionValue()},
        ),
        ('options["log_target"]', "must be a bool"),
    ),
)

IN_VALUES = (*CLASS_INDICES, *SHAPES, *DATA_TYPES, *PROBABILITIES, *OPTIONS)
