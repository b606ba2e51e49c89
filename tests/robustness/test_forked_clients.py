"""Clients of forked children, whose parents have clients, too.

Each test runs a program of its own, because a test's process has threads that no child may have.
"""

from collections.abc import Iterator

import pytest

from tests.support.forking import run_forking
from tests.support.process import running_server
from tests.support.soak import tier


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of a server as by default."""
    with running_server("--memory-budget-mib", "512") as address:
        yield address


def test_a_child_has_a_client_of_its_own_beside_copies_through_shared_memory(server: str) -> None:
    """The memory that its parent's calls use meanwhile is not the child's, which never reads it."""
    found = run_forking(
        server,
        tier(short=4, soak=40),
        """
        stop, inputs = threading.Event(), {"input": INPUT, "target": OTHER}
        client = Client(TARGET, timeout=100)
        wrong = []

        def call():
            while not stop.is_set():
                found = client.evaluate("mse_loss", inputs)
                if found.transport != "region" or not near(found.loss, EXPECTED):
                    wrong.append(found)

        def child():
            with Client(TARGET) as own:
                return int(not near(own.evaluate("mse_loss", inputs).loss, EXPECTED))

        client.evaluate("mse_loss", inputs)
        threads = [threading.Thread(target=call) for _ in range(2)]
        for each in threads:
            each.start()
        for _ in range(TRIES):
            fork(child)
        stop.set()
        for each in threads:
            each.join()
        print(f"endings={sorted(endings)}")
        print(f"wrong={wrong}")
        """,
    )
    assert found == {"endings": "[0]", "wrong": "[]"}


def test_a_child_that_cannot_have_a_client_is_told(server: str) -> None:
    """Without gRPC's support of forks a call there would never end, not even at its timeout."""
    found = run_forking(
        server,
        1,
        """
        def child():
            try:
                Client(TARGET, timeout=5)
            except RuntimeError as error:
                return 0 if "GRPC_ENABLE_FORK_SUPPORT" in str(error) else 1
            return 2

        fork(lambda: 0 if Client(TARGET) else 1)
        with Client(TARGET) as client:
            client.evaluate("mse_loss", ITEM.inputs)
            fork(child)
        print(f"endings={endings}")
        """,
        GRPC_ENABLE_FORK_SUPPORT="0",
    )
    assert found == {"endings": "{0: 2}"}
