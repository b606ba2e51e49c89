"""The server that the tests of this folder share."""

from collections.abc import Iterator

import grpc
import pytest
import torch

from tests.support.harness import Child
from tests.support.requests import Stub


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Let torch compute here as it does in the server, on one thread, whatever was set."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def child(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    """A server with a small memory budget that must survive every test and log only JSON."""
    log = tmp_path_factory.mktemp("server") / "log"
    with Child(log, "--memory-budget-mib", "256") as server:
        yield server
        assert server.alive
        server.terminate()
        assert server.wait() == 0
    assert {"logger": "losswire.server.app", "message": "stopped"}.items() <= (
        server.entries()[-1].items()
    )


@pytest.fixture(scope="session")
def channel(child: Child) -> Iterator[grpc.Channel]:
    """A connection to it."""
    with child.channel() as channel:
        yield channel


@pytest.fixture(scope="session")
def stub(channel: grpc.Channel) -> Stub:
    """Its methods."""
    return Stub(channel)


@pytest.fixture(scope="session")
def chunked_stub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stub]:
    """A connection to a server that takes messages of 1 MiB."""
    log = tmp_path_factory.mktemp("chunked") / "log"
    with Child(log, "--max-message-mib", "1") as child, child.channel() as channel:
        yield Stub(channel)
