"""The server that the tests of this folder share."""

from collections.abc import Iterator

import pytest

from tests.support.http_door import Door, open_door


@pytest.fixture(scope="session")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """A server with an HTTP door that must survive every test and log only JSON."""
    log = tmp_path_factory.mktemp("http") / "log"
    with open_door(log, "--memory-budget-mib", "256") as door:
        yield door
        assert door.child.alive
        door.child.terminate()
        assert door.child.wait() == 0
    assert all("exception" not in each for each in door.child.entries())
