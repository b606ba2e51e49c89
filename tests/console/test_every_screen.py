"""Every screen at three widths, in light and dark: no finding of axe-core, nothing sticks out."""

import pytest
from playwright.sync_api import Browser

from tests.support.browser import SCHEMES, SIZES, Serving, needs_browser, serious, tab_of
from tests.support.scenes import SCENES, show

pytestmark = needs_browser()

MOST_SHIFT = 0.1
"""The layout shift up to which web.dev calls a page steady: the share of the window that moves,
times how far."""

_SHIFT = """
() => new Promise((resolve) => {
  let shift = 0;
  const add = (list) => list.getEntries().forEach((each) => { shift += each.value; });
  new PerformanceObserver(add).observe({ type: "layout-shift", buffered: true });
  setTimeout(() => resolve(shift), 100);
})
"""


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", SCENES)
def test_it_is_whole(browser: Browser, console: Serving, name: str, scheme: str) -> None:
    """It stands still while it fills; axe-core finds nothing serious, wide and on a phone; it fits.

    Pictures are kept.
    """
    problems = []
    with tab_of(browser, console, scheme=scheme) as tab:
        show(tab.page, SCENES[name], console)
        shift = tab.page.evaluate(_SHIFT.strip())
        problems += [f"its parts moved by {shift:.3f}"] if shift > MOST_SHIFT else []
        for size, (width, height) in SIZES.items():
            tab.page.set_viewport_size({"width": width, "height": height})
            # Drawings follow the width a frame or two later.
            tab.page.wait_for_timeout(250)
            found = tab.page.evaluate("document.documentElement.scrollWidth")
            problems += [f"{found} pixels wide of {width}"] if found > width else []
            if size != "middle":
                problems += [f"{size}: {each}" for each in serious(tab.page)]
            tab.shoot(f"{name}-{size}-{scheme}")
    assert problems == []
