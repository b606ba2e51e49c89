"""A device that is lost ends the server; one that is only full does not."""

import asyncio
import math
from collections.abc import Sequence
from pathlib import Path

import grpc
import numpy as np
import pytest
import torch
from grpc_health.v1 import health_pb2, health_pb2_grpc

from losswire.server import app
from losswire.server.compute.devices.cuda import is_lost
from losswire.server.compute.dispatch import Outcome, Pause, compute
from losswire.server.compute.work import Work
from losswire.server.losses import builtin_registry
from losswire.server.pipeline import worker as worker_module
from losswire.server.pipeline.admit import peak_bytes
from losswire.server.pipeline.decode import decode
from losswire.server.pipeline.validate import validate
from losswire.server.settings import MIB, Settings
from losswire.v1 import loss_service_pb2
from tests.support.harness import Child, path_with
from tests.support.inside import Gate, outcome, outcomes, running_evaluator
from tests.support.requests import (
    TIMEOUT,
    Stub,
    evaluation,
    f32,
    i64,
)

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

_LOSING = '''
import torch
from torch import Tensor

from losswire.server.declare import Input, Terms, floats, layout, loss


@loss(
    layouts=(layout("any", input=floats("*S"), values="*S"),),
    inputs={"input": Input(meaning="Anything.")},
    source="tests",
)
def losing(input: Tensor) -> Terms:
    """Lose the device."""
    raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
'''

_ERRORS = {
    "an illegal access": (torch.AcceleratorError("CUDA error: an illegal memory access"), True),
    "a library": (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED"), True),
    "a full device": (torch.OutOfMemoryError("CUDA out of memory."), False),
    "a full host": (MemoryError(), False),
    "a shape": (RuntimeError("The size of tensor a (2) must match"), False),
    "another error": (ValueError("CUDA error: as a caller may write it"), False),
}


@pytest.mark.parametrize(("error", "lost"), _ERRORS.values(), ids=_ERRORS.keys())
def test_which_errors_lose_the_device(error: Exception, lost: bool) -> None:  # noqa: FBT001
    """All of CUDA's, but not a refused allocation."""
    assert is_lost(error) is lost


def test_a_lost_device_ends_the_server(tmp_path: Path) -> None:
    """The call is UNAVAILABLE, health says NOT_SERVING, the log says why; exit status 1."""
    (tmp_path / "losing_loss.py").write_text(_LOSING)
    environment = {"PYTHONPATH": path_with(tmp_path)}
    arguments = ("--losses", "losing_loss", "--drain-seconds", "1")
    with (
        Child(tmp_path / "log", *arguments, environment=environment) as child,
        child.channel() as channel,
    ):
        watch = health_pb2_grpc.HealthStub(channel).Watch(
            health_pb2.HealthCheckRequest(), timeout=TIMEOUT
        )
        assert next(watch).status == _SERVING
        item = evaluation("losing", {"input": f32(1)})
        request = loss_service_pb2.EvaluateManyRequest(evaluations=[item] * 3)
        for outcome in Stub(channel).EvaluateMany(request, timeout=TIMEOUT).outcomes:
            assert outcome.error.code == grpc.StatusCode.UNAVAILABLE.value[0]
            assert outcome.error.reason == "DEVICE_LOST"
            assert "illegal" not in outcome.error.message
        assert next(watch).status == _NOT_SERVING
        watch.cancel()
        assert child.wait() == 1
    [critical] = [each for each in child.entries() if each["level"] == "critical"]
    assert "illegal memory access" in critical["exception"]


@pytest.mark.usefixtures("stacked_as_on_gpu")
@pytest.mark.parametrize("error", [error for error, _ in _ERRORS.values()], ids=_ERRORS.keys())
def test_nothing_is_tried_on_a_lost_device(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """After a stack's error, its evaluations are computed one by one only if that is safe."""
    tried: list[int] = []

    def fail(works: Sequence[Work], device: torch.device) -> list[Outcome]:
        del device
        tried.append(len(works))
        raise error

    monkeypatch.setattr(worker_module, "compute_together", fail)
    logits = np.zeros((3, 10), np.float32)
    item = evaluation("cross_entropy", {"input": logits, "target": i64(1, 2, 3)})

    async def run() -> None:
        for _ in range(2):
            found = await outcomes(work, [item] * 12, math.inf)
            if is_lost(error):
                assert {each.error.reason for each in found} == {"DEVICE_LOST"}
            else:
                assert [each.result.count for each in found] == [3] * 12

    with running_evaluator(Gate()) as work:
        asyncio.run(run())
        assert work.worker.device_lost is is_lost(error)
    assert tried == ([12] if is_lost(error) else [12, 12])


def test_a_full_device_is_overloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused allocation is told with a time to come back, and the next call is answered."""
    errors = [torch.OutOfMemoryError("CUDA out of memory.")]

    def once(work: Work, device: torch.device, pause: Pause) -> Outcome:
        if errors:
            raise errors.pop()
        return compute(work, device, pause)

    monkeypatch.setattr(worker_module, "compute", once)
    item = evaluation("mse_loss", {"input": f32(1, 2), "target": f32(3, 4)})

    async def run() -> None:
        full, fine = [await outcome(work, item, math.inf) for _ in range(2)]
        assert full.error.reason == "OVERLOADED"
        assert full.error.retry_after_ms > 0
        assert fine.result.count == 2

    with running_evaluator(Gate()) as work:
        asyncio.run(run())
        assert not work.worker.device_lost


def _settings(budget: int) -> Settings:
    return Settings(threads=1, memory_budget_bytes=budget, region_quota_bytes=16 * MIB)


def test_the_budget_is_no_more_than_the_device_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine tenths of the memory free at the start; regions stay a part of it."""
    cuda = torch.device("cuda:0")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (40 * MIB, 80 * MIB))
    lower = app.fit_to_device(_settings(64 * MIB), cuda)
    assert lower.memory_budget_bytes == 36 * MIB
    assert lower.region_quota_bytes == 9 * MIB
    few = _settings(8 * MIB)
    assert app.fit_to_device(few, cuda) is few
    assert app.fit_to_device(_settings(64 * MIB), torch.device("cpu")) == _settings(64 * MIB)


def test_resident_inputs_are_admitted_on_a_device() -> None:
    """There it is copied for each evaluation."""
    record = builtin_registry().find("mse_loss")
    message = evaluation("mse_loss", {"input": f32(1, 2), "target": f32(3, 4)})
    work = validate(decode(message), record)
    resident = work.with_arrays(
        work.inputs, work.grad_output, work.sample_weight, resident_bytes=work.input_bytes
    )
    assert peak_bytes(resident) == peak_bytes(work) - work.input_bytes
    assert peak_bytes(resident, copied=True) == peak_bytes(work)
