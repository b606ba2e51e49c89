"""Fixtures and settings that all tests share.

LOSSWIRE_THOROUGH=1 lets hypothesis try more examples, and the tables of losses every cell.
`--quick` runs one case of each test, without those that slow.txt names. `--soak` runs the tests
under attack and load with their full numbers, and prints what they measured.
"""

import os
import signal
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.support.cells import EXECUTED
from tests.support.process import running_server
from tests.support.soak import BOOK

THOROUGH = os.environ.get("LOSSWIRE_THOROUGH", "0") not in ("", "0")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--quick` and `--soak`."""
    parser.addoption("--quick", action="store_true", help="run one case of each fast test")
    parser.addoption("--soak", action="store_true", help="run with full numbers, show the figures")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With `--quick`, keep the first case of each test that is not slow."""
    if not config.getoption("--quick"):
        return
    slow = slow_names()
    first: dict[str, pytest.Item] = {}
    for item in items:
        function = item.nodeid.partition("[")[0]
        names = {function.rpartition("::")[2], *getattr(item, "fixturenames", ())}
        if not names & slow:
            first.setdefault(function, item)
    kept = set(first.values())
    config.hook.pytest_deselected(items=[each for each in items if each not in kept])
    items[:] = first.values()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With `--quick`, do not import the files that slow.txt names."""
    if not config.getoption("--quick"):
        return None
    folder = Path(__file__).parent.parent
    slow = collection_path.is_relative_to(folder) and (
        collection_path.relative_to(folder).as_posix() in slow_names()
    )
    return slow or None


@cache
def slow_names() -> frozenset[str]:
    """Return the tests, fixtures and files in slow.txt."""
    lines = Path(__file__).with_name("slow.txt").read_text("utf-8").splitlines()
    return frozenset(line for line in lines if line and not line.startswith("#"))


def pytest_configure(config: pytest.Config) -> None:
    """Choose the tier and how hypothesis runs, and let children be interrupted."""
    BOOK.soak = bool(config.getoption("--soak"))
    # The same examples in every run, and no limit on the time of one: machines differ.
    hypothesis.settings.register_profile(
        "losswire",
        max_examples=1000 if THOROUGH else 100,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
    )
    hypothesis.settings.load_profile("losswire")
    # A shell starts background processes with SIGINT ignored.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server process on a port of its own, computing on one thread; yields HOST:PORT.

    It keeps runs, in a folder of its own.
    """
    store = tmp_path_factory.mktemp("server") / "state"
    with running_server("--store", str(store)) as address:
        yield address


@pytest.fixture
def by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute by torch, as an installation without the native library does."""
    monkeypatch.setattr("losswire.server.compute.native.binding.AVAILABLE", False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    """With `--soak`, fail a test whose figures are not as required."""
    before = len(BOOK.figures)
    yield
    if BOOK.soak and (missed := BOOK.missed(before)):
        pytest.fail("\n".join(["not as required:", *missed]), pytrace=False)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Send cells and figures to the main process, where tests run in several."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["cells"] = session.config.stash.get(EXECUTED, {})
        session.config.workeroutput["figures"] = BOOK.rows()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:  # noqa: ANN401 (pytest-xdist has no types)
    """Add the cells and figures that another process reported."""
    reported = getattr(node, "workeroutput", {})
    node.config.stash.setdefault(EXECUTED, {}).update(reported.get("cells", {}))
    BOOK.take(reported.get("figures", []))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the figures of `--soak`, and how many cells of the table were executed."""
    if BOOK.soak and BOOK.figures:
        terminalreporter.section("figures")
        terminalreporter.write("\n".join([*BOOK.table(), ""]))
    cells = config.stash.get(EXECUTED, {})
    if not cells:
        return
    terminalreporter.section("cells compared with torch")
    for name, count in sorted(cells.items()):
        terminalreporter.write_line(f"{count:7} {name}")
    terminalreporter.write_line(f"{sum(cells.values()):7} in all")
