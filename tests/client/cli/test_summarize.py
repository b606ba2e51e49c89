"""`losswire summarize` and `losswire compare`: files in, figures and files out."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

from losswire.client import Comparison, Summary
from losswire.client.cli._common import Exit
from tests.client.cli.conftest import Run

_ROWS = 12
_TARGET = np.arange(_ROWS) / 4
_OLD = _TARGET + 1.0
_NEW = _TARGET + np.where(np.arange(_ROWS) < 9, 0.5, 2.0)


@pytest.fixture
def data(tmp_path: Path) -> str:
    """A CSV file: two predictions, a target, a slice, an id and a weight."""
    path = tmp_path / "rows.csv"
    with path.open("w") as file:
        writer = csv.writer(file)
        writer.writerow(["old", "new", "target", "country", "name", "w"])
        for row in range(_ROWS):
            country = "DE" if row % 2 else "FR"
            values = (_OLD[row], _NEW[row], _TARGET[row])
            writer.writerow([*values, country, f"r{row:02}", 1.0 if row else 0.0])
    return str(path)


def test_a_summary_for_people(losswire: Run, data: str) -> None:
    """The figures of all rows and of each slice, and the worst rows by id."""
    ran = losswire(
        *("summarize", "mse_loss", data, "--column", "input=new", "--slice", "country"),
        *("--id", "name", "--worst", "2"),
    )
    assert (ran.status, ran.err) == (Exit.OK, "")
    lines = ran.out.splitlines()
    mean = ((_NEW - _TARGET) ** 2).mean()
    assert f"mean           {mean:.6g}" in lines
    assert any(line.startswith("DE ") for line in lines)
    [first, second] = [line.split()[:2] for line in lines[-2:]]
    assert (first, second) == (["r09", "4"], ["r10", "4"])


def test_progress_can_be_turned_off(losswire: Run, data: str) -> None:
    """The figures are the same."""
    arguments = ("summarize", "mse_loss", data, "--column", "input=new")
    assert losswire(*arguments, "--quiet").out == losswire(*arguments).out


def test_json_is_what_to_dict_has(losswire: Run, data: str, tmp_path: Path) -> None:
    """One object, with the numbers of the summary that --output writes."""
    file = tmp_path / "out.summary"
    ran = losswire(
        *("summarize", "mse_loss", data, "--column", "input=old", "--json", "--output", str(file)),
        *("--sample-weight", "w", "--slice", "country"),
    )
    summary = Summary.from_bytes(file.read_bytes())
    assert (ran.status, summary.count, summary.ignored_count) == (Exit.OK, _ROWS - 1, 1)
    assert summary.mean == 1.0
    assert json.loads(ran.out) == json.loads(json.dumps(summary.to_dict()))


def test_csv_has_a_line_for_all_rows_and_each_slice(losswire: Run, data: str) -> None:
    """Numbers in full, for a spreadsheet."""
    ran = losswire(
        *("summarize", "mse_loss", data, "--column", "input=old", "--csv", "--slice", "country"),
        *("--slice", "country,name"),
    )
    found = list(csv.DictReader(io.StringIO(ran.out)))
    assert [(each["table"], each["labels"]) for each in found[:4]] == [
        ("", ""),
        ("country", "DE"),
        ("country", "FR"),
        ("country,name", "DE,r01"),
    ]
    assert [each["count"] for each in found[:3]] == ["12", "6", "6"]
    assert {each["mean"] for each in found} == {"1.0"}


def test_a_comparison_is_paired_and_written_as_a_page(
    losswire: Run, data: str, tmp_path: Path
) -> None:
    """Difference, wins, ties and losses; the report is one file."""
    page, file = tmp_path / "report.html", tmp_path / "out"
    ran = losswire(
        *("compare", "mse_loss", data, "--candidate", "old:input=old"),
        *("--candidate", "new:input=new", "--html", str(page), "--output", str(file)),
        *("--slice", "country"),
    )
    assert ran.status == Exit.OK
    found = Comparison.from_bytes(file.read_bytes()).difference("new", "old")
    expected = (_NEW - _TARGET) ** 2 - (_OLD - _TARGET) ** 2
    assert found.mean == pytest.approx(expected.mean(), rel=1e-6)
    assert (found.wins, found.ties, found.losses) == (9, 0, 3)
    assert "3 / 0 / 9" in ran.out
    lines = [line.split() for line in ran.out.splitlines()]
    [german] = [line for line in lines if line[:4] == ["old", "-", "new", "DE"]]
    assert float(german[4]) == pytest.approx(-expected[1::2].mean(), rel=1e-5)
    assert page.read_text().startswith("<!doctype html>")


def test_options_shared_inputs_and_settings_reach_the_loss(losswire: Run, tmp_path: Path) -> None:
    """Class weights for all rows, an option, and the batchmean of kl_div."""
    path = tmp_path / "rows.jsonl"
    rows = [{"input": [0.0, 1.0], "target": 1}, {"input": [2.0, 0.0], "target": 1}]
    path.write_text("\n".join(map(json.dumps, rows)))
    ran = losswire(
        *("summarize", "cross_entropy", str(path), "--shared", "weight=[1.0, 3.0]"),
        *("--option", "label_smoothing=0.2", "--json"),
    )
    assert ran.status == Exit.OK, ran.err
    logits = np.array([[0.0, 1.0], [2.0, 0.0]])
    logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    weight = np.array([1.0, 3.0])
    smooth = 0.2 / 2 * (-logs * weight).sum(1) + 0.8 * -logs[:, 1] * 3.0
    assert json.loads(ran.out)["mean"] == pytest.approx(smooth.sum() / 6.0, rel=1e-6)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("nothing.parquet",), 'there is no file or folder "nothing.parquet"'),
        (("{data}",), 'rows.csv: no column "input"'),
        (("{data}", "--column", "input=old", "--slice", "town"), 'no column "town"'),
        (("{data}", "--column", "input"), "--column input: expected NAME=VALUE"),
        (("{data}", "--shared", "wait=[1]"), "--shared wait: mse_loss has no such input"),
        (("{data}", "--column", "input=old", "--accuracy", "0"), "accuracy"),
        (("{data}", "--column", "input=country"), "country"),
        (("{data}", "--column", "input=old", "--worst", "5000"), "worst"),
    ],
)
def test_what_cannot_be_summarized(
    losswire: Run, data: str, words: tuple[str, ...], text: str
) -> None:
    """Status 2, and a line that names what is wrong."""
    ran = losswire("summarize", "mse_loss", *(each.format(data=data) for each in words))
    assert (ran.status, ran.out) == (Exit.USAGE, "")
    assert text in ran.err
    assert "Traceback" not in ran.err


def test_a_candidate_needs_a_name(losswire: Run, data: str) -> None:
    """And a comparison two of them."""
    ran = losswire("compare", "mse_loss", data, "--candidate", "input=old")
    assert ran.status == Exit.USAGE
    assert "--candidate input=old: expected NAME:INPUT=COLUMN" in ran.err
    ran = losswire("compare", "mse_loss", data)
    assert (ran.status, ran.out) == (Exit.USAGE, "")
    assert "--candidate: 0 given; a comparison is of 2 to 8" in ran.err
    ran = losswire("compare", "mse_loss", data, "--candidate", "old:input=old")
    assert ran.status == Exit.USAGE


def test_figures_are_printed_where_they_cannot_be_kept(
    losswire: Run, data: str, tmp_path: Path
) -> None:
    """The evaluation may have taken hours: only what was asked for beside the figures fails."""
    ran = losswire(
        *("summarize", "mse_loss", data, "--column", "input=old", "--json"),
        *("--output", str(tmp_path)),
    )
    assert ran.status == Exit.USAGE
    assert json.loads(ran.out)["rows"] == _ROWS


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--html", "/no/such/folder/page.html"), "--html /no/such/folder/page.html: there is no"),
        (("--output", "/no/such/folder/out"), "--output /no/such/folder/out: there is no"),
        (("--label", "commit"), "--label commit: expected NAME=VALUE"),
    ],
)
def test_what_cannot_be_kept_is_refused_first(
    losswire: Run, data: str, words: tuple[str, str], text: str
) -> None:
    """Nothing is evaluated."""
    ran = losswire("summarize", "mse_loss", data, "--column", "input=old", *words)
    assert (ran.status, ran.out) == (Exit.USAGE, "")
    assert text in ran.err
