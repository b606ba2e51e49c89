"""Evaluations that are malformed, incomplete, or ask for what cannot be given."""

import dataclasses
import math
from typing import Any

import grpc
import numpy as np

from losswire.v1 import evaluation_pb2, tensor_pb2
from tests.support.mistakes import Mistake, mistake
from tests.support.requests import evaluation, f32, i64

_X = f32([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
_Y = i64(0, 2)
_LARGEST = 2**31 - 1
_F32 = tensor_pb2.DATA_TYPE_FLOAT32
_TYPES = "expected one of DATA_TYPE_BOOL, DATA_TYPE_UINT8"


def _raw(shape: tuple[int, ...], data: bytes = b"", data_type: int = _F32) -> tensor_pb2.Tensor:
    """Return a tensor message without any check."""
    message = tensor_pb2.Tensor(shape=shape, data=data)
    message.data_type = tensor_pb2.DataType.ValueType(data_type)
    return message


def _alone(tensor: tensor_pb2.Tensor) -> evaluation_pb2.Evaluation:
    return evaluation("sigmoid", {"input": tensor})


def _classes(**fields: Any) -> evaluation_pb2.Evaluation:  # noqa: ANN401 (any field)
    return evaluation("cross_entropy", {"input": _X, "target": _Y}, **fields)


_DATA = 'inputs["input"].data'
_SHAPE = 'inputs["input"].shape'
_TYPE = 'inputs["input"].data_type'

TENSORS = (
    mistake("9 axes", _alone(_raw((1,) * 9, bytes(4))), (_SHAPE, "has 9 axes; at most 8")),
    mistake("a bomb of axes", _alone(_raw((1,) * 10_000)), (_SHAPE, "has 10000 axes")),
    mistake("-1 rows", _alone(_raw((-1, 4))), (_SHAPE + "[0]", "-1 is not in [0, 2147483647]")),
    mistake(
        "two negative axes whose product is right",
        _alone(_raw((-2, -2), bytes(16))),
        (_SHAPE + "[0]", "-2 is not in"),
        (_SHAPE + "[1]", "-2 is not in"),
    ),
    mistake("2^31 rows", _alone(_raw((0, 2**31))), (_SHAPE + "[1]", "2147483648 is not in")),
    mistake(
        "the lowest number of rows",
        _alone(_raw((-(2**63),))),
        (_SHAPE + "[0]", "-9223372036854775808 is not in"),
    ),
    mistake(
        "a product that is 0 modulo 2^64",
        _alone(_raw((2**30, 2**30, 2**30), b"")),
        (_SHAPE, "has too many elements"),
    ),
    mistake(
        "a product that is 4 modulo 2^64",
        _alone(_raw((_LARGEST, _LARGEST, _LARGEST), bytes(4))),
        (_SHAPE, "has too many elements"),
    ),
    mistake(
        "no elements in an extent that no library can address",
        _alone(_raw((0, _LARGEST, _LARGEST, _LARGEST))),
        (_SHAPE, "has too many elements"),
    ),
    mistake("no bytes", _alone(_raw((2,))), (_DATA, "has 0 bytes; 2 of float32 takes 8")),
    mistake("a byte too few", _alone(_raw((2, 1), bytes(7))), (_DATA, "has 7 bytes; 2 x 1 of")),
    mistake("a byte too many", _alone(_raw((), bytes(5))), (_DATA, "has 5 bytes; scalar of")),
    mistake("bytes of no element", _alone(_raw((0, 3), bytes(4))), (_DATA, "has 4 bytes; 0 x 3")),
    mistake(
        "a huge tensor without bytes",
        _alone(_raw((_LARGEST,))),
        (_DATA, "has 0 bytes; 2147483647 of float32 takes 8589934588"),
    ),
    mistake("no data type", _alone(_raw((1,), bytes(4), 0)), (_TYPE, f"is not set; {_TYPES}")),
    *(
        mistake(
            f"data type {number}",
            _alone(_raw((1,), bytes(4), number)),
            (_TYPE, f"{number} is not a data type; {_TYPES}"),
        )
        for number in (11, 20, 30, 99, -1, _LARGEST)
    ),
    mistake(
        "everything about a tensor",
        _alone(_raw((-1, -2, *(1,) * 9), b"x", 42)),
        (_TYPE, "42 is not a data type"),
        (_SHAPE, "has 11 axes"),
        (_SHAPE + "[0]", "-1 is not in"),
        (_SHAPE + "[1]", "-2 is not in"),
    ),
    mistake(
        "no source",
        _alone(tensor_pb2.Tensor(data_type=_F32, shape=(0,))),
        ('inputs["input"]', "has no data"),
    ),
    mistake(
        "an empty message",
        _alone(tensor_pb2.Tensor()),
        (_TYPE, "is not set"),
    ),
    mistake(
        "a truth value of 2",
        _alone(_raw((2,), b"\x01\x02", tensor_pb2.DATA_TYPE_BOOL)),
        (_DATA, "a bool is one byte, 0 or 1"),
    ),
    mistake(
        "a malformed sample_weight",
        _classes(sample_weight=_raw((2,), b"x")),
        ("sample_weight.data", "has 1 bytes; 2 of float32 takes 8"),
    ),
    mistake(
        "a malformed grad_output",
        _classes(
            reduction=evaluation_pb2.REDUCTION_NONE,
            gradients_for=["input"],
            grad_output=_raw((-1,)),
        ),
        ("grad_output.shape[0]", "-1 is not in"),
    ),
)

PARTS = (
    mistake(
        "no target",
        evaluation("cross_entropy", {"input": _X}),
        ('inputs["target"]', "cross_entropy needs this input"),
    ),
    mistake(
        "no inputs at all",
        evaluation("cross_entropy", {}),
        ('inputs["input"]', "cross_entropy needs this input"),
        ('inputs["target"]', "cross_entropy needs this input"),
    ),
    mistake(
        "an input under another name",
        evaluation("cross_entropy", {"input": _X, "target": _Y, "Target": _Y}),
        ('inputs["Target"]', "cross_entropy has no such input; it has input, target, weight"),
    ),
    mistake("reduction 99", _classes(reduction=99), ("reduction", "is 99; cross_entropy accepts")),
    mistake(
        "batchmean where torch has none",
        _classes(reduction=evaluation_pb2.REDUCTION_BATCHMEAN),
        ("reduction", "is batchmean; cross_entropy accepts none, mean or sum"),
    ),
    mistake(
        "the mean of an activation",
        evaluation("sigmoid", {"input": _X}, reduction=evaluation_pb2.REDUCTION_MEAN),
        ("reduction", "is mean; sigmoid accepts none"),
    ),
    mistake("engine 7", _classes(engine=7), ("engine", "is 7; expected ENGINE_AUTO or")),
    mistake(
        "gradient form 7",
        _classes(gradient_form=7),
        ("gradient_form", "is 7; expected GRADIENT_FORM_DENSE or GRADIENT_FORM_FACTORED"),
    ),
    mistake(
        "gradients as integers",
        _classes(gradients_for=["input"], gradient_data_type=tensor_pb2.DATA_TYPE_INT64),
        ("gradient_data_type", "is int64; expected float16, bfloat16, float32 or float64"),
    ),
    mistake(
        "computing in type 99",
        _classes(compute_data_type=99),
        ("compute_data_type", "is 99; expected float16"),
    ),
    mistake(
        "computing in less than the inputs hold",
        _classes(compute_data_type=tensor_pb2.DATA_TYPE_FLOAT16),
        ("compute_data_type", "is float16; float32 or float64 can hold the inputs"),
    ),
    mistake(
        "softmax of integers in no floating type",
        evaluation("softmax", {"input": i64(1, 2)}, {"dim": 0}),
        ("compute_data_type", "is required when the inputs are integers"),
    ),
    *(
        mistake(
            f"normalizer {value}",
            _classes(normalizer=value),
            ("normalizer", "expected a finite number greater than 0"),
        )
        for value in (0.0, -1.0, math.nan, math.inf)
    ),
    mistake(
        "a normalizer for a sum",
        _classes(normalizer=1.0, reduction=evaluation_pb2.REDUCTION_SUM),
        ("normalizer", "has no meaning with reduction sum"),
    ),
    mistake(
        "sample weights of another length",
        _classes(sample_weight=f32(1, 1, 1)),
        ("sample_weight.shape", "is [3]; expected [2]"),
    ),
    mistake(
        "sample weights of neither values nor rows",
        evaluation("mse_loss", {"input": _X, "target": _X}, sample_weight=f32(1, 1, 1)),
        ("sample_weight.shape", "is [3]; expected [2, 3] or [2]"),
    ),
    mistake(
        "sample weights of integers",
        _classes(sample_weight=i64(1, 1)),
        ("sample_weight.data_type", "is int64; expected float16"),
    ),
    mistake(
        "sample weights of an activation",
        evaluation("sigmoid", {"input": _X}, sample_weight=_X),
        ("sample_weight", "sigmoid is an activation and takes no weights"),
    ),
)

GRADIENTS = (
    mistake(
        "a gradient of classes",
        _classes(gradients_for=["target"]),
        ("gradients_for[0]", "torch gives no gradient with respect to target for this kind"),
    ),
    mistake(
        "a gradient of the weight of binary_cross_entropy",
        evaluation(
            "binary_cross_entropy",
            {"input": f32(0.5), "target": f32(1), "weight": f32(1)},
            gradients_for=["weight"],
        ),
        ("gradients_for[0]", "torch gives no gradient with respect to weight"),
    ),
    mistake(
        "a gradient of nothing",
        _classes(gradients_for=["input", "inptu"]),
        ("gradients_for[1]", 'cross_entropy has no input "inptu"'),
    ),
    mistake(
        "a gradient of an input that is not given",
        evaluation("mse_loss", {"input": _X, "target": _X}, gradients_for=["weight"]),
        ("gradients_for[0]", "weight is not among the inputs of this evaluation"),
    ),
    mistake(
        "a gradient of integers",
        evaluation(
            "sigmoid",
            {"input": i64(1)},
            gradients_for=["input"],
            grad_output=f32(1),
        ),
        ("gradients_for[0]", "input holds integers, which have no gradient"),
    ),
    mistake(
        "a gradient twice",
        _classes(gradients_for=["input", "input"]),
        ("gradients_for[1]", "input is named twice"),
    ),
    mistake(
        "gradients of unreduced values without grad_output",
        _classes(reduction=evaluation_pb2.REDUCTION_NONE, gradients_for=["input"]),
        ("grad_output", "is required for gradients of an unreduced loss (NONE)"),
    ),
    mistake(
        "grad_output of a mean with a shape",
        _classes(gradients_for=["input"], grad_output=f32(1)),
        ("grad_output.shape", "is [1]; expected []"),
    ),
    mistake(
        "grad_output of another length",
        _classes(
            reduction=evaluation_pb2.REDUCTION_NONE,
            gradients_for=["input"],
            grad_output=f32(1, 1, 1),
        ),
        ("grad_output.shape", "is [3]; expected [2]"),
    ),
    mistake(
        "grad_output of integers",
        _classes(gradients_for=["input"], grad_output=np.array(1)),
        ("grad_output.data_type", "is int64; expected float16"),
    ),
    mistake(
        "grad_output without gradients",
        _classes(grad_output=np.float32(1)),
        ("grad_output", "has no meaning without gradients_for"),
    ),
)

_UNSERVED = Mistake(
    what="",
    item=evaluation_pb2.Evaluation(),
    code=grpc.StatusCode.UNIMPLEMENTED,
    reason="NOT_SERVED",
)
_UNKNOWN = dataclasses.replace(_UNSERVED, code=grpc.StatusCode.NOT_FOUND, reason="UNKNOWN_LOSS")
_BOMB = dataclasses.replace(
    _UNSERVED,
    code=grpc.StatusCode.RESOURCE_EXHAUSTED,
    reason="OVER_LIMIT",
    says="the server's memory budget is 268435456",
)


def _hollow(loss: str, *shape: int) -> evaluation_pb2.Evaluation:
    """Return an evaluation without a byte of data, which has many values nevertheless."""
    return evaluation(loss, {"input": _raw(shape), "target": _raw(shape)})


OTHERS = (
    dataclasses.replace(
        _UNKNOWN,
        what="a misspelt loss",
        item=evaluation("cross_entropi", {"input": _X, "target": _Y}),
        found=(("loss", 'no loss "cross_entropi"; did you mean cross_entropy'),),
    ),
    dataclasses.replace(
        _UNKNOWN,
        what="nothing at all",
        item=evaluation_pb2.Evaluation(),
        found=(("loss", 'there is no loss ""'),),
    ),
    dataclasses.replace(
        _UNKNOWN,
        what="the name of something that is no loss",
        item=evaluation("__class__", {}),
        found=(("loss", 'there is no loss "__class__"'),),
    ),
    dataclasses.replace(
        _UNSERVED,
        what="a resident tensor that is not stored",
        item=_alone(
            tensor_pb2.Tensor(data_type=_F32, resident=tensor_pb2.TensorId(sha256=bytes(32)))
        ),
        code=grpc.StatusCode.FAILED_PRECONDITION,
        reason="MISSING_RESIDENT_TENSOR",
        found=(('inputs["input"].resident', f"this server does not hold {bytes(32).hex()}"),),
    ),
    dataclasses.replace(
        _UNSERVED,
        what="a region that is not there",
        item=_alone(tensor_pb2.Tensor(data_type=_F32, region=tensor_pb2.Region(region_id=7))),
        code=grpc.StatusCode.FAILED_PRECONDITION,
        reason="MISSING_REGION",
        found=(('inputs["input"].region', "this server has no such region, or not any more"),),
    ),
    dataclasses.replace(
        _BOMB, what="2^31-1 rows of 0 classes", item=_hollow("cross_entropy", _LARGEST, 0)
    ),
    dataclasses.replace(
        _BOMB, what="2^60 values of 0 classes", item=_hollow("cross_entropy", _LARGEST, 0, 2**29)
    ),
    dataclasses.replace(
        _BOMB, what="10^7 rows of 0 classes", item=_hollow("cross_entropy", 10**7, 0)
    ),
)
"""Mistakes with other codes. Factored gradients are not here: they come to be served."""

IN_FORM = (*TENSORS, *PARTS, *GRADIENTS, *OTHERS)
