"""What a call held is released when it ends, by reference counts: with Python's collector off."""

import contextlib
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import grpc
import numpy as np
import pytest

from losswire.v1 import loss_service_pb2, tensor_service_pb2, tensor_service_pb2_grpc
from losswire.wire import encode_tensor
from tests.support.doors import Doors, open_doors
from tests.support.harness import UNLIMITED, path_with
from tests.support.regions import create, fetch
from tests.support.requests import TIMEOUT, Stub, evaluation, stream_requests
from tests.support.soak import record, tier
from tests.support.vitals import descriptors_named, vitals, wait_until

_MIB = 1 << 20
_ROWS = np.ones((512, 1024), np.float32)
"""2 MiB."""

_GROWTH = 48 * _MIB
"""What the memory of a process varies by. Each case holds much more if nothing is released."""


@dataclass(frozen=True)
class Server:
    """A server without a collector, and a way to it."""

    doors: Doors
    channel: grpc.Channel
    idle: float = 0.0
    """The bytes that asking for the reserved bytes reserves by itself."""

    @property
    def reserved(self) -> float:
        """The bytes of its budget that are reserved."""
        return self.doors.samples().of("losswire_reserved_bytes") - self.idle


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose process never looks for reference cycles."""
    folder = tmp_path_factory.mktemp("plain")
    (folder / "no_collector.py").write_text("import gc\n\ngc.disable()\n")
    arguments = ("--losses", "no_collector", "--memory-budget-mib", "256")
    environment = {"PYTHONPATH": path_with(folder)}
    with (
        open_doors(*arguments, environment=environment) as doors,
        grpc.insecure_channel(doors.grpc, UNLIMITED) as channel,
    ):
        yield Server(doors, channel, Server(doors, channel).reserved)


def _item(*, wrong: bool = False) -> "loss_service_pb2.EvaluateRequest":
    item = evaluation("mse_loss", {"input": _ROWS, "target": _ROWS}, gradients_for=["input"])
    if wrong:
        item.inputs["target"].shape[:] = [1024, 512]
    return loss_service_pb2.EvaluateRequest(evaluation=item)


def _evaluate(server: Server) -> None:
    Stub(server.channel).Evaluate(_item(), timeout=TIMEOUT)


def _refused(server: Server) -> None:
    with contextlib.suppress(grpc.RpcError):
        Stub(server.channel).Evaluate(_item(wrong=True), timeout=TIMEOUT)


def _many(server: Server) -> None:
    items = [_item().evaluation, _item(wrong=True).evaluation]
    items[1].inputs["input"].data = items[1].inputs["target"].data = b""
    request = loss_service_pb2.EvaluateManyRequest(evaluations=items)
    Stub(server.channel).EvaluateMany(request, timeout=TIMEOUT)


def _stream(server: Server) -> None:
    items = [(1, _item().evaluation), (2, _item(wrong=True).evaluation)]
    list(Stub(server.channel).EvaluateStream(stream_requests(items), timeout=TIMEOUT))


def _left_stream(server: Server) -> None:
    items = [(number, _item().evaluation) for number in range(2)]
    answers = Stub(server.channel).EvaluateStream(stream_requests(items), timeout=TIMEOUT)
    next(answers)
    answers.cancel()


def _chunked(server: Server, rows: int = 512) -> None:
    item = _item().evaluation
    for tensor in item.inputs.values():
        tensor.data = b""
    names = ["input", "target"]
    header = loss_service_pb2.ChunkedHeader(evaluation=item, streamed_inputs=names)
    data = _ROWS[:rows].tobytes() * 2
    parts = [
        loss_service_pb2.EvaluateChunkedRequest(header=header),
        loss_service_pb2.EvaluateChunkedRequest(rows=data),
    ]
    with contextlib.suppress(grpc.RpcError):
        item.normalizer = 1.0
        list(Stub(server.channel).EvaluateChunked(iter(parts), timeout=TIMEOUT))


def _cut_chunked(server: Server) -> None:
    _chunked(server, rows=256)


def _cancelled(server: Server) -> None:
    call = Stub(server.channel).Evaluate.future(_item(), timeout=TIMEOUT)
    with contextlib.suppress(grpc.FutureTimeoutError, grpc.RpcError):
        call.result(timeout=0.003)
    call.cancel()


def _upload(server: Server, parts: int = 8, seed: int = 0) -> None:
    tensor = encode_tensor(_ROWS)
    header = tensor_service_pb2.PutTensorHeader(data_type=tensor.data_type, shape=tensor.shape)
    data = (_ROWS * (1 + seed)).tobytes()
    size = len(data) // 8
    sent = [tensor_service_pb2.PutTensorRequest(header=header)]
    sent += [
        tensor_service_pb2.PutTensorRequest(data=data[size * part : size * (part + 1)])
        for part in range(parts)
    ]
    stub = tensor_service_pb2_grpc.TensorServiceStub(server.channel)
    with contextlib.suppress(grpc.RpcError):
        stored = stub.PutTensor(iter(sent), timeout=TIMEOUT)
        request = tensor_service_pb2.DeleteTensorRequest(id=stored.id)
        stub.DeleteTensor(request, timeout=TIMEOUT)


def _cut_upload(server: Server) -> None:
    _upload(server, parts=7)


_CASES: dict[str, Callable[[Server], None]] = {
    "answered": _evaluate,
    "refused": _refused,
    "many": _many,
    "stream": _stream,
    "stream that is left": _left_stream,
    "chunked": _chunked,
    "chunked and cut": _cut_chunked,
    "cancelled": _cancelled,
    "upload": _upload,
    "upload that is cut": _cut_upload,
}


@pytest.mark.parametrize("what", _CASES)
def test_calls_leave_nothing(server: Server, what: str) -> None:
    """However a call of some megabytes ends, its memory and its reservation are free at once."""
    call = _CASES[what]
    for _ in range(4):
        call(server)
    wait_until(lambda: server.reserved == 0)
    before = vitals(server.doors.pid).resident_bytes
    for _ in range(tier(short=25, soak=200)):
        call(server)
    wait_until(lambda: server.reserved == 0, 5)
    growth = vitals(server.doors.pid).resident_bytes - before
    record(f"growth without a collector: {what}", growth / _MIB, unit="MiB", required="<= 48")
    assert growth <= _GROWTH


def _regions(server: Server) -> int:
    return descriptors_named(server.doors.pid, "losswire-region")


def test_regions_that_nobody_fetches_give_descriptors_back(server: Server) -> None:
    """Tokens that expire free memory, quota and descriptors, however many there were."""
    for _ in range(tier(short=1, soak=6)):
        for _ in range(200):
            create(server.channel, 4096)
        took = wait_until(lambda: not _regions(server), 20)
        record("regions that nobody fetched are gone", took, unit="s", required="<= 10")
    assert server.reserved == 0


def test_a_region_that_ends_during_its_call_is_freed(server: Server) -> None:
    """Close the lease while a request that uses the region is under way: all is free at once."""
    for _ in range(tier(short=2, soak=20)):
        for _ in range(6):
            held = fetch(create(server.channel, 8 * _MIB))
            item = evaluation("mse_loss", {}, gradients_for=["input"])
            for name in ("input", "target"):
                item.inputs[name].CopyFrom(held.tensor(held.array((1000, 1000))))
            request = loss_service_pb2.EvaluateRequest(evaluation=item).SerializeToString()
            held.lease.sendall(struct.pack("<II", len(request), 0) + request)
            held.memory = None  # type: ignore[assignment]
            held.close()
        took = wait_until(lambda: not _regions(server) and not server.reserved)
        record("regions of leases that ended in a call are gone", took, unit="s")
        assert took < 20
    held = fetch(create(server.channel, 40 * _MIB))
    held.close()
