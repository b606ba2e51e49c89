"""Live: the figures are the differences of /metrics, the refusals are those that were made."""

import re
from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, Response, expect

from losswire.client import Client, InvalidArgumentError
from tests.support.browser import Serving, Tab, cells, needs_browser, serving, tab_of
from tests.support.doors import Samples

pytestmark = needs_browser()

CALLS, REFUSED = 60, 7
ONES = np.ones((4, 8), np.float32)


@pytest.fixture(scope="module")
def quiet() -> Iterator[Serving]:
    """A server that nobody else calls."""
    with serving() as server:
        yield server


@pytest.fixture
def live(browser: Browser, quiet: Serving) -> Iterator[Tab]:
    """A page of that server."""
    with tab_of(browser, quiet) as tab:
        yield tab


def twin(page: Page, title: str) -> list[list[str]]:
    """Open the table of a drawing, and return its rows, the newest first."""
    folded = page.locator("details").filter(has_text=f"{title}: the numbers")
    if folded.get_attribute("open") is None:
        folded.get_by_text("the numbers").click()
    expect(folded.locator("tbody tr")).not_to_have_count(0)
    return cells(folded.locator("table"))


def moments(answers: list[Response]) -> list[float]:
    """Return the times that the snapshots of a page bear, in seconds, the newest last."""
    return [datetime.fromisoformat(each.json()["time"]).timestamp() for each in answers]


def in_all(rows: list[list[str]], column: int, times: list[float]) -> float:
    """Return how many there were in all, from the rates and the times of the snapshots."""
    rates = [row[column].removesuffix("/s") for row in reversed(rows)]
    assert rates[0] == "\u2013", "the first snapshot has nothing before it"
    return sum(
        float(rate) * (after - before)
        for rate, (before, after) in zip(rates[1:], pairwise(times), strict=False)
    )


def is_snapshot(answer: Response) -> bool:
    """Return whether an answer has the figures of the screen."""
    return answer.url.endswith("/v1/live")


def snapshots(page: Page, more: int) -> None:
    """Wait until the page has asked some more times."""
    for _ in range(more):
        with page.expect_response(is_snapshot):
            pass


def duration(text: str) -> float:
    """Return a duration as the page writes it."""
    value, unit = text.split()
    return float(value) * {"s": 1.0, "ms": 1e-3, "\u00b5s": 1e-6, "ns": 1e-9}[unit]


def mean_of(name: str, before: Samples, after: Samples, **labels: str) -> float:
    """Return the mean of what a histogram has counted in between."""
    total, count = (
        after.of(f"{name}_{part}", **labels) - before.of(f"{name}_{part}", **labels)
        for part in ("sum", "count")
    )
    return total / count


def test_the_figures_are_those_of_the_metrics(live: Tab) -> None:
    """Calls by code, refusals by reason, times by stage, bytes by reservation."""
    answers: list[Response] = []
    live.page.on("response", lambda each: answers.append(each) if is_snapshot(each) else None)
    page = live.open("live")
    snapshots(page, 2)
    server = live.server
    before = server.samples()
    with Client(server.grpc) as client:
        for _ in range(CALLS):
            client.evaluate("mse_loss", {"input": ONES, "target": 0 * ONES})
        for _ in range(REFUSED):
            with pytest.raises(InvalidArgumentError):
                client.evaluate("mse_loss", {"input": ONES})
        held = client.put(np.zeros(1 << 18, np.float32))
        snapshots(page, 2)
        after = server.samples()
        calls, refused = twin(page, "Calls a second"), twin(page, "Refused a second")
        stages, reserved = twin(page, "Stages"), twin(page, "Bytes admitted")
        times = moments(answers)
        del held
    name = "grpc_server_call_duration_seconds_count"
    for column, code in ((1, "OK"), (2, "INVALID_ARGUMENT")):
        counted = after.of(name, grpc_status=code) - before.of(name, grpc_status=code)
        assert counted >= (CALLS if code == "OK" else REFUSED)
        # The page writes three digits.
        assert in_all(calls, column, times) == pytest.approx(counted, rel=0.01)
    assert in_all(refused, 1, times) == pytest.approx(REFUSED, rel=0.01)
    name = "losswire_refusals_total"
    assert after.of(name) - before.of(name) == REFUSED
    expected = mean_of("losswire_stage_duration_seconds", before, after, stage="decode")
    assert duration(stages[0][1]) == pytest.approx(expected, rel=0.05)
    assert reserved[0][5] == "1 MiB"
    assert after.of("losswire_reserved_bytes", reservation="residents") == 1 << 20


def test_refusals_are_listed(live: Tab) -> None:
    """The newest first, with call, code, reason and the sentence that the caller was told."""
    with Client(live.server.grpc) as client, pytest.raises(InvalidArgumentError):
        client.evaluate("mse_loss", {"input": ONES, "target": ONES}, {"delta": 1.0})
    page = live.open("live")
    table = page.get_by_role("region", name="Last refusals").locator("table")
    expect(table.locator("tbody tr").first).to_contain_text('options["delta"]')
    first = cells(table)[0]
    assert re.fullmatch(r"\d\d:\d\d:\d\d", first[0])
    assert first[1].endswith("Evaluate")
    assert first[2:4] == ["INVALID_ARGUMENT", "INVALID_EVALUATION"]


def test_it_stops_when_told(live: Tab) -> None:
    """Paused, it asks nothing."""
    page = live.open("live")
    snapshots(page, 1)
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("button", name="Go on")).to_be_visible()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(2500)
    assert [each for each in asked if each.endswith("/v1/live")] == []
