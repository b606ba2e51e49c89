"""The elements of tensors in a serialized message: found, taken out and put in without a copy."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
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


def find_payloads(
    message: bytes, message_type: type[Message], max_fields: int | None = None
) -> list[Payload]:
    """Find the elements of all tensors of a message, which must have been parsed before.

    Columns are left alone: walking over a label for each row takes longer than a copy of the codes.
    Raises ValueError for messages that no ordinary encoder writes, such as one with a tensor twice,
    and for those with more than `max_fields` around their tensors.
    """
    allowed = None if max_fields is None else iter(range(max_fields))
    found = list(_walk(message, 0, len(message), message_type.DESCRIPTOR, "", allowed=allowed))
    if len({each.path for each in found}) < len(found):
        raise ValueError("a tensor is there twice")
    return found


def _walk(
    message: bytes,
    start: int,
    stop: int,
    described: Any,  # noqa: ANN401 (a descriptor, whose type depends on how protobuf was built)
    path: str,
    *,
    allowed: Iterator[object] | None,
) -> Iterator[Payload]:
    """Find the elements in a slice of a message that is a message itself."""
    seen: dict[int, int] = {}
    dot = f"{path}." if path else ""
    for number, _, begin, end in submessages(message, start, stop, allowed):
        field = described.fields_by_number.get(number)
        if field is None:
            continue
        if described is _TENSOR:
            if field.name == "data":
                yield Payload(path, begin, end)
        elif field.message_type is not None and _has_tensors(field.message_type):
            position = seen[number] = seen.get(number, -1) + 1
            index = f"[{position}]" if _is_list(field) else ""
            place = f"{dot}{field.name}{index}"
            yield from _walk_field(message, begin, end, field, place, allowed=allowed)


@cache
def _has_tensors(described: Any) -> bool:  # noqa: ANN401 (as above)
    """Return whether a message has tensors outside of columns, at any depth; none nests itself."""
    if described is _TENSOR:
        return True
    inner = [each.message_type for each in described.fields if each.message_type is not None]
    return described is not _COLUMN and any(map(_has_tensors, inner))


def _is_list(field: Any) -> bool:  # noqa: ANN401 (as above)
    """Return whether a field of messages is repeated, and no map."""
    return is_repeated(field) and not field.message_type.GetOptions().map_entry


def _walk_field(
    message: bytes,
    start: int,
    stop: int,
    field: Any,  # noqa: ANN401 (likewise)
    path: str,
    *,
    allowed: Iterator[object] | None,
) -> Iterator[Payload]:
    described = field.message_type
    if not described.GetOptions().map_entry:
        yield from _walk(message, start, stop, described, path, allowed=allowed)
        return
    entry = list(submessages(message, start, stop, allowed))
    if [number for number, *_ in entry] != [1, 2]:
        raise ValueError("an entry of a map is more than a key and a value")
    (_, _, begin, end), (_, _, inner, last) = entry
    key = message[begin:end].decode()
    value = described.fields_by_number[2].message_type
    yield from _walk(message, inner, last, value, f'{path}["{key}"]', allowed=allowed)


def detach(
    message: bytes,
    message_type: type[MessageT],
    parse: Callable[[type[MessageT], bytes], MessageT] | None = None,
    max_fields: int | None = None,
) -> tuple[MessageT, Mapping[str, memoryview]]:
    """Parse a message without the elements of its tensors, which protobuf would copy.

    `parse` is another function that parses. Returns the message, whose tensors have empty data, and
    their elements by path. When it has more than `max_fields` around its tensors, or is otherwise
    unusual, no elements are cut out. Raises DecodeError when the bytes are something else.
    """
    read = message_type.FromString if parse is None else partial(parse, message_type)
    try:
        payloads = find_payloads(message, message_type, max_fields)
    except ValueError:
        # Protobuf decides whether this is a message.
        return read(message), {}
    nothing = [(each.start, each.stop, b"") for each in payloads]
    bare = read(b"".join(_replaced(message, 0, len(message), nothing)))
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
