"""The stores of runs that the tests of this folder share: SQLite and PostgreSQL in turn."""

from collections.abc import Callable, Iterator

import grpc
import pytest

from losswire.server.runs.address import StoreAddress, parse_store
from losswire.v1 import run_service_pb2_grpc
from tests.support.harness import Child
from tests.support.postgres import Cluster, running_cluster

Stub = run_service_pb2_grpc.RunServiceStub
KINDS = ("sqlite", "postgresql")


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A PostgreSQL server."""
    with running_cluster() as running:
        yield running


@pytest.fixture(scope="session")
def new_store(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], str]:
    """Make an empty store of a kind, and return what `--store` calls it."""

    def make(kind: str) -> str:
        if kind == "sqlite":
            return str(tmp_path_factory.mktemp("store"))
        cluster: Cluster = request.getfixturevalue("cluster")
        return cluster.url(cluster.new_database())

    return make


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, new_store: Callable[[str], str]) -> str:
    """An empty store for one test."""
    return new_store(request.param)


@pytest.fixture
def address(store: str) -> StoreAddress:
    """Where that store is."""
    found = parse_store(store)
    assert found is not None
    return found


@pytest.fixture(scope="module", params=KINDS)
def channel(
    request: pytest.FixtureRequest,
    new_store: Callable[[str], str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[grpc.Channel]:
    """A server with a store, which all tests of a file share: their runs have other names."""
    log = tmp_path_factory.mktemp("runs") / "log"
    with Child(log, "--store", new_store(request.param)) as child, child.channel() as channel:
        yield channel
        assert child.alive
    assert [each for each in child.entries() if each["level"] in {"warning", "error"}] == []


@pytest.fixture(scope="module")
def stub(channel: grpc.Channel) -> Stub:
    """Its methods."""
    return Stub(channel)
