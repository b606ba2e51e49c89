"""A server process with an HTTP door, and evaluations as its JSON and parts."""

import io
import json
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email import message_from_bytes
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import numpy.typing as npt

from losswire.v1 import evaluation_pb2, tensor_pb2
from losswire.wire import DATA_TYPES, decode_option, decode_tensor, encode_tensor
from tests.support.harness import Child
from tests.support.requests import Stub

Array = npt.NDArray[Any]
JSON = "application/json"
MULTIPART = "multipart/form-data"
NPY = "application/octet-stream"
SECONDS = 60.0
"""How long to wait for an answer: for hangs only."""

_ENUMS: dict[str, Any] = {
    "reduction": evaluation_pb2.Reduction,
    "gradient_form": evaluation_pb2.GradientForm,
    "gradient_data_type": tensor_pb2.DataType,
    "compute_data_type": tensor_pb2.DataType,
    "engine": evaluation_pb2.Engine,
}


class CannotSayError(Exception):
    """An evaluation that JSON cannot express, such as one with an unknown number of an enum."""


@dataclass(frozen=True)
class Door:
    """A server, a client of its HTTP door and one of gRPC."""

    child: Child
    address: str
    """HOST:PORT of the HTTP door."""
    client: httpx.Client
    stub: Stub

    def evaluate(self, content: object, **headers: str) -> httpx.Response:
        """Send the JSON of an evaluation."""
        return self.client.post("/v1/evaluate", json=content, headers=headers)


@contextmanager
def open_door(
    log: Path, *arguments: str, environment: Mapping[str, str] | None = None
) -> Iterator[Door]:
    """Start a server with an HTTP door, and connect."""
    with Child(log, "--http", "127.0.0.1:0", *arguments, environment=environment) as child:
        line = child.read_line()
        assert line.startswith("http on "), f"instead of an address the server wrote {line!r}"
        address = line.removeprefix("http on ")
        with (
            httpx.Client(base_url=f"http://{address}", timeout=SECONDS) as client,
            child.channel() as channel,
        ):
            yield Door(child, address, client, _stub(channel))


def _stub(channel: grpc.Channel) -> Stub:
    return Stub(channel)


def as_json(item: evaluation_pb2.Evaluation) -> dict[str, Any]:
    """Return an evaluation as JSON with tensors in base64; CannotSayError."""
    content = _bare(item)
    content["inputs"] = {name: _tensor(each) for name, each in item.inputs.items()}
    for name in ("grad_output", "sample_weight"):
        if name in {field.name for field, _ in item.ListFields()}:
            content[name] = _tensor(getattr(item, name))
    return {**content, "encoding": "base64"}


def as_parts(item: evaluation_pb2.Evaluation) -> dict[str, Any]:
    """Return an evaluation as parts for httpx, its tensors as .npy; CannotSayError."""
    tensors = {f"inputs.{name}": each for name, each in item.inputs.items()}
    for name in ("grad_output", "sample_weight"):
        if name in {field.name for field, _ in item.ListFields()}:
            tensors[name] = getattr(item, name)
    parts: dict[str, Any] = {"request": (None, json.dumps(_bare(item)), JSON)}
    try:
        arrays = {name: decode_tensor(each) for name, each in tensors.items()}
    except Exception as error:
        raise CannotSayError from error
    return parts | {name: (f"{name}.npy", npy(each), NPY) for name, each in arrays.items()}


def _bare(item: evaluation_pb2.Evaluation) -> dict[str, Any]:
    """Return all of an evaluation but its tensors."""
    if item.gradient_destinations:
        raise CannotSayError
    content: dict[str, Any] = {"loss": item.loss, "gradients_for": list(item.gradients_for)}
    content["options"] = {name: _option(each) for name, each in item.options.items()}
    for name, enum in _ENUMS.items():
        value = getattr(item, name)
        if value not in enum.values():
            raise CannotSayError
        if value:
            names = {number: text for text, number in enum.items()}
            prefix = names[0].removesuffix("UNSPECIFIED")
            content[name] = names[value].removeprefix(prefix).lower()
    if item.HasField("normalizer"):
        content["normalizer"] = _number(item.normalizer)
    return content


def _option(message: evaluation_pb2.OptionValue) -> object:
    value = decode_option(message)
    if value is None:
        raise CannotSayError
    return _number(value) if isinstance(value, float) else value


def _number(value: float) -> float | str:
    text = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
    return text.get(str(value), value)


def _tensor(tensor: tensor_pb2.Tensor) -> dict[str, Any]:
    source = tensor.WhichOneof("source")
    if source == "resident" and len(tensor.resident.sha256) == 32:
        return {"resident": tensor.resident.sha256.hex()}
    wire_type = DATA_TYPES.get(tensor.data_type)
    if source != "data" or wire_type is None:
        raise CannotSayError
    data = b64encode(tensor.data).decode()
    return {"data_type": wire_type.name, "shape": list(tensor.shape), "data": data}


def npy(array: Array) -> bytes:
    """Return an array in the .npy format, as numpy writes it."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def parts_of(response: httpx.Response) -> dict[str, bytes]:
    """Return the parts of a multipart answer by name."""
    head = f"Content-Type: {response.headers['content-type']}\r\n\r\n"
    found = message_from_bytes(head.encode() + response.content)
    parts: Any = found.get_payload()
    return {
        each.get_param("name", header="content-disposition"): each.get_payload(decode=True)
        for each in parts
    }


def tensor_of(content: Mapping[str, Any]) -> tensor_pb2.Tensor:
    """Return the message of a tensor in base64."""
    [number] = [each for each, kind in DATA_TYPES.items() if kind.name == content["data_type"]]
    tensor = tensor_pb2.Tensor(shape=content["shape"], data=b64decode(content["data"]))
    tensor.data_type = tensor_pb2.DataType.ValueType(number)
    return tensor


def tensor_of_npy(data: bytes) -> tensor_pb2.Tensor:
    """Return the message of a tensor in the .npy format, as numpy reads it."""
    return encode_tensor(np.load(io.BytesIO(data)))
