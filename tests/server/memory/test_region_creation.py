"""Regions are created within a quota, with sealed and cleared memory, and leave no trace."""

import fcntl
import os

import grpc
import pytest

from losswire.v1 import loss_service_pb2, tensor_pb2
from tests.support.harness import Child
from tests.support.mutations import CORPUS
from tests.support.regions import SMALL_REGION, Held, create, region, relocate
from tests.support.requests import (
    TIMEOUT,
    Stub,
    by_call,
    by_many,
    evaluation,
    f32,
    item_status,
)


@pytest.mark.parametrize("size", [SMALL_REGION // 2, SMALL_REGION * 2, 0])
def test_nobody_can_resize_a_region(stub: Stub, held: Held, size: int) -> None:
    """The seals refuse another length, and further seals."""
    with pytest.raises(PermissionError):
        os.ftruncate(held.descriptor, size)
    with pytest.raises(PermissionError):
        fcntl.fcntl(held.descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    item = evaluation("mse_loss", {"input": held.at(0, 16), "target": held.at(0, 16)})
    assert by_call(stub, item).result.sum == 0


@pytest.mark.parametrize(
    ("size", "code", "reason"),
    [
        (0, 3, "INVALID_REGION"),
        (64 * 2**20 + 1, 8, "OVER_LIMIT"),
        (2**64 - 1, 8, "OVER_LIMIT"),
        (2**63, 8, "OVER_LIMIT"),
    ],
)
def test_sizes_that_cannot_be(channel: grpc.Channel, size: int, code: int, reason: str) -> None:
    """A region has at least one byte, and no more than the quota, a quarter of the budget."""
    with pytest.raises(grpc.RpcError) as refused:
        create(channel, size)
    status = item_status(refused.value)
    assert (status.code, status.reason) == (code, reason)


def test_regions_share_one_quota(channel: grpc.Channel) -> None:
    """Bytes of another region are not available now; the answer has a time for the retry."""
    with region(channel, 60 << 20), pytest.raises(grpc.RpcError) as refused:
        create(channel, 8 << 20)
    assert item_status(refused.value).reason == "OVERLOADED"


def test_sizes_are_whole_pages_and_memory_is_clear(channel: grpc.Channel) -> None:
    """A region has at least the requested size, and never holds the bytes of another one."""
    created = create(channel, 1)
    assert created.size_bytes == 4096
    for _ in range(3):
        with region(channel, 1 << 20) as held:
            assert bytes(held.memory) == bytes(1 << 20)
            held.memory[:] = b"\xff" * (1 << 20)


def test_the_answers_tell_no_secrets(channel: grpc.Channel) -> None:
    """Ids and tokens cannot be guessed from others."""
    made = [create(channel, 1) for _ in range(4)]
    assert len({each.token for each in made}) == len({each.region_id for each in made}) == 4
    assert all(len(each.token) == 32 and each.region_id < 2**63 for each in made)
    assert max(each.region_id for each in made) > 2**40


def test_a_region_serves_whoever_knows_its_number(child: Child, stub: Stub) -> None:
    """An id works on any connection, and no longer when the lease has ended."""
    with child.channel() as other:
        with region(other, SMALL_REGION) as held:
            moved, _ = relocate(CORPUS[1], held)
            assert by_call(stub, moved).error.code == 0
        for _ in range(200):
            error = by_many(stub, moved).error
            if error.code:
                break
        assert error.reason == "MISSING_REGION"


def test_off(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Without a quota no region is announced, created or found."""
    log = tmp_path_factory.mktemp("off") / "log"
    with Child(log, "--region-quota-mib", "0") as child, child.channel() as off:
        stub = Stub(off)
        info = stub.GetServerInfo(loss_service_pb2.GetServerInfoRequest(), timeout=TIMEOUT)
        assert info.transports.region_socket == ""
        with pytest.raises(grpc.RpcError) as refused:
            create(off, 1)
        assert item_status(refused.value).reason == "NOT_SERVED"
        missing = tensor_pb2.Region(region_id=12345)
        tensor = tensor_pb2.Tensor(
            data_type=tensor_pb2.DATA_TYPE_FLOAT32, shape=[2], region=missing
        )
        item = evaluation("mse_loss", {"input": tensor, "target": f32(3, 4)})
        assert by_call(stub, item).error.reason == "MISSING_REGION"
