"""The elements of tensors in a serialized message: found, taken out and put in without a copy."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from google.protobuf.message import Message

from losswire.v1 import summary_pb2, tensor_pb2
from losswire.wire._fields import delimited_tag, is_repeated, submessages
from losswire.wire._varint import varint

MessageT = TypeVar("MessageT", bound=Message)

Buffer = bytes | memoryview

DETACHED_FROM: Final = 256 * 1024
"""The size of a message, in bytes, from which `detach` is faster than protobuf's own copies."""

_TENSOR: Final = tensor_pb2.Tensor.DESCRIPTOR
_COLUMN: Final = summary_pb2.Column.DESCRIPTOR


@dataclass(frozen=True, slots=True)
class Payload:
    """The elements of one tensor in a message."""

    path: str
    """The tensor, such as `inputs["target"]` or `candidates[1].inputs["target"]`."""
    start: int
    """The offset where its elements begin."""
    stop: int
    """The offset where they end."""

    @property
    def span(self) -> tuple[int, int]:
        """Both offsets."""
        return self.start, self.stop


def find_payloads(message: bytes, message_type: type[Message]) -> list[Payload]:
    """Find the elements of all tensors of a message, which must have been parsed before.

    Columns are left alone: walking over a label for each row takes longer than a copy of the codes.
    Raises ValueError for messages that no ordinary encoder writes, such as one with a tensor twice.
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
    """Find the elements in a slice of a message that is a message itself."""
    seen: dict[int, int] = {}
    dot = f"{path}." if path else ""
    for number, _, begin, end in submessages(message, start, stop):
        field = described.fields_by_number.get(number)
        if field is None:
            continue
        if described is _TENSOR:
            if field.name == "data":
                yield Payload(path, begin, end)
        elif field.message_type is not None:
            position = seen[number] = seen.get(number, -1) + 1
            index = f"[{position}]" if _is_list(field) else ""
            yield from _walk_field(message, begin, end, field, f"{dot}{field.name}{index}")


def _is_list(field: Any) -> bool:  # noqa: ANN401 (as above)
    """Return whether a field of messages is repeated, and no map."""
    return is_repeated(field) and not field.message_type.GetOptions().map_entry


def _walk_field(
    message: bytes,
    start: int,
    stop: int,
    field: Any,  # noqa: ANN401 (likewise)
    path: str,
) -> Iterator[Payload]:
    described = field.message_type
    if described is _COLUMN:
        return
    if not described.GetOptions().map_entry:
        yield from _walk(message, start, stop, described, path)
        return
    entry = list(submessages(message, start, stop))
    if [number for number, *_ in entry] != [1, 2]:
        raise ValueError("an entry of a map is more than a key and a value")
    (_, _, begin, end), (_, _, inner, last) = entry
    value = described.fields_by_number[2].message_type
    if value is not None and value is not _COLUMN:
        key = message[begin:end].decode()
        yield from _walk(message, inner, last, value, f'{path}["{key}"]')


def detach(
    message: bytes, message_type: type[MessageT]
) -> tuple[MessageT, Mapping[str, memoryview]]:
    """Parse a message without the elements of its tensors, which protobuf would copy.

    Returns the message, whose tensors have empty data, and their elements by path. Raises
    DecodeError when the bytes are something else.
    """
    try:
        payloads = find_payloads(message, message_type)
    except ValueError:
        # Protobuf decides whether this is a message.
        return message_type.FromString(message), {}
    nothing = [(each.start, each.stop, b"") for each in payloads]
    bare = message_type.FromString(b"".join(_replaced(message, 0, len(message), nothing)))
    whole = memoryview(message)
    return bare, {each.path: whole[each.start : each.stop] for each in payloads}


def attach(message: Message, elements: Mapping[str, memoryview]) -> list[Buffer]:
    """Serialize a message with the elements of tensors whose data is empty in it, by path.

    Returns the parts of the whole message, in order; no element is copied.
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
    """Return the parts of a slice of a message, itself a message, with some values replaced.

    `values` are in order of their offsets: where each old value begins and ends, and the new one.
    """
    parts: list[Buffer] = []
    first = 0
    for number, head, begin, end in submessages(message, start, stop):
        # Visits each value once on each level, because a message may have very many.
        after = first
        while after < len(values) and values[after][1] <= end:
            after += 1
        inside, first = values[first:after], after
        if not inside:
            continue
        own = inside[0][:2] == (begin, end)
        inner = [inside[0][2]] if own else _replaced(message, begin, end, inside)
        size = sum(memoryview(each).nbytes for each in inner)
        parts += (message[start:head], delimited_tag(number), varint(size), *inner)
        start = end
    return [*parts, message[start:stop]]
