"""Runs: what is kept, with its history, the gate's verdict and a way to compare."""

import re
from collections.abc import Iterator

import numpy as np
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from losswire.client import Client, NotFoundError
from tests.support import predictions
from tests.support.browser import Serving, Tab, agrees, cells, needs_browser, serving, tab_of
from tests.support.predictions import columns, interval_of

pytestmark = needs_browser()

MODELS = {"run-a": "prediction", "run-b": "better"}
"""The runs and the columns that they are of."""


@pytest.fixture(scope="module")
def keeping(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A server with two nights of a model and a comparison."""
    with serving("--store", str(tmp_path_factory.mktemp("runs") / "state")) as server:
        found = columns()
        batch = {each: found[each] for each in ("prediction", "better", "target", "country")}
        with Client(server.grpc) as client:
            for run_id, column in MODELS.items():
                summary = client.summarize(
                    "mse_loss", [batch], columns={"input": column}, slices=["country"]
                )
                client.runs.save(summary, "nightly", {"model": run_id[-1]}, run_id=run_id)
            both = {run_id: {"input": column} for run_id, column in MODELS.items()}
            comparison = client.compare("mse_loss", [batch], candidates=both, slices=["country"])
            client.runs.save(comparison, "both", run_id="run-c")
        yield server


@pytest.fixture
def runs(browser: Browser, keeping: Serving) -> Iterator[Tab]:
    """A page of that server."""
    with tab_of(browser, keeping) as tab:
        yield tab


def table(page: Page) -> Locator:
    """Return the table of runs, once it is there."""
    found = page.get_by_role("region", name="Runs").locator("table")
    expect(found.locator("tbody tr")).not_to_have_count(0)
    return found


def row_of(page: Page, text: str) -> Locator:
    """Return the row of a run."""
    return table(page).locator("tbody tr").filter(has_text=text)


def numbers(text: str) -> list[str]:
    """Return all numbers in a text."""
    return re.findall(r"\u2212?\d[\d.,]*(?:e\u2212?\d+)?", text)


def test_means_have_their_intervals(runs: Tab) -> None:
    """Of each run and of each candidate; the newest first, with its history."""
    page = runs.open("runs")
    shown = cells(table(page))
    assert [row[1].split()[0] for row in shown] == ["both", "nightly", "nightly"]
    for row, run_id in zip(shown[1:], ("run-b", "run-a"), strict=True):
        expected = interval_of(predictions.squared(MODELS[run_id]))
        assert all(map(agrees, numbers(row[2]), expected)), (row[2], expected)
        assert row[3] == "2,000"
        assert "Mean over 2 runs, oldest first" in row_of(page, f"model {run_id[-1]}").inner_html()


def test_the_gate_decides_as_it_does_in_a_pipeline(runs: Tab) -> None:
    """Against the better model the other one fails, with the increase and its interval."""
    page = runs.open("runs")
    row_of(page, "model b").get_by_role("button", name="as baseline").click()
    expect(page.locator("main")).to_contain_text("Of 1 run: 1 fails.")
    verdict = row_of(page, "model a").get_by_text(re.compile(r"fails.*%")).first.inner_text()
    old, new = (predictions.squared(each) for each in ("better", "prediction"))
    # Of a ratio of two means, by the delta method.
    ratio = new.mean() / old.mean()
    error = np.sqrt((new.var(ddof=1) + ratio**2 * old.var(ddof=1)) / len(new)) / old.mean()
    expected = [100 * (ratio - 1 + z * error) for z in (0, -1.959964, 1.959964)]
    found = numbers(verdict.replace("+", ""))
    assert all(map(agrees, found, expected)), (verdict, expected)
    expect(page).to_have_url(re.compile("baseline=run-b"))
    page.get_by_role("spinbutton", name="may increase by").fill("0.5")
    expect(page.locator("main")).to_contain_text("Of 1 run: 1 passes.")


def test_labels_filter(runs: Tab) -> None:
    """By a click on one; the address holds it."""
    page = runs.open("runs")
    row_of(page, "model a").get_by_role("button", name="model a").click()
    expect(table(page).locator("tbody tr")).to_have_count(1)
    page.reload()
    expect(table(page).locator("tbody tr")).to_have_count(1)
    expect(row_of(page, "model a")).to_have_count(1)


def test_two_ticked_runs_are_compared(runs: Tab) -> None:
    """They are not paired, and the screen says what that costs."""
    page = runs.open("runs")
    for model in "ab":
        row_of(page, f"model {model}").get_by_role("checkbox").check()
    page.get_by_role("button", name="Compare", exact=True).click()
    expect(page).to_have_url(re.compile(r"#/compare\?.*run-[ab].*run-[ab]"))
    expect(page.locator("main")).to_contain_text("paired")


def test_one_run_is_shown_whole(runs: Tab) -> None:
    """Mean, quantiles and slices are numpy's."""
    page = runs.open("runs", run="run-a")
    losses = predictions.squared()
    mean = page.locator("dt:text-is('mean [95 %]') + dd")
    expect(mean).to_be_visible()
    assert all(map(agrees, numbers(mean.inner_text()), interval_of(losses)))
    slices = page.get_by_role("table").filter(has_text="clearly worse")
    for name, _, interval, rows, _ in cells(slices):
        of_slice = losses[columns()["country"] == name]
        assert all(map(agrees, numbers(interval), interval_of(of_slice)))
        assert int(rows.replace(",", "")) == len(of_slice)
    page.get_by_role("link", name="All runs").click()
    expect(table(page)).to_be_visible()


def test_a_run_is_deleted_after_a_question(runs: Tab) -> None:
    """It is gone from the server."""
    with Client(runs.server.grpc) as client:
        client.runs.save(client.runs.get("run-a").summary, "short-lived", run_id="run-d")
        page = runs.open("runs")
        row_of(page, "short-lived").get_by_role("button", name="Delete").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        expect(row_of(page, "short-lived")).to_have_count(0)
        with pytest.raises(NotFoundError):
            client.runs.get("run-d")


def test_a_server_without_a_store_says_how_to_have_one(browser: Browser) -> None:
    """The empty screen teaches."""
    with serving() as server, tab_of(browser, server) as tab:
        tab.expected_statuses.add(501)
        page = tab.open("runs")
        expect(page.locator("main")).to_contain_text("--store")
