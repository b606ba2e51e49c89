"""The gRPC service of tensors that stay on the server."""

from collections.abc import AsyncIterator
from typing import Any

from losswire.server.memory.patience import Patience, Sender
from losswire.server.memory.regions.store import RegionStore
from losswire.server.memory.residents import ResidentStore
from losswire.server.memory.uploads import key_of, receive
from losswire.server.rpc.calls import Call, Context
from losswire.v1 import tensor_service_pb2, tensor_service_pb2_grpc


class TensorService(tensor_service_pb2_grpc.TensorServiceServicer):
    """Tensors that stay on the server, and memory that callers share with it."""

    def __init__(self, patience: Patience, residents: ResidentStore, regions: RegionStore) -> None:
        """Serve these stores, as long as there is patience with who sends."""
        self._patience = patience
        self._residents = residents
        self._regions = regions

    async def PutTensor(
        self,
        requests: AsyncIterator[tensor_service_pb2.PutTensorRequest],
        context: Any,  # noqa: ANN401 (a Call)
    ) -> tensor_service_pb2.PutTensorResponse:
        """Store a tensor."""
        call: Call = context
        sender = Sender(self._patience, call.reservation)
        return await receive(requests, self._residents, sender, call.deadline(), call.largest_bytes)

    async def StatTensor(
        self, request: tensor_service_pb2.StatTensorRequest, context: Context
    ) -> tensor_service_pb2.StatTensorResponse:
        """Return whether a tensor is stored, and its spec."""
        del context
        spec = self._residents.spec(key_of(request.id, "id"))
        if spec is None:
            return tensor_service_pb2.StatTensorResponse(present=False)
        return tensor_service_pb2.StatTensorResponse(
            present=True,
            data_type=spec.wire_type.data_type,
            shape=spec.shape,
            size_bytes=spec.size_bytes,
        )

    async def DeleteTensor(
        self, request: tensor_service_pb2.DeleteTensorRequest, context: Context
    ) -> tensor_service_pb2.DeleteTensorResponse:
        """Remove a tensor."""
        del context
        existed = self._residents.discard(key_of(request.id, "id"))
        return tensor_service_pb2.DeleteTensorResponse(existed=existed)

    async def CreateRegion(
        self, request: tensor_service_pb2.CreateRegionRequest, context: Context
    ) -> tensor_service_pb2.CreateRegionResponse:
        """Create a region of shared memory."""
        del context
        region = await self._regions.create(request.size_bytes)
        return tensor_service_pb2.CreateRegionResponse(
            region_id=region.region_id,
            token=region.token,
            socket_path=self._regions.socket_path,
            size_bytes=region.memory.size_bytes,
            max_request_bytes=self._regions.max_request_bytes,
        )
