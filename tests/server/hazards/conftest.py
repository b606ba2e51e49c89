"""Fixtures of the tests of hazards."""

from collections.abc import Iterator

import pytest

from tests.support.caller import Caller, calling


@pytest.fixture(scope="session")
def caller(server: str) -> Iterator[Caller]:
    """A connection to the server."""
    with calling(server) as connected:
        yield connected
