"""What a server says of itself: versions, device, limits and transports."""

import torch

from losswire.server import __version__
from losswire.server.pipeline.evaluator import Evaluator
from losswire.server.settings import Settings
from losswire.v1 import loss_service_pb2, server_info_pb2
from losswire.wire import MAX_RANK


def server_info(
    evaluator: Evaluator, settings: Settings, worker_id: str
) -> loss_service_pb2.GetServerInfoResponse:
    """Return versions, device, limits and transports; `worker_id` names this process."""
    device = evaluator.worker.device
    return loss_service_pb2.GetServerInfoResponse(
        server_version=__version__,
        torch_version=torch.__version__,
        device=str(device),
        device_name=torch.cuda.get_device_name(device) if device.type == "cuda" else "",
        threads=settings.threads,
        worker_id=worker_id,
        limits=server_info_pb2.Limits(
            max_message_bytes=settings.max_message_bytes,
            max_rank=MAX_RANK,
            max_evaluations_per_call=settings.max_evaluations_per_call,
            max_in_flight_per_stream=settings.max_in_flight_per_stream,
            memory_budget_bytes=settings.memory_budget_bytes,
            preferred_chunk_bytes=settings.chunk_bytes,
            resident_quota_bytes=settings.resident_quota_bytes,
        ),
        transports=server_info_pb2.Transports(
            chunked=True,
            resident_tensors=settings.resident_quota_bytes > 0,
            region_socket=evaluator.regions.socket_path,
        ),
    )
