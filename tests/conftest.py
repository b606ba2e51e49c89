"""Fixtures that all tests share."""

import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.cells import EXECUTED
from tests.support.process import running_server


def pytest_configure() -> None:
    """Let children be interrupted: a shell starts what runs in its background without that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """A server process on a port of its own, computing on one thread; gives HOST:PORT."""
    with running_server() as address:
        yield address


@pytest.fixture
def by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torch compute what native rows would, as where they could not be compiled."""
    monkeypatch.setattr("losswire.server.compute.native.binding.AVAILABLE", False)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Report the cells to the process that tells them, where tests run in several."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["cells"] = session.config.stash.get(EXECUTED, {})


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:  # noqa: ANN401 (pytest-xdist has no types)
    """Take over what another process reported."""
    reported = getattr(node, "workeroutput", {}).get("cells", {})
    node.config.stash.setdefault(EXECUTED, {}).update(reported)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Tell how many cells of the table were executed."""
    cells = config.stash.get(EXECUTED, {})
    if not cells:
        return
    terminalreporter.section("cells compared with torch")
    for name, count in sorted(cells.items()):
        terminalreporter.write_line(f"{count:7} {name}")
    terminalreporter.write_line(f"{sum(cells.values()):7} in all")
