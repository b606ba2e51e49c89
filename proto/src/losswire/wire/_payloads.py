"""Where the elements of tensors lie in a serialized message, and messages that differ in them only.

Protobuf is determined by its prefixes: a tag and a length say what follows and for how long. So
two messages of one size that are equal everywhere but inside of the same tensors' elements
parse alike, and what was found out of one holds for the other.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from google.protobuf.message import Message

from losswire.v1 import tensor_pb2
from losswire.wire._varint import SIZE_BYTES, read_varint, varint

MessageT = TypeVar("MessageT", bound=Message)

Buffer = bytes | memoryview

DETACHED_FROM: Final = 256 * 1024
"""The bytes of a message from which protobuf's copies take longer than finding its tensors."""

_TENSOR: Final = tensor_pb2.Tensor.DESCRIPTOR
_VARINT, _EIGHT_BYTES, _LENGTH_DELIMITED, _FOUR_BYTES = 0, 1, 2, 5


@dataclass(frozen=True, slots=True)
class Payload:
    """The elements of one tensor in a message."""

    path: str
    """The tensor, such as `inputs["target"]`."""
    start: int
    """Where its elements begin."""
    stop: int
    """Where they end."""


class Template:
    """What messages have in common that differ in the elements of their tensors only."""

    __slots__ = ("payloads", "pieces", "size")

    def __init__(self, message: bytes, payloads: Sequence[Payload]) -> None:
        """Take one of them, and where the elements of its tensors lie."""
        self.payloads = tuple(sorted(payloads, key=lambda each: each.start))
        self.size = len(message)
        starts = [0, *(each.stop for each in self.payloads)]
        stops = [*(each.start for each in self.payloads), len(message)]
        self.pieces = tuple(
            (message[start:stop], start)
            for start, stop in zip(starts, stops, strict=True)
            if start < stop
        )
        """All of it that is no element, each piece with its place."""

    def matches(self, message: bytes, begin: int) -> bool:
        """Tell whether what begins at a place of a message, and has the same size, is one."""
        # A loop, because a generator costs more than the comparisons.
        for piece, start in self.pieces:  # noqa: SIM110
            if not message.startswith(piece, begin + start):
                return False
        return True


def find_payloads(message: bytes, message_type: type[Message]) -> list[Payload]:
    """Find the elements of all tensors of a message, which must have been parsed before.

    Raises ValueError for what no ordinary encoder writes, a tensor twice for example.
    """
    found = list(_walk(message, 0, len(message), message_type.DESCRIPTOR, ""))
    if len({each.path for each in found}) < len(found):
        raise ValueError("a tensor is there twice")
    return found


def _walk(
    message: bytes,
    start: int,
    stop: int,
    described: Any,  # noqa: ANN401 (a descriptor, whose type depends on how protobuf was built)
    path: str,
) -> Iterator[Payload]:
    """Find the elements in a part of a message that is a message itself."""
    for number, _, begin, end in _submessages(message, start, stop):
        field = described.fields_by_number.get(number)
        if field is None:
            continue
        if described is _TENSOR:
            if field.name == "data":
                yield Payload(path, begin, end)
        elif field.message_type is not None:
            dot = f"{path}." if path else ""
            yield from _walk_field(message, begin, end, field, f"{dot}{field.name}")


def _walk_field(
    message: bytes,
    start: int,
    stop: int,
    field: Any,  # noqa: ANN401 (likewise)
    path: str,
) -> Iterator[Payload]:
    described = field.message_type
    if not described.GetOptions().map_entry:
        yield from _walk(message, start, stop, described, path)
        return
    entry = list(_submessages(message, start, stop))
    if [number for number, *_ in entry] != [1, 2]:
        raise ValueError("an entry of a map is more than a key and a value")
    (_, _, begin, end), (_, _, inner, last) = entry
    value = described.fields_by_number[2].message_type
    if value is not None:
        key = message[begin:end].decode()
        yield from _walk(message, inner, last, value, f'{path}["{key}"]')


def _submessages(message: bytes, start: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
    """Give of each field that has a length its number, and where it, its value and both end."""
    for number, kind, head, begin, end in fields(message, start, stop):
        if kind == _LENGTH_DELIMITED:
            yield number, head, begin, end


def fields(message: bytes, start: int, stop: int) -> Iterator[tuple[int, int, int, int, int]]:
    """Walk over the fields in a part of a message that is a message itself.

    Gives of each its number, its kind on the wire, where it and its value begin, and where both
    end. Raises ValueError for groups, and for what is no field.
    """
    while start < stop:
        head = start
        tag, begin = read_varint(message, start, SIZE_BYTES)
        kind = tag & 7
        if kind == _LENGTH_DELIMITED:
            length, begin = read_varint(message, begin, SIZE_BYTES)
            end = begin + length
        elif kind == _VARINT:
            _, end = read_varint(message, begin)
        elif kind == _EIGHT_BYTES:
            end = begin + 8
        elif kind == _FOUR_BYTES:
            end = begin + 4
        else:
            raise ValueError("a group")
        yield tag >> 3, kind, head, begin, end
        start = end
    if start != stop:
        raise ValueError("a field ends behind its message")


def detach(
    message: bytes, message_type: type[MessageT]
) -> tuple[MessageT, Mapping[str, memoryview]]:
    """Parse a message without the elements of its tensors, which protobuf would copy.

    Gives the message, whose tensors have empty data, and their elements by path. Raises
    DecodeError when the bytes are something else.
    """
    try:
        payloads = find_payloads(message, message_type)
    except ValueError:
        # Whatever this is, protobuf has the last word on it.
        return message_type.FromString(message), {}
    nothing = [(each.start, each.stop, b"") for each in payloads]
    bare = message_type.FromString(b"".join(_replaced(message, 0, len(message), nothing)))
    whole = memoryview(message)
    return bare, {each.path: whole[each.start : each.stop] for each in payloads}


def attach(message: Message, elements: Mapping[str, memoryview]) -> list[Buffer]:
    """Serialize a message with the elements of tensors whose data is empty in it, by path.

    Gives the parts of the whole, in which no element was copied.
    """
    bare = message.SerializeToString()
    payloads = find_payloads(bare, type(message))
    found = [
        (each.start, each.stop, elements[each.path]) for each in payloads if each.path in elements
    ]
    return _replaced(bare, 0, len(bare), found)


def _replaced(
    message: bytes, start: int, stop: int, values: Sequence[tuple[int, int, Buffer]]
) -> list[Buffer]:
    """Give the parts of a part of a message that is a message itself, with other values in it.

    `values` are in their order: where each of those begins and ends in whose place they come.
    """
    parts: list[Buffer] = []
    first = 0
    for number, head, begin, end in _submessages(message, start, stop):
        # Each value is looked at once on each level: a message may have very many.
        after = first
        while after < len(values) and values[after][1] <= end:
            after += 1
        inside, first = values[first:after], after
        if not inside:
            continue
        own = inside[0][:2] == (begin, end)
        inner = [inside[0][2]] if own else _replaced(message, begin, end, inside)
        size = sum(memoryview(each).nbytes for each in inner)
        tag = varint(number << 3 | _LENGTH_DELIMITED)
        parts += (message[start:head], tag, varint(size), *inner)
        start = end
    return [*parts, message[start:stop]]
