"""The region that most tests of regions share."""

from collections.abc import Iterator

import grpc
import pytest

from tests.support.regions import SMALL_REGION, Held, region


@pytest.fixture
def held(channel: grpc.Channel) -> Iterator[Held]:
    """A new region for each test."""
    with region(channel, SMALL_REGION) as held:
        yield held
