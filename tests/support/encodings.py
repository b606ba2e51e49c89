"""Evaluations as other encoders may write them, valid and invalid protobuf."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from losswire.wire import varint

LENGTH_DELIMITED = 2

_LOSS, _INPUTS, _REDUCTION, _GRADIENTS_FOR, _UNKNOWN = 1, 2, 4, 5, 15
_DATA_TYPE, _SHAPE, _DATA, _REGION = 1, 2, 3, 5
_INT64, _FLOAT32 = 6, 9
_SUM = 3


def padded(number: int, width: int) -> bytes:
    """Write a number in more bytes than it needs."""
    digits = [number >> 7 * position & 0x7F | 0x80 for position in range(width)]
    digits[-1] &= 0x7F
    return bytes(digits)


def field(number: int, value: bytes | int, *, tag: int = 1, length: int = 0) -> bytes:
    """Encode a field; its tag, and if given its length, have fixed widths in bytes."""
    if isinstance(value, int):
        return padded(number << 3, tag) + varint(value)
    size = padded(len(value), length) if length else varint(len(value))
    return padded(number << 3 | LENGTH_DELIMITED, tag) + size + value


@dataclass(frozen=True, kw_only=True)
class Odd:
    """An evaluation of cross entropy that is written in an odd way."""

    message: bytes
    kept: bool
    """Whether it is prepared; else each evaluation takes the whole pipeline."""
    valid: bool = True
    """Whether it has a result."""


def odd_evaluations(
    logits: npt.NDArray[np.float32], target: npt.NDArray[np.int64]
) -> dict[str, Odd]:
    """Write one evaluation in many ways; most of them mean the same."""
    return _Writer(logits, target).evaluations()


class _Writer:
    """The parts of one evaluation, and the messages that are made of them."""

    def __init__(self, logits: npt.NDArray[np.float32], target: npt.NDArray[np.int64]) -> None:
        self.logits = logits
        self.other = np.ascontiguousarray(logits[::-1] * 2)
        self.rows, self.classes = logits.shape
        shape = varint(self.rows) + varint(self.classes)
        self.head = field(_DATA_TYPE, _FLOAT32) + field(_SHAPE, shape)
        self.data = field(_DATA, logits.tobytes())
        self.region = field(_REGION, field(1, 77) + field(2, 8))
        self.loss = field(_LOSS, b"cross_entropy")
        self.scores = _entry(b"input", self.head + self.data)
        classes_of = field(_DATA_TYPE, _INT64) + field(_SHAPE, varint(self.rows))
        self.targets = _entry(b"target", classes_of + field(_DATA, target.tobytes()))
        self.gradients = field(_GRADIENTS_FOR, b"input")
        self.plain = self.loss + self.scores + self.targets + self.gradients
        self.key, self.value = field(1, b"input"), field(2, self.head + self.data)
        self.unknown = field(_UNKNOWN, b"?")

    def evaluations(self) -> dict[str, Odd]:
        """Return all messages by name."""
        return {
            **self._fields(),
            **self._tensors(),
            **self._unknown(),
            **self._entries(),
            **self._rest(),
        }

    def _with_input(self, tensor: bytes) -> bytes:
        return self.loss + _entry(b"input", tensor) + self.targets + self.gradients

    def _fields(self) -> dict[str, Odd]:
        """Write fields of the evaluation in odd ways."""
        return {
            "plain": _prepared(self.plain),
            "in another order": _prepared(self.gradients + self.targets + self.scores + self.loss),
            "loss twice": _prepared(field(_LOSS, b"mse_loss") + self.plain),
            "reduction twice": _prepared(
                field(_REDUCTION, 2) + field(_REDUCTION, _SUM) + self.plain
            ),
            "a negative reduction first": _prepared(
                field(_REDUCTION, 2**64 - 1) + self.plain + b"\x20\x02"
            ),
            "tag of five bytes": _prepared(
                field(_LOSS, b"cross_entropy", tag=5) + self.scores + self.targets + self.gradients
            ),
            "tag of six bytes": _refused(
                field(_LOSS, b"cross_entropy", tag=6) + self.scores + self.targets + self.gradients
            ),
            "length of five bytes": _prepared(
                self._with_input(self.head + field(_DATA, self.logits.tobytes(), length=5))
            ),
            "length of six bytes": _refused(
                self._with_input(self.head + field(_DATA, self.logits.tobytes(), length=6))
            ),
            "tag of the data of five bytes": _prepared(
                self._with_input(self.head + field(_DATA, self.logits.tobytes(), tag=5))
            ),
        }

    def _tensors(self) -> dict[str, Odd]:
        """Write the fields of a tensor in odd ways."""
        return {
            "data before the form": _prepared(self._with_input(self.data + self.head)),
            "data twice": _by_pipeline(
                self._with_input(self.head + field(_DATA, self.other.tobytes()) + self.data)
            ),
            "data, then a region": _refused(self._with_input(self.head + self.data + self.region)),
            "a region, then data": _prepared(self._with_input(self.head + self.region + self.data)),
            "data, a region, data": _by_pipeline(
                self._with_input(self.head + self.data + self.region + self.data)
            ),
            "no data": _refused(self._with_input(self.head)),
            "empty data": _refused(self._with_input(self.head + field(_DATA, b""))),
            "a byte too few": _refused(
                self._with_input(self.head + field(_DATA, self.logits.tobytes()[:-1]))
            ),
            "data of another wire type": _refused(self._with_input(self.head + field(_DATA, 7))),
            "shape of single numbers": _prepared(
                self._with_input(
                    field(_DATA_TYPE, _FLOAT32) + _numbers(self.rows, self.classes) + self.data
                )
            ),
            "shape in two": _prepared(
                self._with_input(
                    field(_DATA_TYPE, _FLOAT32)
                    + field(_SHAPE, padded(self.rows, 10))
                    + field(_SHAPE, self.classes)
                    + self.data
                )
            ),
            "type twice": _prepared(
                self._with_input(field(_DATA_TYPE, _INT64) + self.head + self.data)
            ),
        }

    def _unknown(self) -> dict[str, Odd]:
        """Write fields that the contract does not have."""
        return {
            "unknown fields": _prepared(
                self.unknown
                + self.loss
                + b"\x79"
                + bytes(8)
                + _entry(b"input", self.head + self.unknown + self.data)
                + self.targets
                + b"\x7d"
                + bytes(4)
                + self.gradients
                + b"\x78\x05"
            ),
            "inputs of another wire type": _prepared(self.plain + field(_INPUTS, 5)),
            "much that is unknown": _by_pipeline(self.plain + field(_UNKNOWN, bytes(5000))),
            "a group": _by_pipeline(self.plain + b"\x7b" + self.scores + b"\x7c"),
            "a group in a tensor": _by_pipeline(
                self._with_input(self.head + self.data + b"\x7b\x7c")
            ),
            "an open group": _refused(self.plain + b"\x7b"),
        }

    def _entries(self) -> dict[str, Odd]:
        """Write entries of the map of inputs in odd ways."""
        return {
            "an input twice": _by_pipeline(
                self.loss
                + _entry(b"input", self.head + field(_DATA, self.other.tobytes()))
                + self.plain
            ),
            "an input, first without data": _prepared(
                self.loss + _entry(b"input", self.head) + self.plain
            ),
            "an input, last without data": _refused(self.plain + _entry(b"input", self.head)),
            "an input, last in a region": _refused(
                self.plain + _entry(b"input", self.head + self.region)
            ),
            "an unknown input": _refused(self.plain + _entry(b"other", self.head + self.data)),
            "a name that looks like a path": _refused(
                self.plain + _entry(b'input"].inputs["input', self.head + self.data)
            ),
            "a value before its key": _by_pipeline(
                self.loss + self.targets + self.gradients + field(_INPUTS, self.value + self.key)
            ),
            "a value in two": _by_pipeline(
                self.loss
                + self.targets
                + self.gradients
                + field(_INPUTS, self.key + field(2, self.head) + field(2, self.data))
            ),
            "a key twice": _by_pipeline(
                self.loss
                + self.targets
                + self.gradients
                + field(_INPUTS, field(1, b"other") + self.key + self.value)
            ),
            "no key": _refused(
                self.loss + self.targets + self.gradients + field(_INPUTS, self.value)
            ),
            "more in an entry": _refused(
                self.loss
                + self.targets
                + self.gradients
                + field(_INPUTS, self.key + self.value + self.unknown)
            ),
            "a number more in an entry": _refused(
                self.loss
                + self.targets
                + self.gradients
                + field(_INPUTS, self.key + self.value + b"\x78\x05")
            ),
        }

    def _rest(self) -> dict[str, Odd]:
        """Write broken messages, and fields that take the whole pipeline."""
        return {
            "a name that is no text": _refused(self.plain + _entry(b"\xff", self.head + self.data)),
            "half a field": _refused(self.plain + b"\x12"),
            "a field that is too long": _refused(self.plain + b"\x12\x7f"),
            "field number 0": _refused(self.plain + b"\x02\x00"),
            "a weight of each row": _by_pipeline(self.plain + field(7, _ones(self.rows))),
            "a weight in two": _by_pipeline(
                self.plain + field(7, b"") + field(7, _ones(self.rows))
            ),
            "gradients twice": _refused(self.plain + self.gradients),
        }


def _prepared(message: bytes) -> Odd:
    return Odd(message=message, kept=True)


def _by_pipeline(message: bytes) -> Odd:
    return Odd(message=message, kept=False)


def _refused(message: bytes) -> Odd:
    return Odd(message=message, kept=False, valid=False)


def _entry(name: bytes, tensor: bytes) -> bytes:
    return field(_INPUTS, field(1, name) + field(2, tensor))


def _numbers(*lengths: int) -> bytes:
    return b"".join(field(_SHAPE, each) for each in lengths)


def _ones(count: int) -> bytes:
    head = field(_DATA_TYPE, _FLOAT32) + field(_SHAPE, varint(count))
    return head + field(_DATA, np.ones(count, np.float32).tobytes())
