"""Messages that promise more than they are: compressed, and malformed in every method."""

import gzip
from collections.abc import Iterator

import grpc
import pytest

from tests.support.harness import Child
from tests.support.requests import GOLDEN, TIMEOUT, Stub, by_call, is_golden
from tests.support.soak import record, tier
from tests.support.vitals import PeakMemory

_MIB = 1 << 20
_METHODS = ("Evaluate", "EvaluateMany", "EvaluateStream", "EvaluateChunked", "SummarizeLosses")


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    """A server of its own."""
    with Child(tmp_path_factory.mktemp("malformed") / "log") as child:
        yield child


@pytest.mark.parametrize("method", _METHODS)
def test_compressed_bombs_are_not_inflated(child: Child, method: str) -> None:
    """A message of 1 MiB that inflates to 1 GiB is UNIMPLEMENTED, and takes no memory."""
    size = tier(short=64, soak=1024) * _MIB
    assert len(gzip.compress(bytes(_MIB))) < 2048
    path = f"/losswire.v1.LossService/{method}"
    options = (("grpc.max_send_message_length", -1), ("grpc.enable_retries", 0))
    with (
        grpc.insecure_channel(child.address, options) as channel,
        PeakMemory(child.process.pid) as memory,
    ):
        call: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(path)
        message = bytes(size)
        for _ in range(tier(short=1, soak=10)):
            answers = call(iter([message]), timeout=TIMEOUT, compression=grpc.Compression.Gzip)
            with pytest.raises(grpc.RpcError):
                list(answers)
            assert answers.code() is grpc.StatusCode.UNIMPLEMENTED
    with child.channel() as channel:
        assert is_golden(by_call(Stub(channel), GOLDEN).result)
    growth = memory.growth_bytes / _MIB
    record(f"memory of compressed bombs: {method}", growth, unit="MiB", required="<= 16")
    assert growth <= 16
