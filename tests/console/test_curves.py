"""Curves: losses and derivatives over one coordinate are torch's."""

import re
from collections.abc import Callable, Mapping, Sequence

import pytest
import torch
from playwright.sync_api import Locator, Page, expect
from torch import Tensor
from torch.nn import functional as F

from tests.support.browser import Tab, cells, needs_browser, number

pytestmark = needs_browser()

ZERO = torch.zeros((), dtype=torch.float64)

CURVES: Mapping[str, tuple[str, Mapping[str, Callable[[Tensor], Tensor]]]] = {
    "error": (
        "mse_loss~l1_loss~huber_loss:delta=2~smooth_l1_loss",
        {
            "mse_loss": lambda x: F.mse_loss(x, ZERO, reduction="none"),
            "l1_loss": lambda x: F.l1_loss(x, ZERO, reduction="none"),
            "huber_loss": lambda x: F.huber_loss(x, ZERO, reduction="none", delta=2.0),
            "smooth_l1_loss": lambda x: F.smooth_l1_loss(x, ZERO, reduction="none"),
        },
    ),
    "input": (
        "binary_cross_entropy_with_logits",
        {
            "binary_cross_entropy_with_logits": lambda x: F.binary_cross_entropy_with_logits(
                x, ZERO + 1, reduction="none"
            )
        },
    ),
}


def twin(page: Page) -> Locator:
    """Open the table of all numbers that are drawn, and return it."""
    folded = page.locator("details").filter(has_text="The numbers")
    if folded.get_attribute("open") is None:
        folded.get_by_text("The numbers").click()
    table = folded.locator("table")
    expect(table.locator("tbody tr")).not_to_have_count(0)
    return table


def expected(function: Callable[[Tensor], Tensor], xs: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Return torch's values and derivatives."""
    x = torch.tensor(xs, dtype=torch.float64, requires_grad=True)
    values = torch.stack([function(each) for each in x])
    [derivatives] = torch.autograd.grad(values.sum(), x)
    return values.detach(), derivatives


@pytest.mark.parametrize("coordinate", CURVES)
def test_the_numbers_are_torchs(tab: Tab, coordinate: str) -> None:
    """Every point of every curve, and its derivative away from kinks."""
    losses, functions = CURVES[coordinate]
    page = tab.open("curves", losses=losses, on=coordinate)
    table = [[number(each) for each in row] for row in cells(twin(page))]
    assert len(table) > 100
    xs = [row[0] for row in table]
    for index, name in enumerate(functions):
        values, derivatives = expected(functions[name], xs)
        drawn = [row[1 + index] for row in table]
        assert drawn == pytest.approx(values.tolist(), rel=1e-4, abs=1e-4), name
        slopes = [row[1 + len(functions) + index] for row in table]
        smooth = [i for i, x in enumerate(xs) if abs(x) > 0.02]
        assert [slopes[i] for i in smooth] == pytest.approx(
            [float(derivatives[i]) for i in smooth], rel=1e-3, abs=1e-3
        ), name


def test_a_slider_changes_the_curve(tab: Tab) -> None:
    """The option is in the address, so that a link shows the same."""
    page = tab.open("curves", losses="huber_loss")
    page.get_by_role("spinbutton", name="delta").fill("0.5")
    expect(page.get_by_role("region", name="huber_loss")).to_contain_text("\u22120.5 and 0.5")
    last = [number(each) for each in cells(twin(page))[-1]]
    values, slopes = expected(
        lambda x: F.huber_loss(x, ZERO, reduction="none", delta=0.5), [last[0]]
    )
    assert last[1:] == pytest.approx([float(values), float(slopes)], rel=1e-4)
    expect(page).to_have_url(re.compile("delta"))
    page.reload()
    expect(page.get_by_role("spinbutton", name="delta")).to_have_value("0.5")


def test_the_cursor_reads_all_curves_by_keys(tab: Tab) -> None:
    """Arrow keys move it; the table beside it has loss and derivative there."""
    page = tab.open("curves", losses="mse_loss~l1_loss")
    cursor = page.get_by_role("slider", name="x", exact=True)
    expect(cursor).to_be_enabled()
    cursor.focus()
    cursor.press("End")
    here = page.get_by_role("table", name="Values at x = 3")
    expect(here).to_be_visible()
    assert [[number(each) for each in row[1:3]] for row in cells(here)] == [[9, 6], [3, 1]]
    cursor.press("ArrowLeft")
    expect(here).not_to_be_attached()


def test_losses_are_added_and_removed(tab: Tab) -> None:
    """At most six; the sentence says what is to be seen."""
    page = tab.open("curves", losses="mse_loss")
    expect(page.locator("main")).to_contain_text("mse_loss is smooth")
    page.get_by_role("combobox", name="Add a loss").select_option("l1_loss")
    expect(page.get_by_role("region", name="l1_loss", exact=True)).to_be_visible()
    expect(page.locator("main")).to_contain_text("kink at 0")
    page.get_by_role("button", name="Remove mse_loss").click()
    expect(page.get_by_role("region", name="mse_loss")).not_to_be_attached()
    expect(page).to_have_url(re.compile(r"losses=l1_loss(&|$)"))
