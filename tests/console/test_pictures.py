"""The pictures of README and docs/console.md; `make screenshots` takes them into docs/images."""

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from losswire.client import Client, InvalidArgumentError
from tests.support.browser import Serving, needs_browser, tab_of
from tests.support.scenes import SCENES, show

pytestmark = needs_browser()

SECONDS_OF_CALLS = 14


@contextmanager
def calls(server: Serving) -> Iterator[None]:
    """Call a server meanwhile, now and then in a way that it refuses."""
    stop = threading.Event()
    draw = np.random.default_rng(5)

    def call() -> None:
        with Client(server.grpc) as client:
            for i in range(100_000):
                rows = int(draw.integers(8, 512))
                logits = draw.standard_normal((rows, 64), dtype=np.float32)
                target = draw.integers(0, 64 if i % 40 else 80, rows)
                with suppress(InvalidArgumentError):
                    client.evaluate("cross_entropy", {"input": logits, "target": target})
                if stop.wait(float(draw.uniform(0, 0.04))):
                    return

    thread = threading.Thread(target=call)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def brush(page: Page) -> None:
    """Choose the losses above those that are usual."""
    box = page.get_by_role("slider", name=re.compile("^Distribution of losses")).bounding_box()
    assert box is not None
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * 0.68, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.95, y, steps=8)
    page.mouse.up()
    expect(page.get_by_text(re.compile("rows pass: mean"))).to_be_visible()
    page.mouse.move(0, 0)


def wait(page: Page) -> None:
    """Let the lines of the live figures grow."""
    page.wait_for_timeout(1000 * SECONDS_OF_CALLS)


BEFORE: Mapping[str, Callable[[Page], None]] = {"evaluate": brush, "live": wait}
"""What is done before a picture is taken."""

TAKEN = (
    *((each, "light") for each in ("explore", "curves", "evaluate", "compare", "runs", "live")),
    ("evaluate", "dark"),
    ("live", "dark"),
)
"""The screens, and the colours in which each is taken."""


@pytest.mark.parametrize(("name", "scheme"), TAKEN)
def test_pictures_are_taken(browser: Browser, console: Serving, name: str, scheme: str) -> None:
    """Of what a window shows."""
    with (
        calls(console) if name == "live" else nullcontext(),
        tab_of(browser, console, size="picture", scheme=scheme) as tab,
    ):
        show(tab.page, SCENES[name], console)
        if name in BEFORE:
            BEFORE[name](tab.page)
        path = tab.shoot(f"console-{name}-{scheme}", full_page=False)
        assert path.stat().st_size > 10_000


def test_a_picture_of_a_phone_is_taken(browser: Browser, console: Serving) -> None:
    """The same screen, narrow."""
    with tab_of(browser, console, size="phone") as tab:
        show(tab.page, SCENES["compare"], console)
        assert tab.shoot("console-phone-light", full_page=False).stat().st_size > 5_000
