"""What the tests of the adapters share."""

from collections.abc import Iterator

import pytest

from losswire.client import Client


@pytest.fixture
def client(server: str) -> Iterator[Client]:
    """A client of the server of the session."""
    with Client(server) as connected:
        yield connected


class Counting(Client):
    """A client that remembers what it was asked."""

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self.asked: list[tuple[str, ...]] = []
        """The gradients of each evaluation."""

    def evaluate(self, *args: object, **fields: object) -> object:  # type: ignore[override]
        """Evaluate and remember."""
        self.asked.append(tuple(sorted(fields["gradients"])))  # type: ignore[call-overload]
        return super().evaluate(*args, **fields)  # type: ignore[arg-type]


@pytest.fixture
def counting(server: str) -> Iterator[Counting]:
    """A client that remembers what it was asked."""
    with Counting(server) as connected:
        yield connected
