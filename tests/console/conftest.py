"""The server and the browser that the tests of the console share."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.support.browser import Serving, Tab, browsing, serving, tab_of
from tests.support.scenes import fill


@pytest.fixture(scope="session")
def console(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A server process with the console, metrics and some runs in a store of its own."""
    with serving("--store", str(tmp_path_factory.mktemp("console") / "state")) as server:
        fill(server)
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser; of one module, because asyncio cannot run while Playwright does."""
    expect.set_options(timeout=15_000)
    with browsing() as found:
        yield found


@pytest.fixture
def tab(browser: Browser, console: Serving) -> Iterator[Tab]:
    """A page of 1440 by 900; the test fails when anything went wrong on it."""
    with tab_of(browser, console) as found:
        yield found
