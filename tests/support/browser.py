"""The console in a real browser: a server, a page that nothing may go wrong on, and pictures."""

import os
import re
import shutil
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, sync_playwright

from tests.support.doors import Doors, open_doors

CHROMIUM: Final = shutil.which("chromium")

REQUIRED: Final = os.environ.get("LOSSWIRE_REQUIRE_BROWSER", "0") not in ("", "0")
"""Whether tests fail, instead of being skipped, where there is no browser."""

PICTURES: Final = Path(
    os.environ.get("LOSSWIRE_SCREENSHOTS") or Path(__file__).parents[1] / "console" / "screenshots"
)
"""Where pictures of the tests are kept."""

SIZES: Final[Mapping[str, tuple[int, int]]] = {
    "wide": (1440, 900),
    "middle": (900, 900),
    "phone": (390, 844),
}
"""The widths and heights at which every screen is looked at."""

PICTURE: Final = (1440, 1000)
"""The width and height of pictures of the documentation."""

SCHEMES: Final = ("light", "dark")

_FLAGS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--disable-sync",
    "--no-first-run",
    "--mute-audio",
    "--font-render-hinting=none",
)
_PATIENCE_MS: Final = 20_000


def needs_browser() -> pytest.MarkDecorator:
    """Return the mark of tests that need Debian's chromium."""
    return pytest.mark.skipif(CHROMIUM is None and not REQUIRED, reason="needs Debian's chromium")


class Serving(Doors):
    """A server process whose console is looked at."""

    @property
    def origin(self) -> str:
        """The address of the console, without a path."""
        return f"http://{self.http}"

    def url(self, screen: str = "", **query: str) -> str:
        """Return the address of a screen."""
        return f"{self.origin}/#/{screen}" + (f"?{urlencode(query)}" if query else "")


@contextmanager
def serving(*arguments: str) -> Iterator[Serving]:
    """Start a server with the console and metrics on free ports; SIGTERM ends it."""
    with open_doors("--log-level", "warning", *arguments) as doors:
        yield Serving(doors.grpc, doors.http, doors.metrics, doors.pid)


@contextmanager
def browsing() -> Iterator[Browser]:
    """Start a browser. Only within one module: asyncio cannot run beside Playwright."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(_FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Tab:
    """A page of the console, and everything that went wrong on it."""

    server: Serving
    page: Page
    problems: list[str] = field(default_factory=list)
    expected_statuses: set[int] = field(default_factory=set)
    """HTTP statuses of 400 and more that a test provokes."""

    def open(self, screen: str = "", **query: str) -> Page:
        """Show a screen."""
        self.page.goto(self.server.url(screen, **query))
        return self.page

    def shoot(self, name: str, *, full_page: bool = True) -> Path:
        """Keep a picture."""
        PICTURES.mkdir(parents=True, exist_ok=True)
        path = PICTURES / f"{name}.png"
        self.page.screenshot(path=path, full_page=full_page, animations="disabled")
        return path

    def watch(self) -> None:
        """Note errors of scripts and policies, failed requests, and requests to other hosts."""
        page = self.page
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.problems.append(f"script: {error}"))
        page.on("request", lambda request: self._asked(request.url))
        page.on(
            "response",
            lambda answer: self._answered(answer.status, f"{answer.request.method} {answer.url}"),
        )

    def _heard(self, message: ConsoleMessage) -> None:
        # The browser's own line for an answer of 400 and more; `_answered` has judged it.
        if message.text.startswith("Failed to load resource: the server responded"):
            return
        if message.type in ("error", "warning"):
            self.problems.append(f"{message.type}: {message.text}")

    def _asked(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("data", "blob") and parts.netloc != self.server.http:
            self.problems.append(f"request to another host: {url}")

    def _answered(self, status: int, what: str) -> None:
        if status >= 400 and status not in self.expected_statuses:
            self.problems.append(f"status {status}: {what}")


@contextmanager
def tab_of(
    browser: Browser, server: Serving, *, size: str = "wide", scheme: str = "light"
) -> Iterator[Tab]:
    """Open a page with a fresh profile; AssertionError at the end when something went wrong."""
    width, height = SIZES.get(size, PICTURE)
    opened = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if scheme == "dark" else "light",
        locale="en-GB",
    )
    opened.set_default_timeout(_PATIENCE_MS)
    try:
        tab = Tab(server, opened.new_page())
        tab.watch()
        yield tab
        assert tab.problems == [], "\n".join(tab.problems)
    finally:
        opened.close()


def serious(page: Page) -> list[str]:
    """Return the findings of axe-core that are serious or critical, with where they are."""
    return serious_in(page, None)


def serious_in(page: Page, within: str | None) -> list[str]:
    """Return those within an element."""
    from axe_playwright_python.sync_playwright import Axe  # noqa: PLC0415 (reads a large file)

    found = Axe().run(page, context=within).response["violations"]
    return [
        f"{each['impact']} {each['id']}: {each['help']}: " + "; ".join(_places(each["nodes"]))
        for each in found
        if each["impact"] in ("serious", "critical")
    ]


def _places(nodes: Sequence[Mapping[str, Any]]) -> list[str]:
    return [str(each["target"]) for each in nodes[:5]]


def number(text: str) -> float:
    """Return a number as the console writes it."""
    plain = text.strip().replace("\u2212", "-").replace(",", "").replace("\u221e", "inf")
    plain = "".join(plain.split())
    if plain.endswith("%"):
        return float(plain[:-1]) / 100
    return float(plain)


def cells(table: Locator) -> list[list[str]]:
    """Return the texts of a table's body, also of one that is folded."""
    script = (
        "body => [...body.rows].map(row => [...row.cells].map(cell => cell.textContent.trim()))"
    )
    found: list[list[str]] = table.locator("tbody").evaluate(script)
    return found


_DROP: Final = """
(target, files) => {
  const data = new DataTransfer();
  for (const [name, text] of files) {
    data.items.add(new File([Uint8Array.from(atob(text), (each) => each.charCodeAt(0))], name));
  }
  for (const kind of ["dragenter", "dragover", "drop"]) {
    const event = new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer: data });
    target.dispatchEvent(event);
  }
}
"""


def drop(target: Locator, files: Mapping[str, bytes]) -> None:
    """Drop files on an element, as a person does from a folder."""
    target.evaluate(_DROP.strip(), [(k, b64encode(v).decode()) for k, v in files.items()])


def agrees(text: str, value: float) -> bool:
    """Return whether a number is written as a value is, to the digits that are shown."""
    mantissa, _, exponent = text.replace("\u2212", "-").replace(",", "").partition("e")
    digits = len(mantissa.partition(".")[2])
    unit = 10.0 ** (int(exponent or 0) - digits)
    # A little more than half a unit: numbers are float32 here and float64 there.
    return abs(number(text) - value) <= 0.51 * unit + 1e-6 * abs(value)


_FOCUSED: Final = """
() => {
  const at = document.activeElement;
  const text = at.labels?.length ? at.labels[0].textContent : at.textContent;
  return (at.getAttribute("aria-label") ?? text ?? "").trim();
}
"""


def tab_to(page: Page, name: str | re.Pattern[str], most: int = 120) -> None:
    """Press Tab until what has a name has the focus; AssertionError when nothing has it."""
    seen = []
    for _ in range(most):
        page.keyboard.press("Tab")
        focused: str = page.evaluate(_FOCUSED.strip())
        seen.append(focused[:40])
        if focused == name if isinstance(name, str) else name.search(focused):
            return
    message = f"Tab never reaches {name!r}: {seen}"
    raise AssertionError(message)
