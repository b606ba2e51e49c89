"""Explore: what the page shows of an evaluation is what torch gives."""

import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pytest
import torch
from playwright.sync_api import Locator, Page, expect

from losswire.client import Client, EvaluationResult
from tests.support.browser import Tab, cells, drop, needs_browser, number
from tests.support.reference import REFERENCES

pytestmark = needs_browser()

Arrays = Mapping[str, npt.NDArray[Any]]


class Recorder:
    """A client that keeps what it is asked for."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.asked: tuple[str, Arrays, Mapping[str, Any]] | None = None
        self.fields: Mapping[str, Any] = {}

    def evaluate(
        self,
        loss: str,
        inputs: Arrays,
        options: Mapping[str, Any] | None = None,
        **fields: Any,  # noqa: ANN401 (as the client takes them)
    ) -> EvaluationResult:
        """Evaluate, and keep the arguments."""
        self.asked, self.fields = (loss, inputs, options or {}), fields
        with Client(self.address) as client:
            return client.evaluate(loss, inputs, options, **fields)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        return None


def answer(page: Page) -> Locator:
    """Return the part of the screen with the answer, once it is there."""
    part = page.get_by_role("region", name="Answer")
    expect(part.get_by_role("heading", name="Explain this number")).to_be_visible()
    expect(page.locator("main")).to_have_attribute("aria-busy", "false")
    return part


def run_code(tab: Tab) -> tuple[Recorder, EvaluationResult]:
    """Run the Python that the page shows against the server that it asked."""
    code = tab.page.locator("pre").first.inner_text()
    recorder = Recorder(tab.server.grpc)
    lines = [each for each in code.splitlines() if each != "from losswire.client import Client"]
    lines = [each for each in lines if not each.startswith("print(")]
    assert f'Client("{tab.server.grpc}")' in code
    scope: dict[str, Any] = {"Client": lambda _: recorder}
    exec("\n".join(lines), scope)  # noqa: S102 (the page's own text is what is tested)
    result: EvaluationResult = scope["result"]
    return recorder, result


def figure(page: Page, title: str) -> list[list[float]]:
    """Open the table of a figure, and return its numbers."""
    drawn = page.locator("figure").filter(has=page.get_by_role("heading", name=title, exact=True))
    drawn.get_by_text("The numbers").click()
    table = drawn.locator("details[open] table")
    expect(table.locator("tbody tr")).not_to_have_count(0)
    return [[number(each) for each in row[1:]] for row in cells(table)]


def of_torch(asked: tuple[str, Arrays, Mapping[str, Any]], fields: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """Return torch's loss as reduced, its values, and its gradients by name."""
    loss, arrays, options = asked
    inputs = {name: torch.from_numpy(each) for name, each in arrays.items()}
    names = list(fields.get("gradients", ()))
    for name in names:
        inputs[name].requires_grad_()
    call = REFERENCES[loss].call
    reduced = call(inputs, options, fields.get("reduction") or "mean")
    values = call(inputs, options, "none").detach()
    gradients = dict(
        zip(
            names, torch.autograd.grad(reduced.sum(), [inputs[each] for each in names]), strict=True
        )
        if names
        else ()
    )
    return reduced.detach(), values, gradients


LOSSES = sorted(name for name in REFERENCES if name.endswith(("loss", "entropy", "div", "logits")))


@pytest.mark.parametrize("loss", LOSSES)
def test_generated_data_gives_what_torch_gives(tab: Tab, loss: str) -> None:
    """The loss, the values and the gradient, of every loss, by the code that the page shows."""
    page = tab.open("explore", loss=loss)
    answer(page)
    headline = page.get_by_text(re.compile(r"^loss \S")).first.inner_text()
    recorder, result = run_code(tab)
    assert recorder.asked is not None
    reduced, values, gradients = of_torch(recorder.asked, recorder.fields)
    shown = number(headline.split()[1])
    assert shown == pytest.approx(float(reduced), rel=1e-3, abs=1e-4)
    assert float(result.loss) == pytest.approx(float(reduced), rel=1e-5, abs=1e-6)
    drawn = np.array(figure(page, "Values"))
    assert drawn.size == values.numel()
    assert drawn.ravel().tolist() == pytest.approx(values.ravel().tolist(), rel=1e-4, abs=1e-4)
    for name, gradient in gradients.items():
        matrix = gradient.reshape(gradient.shape[0] if gradient.ndim > 1 else 1, -1)
        found = np.array(figure(page, f"Gradient of {name}"))[:, : matrix.shape[1]]
        assert found.ravel().tolist() == pytest.approx(
            gradient.ravel().tolist(), rel=1e-3, abs=1e-4
        )


ACTIVATIONS = sorted(set(REFERENCES) - set(LOSSES))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_give_what_torch_gives(tab: Tab, activation: str) -> None:
    """Their outputs, of which nothing is reduced."""
    page = tab.open("explore", loss=activation)
    answer(page)
    recorder, result = run_code(tab)
    assert recorder.asked is not None
    _, values, _ = of_torch(recorder.asked, recorder.fields)
    assert result.loss.ravel().tolist() == pytest.approx(values.ravel().tolist(), rel=1e-5)
    drawn = np.array(figure(page, "Output"))[:, : values.shape[-1]]
    assert drawn.ravel().tolist() == pytest.approx(values.ravel().tolist(), rel=1e-4, abs=1e-4)


def cell(page: Page, name: str) -> Locator:
    """Return the field of one element of a tensor."""
    return page.get_by_role("textbox", name=name, exact=True)


def expect_headline(page: Page, number_of: str) -> None:
    """Check that the loss is written so, once it is."""
    expect(page.locator("main")).to_contain_text(
        re.compile(rf"loss\s*{re.escape(number_of)}(?![\d.])")
    )


def test_a_typed_number_is_evaluated(tab: Tab) -> None:
    """Without a button; the address holds it, so that a link shows the same."""
    page = tab.open("explore", loss="mse_loss", rows="2")
    answer(page)
    group = page.get_by_role("group", name="input", exact=True)
    labels = [each.get_attribute("aria-label") for each in group.get_by_role("textbox").all()]
    names = [*filter(None, labels)]
    names += [each.replace("input", "target") for each in names]
    for index, name in enumerate(names):
        cell(page, name).fill(str(index))
    half = len(names) // 2
    # Each target is its input plus half of the number of cells.
    expect_headline(page, str(half**2))
    page.reload()
    expect_headline(page, str(half**2))


def test_what_is_wrong_marks_the_cell(tab: Tab) -> None:
    """With the server's sentence beside it; the right number takes the mark away."""
    tab.expected_statuses.add(400)
    page = tab.open("explore", loss="cross_entropy")
    answer(page)
    wrong = cell(page, "target [1]")
    before = wrong.input_value()
    wrong.fill("7")
    expect(wrong).to_have_attribute("aria-invalid", "true")
    sentence = "class index 7 at [1] is not in [0, 3) and is not ignore_index (-100)"
    expect(page.get_by_role("group", name=re.compile("^target "))).to_contain_text(sentence)
    expect(cell(page, "target [0]")).not_to_have_attribute("aria-invalid", "true")
    wrong.fill(before)
    expect(wrong).not_to_have_attribute("aria-invalid", "true")


def test_numbers_that_are_none_are_shown(tab: Tab) -> None:
    """NaN and infinity are results: in words and in the drawing."""
    page = tab.open("explore", loss="mse_loss", rows="2")
    answer(page)
    first = page.get_by_role("group", name="input", exact=True).get_by_role("textbox").first
    first.fill("NaN")
    expect_headline(page, "NaN")
    first.fill("inf")
    expect_headline(page, "\u221e")


def test_a_file_is_an_input(tab: Tab, tmp_path: Path) -> None:
    """An .npy by the file button, a .csv dropped on the input."""
    logits = np.array([[2, 1, 0], [0, 1, 2]], np.float32)
    np.save(tmp_path / "logits.npy", logits)
    page = tab.open("explore", loss="cross_entropy", rows="2")
    answer(page)
    group = page.get_by_role("group", name=re.compile("^input "))
    group.get_by_label("File").set_input_files(tmp_path / "logits.npy")
    cell(page, "target [0]").fill("0")
    cell(page, "target [1]").fill("0")
    expect_headline(page, "1.4076")
    drop(group, {"logits.csv": b"0,0,0\n0,0,0\n"})
    expect_headline(page, "1.0986")


def test_an_option_moves_the_loss(tab: Tab) -> None:
    """The slider and the field beside it are the same option."""
    page = tab.open("explore", loss="cross_entropy")
    answer(page)
    page.get_by_role("textbox", name="label_smoothing").fill("0.25")
    expect(page).to_have_url(re.compile("label_smoothing"))
    expect(page.get_by_role("slider", name="label_smoothing")).to_have_value("0.25")
    recorder, result = run_code(tab)
    assert recorder.asked is not None
    assert recorder.asked[2] == {"label_smoothing": 0.25}
    expect_headline(page, f"{float(result.loss):.5g}")


def test_curl_gives_the_same(tab: Tab) -> None:
    """The command that the page shows, run by a shell."""
    page = tab.open("explore", loss="huber_loss")
    answer(page)
    _, result = run_code(tab)
    page.get_by_role("button", name="curl", exact=True).click()
    expect(page.locator("pre").first).to_contain_text("curl")
    command = page.locator("pre").first.inner_text()
    ran = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=True)
    assert json.loads(ran.stdout)["loss"] == pytest.approx(float(result.loss), rel=1e-6)
    for language, word in (("grpcurl", "grpcurl"), ("Go", "package main"), ("TypeScript", "fetch")):
        page.get_by_role("button", name=language, exact=True).click()
        expect(page.locator("pre").first).to_contain_text(word)
