"""PUT /v1/tensors: a tensor in the .npy format stays on the server."""

from collections.abc import AsyncIterator
from typing import Final

from losswire.server import thresholds
from losswire.server.http.answer import Answer, json_answer
from losswire.server.http.call import Call
from losswire.server.http.message_json import data_type_name
from losswire.server.http.npy import NpyHeader, header_bytes, read_header
from losswire.server.http.route import JSON, NPY, Route, ref
from losswire.server.memory.patience import Sender
from losswire.server.memory.uploads import receive
from losswire.v1 import tensor_service_pb2
from losswire.wire import MalformedTensorError, Violation


async def put_tensor(call: Call) -> Answer:
    """Store a tensor, which arrives in parts of any size."""
    evaluator = call.services.evaluator
    upload = _Upload(call)
    sender = Sender(evaluator.patience, call.reservation)
    largest = call.services.settings.max_message_bytes
    stored = await receive(upload.requests(), evaluator.residents, sender, call.deadline, largest)
    header = upload.header
    return json_answer(
        {
            "resident": stored.id.sha256.hex(),
            "data_type": "" if header is None else data_type_name(header.data_type),
            "shape": [] if header is None else header.shape,
            "size_bytes": stored.size_bytes,
            "existed": stored.existed,
        }
    )


class _Upload:
    """A body as the requests of PutTensor."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self.header: NpyHeader | None = None

    async def requests(self) -> AsyncIterator[tensor_service_pb2.PutTensorRequest]:
        """Yield the header, then the elements."""
        pending = bytearray()
        async for part in self._call.body.parts():
            pending += part
            if self.header is None:
                size = header_bytes(pending)
                if size is None or len(pending) < size:
                    continue
                yield self._read_header(pending)
            if len(pending) >= thresholds.UPLOAD_OFF_LOOP_BYTES:
                yield tensor_service_pb2.PutTensorRequest(data=bytes(pending))
                pending.clear()
        if self.header is None:
            # Of fewer bytes than any header has.
            yield self._read_header(pending)
        yield tensor_service_pb2.PutTensorRequest(data=bytes(pending))

    def _read_header(self, data: bytearray) -> tensor_service_pb2.PutTensorRequest:
        """Parse the header and remove it from the data; MalformedTensorError where that fails."""
        header = read_header(data, "body")
        if header.swapped or header.by_column:
            text = "must be little-endian and in C order to be kept"
            raise MalformedTensorError([Violation("body", text)])
        self.header = header
        del data[: header.size_bytes]
        return tensor_service_pb2.PutTensorRequest(
            header=tensor_service_pb2.PutTensorHeader(
                data_type=header.data_type, shape=header.shape
            )
        )


ROUTES: Final = (
    Route(
        path="/v1/tensors",
        method="PUT",
        handler=put_tensor,
        name="putTensor",
        summary="Keep a tensor on the server",
        description="The body is a file in the .npy format, little-endian and in C order. "
        "Evaluations name the tensor by its id, as long as the server holds it.",
        tag="tensors",
        accepts={NPY: {"type": "string", "format": "binary"}},
        answers={JSON: ref("Resident")},
        problems=(400, 413, 429, 501, 504),
    ),
)
