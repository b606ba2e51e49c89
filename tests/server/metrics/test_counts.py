"""What a server counts is what its callers did, whichever way they came."""

import time
from collections.abc import Iterator

import grpc
import numpy as np
import pytest

from losswire.client import Client, LosswireError
from losswire.v1 import loss_service_pb2, tensor_service_pb2, tensor_service_pb2_grpc
from tests.support.doors import Doors, Samples
from tests.support.requests import GOLDEN, TIMEOUT, Stub, evaluation, f32

EVALUATE = "losswire.v1.LossService/Evaluate"
STREAM = "losswire.v1.LossService/EvaluateStream"
DURATION = "grpc_server_call_duration_seconds_count"
RECEIVED = "grpc_server_call_rcvd_total_compressed_message_size_bytes"
SENT = "grpc_server_call_sent_total_compressed_message_size_bytes"


@pytest.fixture(scope="module")
def stub(doors: Doors) -> Iterator[Stub]:
    """Its methods over gRPC."""
    with grpc.insecure_channel(doors.grpc) as channel:
        yield Stub(channel)


def settled(doors: Doors, name: str, least: float, **labels: str) -> Samples:
    """Return the samples once one has reached a number: a call is counted after its answer."""
    end = time.monotonic() + TIMEOUT
    while (found := doors.samples()).of(name, **labels) < least and time.monotonic() < end:
        time.sleep(0.01)
    return found


def test_unary_calls(doors: Doors, stub: Stub) -> None:
    """Calls, their status and the bytes of their messages, on the prepared path and before it."""
    before = doors.samples()
    request = loss_service_pb2.EvaluateRequest(evaluation=GOLDEN)
    sent = [stub.Evaluate(request, timeout=TIMEOUT).ByteSize() for _ in range(5)]
    labels = {"grpc_method": EVALUATE, "grpc_status": "OK"}
    after = settled(doors, DURATION, before.of(DURATION, **labels) + 5, **labels)
    assert after.of(DURATION, **labels) - before.of(DURATION, **labels) == 5
    received = after.of(f"{RECEIVED}_sum", **labels) - before.of(f"{RECEIVED}_sum", **labels)
    assert received == 5 * request.ByteSize()
    # The numbers in an answer take more or fewer bytes; its prepared form pads them.
    written = after.of(f"{SENT}_sum", **labels) - before.of(f"{SENT}_sum", **labels)
    assert sum(sent) <= written <= sum(sent) + 5 * 64
    started = "grpc_server_call_started_total"
    difference = after.of(started, grpc_method=EVALUATE) - before.of(started, grpc_method=EVALUATE)
    assert difference == 5


def test_a_failed_call_and_its_reason(doors: Doors, stub: Stub) -> None:
    """The status of the call, and the reason in ErrorInfo."""
    before = doors.samples()
    bad = evaluation("mse_loss", {"input": f32(1, 2), "target": f32(1, 2, 3)})
    with pytest.raises(grpc.RpcError):
        stub.Evaluate(loss_service_pb2.EvaluateRequest(evaluation=bad), timeout=TIMEOUT)
    labels = {"grpc_method": EVALUATE, "grpc_status": "INVALID_ARGUMENT"}
    after = settled(doors, DURATION, before.of(DURATION, **labels) + 1, **labels)
    assert after.of(DURATION, **labels) - before.of(DURATION, **labels) == 1
    name, reason = "losswire_refusals_total", "INVALID_EVALUATION"
    assert after.of(name, reason=reason) - before.of(name, reason=reason) == 1


def test_streams(doors: Doors, stub: Stub) -> None:
    """A stream is one call, with the bytes of all its messages; its refused item is counted."""
    before = doors.samples()
    items = [GOLDEN, evaluation("nothing", {"input": f32(1)}), GOLDEN]
    requests = [
        loss_service_pb2.EvaluateStreamRequest(id=number, evaluation=each)
        for number, each in enumerate(items)
    ]
    assert len(list(stub.EvaluateStream(iter(requests), timeout=TIMEOUT))) == 3
    labels = {"grpc_method": STREAM, "grpc_status": "OK"}
    after = settled(doors, DURATION, before.of(DURATION, **labels) + 1, **labels)
    received = after.of(f"{RECEIVED}_sum", **labels) - before.of(f"{RECEIVED}_sum", **labels)
    assert received == sum(each.ByteSize() for each in requests)
    name, reason = "losswire_refusals_total", "UNKNOWN_LOSS"
    assert after.of(name, reason=reason) - before.of(name, reason=reason) == 1


def _endless() -> Iterator[loss_service_pb2.EvaluateStreamRequest]:
    while True:
        yield loss_service_pb2.EvaluateStreamRequest(evaluation=GOLDEN)
        time.sleep(0.01)


def test_cancelled_streams(doors: Doors, stub: Stub) -> None:
    """Calls that their caller ended are CANCELLED, as long as the server learns of it in time."""
    count = 20
    for _ in range(count):
        call = stub.EvaluateStream(_endless(), timeout=TIMEOUT)
        next(call)
        call.cancel()
    settled(doors, DURATION, count, grpc_method=STREAM)
    labels = {"grpc_method": STREAM, "grpc_status": "CANCELLED"}
    assert doors.samples().of(DURATION, **labels) > 0


def test_late_streams(doors: Doors, stub: Stub) -> None:
    """Calls that went on until their deadline are DEADLINE_EXCEEDED."""
    before, count = doors.samples(), 5
    for _ in range(count):
        with pytest.raises(grpc.RpcError) as late:
            list(stub.EvaluateStream(_endless(), timeout=0.2))
        assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    settled(doors, DURATION, before.of(DURATION, grpc_method=STREAM) + count, grpc_method=STREAM)
    labels = {"grpc_method": STREAM, "grpc_status": "DEADLINE_EXCEEDED"}
    assert doors.samples().of(DURATION, **labels) > 0


def test_calls_over_a_lease(doors: Doors) -> None:
    """Calls past gRPC count as calls of Evaluate, and by themselves."""
    before = doors.samples()
    inputs = {"input": f32([1, 2], [3, 4]), "target": np.array([0, 1])}
    with Client(doors.grpc) as client:
        for _ in range(40):
            client.evaluate("cross_entropy", inputs, gradients=["input"])
        with pytest.raises(LosswireError):
            client.evaluate("cross_entropy", {**inputs, "target": np.array([0, 7])})
    labels = {"grpc_method": EVALUATE}
    after = settled(doors, DURATION, before.of(DURATION, **labels) + 41, **labels)
    assert after.of(DURATION, **labels) - before.of(DURATION, **labels) == 41
    leased = after.of("losswire_lease_calls_total") - before.of("losswire_lease_calls_total")
    assert leased > 10


def test_stages(doors: Doors, stub: Stub) -> None:
    """Each evaluation passes the stages; a large one waits in the queue and is a batch."""
    before = doors.samples()
    values = np.ones((512, 512), np.float32)
    large = evaluation("mse_loss", {"input": values, "target": values}, gradients_for=["input"])
    stub.Evaluate(loss_service_pb2.EvaluateRequest(evaluation=large), timeout=TIMEOUT)
    after = doors.samples()
    for stage in ("decode", "queue", "compute", "encode"):
        name = "losswire_stage_duration_seconds_count"
        assert after.of(name, stage=stage) - before.of(name, stage=stage) == 1, stage
    assert after.of("losswire_batch_size_sum") - before.of("losswire_batch_size_sum") == 1


def test_requests_by_the_template_of_their_path(doors: Doors) -> None:
    """Names in a path are no labels, and paths that there are not share one."""
    for path in ("/v1/losses/mse_loss", "/v1/losses/huber_loss", "/v1/losses/nope", "/x", "/y"):
        doors.ask("GET", path)
    name = "http_server_request_duration_seconds_count"
    found = settled(doors, name, 2, http_route="unknown")
    assert found.of(name, http_route="/v1/losses/{name}", http_response_status_code="200") == 2
    assert found.of(name, http_route="/v1/losses/{name}", http_response_status_code="404") == 1
    assert found.of(name, http_route="unknown", http_response_status_code="404") == 2
    assert found.of("losswire_refusals_total", reason="UNKNOWN_PATH") == 2


def test_bytes_by_reservation(doors: Doors) -> None:
    """Regions count in the budget, resident tensors beside it."""
    with grpc.insecure_channel(doors.grpc) as channel, Client(doors.grpc) as client:
        before = doors.samples()
        tensors = tensor_service_pb2_grpc.TensorServiceStub(channel)
        request = tensor_service_pb2.CreateRegionRequest(size_bytes=1 << 20)
        tensors.CreateRegion(request, timeout=TIMEOUT)
        client.put(np.zeros(1 << 18, np.float32))
        after = doors.samples()
        name = "losswire_reserved_bytes"
        for reservation, least in (("regions", 1 << 20), ("residents", 1 << 20)):
            grown = after.of(name, reservation=reservation) - before.of(
                name, reservation=reservation
            )
            assert grown >= least, reservation
        held = after.of(name) - after.of(name, reservation="residents")
        expected = held / after.of("losswire_budget_bytes")
        assert after.of("losswire_admitted_ratio") == pytest.approx(expected)


def test_the_server_itself(doors: Doors) -> None:
    """Readiness, versions, times and the process."""
    found = doors.samples()
    assert found.of("losswire_ready") == 1
    assert found.of("losswire_selftest_duration_seconds") > 0
    assert found.of("losswire_worker_info") == 1
    [worker] = found.labels("losswire_worker_info", "worker_id")
    assert worker == doors.get("/v1/server")["worker_id"]
    assert 0 < time.time() - found.of("losswire_start_time_seconds") < 24 * 3600
    assert found.of("process_resident_memory_bytes") > 1 << 20
    assert found.of("losswire_device_memory_reserved_bytes") > 1 << 20


def test_labels_come_from_closed_sets(doors: Doors, stub: Stub) -> None:
    """What a caller writes never becomes a label: not a loss, not a path, not a method."""
    word = "a-word-of-the-caller"
    with pytest.raises(grpc.RpcError):
        stub.Evaluate(
            loss_service_pb2.EvaluateRequest(evaluation=evaluation(word, {})), timeout=TIMEOUT
        )
    doors.ask("GET", f"/{word}")
    doors.ask("POST", f"/v1/losses/{word}", {word: word})
    assert word not in doors.page()[1].decode()
