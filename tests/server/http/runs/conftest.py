"""A server with an HTTP door that keeps runs."""

from collections.abc import Iterator

import pytest

from losswire.client import Client
from tests.support.http_door import Door, open_door


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """A server with a store, which must log only JSON."""
    folder = tmp_path_factory.mktemp("kept")
    with open_door(folder / "log", "--store", str(folder / "store")) as door:
        yield door
        door.child.terminate()
        assert door.child.wait() == 0
    assert all("exception" not in each for each in door.child.entries())


@pytest.fixture(scope="session")
def client(kept: Door) -> Iterator[Client]:
    """The SDK, over gRPC, of the same server."""
    with Client(kept.child.address) as client:
        yield client
