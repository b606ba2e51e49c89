"""Every screen at three widths, in light and dark: no finding of axe-core, nothing sticks out."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.browser import SCHEMES, SIZES, Serving, needs_browser, serious, tab_of

pytestmark = needs_browser()


@dataclass(frozen=True)
class Scene:
    """A screen with something on it."""

    screen: str
    query: Mapping[str, str] = field(default_factory=dict)
    shows: str = ""
    """A text that is there once all is."""
    press: str = ""
    """The name of a button that fills the screen."""


SCENES: Mapping[str, Scene] = {
    "explore": Scene("explore", {"loss": "cross_entropy"}, shows="receipt"),
    "curves": Scene("curves", {"losses": "mse_loss~l1_loss~huber_loss"}, shows="kink"),
    "evaluate-empty": Scene("evaluate"),
    "compare-empty": Scene("compare"),
    "runs-empty": Scene("runs"),
    "live": Scene("live"),
    "api": Scene("api"),
}


def show(page: Page, scene: Scene, server: Serving) -> None:
    """Open a scene, and wait until it stands."""
    page.goto(server.url(scene.screen, **scene.query))
    expect(page.locator("main h1")).to_be_attached()
    if scene.press:
        page.locator("main").get_by_role("button", name=scene.press).first.click()
    if scene.shows:
        expect(page.locator("main")).to_contain_text(scene.shows)
    expect(page.locator("main .skeleton")).to_have_count(0)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", SCENES)
def test_nothing_serious_is_found(
    browser: Browser, console: Serving, name: str, scheme: str
) -> None:
    """By axe-core: names, contrasts, order, roles."""
    with tab_of(browser, console, scheme=scheme) as tab:
        show(tab.page, SCENES[name], console)
        assert serious(tab.page) == []


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", SCENES)
def test_it_fits(browser: Browser, console: Serving, name: str, size: str) -> None:
    """No screen is wider than the window; pictures are kept in light and dark."""
    for scheme in SCHEMES:
        with tab_of(browser, console, size=size, scheme=scheme) as tab:
            show(tab.page, SCENES[name], console)
            tab.shoot(f"{name}-{size}-{scheme}")
            width = tab.page.evaluate("document.documentElement.scrollWidth")
            assert width <= SIZES[size][0], f"{width} pixels wide in {scheme}"
