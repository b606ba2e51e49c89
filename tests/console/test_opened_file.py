"""`losswire ui FILE`: the page opens Evaluate with that file, which no other page can read."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGINT

import pytest
from playwright.sync_api import Browser, expect

from tests.support import predictions
from tests.support.browser import Serving, needs_browser, tab_of

pytestmark = needs_browser()


@contextmanager
def opened(file: Path, state: Path) -> Iterator[str]:
    """Run `losswire ui` with a file, and yield the address that it prints."""
    command = [sys.executable, "-m", "losswire.client.cli", "ui", str(file), "--no-browser"]
    with subprocess.Popen(
        [*command, "--server", "local:?threads=1"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "XDG_STATE_HOME": str(state)},
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("console at "), line
            yield line.removeprefix("console at ").strip()
        finally:
            process.send_signal(SIGINT)
            assert process.wait(timeout=60) == 0


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_the_file_is_on_the_screen(browser: Browser, tmp_path: Path, kind: str) -> None:
    """Nothing is pressed but Start; the mean is torch's; loaded again, it is still there."""
    names = ("id", "prediction", "target", "country")
    content = predictions.csv(*names) if kind == "csv" else predictions.parquet(*names)
    file = tmp_path / f"my predictions.{kind}"
    file.write_bytes(content)
    mean = f"{predictions.squared().mean():.3f}"
    with opened(file, tmp_path) as address:
        server = Serving("", address.removeprefix("http://").partition("/")[0], "", 0)
        with tab_of(browser, server) as tab:
            page = tab.page
            page.goto(address)
            expect(page.locator("main")).to_contain_text(f"my predictions.{kind}")
            page.get_by_role("button", name="Start").click()
            expect(page.locator("main")).to_contain_text(f"Mean mse_loss {mean}")
            page.reload()
            expect(page.locator("main")).to_contain_text(f"my predictions.{kind}")


def test_an_address_that_is_no_file_of_the_server(browser: Browser, console: Serving) -> None:
    """It is not asked for when it is elsewhere, and a lost one says how to have it again."""
    with tab_of(browser, console) as tab:
        tab.expected_statuses.add(404)
        page = tab.open("evaluate", file="https://elsewhere.example/rows.csv")
        messages = page.get_by_role("region", name="Messages")
        expect(messages).to_contain_text("The address names no file of this server.")
        page.goto(console.url("evaluate", file="/files/none/rows.csv"))
        page.reload()
        expect(messages).to_contain_text("start `losswire ui FILE` again")
