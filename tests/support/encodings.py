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
    other = np.ascontiguousarray(logits[::-1] * 2)
    rows, classes = logits.shape
    shape = varint(rows) + varint(classes)
    head = field(_DATA_TYPE, _FLOAT32) + field(_SHAPE, shape)
    data = field(_DATA, logits.tobytes())
    region = field(_REGION, field(1, 77) + field(2, 8))
    loss = field(_LOSS, b"cross_entropy")
    scores = _entry(b"input", head + data)
    classes_of = field(_DATA_TYPE, _INT64) + field(_SHAPE, varint(rows))
    targets = _entry(b"target", classes_of + field(_DATA, target.tobytes()))
    gradients = field(_GRADIENTS_FOR, b"input")
    plain = loss + scores + targets + gradients

    def with_input(tensor: bytes) -> bytes:
        return loss + _entry(b"input", tensor) + targets + gradients

    def yes(message: bytes) -> Odd:
        return Odd(message=message, kept=True)

    def no(message: bytes) -> Odd:
        return Odd(message=message, kept=False)

    def refused(message: bytes) -> Odd:
        return Odd(message=message, kept=False, valid=False)

    key, value = field(1, b"input"), field(2, head + data)
    unknown = field(_UNKNOWN, b"?")
    return {
        "plain": yes(plain),
        "in another order": yes(gradients + targets + scores + loss),
        "loss twice": yes(field(_LOSS, b"mse_loss") + plain),
        "reduction twice": yes(field(_REDUCTION, 2) + field(_REDUCTION, _SUM) + plain),
        "a negative reduction first": yes(field(_REDUCTION, 2**64 - 1) + plain + b"\x20\x02"),
        "tag of five bytes": yes(
            field(_LOSS, b"cross_entropy", tag=5) + scores + targets + gradients
        ),
        "tag of six bytes": refused(
            field(_LOSS, b"cross_entropy", tag=6) + scores + targets + gradients
        ),
        "length of five bytes": yes(with_input(head + field(_DATA, logits.tobytes(), length=5))),
        "length of six bytes": refused(with_input(head + field(_DATA, logits.tobytes(), length=6))),
        "tag of the data of five bytes": yes(
            with_input(head + field(_DATA, logits.tobytes(), tag=5))
        ),
        "data before the form": yes(with_input(data + head)),
        "data twice": no(with_input(head + field(_DATA, other.tobytes()) + data)),
        "data, then a region": refused(with_input(head + data + region)),
        "a region, then data": yes(with_input(head + region + data)),
        "data, a region, data": no(with_input(head + data + region + data)),
        "no data": refused(with_input(head)),
        "empty data": refused(with_input(head + field(_DATA, b""))),
        "a byte too few": refused(with_input(head + field(_DATA, logits.tobytes()[:-1]))),
        "data of another wire type": refused(with_input(head + field(_DATA, 7))),
        "shape of single numbers": yes(
            with_input(field(_DATA_TYPE, _FLOAT32) + _numbers(rows, classes) + data)
        ),
        "shape in two": yes(
            with_input(
                field(_DATA_TYPE, _FLOAT32)
                + field(_SHAPE, padded(rows, 10))
                + field(_SHAPE, classes)
                + data
            )
        ),
        "type twice": yes(with_input(field(_DATA_TYPE, _INT64) + head + data)),
        "unknown fields": yes(
            unknown
            + loss
            + b"\x79"
            + bytes(8)
            + _entry(b"input", head + unknown + data)
            + targets
            + b"\x7d"
            + bytes(4)
            + gradients
            + b"\x78\x05"
        ),
        "inputs of another wire type": yes(plain + field(_INPUTS, 5)),
        "much that is unknown": no(plain + field(_UNKNOWN, bytes(5000))),
        "a group": no(plain + b"\x7b" + scores + b"\x7c"),
        "a group in a tensor": no(with_input(head + data + b"\x7b\x7c")),
        "an open group": refused(plain + b"\x7b"),
        "an input twice": no(loss + _entry(b"input", head + field(_DATA, other.tobytes())) + plain),
        "an input, first without data": yes(loss + _entry(b"input", head) + plain),
        "an input, last without data": refused(plain + _entry(b"input", head)),
        "an input, last in a region": refused(plain + _entry(b"input", head + region)),
        "an unknown input": refused(plain + _entry(b"other", head + data)),
        "a name that looks like a path": refused(
            plain + _entry(b'input"].inputs["input', head + data)
        ),
        "a value before its key": no(loss + targets + gradients + field(_INPUTS, value + key)),
        "a value in two": no(
            loss + targets + gradients + field(_INPUTS, key + field(2, head) + field(2, data))
        ),
        "a key twice": no(
            loss + targets + gradients + field(_INPUTS, field(1, b"other") + key + value)
        ),
        "no key": refused(loss + targets + gradients + field(_INPUTS, value)),
        "more in an entry": refused(
            loss + targets + gradients + field(_INPUTS, key + value + unknown)
        ),
        "a number more in an entry": refused(
            loss + targets + gradients + field(_INPUTS, key + value + b"\x78\x05")
        ),
        "a name that is no text": refused(plain + _entry(b"\xff", head + data)),
        "half a field": refused(plain + b"\x12"),
        "a field that is too long": refused(plain + b"\x12\x7f"),
        "field number 0": refused(plain + b"\x02\x00"),
        "a weight of each row": no(plain + field(7, _ones(rows))),
        "a weight in two": no(plain + field(7, b"") + field(7, _ones(rows))),
        "gradients twice": refused(plain + gradients),
    }


def _entry(name: bytes, tensor: bytes) -> bytes:
    return field(_INPUTS, field(1, name) + field(2, tensor))


def _numbers(*lengths: int) -> bytes:
    return b"".join(field(_SHAPE, each) for each in lengths)


def _ones(count: int) -> bytes:
    head = field(_DATA_TYPE, _FLOAT32) + field(_SHAPE, varint(count))
    return head + field(_DATA, np.ones(count, np.float32).tobytes())
