"""The parts of a multipart/form-data body, found in it without copying their data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from losswire.server.errors import InvalidEvaluationError, MalformedMessageError
from losswire.server.http import limits
from losswire.wire import Violation

_END_OF_HEADER: Final = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a body."""

    name: str
    media_type: str
    """In lower case, without parameters; empty when it was not sent."""
    data: memoryview


def read_parts(body: bytes | bytearray, boundary: str) -> dict[str, Part]:
    """Return the parts of a body by name.

    Raises MalformedMessageError when it is no such body, and InvalidEvaluationError for a name
    that comes twice.
    """
    parts: dict[str, Part] = {}
    for start, stop in _spans(body, b"--" + boundary.encode("latin-1")):
        part = _part(body, start, stop)
        if part.name in parts:
            raise InvalidEvaluationError([Violation(part.name[:64], "is there twice")])
        parts[part.name] = part
    return parts


def _spans(body: bytes | bytearray, dashes: bytes) -> list[tuple[int, int]]:
    """Return where each part begins, its header included, and where it ends."""
    spans: list[tuple[int, int]] = []
    at = 0 if body.startswith(dashes) else body.find(b"\r\n" + dashes) + 2
    if not body.startswith(dashes, at):
        raise MalformedMessageError("the multipart body does not begin with its boundary")
    at += len(dashes)
    delimiter = b"\r\n" + dashes
    while not body.startswith(b"--", at):
        start = body.find(b"\r\n", at) + 2
        stop = body.find(delimiter, start - 2)
        # Padding is a few blanks, of which no long copy is made.
        padding = body[at : min(start - 2, at + limits.MAX_PART_HEADER_BYTES)]
        if start < at + 2 or start - 2 > at + len(padding) or padding.strip(b" \t") or stop < 0:
            raise MalformedMessageError("the multipart body ends before its last boundary")
        spans.append((start, max(stop, start)))
        if len(spans) > limits.MAX_PARTS:
            message = f"the multipart body has more than {limits.MAX_PARTS} parts"
            raise MalformedMessageError(message)
        at = stop + len(delimiter)
    return spans


def _part(body: bytes | bytearray, start: int, stop: int) -> Part:
    """Read the header of a part."""
    end = body.find(_END_OF_HEADER, start - 2, min(stop, start + limits.MAX_PART_HEADER_BYTES))
    if end < 0:
        raise MalformedMessageError("a part of the multipart body has no header, or a long one")
    # Names are UTF-8 in a header whose other bytes mean nothing.
    header = _header_of(bytes(body[start : max(end, start)]).decode("latin-1"))
    name = _name_in(header.get("content-disposition", "")).encode("latin-1")
    if not name:
        raise MalformedMessageError("a part of the multipart body has no name")
    media_type = header.get("content-type", "").partition(";")[0].strip().lower()
    return Part(
        name.decode("utf-8", "replace"),
        media_type,
        memoryview(body)[end + len(_END_OF_HEADER) : stop].toreadonly(),
    )


def _header_of(text: str) -> Mapping[str, str]:
    lines = [each.partition(":") for each in text.split("\r\n")]
    return {name.strip().lower(): value.strip() for name, _, value in lines}


def _name_in(disposition: str) -> str:
    """Return the name in a Content-Disposition; empty when there is none."""
    kind, *parameters = disposition.split(";")
    pairs = [each.partition("=") for each in parameters]
    names = [value.strip().strip('"') for name, _, value in pairs if name.strip().lower() == "name"]
    return names[0] if names and kind.strip().lower() == "form-data" else ""


def write_parts(
    boundary: str, texts: Mapping[str, bytes], files: Mapping[str, Sequence[bytes | memoryview]]
) -> list[bytes | memoryview]:
    """Return a body of parts of JSON and of .npy files, whose data is not copied."""
    body: list[bytes | memoryview] = []
    for name, text in texts.items():
        body += (_head(boundary, name, "application/json"), text, b"\r\n")
    for name, pieces in files.items():
        head = _head(boundary, f'{name}"; filename="{name}.npy', "application/octet-stream")
        body += (head, *pieces, b"\r\n")
    return [*body, f"--{boundary}--\r\n".encode()]


def _head(boundary: str, name: str, media_type: str) -> bytes:
    return (
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n'
        f"Content-Type: {media_type}\r\n\r\n"
    ).encode()
