"""Fixtures of the tests of losses."""

from collections.abc import Iterator

import pytest

from tests.support.caller import Caller, calling
from tests.support.cells import EXECUTED


@pytest.fixture(scope="session")
def cells_executed(pytestconfig: pytest.Config) -> dict[str, int]:
    """The number of executed cells of the table, by loss; reported at the end of the run."""
    return pytestconfig.stash.setdefault(EXECUTED, {})


@pytest.fixture(scope="session")
def caller(server: str) -> Iterator[Caller]:
    """A connection to the server."""
    with calling(server) as connected:
        yield connected
