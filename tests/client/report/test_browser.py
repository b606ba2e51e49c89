"""A browser shows the page without a complaint, with and without scripts."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from losswire.client import Comparison, Summary
from tests.support.browser import needs_browser
from tests.support.evaluated import comparison, summary
from tests.support.page import read_page

_CHROMIUM = shutil.which("chromium")

pytestmark = needs_browser()

HOSTILE = "</script><img src=x onerror=console.error('ran')>"


def _browse(page: Path, folder: Path) -> tuple[str, str]:
    """Return the document as scripts left it, and what the console says."""
    done = subprocess.run(
        [
            _CHROMIUM or "",
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--enable-logging=stderr",
            f"--user-data-dir={folder / 'profile'}",
            "--dump-dom",
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


PAGES: dict[str, Callable[[], Summary | Comparison]] = {
    "summary": lambda: summary(cross=True, countries=(HOSTILE, "FR", "JP", "NZ")),
    "comparison": lambda: comparison(candidates=3, names=(HOSTILE, "b", "c")),
}


@pytest.mark.parametrize("kind", PAGES)
def test_scripts_run_and_nothing_is_refused(kind: str, tmp_path: Path) -> None:
    """The policy lets the page's own script run: heads become buttons, tables keep their role."""
    document, console = _browse(PAGES[kind]().report(tmp_path / "report.html"), tmp_path)
    assert console == ""
    root = read_page(document)
    assert root.all("button")
    assert {each.attributes.get("role") for each in root.all("table")} == {"table"}
    assert root.all("svg", class_="chart")
    assert root.all("img") == []


def test_a_foreign_script_is_refused(tmp_path: Path) -> None:
    """The policy is in force: a script that was added to the file does not run."""
    path = summary().report(tmp_path / "report.html")
    page = path.read_text("utf-8")
    path.write_text(page.replace("</body>", "<script>document.title = 'ran'</script></body>"))
    document, console = _browse(path, tmp_path)
    assert "Content Security Policy" in console
    assert read_page(document).one("head").one("title").text == "cross_entropy: summary"
