"""API: the page lists what the OpenAPI document has, and sends requests."""

import json

import torch
from playwright.sync_api import Locator, Page, expect
from torch.nn import functional as F

from tests.support.browser import Tab, needs_browser

pytestmark = needs_browser()


def opened(page: Page, path: str) -> Locator:
    """Unfold one request."""
    entry = page.locator("main details").filter(has=page.get_by_text(path, exact=True)).first
    entry.locator("summary").first.click()
    return entry


def test_every_path_is_listed(tab: Tab) -> None:
    """Of the document that the server sends, each with its method."""
    document = tab.server.get("/openapi.json")
    page = tab.open("api")
    expect(page.locator("main")).to_contain_text("/v1/evaluate")
    listed = {
        tuple(each.inner_text().split()[:2]) for each in page.locator("main details summary").all()
    }
    wanted = {
        (method.upper(), path) for path, found in document["paths"].items() for method in found
    }
    assert {each for each in wanted if each not in listed} == set()


def test_a_request_is_found_and_sent(tab: Tab) -> None:
    """By some letters; the answer is shown with its status."""
    page = tab.open("api")
    page.get_by_role("searchbox", name="Find a request").fill("server")
    expect(page.get_by_text("Evaluate one batch")).not_to_be_visible()
    entry = opened(page, "/v1/server")
    entry.get_by_role("button", name="Send").click()
    expect(entry).to_contain_text("200")
    expect(entry).to_contain_text(json.dumps(tab.server.get("/v1/server")["server_version"]))


def test_an_example_is_evaluated(tab: Tab) -> None:
    """The body is there already, and its loss is torch's; a wrong one is told as it is."""
    tab.expected_statuses.add(400)
    page = tab.open("api")
    entry = opened(page, "/v1/evaluate")
    entry.get_by_role("button", name="Send").click()
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 2.0]])
    loss = F.cross_entropy(logits, torch.tensor([0, 0]), label_smoothing=0.1)
    expect(entry).to_contain_text(f"{float(loss):.5f}"[:-1])
    body = entry.get_by_role("textbox", name="Body")
    body.fill(body.input_value().replace('"target": [0, 0]', '"target": [0, 3]'))
    entry.get_by_role("button", name="Send").click()
    expect(entry).to_contain_text("class index 3 at [1] is not in [0, 3)")
