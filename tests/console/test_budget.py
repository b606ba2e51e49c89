"""No screen makes the browser load more than it needs: 25 files and 250 KB of source."""

import pytest

from tests.support.browser import Tab, needs_browser

pytestmark = needs_browser()

MOST_FILES = 25
MOST_BYTES = 250 * 1024

_LOADED = """
() => performance.getEntriesByType("resource")
  .filter((each) => each.name.includes("/console/"))
  .map((each) => [new URL(each.name).pathname, each.decodedBodySize, each.encodedBodySize])
"""


@pytest.mark.parametrize(
    ("screen", "action", "there"),
    [
        ("explore", None, "Gradient of input"),
        ("curves", None, "Derivative"),
        ("evaluate", "Try with digits", "Worst rows"),
        ("compare", "Try with digits", "Rows that differ most"),
        ("runs", None, "Runs"),
        ("live", None, "Calls a second"),
        ("api", None, "/v1/evaluate"),
    ],
)
def test_a_screen_loads_little(tab: Tab, screen: str, action: str | None, there: str) -> None:
    """Counted in a browser without a cache, after the screen has done its work."""
    page = tab.open(screen)
    if action:
        page.get_by_role("button", name=action).first.click()
    page.get_by_text(there).first.wait_for()
    loaded = {path: (size, sent) for path, size, sent in page.evaluate(_LOADED)}
    assert len(loaded) >= 5, loaded
    assert len(loaded) <= MOST_FILES, sorted(loaded)
    # The page itself is no resource of its own.
    whole = sum(size for size, _ in loaded.values()) + len(page.content().encode())
    assert sum(size for size, _ in loaded.values()) <= MOST_BYTES, loaded
    # Sent compressed.
    assert 0 < sum(sent for _, sent in loaded.values()) < whole / 2
