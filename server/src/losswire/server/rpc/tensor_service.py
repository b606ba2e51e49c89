"""The gRPC service of tensors that stay on the server."""

from collections.abc import AsyncIterator
from typing import Any

import grpc

from losswire.server.memory.uploads import key_of, receive
from losswire.server.pipeline.evaluator import Evaluator
from losswire.v1 import tensor_service_pb2, tensor_service_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]


class TensorService(tensor_service_pb2_grpc.TensorServiceServicer):
    """Tensors that stay on the server, and memory that callers share with it."""

    def __init__(self, line: Evaluator) -> None:
        """Take the line, which has the tensors and the memory budget."""
        self._admission = line.admission
        self._residents = line.residents
        self._regions = line.regions

    async def PutTensor(
        self, requests: AsyncIterator[tensor_service_pb2.PutTensorRequest], context: Context
    ) -> tensor_service_pb2.PutTensorResponse:
        """Store a tensor."""
        del context
        return await receive(requests, self._admission, self._residents)

    async def StatTensor(
        self, request: tensor_service_pb2.StatTensorRequest, context: Context
    ) -> tensor_service_pb2.StatTensorResponse:
        """Tell whether a tensor is stored."""
        del context
        form = self._residents.form(key_of(request.id, "id"))
        if form is None:
            return tensor_service_pb2.StatTensorResponse(present=False)
        return tensor_service_pb2.StatTensorResponse(
            present=True,
            data_type=form.wire_type.data_type,
            shape=form.shape,
            size_bytes=form.size_bytes,
        )

    async def DeleteTensor(
        self, request: tensor_service_pb2.DeleteTensorRequest, context: Context
    ) -> tensor_service_pb2.DeleteTensorResponse:
        """Forget a tensor."""
        del context
        existed = self._residents.discard(key_of(request.id, "id"))
        return tensor_service_pb2.DeleteTensorResponse(existed=existed)

    async def CreateRegion(
        self, request: tensor_service_pb2.CreateRegionRequest, context: Context
    ) -> tensor_service_pb2.CreateRegionResponse:
        """Make a region of shared memory."""
        del context
        region = await self._regions.create(request.size_bytes)
        return tensor_service_pb2.CreateRegionResponse(
            region_id=region.region_id,
            token=region.token,
            socket_path=self._regions.socket_path,
            size_bytes=region.memory.size_bytes,
            max_request_bytes=self._regions.max_request_bytes,
        )
