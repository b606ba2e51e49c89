"""docs/evaluations.md and examples/evaluate_digits do what they show."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from losswire.client import Client
from tests.docs.pages import ROOT, WRITTEN_ADDRESS, blocks

_EXAMPLE = ROOT / "examples" / "evaluate_digits"
_NUMBER = re.compile(r"-?\d[\d,]*\.?\d*(?:e[+-]?\d+)?")


def _run(folder: Path, *command: str) -> str:
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example, with the predictions of both models."""
    folder = tmp_path_factory.mktemp("digits")
    for name in ("train.py", "evaluate.py"):
        shutil.copy(_EXAMPLE / name, folder)
    shown = _run(folder, "train.py")
    assert shown.endswith("wrote predictions.parquet: 1797 digits\n")
    return folder


def test_the_first_example_prints_what_is_shown(server: str, tmp_path: Path) -> None:
    """The same words, and the same numbers but for their last digits."""
    code = blocks("docs/evaluations.md", "python")[0].text.replace(WRITTEN_ADDRESS, server)
    printed, shown = _run(tmp_path, "-c", code), blocks("docs/evaluations.md", "text")[0].text
    assert _NUMBER.sub("#", printed) == _NUMBER.sub("#", shown)
    ours, theirs = (
        [float(each.replace(",", "")) for each in _NUMBER.findall(text)]
        for text in (printed, shown)
    )
    assert ours == pytest.approx(theirs, rel=1e-4)


def test_the_comparison_runs(
    server: str, digits: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second example, where the predictions are."""
    monkeypatch.chdir(digits)
    [text] = [
        each.text for each in blocks("docs/evaluations.md", "python") if "candidates=" in each.text
    ]
    code = compile(text, "evaluations.md", "exec")
    with Client(server) as client:
        exec(code, {"client": client})  # noqa: S102 (our own page)
    assert capsys.readouterr().out.startswith("large is lower than small by 0.02")
    assert (digits / "report.html").read_text().startswith("<!doctype html>")


def test_the_example_compares_keeps_and_passes_the_gate(digits: Path) -> None:
    """Its second command: ten classes, a report, a run, and the gate's verdict."""
    printed = _run(digits, "evaluate.py")
    assert printed.startswith("large is lower than small by 0.02")
    assert [line.split()[0] for line in printed.splitlines()[3:13]] == [str(d) for d in range(10)]
    assert "total: pass: mean 0.13" in printed
    assert printed.endswith("passed, compared row by row\n")
    assert list((digits / "runs").glob("*.db"))
