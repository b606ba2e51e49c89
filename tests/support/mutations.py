"""Valid evaluations, and ways to spoil them; the same seed spoils them in the same way."""

import random
from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np

from losswire.v1 import evaluation_pb2, tensor_pb2
from tests.support.requests import GOLDEN, Array, evaluation, f32, i64

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Evaluation = evaluation_pb2.Evaluation

_X = f32([0.1, 0.2, 0.7], [0.4, 0.5, 0.1])
_V = f32(-1.5, 0.25, 2)
_NONE = evaluation_pb2.REDUCTION_NONE
_BATCHMEAN = evaluation_pb2.REDUCTION_BATCHMEAN
_FLOAT64 = tensor_pb2.DATA_TYPE_FLOAT64


def _pair(loss: str, **options: float) -> Evaluation:
    return evaluation(loss, {"input": _V, "target": _V[::-1]}, options, gradients_for=["input"])


def _half(dtype: type) -> Evaluation:
    array: Array = _V.astype(dtype)
    return evaluation("mse_loss", {"input": array, "target": array}, gradients_for=["target"])


CORPUS = (
    GOLDEN,
    evaluation(
        "cross_entropy",
        {"input": _X, "target": i64(0, -100), "weight": f32(1, 2, 3)},
        {"label_smoothing": 0.1},
        gradients_for=["input"],
        sample_weight=f32(0.5, 0),
        normalizer=4.0,
    ),
    evaluation(
        "cross_entropy",
        {"input": _X, "target": _X, "weight": f32(1, 2, 3)},
        gradients_for=["input", "target", "weight"],
        compute_data_type=_FLOAT64,
    ),
    evaluation("nll_loss", {"input": -_X, "target": i64(2, 5)}, {"ignore_index": 5}),
    evaluation("binary_cross_entropy", {"input": _X, "target": _X, "weight": f32(1, 2, 3)}),
    evaluation(
        "binary_cross_entropy_with_logits",
        {"input": _X, "target": _X, "pos_weight": f32(2)},
        gradients_for=["input"],
        gradient_data_type=_FLOAT64,
    ),
    evaluation("kl_div", {"input": -_X, "target": _X}, {"log_target": False}, reduction=_BATCHMEAN),
    evaluation("softmax", {"input": _X}, {"dim": -1}, gradients_for=["input"], grad_output=_X),
    evaluation("log_softmax", {"input": _X.astype(np.float64)}, {"dim": 0}),
    evaluation("sigmoid", {"input": i64(1, 2, 3)}),
    evaluation("mse_loss", {"input": _V, "target": _V, "weight": _V}, gradients_for=["weight"]),
    evaluation("l1_loss", {"input": np.zeros((0, 3)), "target": np.zeros((0, 3))}, reduction=_NONE),
    _pair("smooth_l1_loss", beta=0.5),
    _pair("huber_loss", delta=2.0),
    _half(np.float16),
    _half(ml_dtypes.bfloat16),
)
"""Valid evaluations of many losses, with every field of the contract that is served."""

_NUMBERS = (0, 1, 2, 3, 7, 8, 127, 255, 2**31 - 1, 2**31, 2**63 - 1, -1, -100, -(2**31), -(2**63))
_DOUBLES = (0.0, -0.0, 0.5, 1.0, 1e-320, 1e308, -1.0, float("inf"), -float("inf"), float("nan"))
_NAMES = ("input", "target", "weight", "", "Input", "in\0put", "\N{SNOWMAN}", "x" * 300)
_LOSSES = (*(each.loss for each in CORPUS), "", "nope", "__init__", "cross_entropi", "../" * 30)
_ENUMS = ("reduction", "engine", "gradient_form", "gradient_data_type", "compute_data_type")


class Mutator:
    """Draws spoilt evaluations."""

    def __init__(self, seed: int, regions: "Sequence[int]" = (7,)) -> None:
        """Begin at a seed. `regions` are the numbers of regions, some of which may be there."""
        self._regions = regions
        self.draw = random.Random(seed)  # noqa: S311 (repeatable)
        self._on_messages: tuple[Callable[[Evaluation], None], ...] = (
            self._values,
            self._values,
            self._values,
            self._shape,
            self._reshape,
            self._hollow,
            self._data_type,
            self._swap,
            self._rename,
            self._option,
            self._enum,
            self._enum,
            self._gradient,
            self._weight,
            self._grad_output,
            self._scalar,
            self._region,
            self._destination,
        )
        self._on_bytes: tuple[Callable[[bytes], bytes], ...] = (
            self._flip,
            self._flip,
            self._truncate,
            self._remove,
            self._repeat,
            self._insert,
            self._splice,
            self._merge,
            self._unknown_field,
            self._bad_utf8,
            self._set_byte,
        )

    def message(self, share: float) -> bytes:
        """Draw one spoilt evaluation; for so large a share, its bytes are spoilt as well."""
        item = Evaluation()
        item.CopyFrom(self.draw.choice(CORPUS))
        for _ in range(self.draw.choice((0, 1, 1, 2))):
            self.draw.choice(self._on_messages)(item)
        data = item.SerializeToString()
        if self.draw.random() < share:
            data = self.draw.choice(self._on_bytes)(data)
        return data

    def _tensor(self, item: Evaluation) -> tensor_pb2.Tensor:
        names = sorted(item.inputs)
        return item.inputs[self.draw.choice(names)] if names else item.sample_weight

    def _values(self, item: Evaluation) -> None:
        """Other numbers in the same form."""
        tensor = self._tensor(item)
        data = bytearray(tensor.data)
        for _ in range(self.draw.randint(1, 4)):
            if data:
                data[self.draw.randrange(len(data))] = self.draw.choice((0, 1, 63, 127, 255))
        tensor.data = bytes(data)

    def _shape(self, item: Evaluation) -> None:
        shape = self._tensor(item).shape
        number = self.draw.choice(_NUMBERS)
        if shape and self.draw.random() < 0.7:
            shape[self.draw.randrange(len(shape))] = number
        else:
            shape.append(number)

    def _reshape(self, item: Evaluation) -> None:
        """Another shape with the right number of bytes, often without elements."""
        tensor = self._tensor(item)
        shape = [self.draw.choice((0, 1, 1, 2, 3, 5)) for _ in range(self.draw.randint(0, 5))]
        del tensor.shape[:]
        tensor.shape.extend(shape)
        size = {1: 1, 2: 1, 3: 1, 4: 2, 5: 4, 6: 8, 7: 2, 8: 2, 9: 4, 10: 8}
        count = int(np.prod(shape, dtype=int)) * size.get(tensor.data_type, 4)
        tensor.data = bytes(self.draw.choice((0, 0, 1, 60, 63)) for _ in range(count))

    def _hollow(self, item: Evaluation) -> None:
        """No bytes at all, in every input, and yet many rows."""
        shape = self.draw.choice(((2**31 - 1, 0), (10**5, 0), (0, 2**31 - 1), (0,)))
        for tensor in item.inputs.values():
            del tensor.shape[:]
            tensor.shape.extend(shape)
            tensor.data = b""

    def _data_type(self, item: Evaluation) -> None:
        number = self.draw.choice((*range(13), 20, 30, 10**6, -1))
        self._tensor(item).data_type = tensor_pb2.DataType.ValueType(number)

    def _swap(self, item: Evaluation) -> None:
        """Exchange two tensors."""
        if len(item.inputs) < 2:
            return
        first, second = (item.inputs[name] for name in self.draw.sample(sorted(item.inputs), 2))
        kept = tensor_pb2.Tensor()
        kept.CopyFrom(first)
        first.CopyFrom(second)
        second.CopyFrom(kept)

    def _rename(self, item: Evaluation) -> None:
        if self.draw.random() < 0.5:
            item.loss = self.draw.choice(_LOSSES)
            return
        name = self.draw.choice(sorted(item.inputs) or ["input"])
        kept = item.inputs[name]
        item.inputs[self.draw.choice(_NAMES)].CopyFrom(kept)
        del item.inputs[name]

    def _option(self, item: Evaluation) -> None:
        known = ("ignore_index", "label_smoothing", "beta", "delta", "dim", "log_target", "x" * 99)
        option = item.options[self.draw.choice(known)]
        kind = self.draw.randrange(5)
        if kind == 0:
            option.int64_value = self.draw.choice([n for n in _NUMBERS if n < 2**63])
        elif kind == 1:
            option.double_value = self.draw.choice(_DOUBLES)
        elif kind == 2:
            option.bool_value = True
        elif kind == 3:
            option.string_value = self.draw.choice(_NAMES)

    def _enum(self, item: Evaluation) -> None:
        number = self.draw.choice((*range(11), 99, -1, 2**31 - 1))
        setattr(item, self.draw.choice(_ENUMS), number)

    def _gradient(self, item: Evaluation) -> None:
        if item.gradients_for and self.draw.random() < 0.5:
            del item.gradients_for[:]
        else:
            item.gradients_for.append(self.draw.choice(_NAMES))

    def _weight(self, item: Evaluation) -> None:
        item.sample_weight.CopyFrom(self._tensor(item))

    def _grad_output(self, item: Evaluation) -> None:
        item.grad_output.CopyFrom(self._tensor(item))

    def _scalar(self, item: Evaluation) -> None:
        item.normalizer = self.draw.choice(_DOUBLES)

    def _somewhere(self) -> tensor_pb2.Region:
        """Draw a place in a region, or far outside of it."""
        offset = self.draw.choice((0, 0, 4, 8, 12, 64, 65, 1 << 16, 2**31, 2**63, 2**64 - 4))
        return tensor_pb2.Region(region_id=self.draw.choice(self._regions), offset=offset)

    def _region(self, item: Evaluation) -> None:
        """A tensor in a region."""
        self._tensor(item).region.CopyFrom(self._somewhere())

    def _destination(self, item: Evaluation) -> None:
        name = self.draw.choice((*item.gradients_for, *_NAMES[:3]))
        item.gradient_destinations[name].CopyFrom(self._somewhere())

    def _place(self, data: bytes) -> int:
        return self.draw.randrange(len(data)) if data else 0

    def _flip(self, data: bytes) -> bytes:
        place = self._place(data)
        flipped = bytes(each ^ (1 << self.draw.randrange(8)) for each in data[place : place + 1])
        return data[:place] + flipped + data[place + 1 :]

    def _truncate(self, data: bytes) -> bytes:
        return data[: self._place(data)]

    def _remove(self, data: bytes) -> bytes:
        place = self._place(data)
        return data[:place] + data[place + self.draw.randint(1, 9) :]

    def _repeat(self, data: bytes) -> bytes:
        place = self._place(data)
        return data[:place] + data[max(place - 9, 0) :]

    def _insert(self, data: bytes) -> bytes:
        place = self._place(data)
        return data[:place] + self.draw.randbytes(self.draw.randint(1, 12)) + data[place:]

    def _splice(self, data: bytes) -> bytes:
        other = self.draw.choice(CORPUS).SerializeToString()
        return data[: self._place(data)] + other[self._place(other) :]

    def _merge(self, data: bytes) -> bytes:
        """Two evaluations in one: single fields are overwritten, map entries doubled."""
        return data + self.draw.choice(CORPUS).SerializeToString()

    def _unknown_field(self, data: bytes) -> bytes:
        return data + self.draw.choice((b"\xfa\x3f\x03abc", b"\xf8\x3f\x07", b"\xfd\x3f1234"))

    def _bad_utf8(self, data: bytes) -> bytes:
        return data.replace(b"input", b"in\xffut", 1)

    def _set_byte(self, data: bytes) -> bytes:
        place = self._place(data)
        return data[:place] + bytes([self.draw.choice((0, 127, 128, 255))]) + data[place + 1 :]
