"""Servers that answer by a script, over real gRPC, for the behaviour of unhealthy servers."""

# ruff: noqa: N802 - gRPC names methods as the contract does

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeVar

import grpc
import numpy as np
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from losswire.v1 import (
    evaluation_pb2,
    loss_info_pb2,
    loss_service_pb2,
    loss_service_pb2_grpc,
    server_info_pb2,
    tensor_pb2,
)
from losswire.wire import DATA_TYPES, decode_tensor, encode_tensor

_S = TypeVar("_S", bound="Scripted")
Script = Callable[
    [evaluation_pb2.Evaluation, grpc.ServicerContext], evaluation_pb2.EvaluationResult
]
ItemScript = Callable[[evaluation_pb2.Evaluation], evaluation_pb2.EvaluationOutcome]


def echo(
    evaluation: evaluation_pb2.Evaluation, _context: grpc.ServicerContext | None = None
) -> evaluation_pb2.EvaluationResult:
    """Answer with the inputs as if they were the gradients asked for, and a loss of 1."""
    asked = evaluation.gradients_for
    return evaluation_pb2.EvaluationResult(
        loss=encode_tensor(np.ones((), _loss_dtype(evaluation))),
        gradients={
            name: _in_type(each, evaluation.gradient_data_type)
            for name, each in evaluation.inputs.items()
            if name in asked
        },
        sum=2.0,
        mean_numerator=2.0,
        mean_denominator=2.0,
        count=2,
        queue_nanoseconds=3,
        compute_nanoseconds=4,
        receipt=evaluation_pb2.Receipt(
            device="cpu",
            engine="autograd",
            compute_data_type=tensor_pb2.DATA_TYPE_FLOAT32,
            server_version="1.2.3",
            torch_version="2.0",
        ),
    )


def _in_type(tensor: tensor_pb2.Tensor, data_type: int) -> tensor_pb2.Tensor:
    """Convert a tensor, unless the type is 0."""
    if not data_type:
        return tensor
    return encode_tensor(decode_tensor(tensor, "x").astype(DATA_TYPES[data_type].numpy))


def _loss_dtype(evaluation: evaluation_pb2.Evaluation) -> type[np.floating[Any]]:
    """Return the dtype that the loss of an evaluation has: float64 for such inputs, or float32."""
    given = {evaluation.compute_data_type or each.data_type for each in evaluation.inputs.values()}
    return np.float64 if given == {tensor_pb2.DATA_TYPE_FLOAT64} else np.float32


def echo_item(evaluation: evaluation_pb2.Evaluation) -> evaluation_pb2.EvaluationOutcome:
    """Echo one item of many."""
    return evaluation_pb2.EvaluationOutcome(result=echo(evaluation))


def fail(
    context: grpc.ServicerContext,
    code: grpc.StatusCode,
    message: str = "no",
    *,
    details: Sequence[Message] = (),
    metadata: Sequence[tuple[str, str | bytes]] = (),
) -> NoReturn:
    """Fail a call as a Losswire server does: a code, a text, and rich details."""
    trailing = list(metadata)
    if details:
        status = status_pb2.Status(code=code.value[0], message=message)
        for detail in details:
            packed = any_pb2.Any()
            packed.Pack(detail)
            status.details.append(packed)
        trailing.append(("grpc-status-details-bin", status.SerializeToString()))
    context.set_trailing_metadata(tuple(trailing))
    context.abort(code, message)


def retry_info(seconds: float) -> error_details_pb2.RetryInfo:
    """Return the detail that asks to come back after some seconds."""
    info = error_details_pb2.RetryInfo()
    info.retry_delay.FromMilliseconds(round(seconds * 1000))
    return info


@dataclass
class Scripted(loss_service_pb2_grpc.LossServiceServicer):
    """A service whose answers a test scripts; it keeps the requests."""

    script: Script = echo
    item_script: ItemScript = echo_item
    limits: server_info_pb2.Limits = field(
        default_factory=lambda: server_info_pb2.Limits(
            max_message_bytes=4_000_000, max_in_flight_per_stream=8
        )
    )
    losses: Sequence[loss_info_pb2.LossInfo] = ()
    address: str = ""
    evaluations: list[evaluation_pb2.Evaluation] = field(default_factory=list)
    metadata: list[dict[str, str | bytes]] = field(default_factory=list)
    streams: int = 0
    listings: int = 0

    def Evaluate(
        self, request: loss_service_pb2.EvaluateRequest, context: grpc.ServicerContext
    ) -> loss_service_pb2.EvaluateResponse:
        """Answer by the script."""
        self.evaluations.append(request.evaluation)
        self.metadata.append(dict(context.invocation_metadata()))
        return loss_service_pb2.EvaluateResponse(result=self.script(request.evaluation, context))

    def EvaluateMany(
        self, request: loss_service_pb2.EvaluateManyRequest, context: grpc.ServicerContext
    ) -> loss_service_pb2.EvaluateManyResponse:
        """Answer each item by the script of items."""
        del context
        return loss_service_pb2.EvaluateManyResponse(
            outcomes=map(self.item_script, request.evaluations)
        )

    def ListLosses(
        self, request: loss_service_pb2.ListLossesRequest, context: grpc.ServicerContext
    ) -> loss_service_pb2.ListLossesResponse:
        """List the losses that the test gives."""
        del request, context
        self.listings += 1
        return loss_service_pb2.ListLossesResponse(losses=self.losses)

    def GetServerInfo(
        self, request: loss_service_pb2.GetServerInfoRequest, context: grpc.ServicerContext
    ) -> loss_service_pb2.GetServerInfoResponse:
        """Return the limits."""
        del request, context
        return loss_service_pb2.GetServerInfoResponse(limits=self.limits)

    def EvaluateStream(
        self,
        requests: Iterator[loss_service_pb2.EvaluateStreamRequest],
        context: grpc.ServicerContext,
    ) -> Iterator[loss_service_pb2.EvaluateStreamResponse]:
        """Answer each item by the script of items, in order."""
        del context
        self.streams += 1
        for request in requests:
            self.evaluations.append(request.evaluation)
            outcome = self.item_script(request.evaluation)
            yield loss_service_pb2.EvaluateStreamResponse(id=request.id, outcome=outcome)

    def EvaluateChunked(self, requests: object, context: grpc.ServicerContext) -> NoReturn:
        """Refuse: no test needs it."""
        del requests
        fail(context, grpc.StatusCode.UNIMPLEMENTED)

    def SummarizeLosses(
        self,
        requests: Iterator[loss_service_pb2.SummarizeLossesRequest],
        context: grpc.ServicerContext,
    ) -> Iterator[loss_service_pb2.SummarizeLossesResponse]:
        """Refuse; `scripted_summaries` does better."""
        del requests
        fail(context, grpc.StatusCode.UNIMPLEMENTED)


@contextmanager
def serving(
    service: _S,
    *,
    listen: str = "127.0.0.1:0",
    credentials: grpc.ServerCredentials | None = None,
) -> Iterator[_S]:
    """Serve a script; its `address` is where."""
    options: list[tuple[str, Any]] = [("grpc.so_reuseport", 0)]
    with ThreadPoolExecutor(max_workers=32) as threads:
        server = grpc.server(threads, options=options)
        loss_service_pb2_grpc.add_LossServiceServicer_to_server(service, server)
        if credentials is None:
            port = server.add_insecure_port(listen)
        else:
            port = server.add_secure_port(listen, credentials)
        service.address = listen if listen.startswith("unix:") else f"127.0.0.1:{port}"
        server.start()
        try:
            yield service
        finally:
            server.stop(grace=None).wait()
