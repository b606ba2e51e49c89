"""Evaluate: what the page shows of a file is what torch gives, however the file is written."""

import csv
import io
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from playwright.sync_api import Locator, Page, Route, expect

from losswire.client import Client
from tests.support.browser import Tab, cells, needs_browser, number
from tests.support.digits import Digits, digits

pytestmark = needs_browser()

ROWS: Final = 90
CLASSES: Final = 4
SLICE: Final = ("DE", "FR, east", 'the "third"')


def made() -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """Return logits, labels and slices of some rows."""
    drawn = torch.Generator().manual_seed(7)
    logits = torch.randn(ROWS, CLASSES, generator=drawn)
    labels = torch.randint(CLASSES, (ROWS,), generator=drawn)
    return logits, labels, [SLICE[row % 3] for row in range(ROWS)]


def as_csv(delimiter: str = ",") -> bytes:
    """Return the rows with quotes where they are needed, and lines that end as on Windows."""
    logits, labels, slices = made()
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\r\n")
    writer.writerow(["id", *(f"logits_{each}" for each in range(CLASSES)), "label", "country"])
    for row, (values, label, part) in enumerate(zip(logits, labels, slices, strict=True)):
        writer.writerow([f"r{row}", *(float(each) for each in values), int(label), part])
    return text.getvalue().encode()


def as_lines() -> bytes:
    """Return the rows as JSON lines."""
    rows = zip(*made(), strict=True)
    lines = (
        json.dumps({"logits": values.tolist(), "label": int(label), "country": part})
        for values, label, part in rows
    )
    return "\n".join(lines).encode()


def as_parquet() -> bytes:
    """Return the rows as Parquet, in two groups."""
    logits, labels, slices = made()
    values = pa.FixedSizeListArray.from_arrays(pa.array(logits.numpy().reshape(-1)), CLASSES)
    table = pa.table({"logits": values, "label": labels.numpy(), "country": slices})
    found = io.BytesIO()
    pq.write_table(table, found, row_group_size=50)
    return found.getvalue()


def as_npy(values: torch.Tensor) -> bytes:
    """Return a tensor as .npy."""
    found = io.BytesIO()
    np.save(found, values.numpy())
    return found.getvalue()


FORMATS: Final[Mapping[str, Callable[[], Mapping[str, bytes]]]] = {
    "csv": lambda: {"rows.csv": as_csv()},
    "semicolons": lambda: {"rows.csv": as_csv(";")},
    "tsv": lambda: {"rows.tsv": as_csv("\t")},
    "ndjson": lambda: {"rows.ndjson": as_lines()},
    "parquet": lambda: {"rows.parquet": as_parquet()},
    "npy": lambda: {"logits.npy": as_npy(made()[0]), "label.npy": as_npy(made()[1])},
}

MISTAKES: Final[Mapping[str, tuple[str, bytes, str]]] = {
    "row": ("rows.csv", b"a,b\n1,2\n3\n", "rows.csv, row 2: 1 cell, the first line has 2"),
    "quote": ("rows.csv", b'a,b\n1,"2\n', "rows.csv: a quote is not closed"),
    "empty": ("rows.csv", b"", "rows.csv is empty"),
    "no rows": ("rows.csv", b"a,b\n", "rows.csv has no rows"),
    "json": ("rows.ndjson", b'{"a": 1}\n{a}\n', "rows.ndjson, line 2: this is no JSON"),
    "widths": (
        "rows.ndjson",
        b'{"a": [1, 2]}\n{"a": [1]}\n',
        "rows.ndjson, line 2: a has 1 numbers, before it had 2",
    ),
    "parquet": ("rows.parquet", b"PAR1 and more PAR1", "rows.parquet cannot be read as Parquet"),
    "npy": ("rows.npy", b"no numbers at all", "rows.npy: This is no .npy file."),
    "ending": ("rows.doc", b"a", "rows.doc: a file ends in csv"),
    "letters": ("rows.csv", b"a\n\xe9\xff\n", "rows.csv is not UTF-8 text"),
}


def choose(page: Page, files: Mapping[str, bytes]) -> None:
    """Choose files, and wait until they are read."""
    contents: list[Any] = [
        {"name": name, "mimeType": "", "buffer": each} for name, each in files.items()
    ]
    page.locator("input[type=file]").first.set_input_files(contents)
    expect(page.get_by_role("button", name="Start", exact=True)).to_be_visible()


def finish(page: Page) -> None:
    """Wait until all rows are evaluated."""
    expect(page.get_by_role("group", name="Take it along")).to_be_visible()


def example(tab: Tab, **query: str) -> Digits:
    """Open the example, and return its data."""
    page = tab.open("evaluate", data="digits", **query)
    finish(page)
    return digits(page)


def shown_mean(page: Page) -> tuple[float, float, float]:
    """Return the mean and the interval that the page begins with."""
    text = page.locator("main .big").first.inner_text()
    mean, low, high = (number(each) for each in re.split(r"[\[\],]", text)[:3])
    return mean, low, high


def interval(losses: torch.Tensor) -> tuple[float, float, float]:
    """Return a mean with its 95 % interval by the normal law."""
    losses = losses.double()
    half = 1.959964 * float(losses.std()) / len(losses) ** 0.5
    mean = float(losses.mean())
    return mean, mean - half, mean + half


def figure(page: Page, title: str) -> Locator:
    """Return the part of the page with a heading."""
    return page.locator(".figure").filter(has=page.get_by_role("heading", name=title, exact=True))


def download(page: Page, name: str) -> bytes:
    """Press a button, and return the file that it gives."""
    with page.expect_download() as found:
        page.get_by_role("button", name=name).first.click()
    return Path(found.value.path()).read_bytes()


def test_the_example_is_what_torch_gives(tab: Tab) -> None:
    """Mean and interval, slices, calibration and suspicious labels."""
    data = example(tab)
    losses = data.losses("small")
    assert shown_mean(tab.page) == pytest.approx(interval(losses), abs=6e-4)
    expect(tab.page.locator("main")).to_contain_text("360 rows in")
    slices = {row[0]: row for row in cells(figure(tab.page, "Slices by lift"))}
    for digit in range(10):
        of = losses[data.labels == digit]
        assert number(slices[str(digit)][3]) == len(of)
        mean = number(slices[str(digit)][2].partition(" ")[0])
        assert mean == pytest.approx(float(of.mean()), abs=6e-3)
    sure = re.search(r"calibration error ([\d.]+)", figure(tab.page, "Calibration").inner_text())
    assert sure
    assert float(sure[1]) == pytest.approx(data.calibration_error("small"), abs=6e-5)
    wrong = (data.predicted("small") != data.labels) & (data.confidence("small") >= 0.9)
    ids = [row[2] for row in cells(figure(tab.page, "Suspicious labels"))]
    assert sorted(map(int, ids)) == [5 * row for row in torch.nonzero(wrong).flatten().tolist()]


def test_worst_rows_have_their_gradient(tab: Tab) -> None:
    """It is softmax minus the label, of that row alone."""
    data = example(tab)
    worst = figure(tab.page, "Worst rows")
    row = int(data.losses("small").argmax())
    first = cells(worst)[0]
    assert int(first[2]) == 5 * row
    assert number(first[3]) == pytest.approx(float(data.losses("small")[row]), rel=1e-3)
    label = worst.locator("tbody tr").first.locator("svg").get_attribute("aria-label")
    assert label is not None
    logits = data.logits["small"][row].clone().requires_grad_()
    torch.nn.functional.cross_entropy(logits, data.labels[row]).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    shown = [number(each) for each in label.partition(": ")[2].split(", ")]
    assert shown == pytest.approx(logits.grad.tolist(), rel=0.06, abs=1e-9)


@pytest.mark.parametrize("kind", FORMATS)
def test_files_of_every_kind_give_the_same(tab: Tab, kind: str) -> None:
    """Columns are guessed: nothing but Start is pressed."""
    choose(tab.open("evaluate"), FORMATS[kind]())
    tab.page.get_by_role("button", name="Start", exact=True).click()
    finish(tab.page)
    logits, labels, _ = made()
    losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    assert shown_mean(tab.page) == pytest.approx(interval(losses), abs=6e-3)
    if kind != "npy":
        part = figure(tab.page, "Slices by lift")
        part.get_by_role("button", name="country").click()
        found = {row[0]: number(row[2].partition(" ")[0]) for row in cells(part)}
        expected = {each: float(losses[at::3].mean()) for at, each in enumerate(SLICE)}
        assert found == pytest.approx(expected, abs=6e-3)


@pytest.mark.parametrize("name", MISTAKES)
def test_a_file_that_cannot_be_read_is_told_exactly(tab: Tab, name: str) -> None:
    """With the file, the row, and what is wrong there."""
    file, content, text = MISTAKES[name]
    page = tab.open("evaluate")
    expect(page.get_by_role("button", name="Choose files")).to_be_visible()
    page.locator("input[type=file]").first.set_input_files(
        {"name": file, "mimeType": "", "buffer": content}
    )
    expect(page.locator("main .note.error")).to_contain_text(text)


def test_what_the_server_refuses_is_shown(tab: Tab) -> None:
    """A label that is no class: the sentence of the server, and Start again."""
    tab.expected_statuses = {400}
    choose(
        tab.open("evaluate"), {"rows.csv": b"logits_0,logits_1,logits_2,label\n1,2,3,7\n1,2,3,0"}
    )
    tab.page.get_by_role("button", name="Start", exact=True).click()
    error = tab.page.locator("main .note.error")
    expect(error).to_contain_text("class index 7")
    expect(tab.page.get_by_role("button", name="Start", exact=True)).to_be_visible()


def test_labels_may_be_true_and_false(tab: Tab) -> None:
    """They are 1 and 0 in every kind of text; the slices with a finding are shown first."""
    p = torch.rand(120, generator=torch.Generator().manual_seed(3)).clamp(0.05, 0.95)
    yes = p > 0.5
    # The losses of "ios" are high, those by the label are all alike.
    given = torch.tensor([i % 4 == 0 for i in range(120)]) ^ yes
    devices = ["ios" if i % 4 == 0 else "web" for i in range(120)]
    rows = zip(p.tolist(), given.tolist(), devices, strict=True)
    lines = [json.dumps({"p": each, "clicked": label, "device": on}) for each, label, on in rows]
    choose(tab.open("evaluate"), {"rows.ndjson": "\n".join(lines).encode()})
    tab.page.get_by_role("button", name="Start", exact=True).click()
    finish(tab.page)
    expect(tab.page.locator("main")).to_contain_text("mean binary_cross_entropy of rows.ndjson")
    expected = torch.nn.functional.binary_cross_entropy(p, given.float(), reduction="none")
    assert shown_mean(tab.page) == pytest.approx(interval(expected), rel=2e-2)
    slices = figure(tab.page, "Slices by lift")
    expect(slices).to_contain_text("device = ios is clearly worse")
    expect(slices.get_by_role("button", name="device")).to_have_attribute("aria-pressed", "true")


def test_a_text_among_numbers_is_told(tab: Tab) -> None:
    """One cell that is no number makes its column a text, which nobody would notice otherwise."""
    lines = ["a_0,a_1,a_2,label", *(f"{i},{i + 1},{i / 7},{i % 3}" for i in range(40))]
    lines[12] = "11,oops,1,2"
    choose(tab.open("evaluate"), {"rows.csv": "\n".join(lines).encode()})
    expect(tab.page.locator("main .note.warning")).to_have_text(
        'a_1 is read as text, because row 12 has "oops".'
    )


def test_weights_clusters_and_losses_that_are_nan(tab: Tab) -> None:
    """Weights of 0 leave rows out; one NaN makes the mean NaN, and the others' is told."""
    drawn = np.random.default_rng(1)
    pred, truth = drawn.normal(size=(2, 400))
    weight = drawn.integers(0, 3, 400)
    lines = ["pred,y_true,weight,user"]
    lines += [f"{p},{t},{w},u{i % 80}" for i, (p, t, w) in enumerate(zip(pred, truth, weight))]  # noqa: B905 (of one length)
    choose(tab.open("evaluate"), {"rows.csv": "\n".join(lines).encode()})
    tab.page.get_by_role("button", name="Start", exact=True).click()
    finish(tab.page)
    expected = np.average((pred - truth) ** 2, weights=weight)
    assert shown_mean(tab.page)[0] == pytest.approx(expected, rel=5e-3)
    expect(tab.page.locator("main")).to_contain_text("interval by clusters")
    lines[1] = f"nan,{truth[0]},1,u0"
    choose(tab.page, {"rows.csv": "\n".join(lines).encode()})
    tab.page.get_by_role("button", name="Start", exact=True).click()
    finish(tab.page)
    expect(tab.page.locator("main .big").first).to_contain_text("NaN")
    expect(tab.page.locator("main")).to_contain_text("1 is NaN")


def test_filters_filter_each_other_and_stay_in_the_address(tab: Tab) -> None:
    """A slice, a brush of the keyboard, a picked row; Back undoes the last choice."""
    data = example(tab)
    page = tab.page
    losses = data.losses("small")
    figure(page, "Slices by lift").locator("tbody tr").filter(has_text=re.compile("^8")).click()
    of = losses[data.labels == 8]
    told = page.locator("[data-filters]")
    expect(told).to_contain_text(f"{len(of)} rows pass")
    mean = re.search(r"mean ([\d.]+)", told.inner_text())
    assert mean
    assert float(mean[1]) == pytest.approx(float(of.mean()), abs=6e-3)
    page.get_by_role("slider").first.press("ArrowRight")
    expect(page).to_have_url(re.compile("brush="))
    low, high = (float(each) for each in re.findall(r"brush=([\d.e-]+)%3A([\d.e-]+)", page.url)[0])
    passing = of[(of >= low) & (of <= high)]
    expect(told).to_contain_text(f"{len(passing)} rows pass")
    page.reload()
    finish(page)
    expect(told).to_contain_text(f"{len(passing)} rows pass")
    page.get_by_role("checkbox", name="Pick row").first.press("Space")
    expect(told).to_contain_text("1 row passes")
    page.get_by_role("button", name="Show all rows").click()
    expect(told).to_have_count(0)


def test_an_evaluation_can_be_stopped(tab: Tab) -> None:
    """What came so far stays, and the page says what may be said of it."""
    held: list[Route] = []
    page = tab.open("evaluate")
    logits, labels, _ = made()
    choose(
        page,
        {
            "logits.npy": as_npy(logits.repeat(100, 1)),
            "label.npy": as_npy(labels.repeat(100)),
        },
    )

    def hold(route: Route) -> None:
        # The first two pieces pass, one for each request that is under way.
        held.append(route)
        if len(held) <= 2:
            route.continue_()

    page.route("**/v1/summarize", hold)
    page.get_by_role("button", name="Start", exact=True).click()
    expect(page.locator("main .big").first).to_be_visible()
    expect(page.get_by_role("progressbar")).to_be_visible()
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("main .note.warning")).to_contain_text("of 9,000 rows")
    wide = page.locator("main .note.warning").inner_text()
    found = re.search(r"mean is ([\d.]+) \[([\d.]+), ([\d.]+)\]", wide)
    assert found
    mean, low, high = shown_mean(page)
    assert float(found[1]) == pytest.approx(mean, abs=1e-2)
    assert float(found[2]) < low < high < float(found[3])
    page.unroute("**/v1/summarize")
    page.get_by_role("button", name="Evaluate all rows").click()
    finish(page)
    expect(page.locator("main")).to_contain_text("9,000 rows in")


def test_what_is_taken_along(tab: Tab) -> None:
    """A page without scripts and network, the summary, the slices, each row, and a picture."""
    data = example(tab)
    page = download(tab.page, "HTML page").decode()
    assert not re.search(r"<script|https?://(?!www\.w3\.org/2000/svg)|<link|src=\"(?!data:)", page)
    assert "Distribution of losses" in page
    assert "<svg" in page
    summary = json.loads(download(tab.page, "JSON"))
    assert summary["candidates"]["small"]["count"] == 360
    rows = list(csv.DictReader(io.StringIO(download(tab.page, "CSV of rows").decode())))
    losses = [float(row["loss small"]) for row in rows]
    assert losses == pytest.approx(data.losses("small").tolist(), rel=1e-4, abs=1e-6)
    slices = list(csv.DictReader(io.StringIO(download(tab.page, "CSV of slices").decode())))
    assert len(slices) == 1 + 10 + 3
    assert download(tab.page, "PNG").startswith(b"\x89PNG")


def test_it_is_kept_as_a_run(tab: Tab) -> None:
    """With name and labels; the run has the figures of the page."""
    data = example(tab)
    tab.page.get_by_role("button", name="Save as run").click()
    tab.page.get_by_label("Name").fill("from the page")
    tab.page.get_by_label("Labels").fill("model=small, data=digits")
    tab.page.get_by_role("button", name="Save", exact=True).click()
    expect(tab.page.locator("#toasts")).to_contain_text("Saved as run")
    with Client(tab.server.grpc) as client:
        (run,) = client.runs.list(name="from the page")
    assert run.labels == {"data": "digits", "model": "small"}
    means = {each.candidate: each.mean for each in run.figures}
    expected = {name: float(data.losses(name).double().mean()) for name in ("small", "large")}
    assert means == pytest.approx(expected, rel=1e-6)


def test_the_keyboard_is_enough(tab: Tab) -> None:
    """Tab and Enter lead from the empty screen to the verdict of a comparison."""
    page = tab.open("evaluate")
    expect(page.get_by_role("button", name="Try with digits")).to_be_visible()
    page.locator("main").focus()
    _tab_to(page, "Try with digits")
    page.keyboard.press("Enter")
    finish(page)
    _tab_to(page, "Compare small and large")
    page.keyboard.press("Enter")
    expect(page.locator("main .big").first).to_contain_text("large is better than small")


def _tab_to(page: Page, text: str) -> None:
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent.trim()") == text:
            return
    pytest.fail(f"Tab does not reach {text!r}")
