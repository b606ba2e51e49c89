"""A server whose metrics the tests of this folder read."""

from collections.abc import Iterator

import pytest

from tests.support.doors import Doors, open_doors


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    """A server that keeps runs, with all its addresses."""
    store = tmp_path_factory.mktemp("metrics") / "state"
    with open_doors("--store", str(store)) as opened:
        yield opened
