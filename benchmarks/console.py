"""`python -m benchmarks.console`: how quick the console is in Debian's chromium, without a screen.

First paint: the time from the navigation to the first contentful paint, each with an empty cache.
Brushing: frames of the page while the pointer draws a range over the losses of many rows, which all
stay in the page; the longest time between two frames; and how often the figures of the rows that
pass were new.
"""

import argparse
import io
import shutil
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from playwright.sync_api import Browser, FilePayload, Page, sync_playwright

from benchmarks.processes import Server

_SERVER: Final = ("serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--store", "none")
_HTTP: Final = "http on "
_SCREENS: Final = ("explore", "curves", "evaluate", "compare", "runs", "live", "api")
_FLAGS: Final = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")
_SIZE: Final = {"width": 1440, "height": 900}
_PATIENCE_MS: Final = 60_000
_STEP_MS: Final = 8
"""Between two moves of the pointer: more often than frames are drawn."""

_PAINT: Final = """
() => {
  const sent = performance.getEntriesByType("resource").map((each) => each.transferSize);
  const paint = performance.getEntriesByName("first-contentful-paint")[0];
  return { paint: paint?.startTime ?? null, bytes: sent.reduce((one, other) => one + other, 0) };
}
"""
_COUNT_FRAMES: Final = """
() => {
  const seen = { frames: [], changes: 0, isOn: true };
  const frame = (time) => { seen.frames.push(time); if (seen.isOn) requestAnimationFrame(frame); };
  requestAnimationFrame(frame);
  const watcher = new MutationObserver(() => { seen.changes += 1; });
  const all = [...document.querySelectorAll("main p")];
  const pass = all.find((each) => each.textContent.includes("rows pass"));
  watcher.observe(pass, { characterData: true, childList: true, subtree: true });
  window.seen = seen;
}
"""
_SEEN: Final = "() => { window.seen.isOn = false; return window.seen; }"


@contextmanager
def _page(browser: Browser) -> Iterator[Page]:
    """Open a page with an empty cache."""
    context = browser.new_context(viewport={"width": _SIZE["width"], "height": _SIZE["height"]})
    context.set_default_timeout(_PATIENCE_MS)
    try:
        yield context.new_page()
    finally:
        context.close()


def _first_paints(browser: Browser, origin: str, rounds: int) -> None:
    """Print the first contentful paint of each screen, and what it was sent."""
    print("| screen | first paint, ms | slowest | bytes sent |\n|---|---|---|---|")
    for screen in _SCREENS:
        found = []
        for _ in range(rounds):
            with _page(browser) as page:
                page.goto(f"{origin}/#/{screen}")
                page.locator("main h1").wait_for(state="attached")
                page.wait_for_function(f"({_PAINT.strip()})().paint !== null")
                found.append(page.evaluate(_PAINT.strip()))
        paints = [each["paint"] for each in found]
        sent = f"{found[-1]['bytes']:,}"
        print(f"| {screen} | {statistics.median(paints):.0f} | {max(paints):.0f} | {sent} |")


def _files(rows: int) -> list[FilePayload]:
    """Return predictions, targets and slices as .npy files."""
    draw = np.random.default_rng(3)
    target = draw.standard_normal(rows, np.float32)
    arrays: dict[str, npt.NDArray[Any]] = {
        "prediction": target + draw.standard_normal(rows, np.float32) / 2,
        "target": target,
        "group": draw.integers(0, 12, rows),
    }
    found: list[FilePayload] = []
    for name, array in arrays.items():
        file = io.BytesIO()
        np.save(file, array)
        media_type = "application/octet-stream"
        found.append({"name": f"{name}.npy", "mimeType": media_type, "buffer": file.getvalue()})
    return found


def _brush(browser: Browser, origin: str, rows: int, seconds: float) -> None:
    """Print the frames of the page while the pointer moves over the losses of many rows."""
    with _page(browser) as page:
        page.goto(f"{origin}/#/evaluate")
        page.get_by_label("Choose files").last.set_input_files(_files(rows))
        page.get_by_role("button", name="Start").click()
        page.get_by_text(f"{rows:,} rows in ").wait_for()
        told = page.get_by_text(f"{rows:,} rows in ").first.inner_text()
        box = page.locator("svg[role=slider]").first.bounding_box()
        if box is None:
            raise SystemExit("the distribution is not drawn")
        y, left, width = box["y"] + box["height"] / 2, box["x"], box["width"]
        page.mouse.move(left + width * 0.3, y)
        page.mouse.down()
        page.mouse.move(left + width * 0.35, y, steps=4)
        page.get_by_text("rows pass").first.wait_for()
        page.evaluate(_COUNT_FRAMES.strip())
        moves = int(seconds * 1000 / _STEP_MS)
        for i in range(moves):
            share = 0.65 + 0.3 * np.sin(i / 25)
            page.mouse.move(left + width * float(share), y)
            page.wait_for_timeout(_STEP_MS)
        seen: dict[str, Any] = page.evaluate(_SEEN)
        page.mouse.up()
    gaps = np.diff(seen["frames"])
    lasted = gaps.sum() / 1000
    print("\n| rows | frames a second | longest between two, ms | new figures a second |")
    print("|---|---|---|---|")
    rate, changes = len(gaps) / lasted, seen["changes"] / lasted
    print(f"| {rows:,} | {rate:.0f} | {gaps.max():.0f} | {changes:.0f} |\n\n{told}")


def main() -> None:
    """Measure both and print tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="page loads of each screen")
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows to brush over")
    parser.add_argument("--seconds", type=float, default=5, help="how long to brush")
    given = parser.parse_args()
    with Server("losswire.server", *_SERVER) as server, sync_playwright() as playwright:
        _ = server.address
        origin = f"http://{server.read_line().removeprefix(_HTTP).strip()}"
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=list(_FLAGS)
        )
        try:
            _first_paints(browser, origin, given.rounds)
            _brush(browser, origin, given.rows, given.seconds)
        finally:
            browser.close()


if __name__ == "__main__":
    main()
