"""A chunked call far larger than any memory: each part is the same block, and no answer is kept.

It speaks the contract, since the SDK's callers hold what they send.
"""

import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import grpc
import numpy as np

from benchmarks import data
from benchmarks.cases import BLOCK_ROWS
from benchmarks.worker import Spec, Work, WrongResultError
from losswire.v1 import evaluation_pb2, loss_service_pb2, tensor_pb2
from losswire.wire import GRADIENT_ROWS, encode_tensor

_TIMEOUT = 300.0
_PROGRESS_SECONDS = 2.0
_METHOD = "/losswire.v1.LossService/EvaluateChunked"
_OPTIONS = (("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1))


class Huge(Work):
    """Cross-entropy with gradient over any number of rows."""

    def __init__(self, address: str, spec: Spec) -> None:
        """Make the messages."""
        self._spec = spec
        self._rows = spec.rows
        self._block = data.logits(BLOCK_ROWS, spec.columns)
        self._classes = data.classes(BLOCK_ROWS, spec.columns)
        self._channel = grpc.insecure_channel(address, _OPTIONS)
        part = loss_service_pb2.EvaluateChunkedRequest(rows=self._block.tobytes())
        self._part = part.SerializeToString()
        self._header = self._make_header().SerializeToString()

    def _make_header(self) -> loss_service_pb2.EvaluateChunkedRequest:
        message = loss_service_pb2.EvaluateChunkedRequest()
        message.header.streamed_inputs.append("input")
        evaluation = message.header.evaluation
        evaluation.loss = "cross_entropy"
        evaluation.gradients_for.append("input")
        evaluation.reduction = evaluation_pb2.REDUCTION_MEAN
        form = evaluation.inputs["input"]
        form.data_type = tensor_pb2.DATA_TYPE_FLOAT32
        form.shape.extend([self._rows, self._block.shape[1]])
        form.data = b""
        classes = np.tile(self._classes, self._rows // BLOCK_ROWS)
        evaluation.inputs["target"].CopyFrom(encode_tensor(classes))
        return message

    def _requests(self) -> Iterator[bytes]:
        yield self._header
        for _ in range(0, self._rows, BLOCK_ROWS):
            yield self._part

    def check(self) -> str:
        """Make the one call there is; it compares all that comes."""
        return self.call()

    def call(self) -> str:
        """Send all blocks; every answer must be the gradient of its rows, bit for bit alike."""
        method: Any = self._channel.stream_stream(_METHOD)
        expected, done, loss = b"", 0, float("nan")
        shown = time.monotonic()
        total = self._rows * self._block.shape[1] * self._block.itemsize
        for answer in method(self._requests(), timeout=_TIMEOUT):
            part = GRADIENT_ROWS.decode(answer)
            if isinstance(part, memoryview):
                expected = expected or bytes(part)
                if part != expected:
                    message = f"the gradient differs after {done} bytes"
                    raise WrongResultError(message)
                done += part.nbytes
                if time.monotonic() - shown > _PROGRESS_SECONDS:
                    shown = time.monotonic()
                    sys.stderr.write(f"  {done / 1e9:.1f} of {total / 1e9:.1f} GB\n")
            else:
                [loss] = np.frombuffer(part.result.result.loss.data, np.float32)
        if done != total:
            message = f"gradients of {done} of {total} bytes came"
            raise WrongResultError(message)
        gradient = np.frombuffer(expected, np.float32).reshape(self._block.shape)
        block = replace(self._spec, rows=BLOCK_ROWS)
        # The mean is over all rows, of which the block repeats a part.
        share = np.float32(self._rows / BLOCK_ROWS)
        return data.check(block, float(loss), gradient * share)
