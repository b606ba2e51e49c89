"""Compare: the verdict, the intervals and the words of two candidates, paired and not."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from playwright.sync_api import Browser, Page, expect

from losswire.client import Client
from tests.support.browser import Tab, cells, needs_browser, number, serving, tab_of
from tests.support.digits import digits

pytestmark = needs_browser()

VERDICT = re.compile(
    r"(\w+) is better than (\w+) by ([\d.]+) \[([\d.\u2212]+), ([\d.\u2212]+)\]|No difference seen"
)


def verdict(page: Page) -> re.Match[str]:
    """Return the sentence that the page begins with."""
    expect(page.locator("main .big").first).to_contain_text(VERDICT)
    found = VERDICT.search(page.locator("main .big").first.inner_text())
    assert found
    return found


def batch(logits: torch.Tensor, labels: torch.Tensor, **more: torch.Tensor) -> Mapping[str, Any]:
    """Return rows as the client takes them."""
    return {"input": logits.numpy(), "target": labels.numpy()} | {
        name: each.numpy() for name, each in more.items()
    }


def test_candidates_of_one_file_are_paired(tab: Tab) -> None:
    """Difference, interval, wins and slices are those of the differences by row."""
    page = tab.open("compare", data="digits")
    expect(page.locator("main")).to_contain_text("over 360 rows")
    found = verdict(page)
    assert found.groups()[:2] == ("large", "small")
    expect(page.get_by_role("heading", name="Rows that differ most")).to_be_visible()
    data = digits(page)
    differences = data.losses("small") - data.losses("large")
    half = 1.959964 * float(differences.std()) / len(differences) ** 0.5
    mean = float(differences.mean())
    shown = [number(each) for each in found.groups()[2:]]
    assert shown == pytest.approx([mean, mean - half, mean + half], abs=6e-4)
    text = page.locator("main").inner_text()
    assert f"small lower {int((differences < 0).sum())}" in text
    assert f"large lower {int((differences > 0).sum())}" in text
    apart = float(torch.hypot(*(data.losses(name).std() for name in ("small", "large"))))
    times = re.search(r"Apart, the interval would be ([\d.]+) times as wide", text)
    assert times
    assert float(times[1]) == pytest.approx(apart / float(differences.std()), abs=0.06)
    part = page.locator(".figure").filter(
        has=page.get_by_role("heading", name="Difference by slice", exact=True)
    )
    means = {row[0]: number(row[2].partition(" ")[0]) for row in cells(part)}
    expected = {str(each): float(differences[data.labels == each].mean()) for each in range(10)}
    assert means == pytest.approx(expected, abs=6e-3)
    page.get_by_role("button", name="Swap").click()
    expect(page.locator("main")).to_contain_text("large minus small")
    assert verdict(page).groups() == found.groups()


def test_runs_are_not_paired_and_that_has_a_price(tab: Tab) -> None:
    """Two runs of the same rows: the interval of two samples, and what to do instead."""
    page = tab.open("compare")
    data = digits(page)
    with Client(tab.server.grpc) as client:
        runs = {
            name: client.runs.save(
                client.summarize(
                    "cross_entropy",
                    [batch(logits, data.labels, digit=data.labels)],
                    slices=["digit"],
                    partition="digits",
                ),
                name=f"{name} alone",
            ).run_id
            for name, logits in data.logits.items()
        }
    tab.open("compare", a=runs["small"], b=runs["large"])
    expect(page.locator("main .note.warning")).to_contain_text("Not paired.")
    expect(page.locator("main .note.warning")).to_contain_text("although the rows are the same")
    first, second = data.losses("small"), data.losses("large")
    half = 1.959964 * float(torch.hypot(first.std(), second.std())) / len(first) ** 0.5
    mean = float(first.mean() - second.mean())
    text = page.locator("main .big").first.inner_text()
    assert text.startswith("No difference seen between small alone and large alone: ")
    shown = [number(each) for each in re.findall(r"[\d.\u2212]+\d", text.partition(": ")[2])]
    assert shown == pytest.approx([mean, mean - half, mean + half], abs=6e-4)


def test_a_run_of_two_candidates_is_paired(tab: Tab) -> None:
    """Both sides of it are named in the address; a slice that goes the other way is named."""
    rng = np.random.default_rng(5)
    rows = 600
    target = rng.normal(size=rows)
    part = np.array(["north", "south"])[(np.arange(rows) % 6 == 0).astype(int)]
    good = target + rng.normal(0, 0.1, rows)
    bad = target + np.where(part == "south", 0.0, 0.8) + rng.normal(0, 0.1, rows)
    good = np.where(part == "south", good + 0.5, good)
    with Client(tab.server.grpc) as client:
        comparison = client.compare(
            "mse_loss",
            [{"x": good, "y": bad, "target": target, "part": part}],
            candidates={"good": {"input": "x"}, "bad": {"input": "y"}},
            slices=["part"],
        )
        run = client.runs.save(comparison, name="two").run_id
    page = tab.open("compare", a=f"{run}:bad", b=f"{run}:good")
    found = verdict(page)
    assert found.groups()[:2] == ("good", "bad")
    expect(page.locator("main .big").first).to_contain_text("worse in part = south")
    expect(page.locator("main")).to_contain_text("Paired: both were evaluated on the same rows")
    low, high = sorted(map(abs, comparison.difference("good", "bad").interval()))
    assert [number(each) for each in found.groups()[3:]] == pytest.approx([low, high], rel=5e-2)
    expect(page.locator("main")).to_contain_text("A run keeps no inputs")


def test_runs_of_one_name_are_told_apart(tab: Tab) -> None:
    """By the label that differs."""
    rows = np.arange(40.0)
    with Client(tab.server.grpc) as client:
        runs = [
            client.runs.save(
                client.summarize("l1_loss", [{"input": rows * factor, "target": rows}]),
                name="nightly",
                labels={"data": "rows", "model": model},
            ).run_id
            for model, factor in (("old", 1.5), ("new", 1.1))
        ]
    page = tab.open("compare", a=runs[0], b=runs[1])
    expect(page.locator("main .big").first).to_contain_text(
        "nightly, model new is better than nightly, model old by"
    )


def test_different_losses_are_not_compared(tab: Tab) -> None:
    """A difference of two losses means nothing, and the page says so."""
    batches = [{"input": np.ones(3), "target": np.zeros(3)}]
    with Client(tab.server.grpc) as client:
        runs = [
            client.runs.save(client.summarize(loss, batches), name=loss).run_id
            for loss in ("mse_loss", "l1_loss")
        ]
    page = tab.open("compare", a=runs[0], b=runs[1])
    expect(page.locator("main .note.warning")).to_contain_text("their difference means nothing")


def test_a_server_without_a_store_compares_files(browser: Browser) -> None:
    """It is asked for no runs, which would be an error in the page."""
    with serving() as server, tab_of(browser, server) as tab:
        page = tab.open("compare", data="digits")
        expect(page.locator("main .big").first).to_contain_text("large is better than small")
