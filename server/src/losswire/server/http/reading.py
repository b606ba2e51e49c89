"""Reads the state of a running server, for metrics and for the Live screen."""

import os
from pathlib import Path
from typing import Final

import torch

from losswire.server import __version__
from losswire.server.http.services import Services
from losswire.server.memory.budget import Kind
from losswire.server.metrics.reading import Reading
from losswire.server.pipeline.worker import ComputeWorker
from losswire.server.settings import available_memory

_STATM: Final = Path("/proc/self/statm")


def read(services: Services) -> Reading:
    """Return the state of a server now. On the event loop."""
    evaluator, settings, recorder = services.evaluator, services.settings, services.recorder
    regions, by_kind = evaluator.regions.held_bytes, evaluator.budget.by_kind
    memory, reserved = _device_memory(evaluator.worker)
    device = evaluator.worker.device
    return Reading(
        worker_id=services.worker_id,
        server_version=__version__,
        torch_version=torch.__version__,
        device=str(device),
        device_name=torch.cuda.get_device_name(device) if device.type == "cuda" else "",
        started=recorder.started,
        is_ready=services.is_ready(),
        selftest_seconds=recorder.selftest_seconds,
        budget_bytes=evaluator.budget.limit_bytes,
        quota_bytes={
            "regions": settings.region_quota_bytes,
            "residents": evaluator.residents.quota_bytes,
        },
        reserved_bytes={
            "receive": by_kind[Kind.RECEIVE],
            "compute": by_kind[Kind.COMPUTE] - regions,
            "answer": by_kind[Kind.ANSWER],
            "regions": regions,
            "residents": evaluator.residents.held_bytes,
        },
        queue_length=len(evaluator.worker.waiting),
        queue_oldest_seconds=evaluator.worker.waiting.seconds,
        device_memory_bytes=memory,
        device_memory_reserved_bytes=reserved,
    )


def _device_memory(worker: ComputeWorker) -> tuple[int, int]:
    """Return the memory of the device, and what this process holds of it."""
    if worker.device.type != "cuda":
        return available_memory(), _resident_bytes()
    if worker.device_lost:
        return 0, 0
    _, total = torch.cuda.mem_get_info(worker.device)
    return total, torch.cuda.memory_reserved(worker.device)


def _resident_bytes() -> int:
    """Return the memory that this process holds; 0 where the system does not say."""
    try:
        pages = int(_STATM.read_text(encoding="ascii").split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
