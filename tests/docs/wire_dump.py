"""Shows the bytes of a message with the meaning of each part beside them.

`python -m tests.docs.wire_dump HOST:PORT` prints the two dumps in docs/protocol.md, given the
address of a server.
"""

import struct
import sys
from collections.abc import Iterator

import grpc
import numpy as np
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from losswire.v1 import evaluation_pb2, loss_service_pb2, loss_service_pb2_grpc
from losswire.wire import DATA_TYPES, encode_option, encode_tensor

_HEX_COLUMNS = 48
_BYTES_A_LINE = 16
_VARINT, _FIXED64, _LENGTH = 0, 1, 2
_PACKED = (FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_INT32)


def example_request() -> loss_service_pb2.EvaluateRequest:
    """Return the request of the page: numbers that no machine rounds."""
    return loss_service_pb2.EvaluateRequest(
        evaluation=evaluation_pb2.Evaluation(
            loss="huber_loss",
            inputs={
                "input": encode_tensor(np.array([3.0, 0.5], np.float32)),
                "target": encode_tensor(np.array([0.0, 0.0], np.float32)),
            },
            options={"delta": encode_option(1.0)},
            gradients_for=["input"],
        )
    )


def dump(data: bytes, descriptor: Descriptor) -> str:
    """Write a message of this type as lines of bytes and meaning."""
    return "\n".join(_lines(data, descriptor, 0)) + "\n"


def undump(text: str) -> bytes:
    """Read the bytes back from a dump."""
    return bytes.fromhex("".join(line[:_HEX_COLUMNS] for line in text.splitlines()))


def _lines(data: bytes, descriptor: Descriptor, depth: int) -> Iterator[str]:
    at, data_type = 0, 0
    while at < len(data):
        start = at
        tag, at = _varint(data, at)
        field = descriptor.fields_by_number[tag >> 3]
        if tag & 7 == _LENGTH:
            length, at = _varint(data, at)
            head, body = data[start:at], data[at : at + length]
            yield from _length_delimited(head, body, field, data_type, depth)
            at += length
        elif tag & 7 == _FIXED64:
            (value,) = struct.unpack_from("<d", data, at)
            at += 8
            yield _line(data[start:at], f"{field.name} = {value!r}", depth)
        elif tag & 7 == _VARINT:
            number, at = _varint(data, at)
            data_type = number if field.name == "data_type" else data_type
            yield _line(data[start:at], f"{field.name} = {_scalar(field, number)}", depth)
        else:
            message = f"wire type {tag & 7} is not in the contract"
            raise ValueError(message)


def _length_delimited(
    head: bytes, body: bytes, field: FieldDescriptor, data_type: int, depth: int
) -> Iterator[str]:
    if field.type == FieldDescriptor.TYPE_MESSAGE and field.message_type is not None:
        yield _line(head, f"{field.name}: {len(body)} bytes", depth)
        yield from _lines(body, field.message_type, depth + 1)
    elif field.type == FieldDescriptor.TYPE_STRING:
        yield _line(head, f"{field.name}: {len(body)} bytes", depth)
        yield from _body(body, f'"{body.decode()}"', depth + 1)
    elif field.type in _PACKED:
        numbers, at = [], 0
        while at < len(body):
            number, at = _varint(body, at)
            numbers.append(number)
        yield _line(head + body, f"{field.name} = {numbers}", depth)
    else:
        elements = np.frombuffer(body, DATA_TYPES[data_type].numpy.newbyteorder("<"))
        yield _line(head, f"{field.name}: {len(body)} bytes", depth)
        yield from _body(body, ", ".join(map(str, elements)), depth + 1)


def _body(body: bytes, meaning: str, depth: int) -> Iterator[str]:
    for start in range(0, len(body), _BYTES_A_LINE):
        yield _line(body[start : start + _BYTES_A_LINE], "" if start else meaning, depth)


def _line(data: bytes, meaning: str, depth: int) -> str:
    return f"{data.hex(' '):<{_HEX_COLUMNS}}{'  ' * depth}{meaning}".rstrip()


def _scalar(field: FieldDescriptor, number: int) -> str:
    if field.enum_type is not None:
        return f"{number} ({field.enum_type.values_by_number[number].name})"
    return str(number)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Read a variable-length integer; return it and the offset after it."""
    value, shift = 0, 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def main() -> None:
    """Print the dumps of the page."""
    request = example_request()
    with grpc.insecure_channel(sys.argv[1]) as channel:
        response = loss_service_pb2_grpc.LossServiceStub(channel).Evaluate(request, timeout=60)
    for message in (request, response):
        print(dump(message.SerializeToString(deterministic=True), message.DESCRIPTOR))  # noqa: T201 (a script)


if __name__ == "__main__":
    main()
