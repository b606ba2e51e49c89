"""The benchmark runs, checks what it measures and leaves nothing out. No time is checked."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from benchmarks import data, page, plot
from benchmarks.bars import BARS, MEMORY_NAME
from benchmarks.cases import QUICK, SAME_MACHINE, cases, memory_cases
from benchmarks.worker import Spec, WrongResultError

from tests.docs.pages import ROOT

_STATUSES = {"ok", "not served"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the quick benchmark as a command; return the folder of its results."""
    output = tmp_path_factory.mktemp("results")
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick", "--rounds", "1", "--output", output],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == (output / "latest.md").read_text()
    return output


@pytest.fixture(scope="module")
def results(folder: Path) -> Any:  # noqa: ANN401 (any JSON)
    """Read the results."""
    return json.loads((folder / "latest.json").read_text())


def test_every_case_is_reported(results: Any) -> None:  # noqa: ANN401 (any JSON)
    """Each case was measured and compared, or says that it is not served."""
    assert list(results["cases"]) == [case.name for case in cases(QUICK)]
    assert list(results["memory"]) == [case.name for case in memory_cases(QUICK)]
    for part in ("cases", "memory"):
        assert {each["status"] for each in results[part].values()} <= _STATUSES
    for name, each in results["cases"].items():
        assert each["note"], name
        if each["status"] == "ok":
            assert 0 < each["low"] <= each["median"] <= each["high"] <= each["p99"], name
            assert len(each["rounds"]) == results["rounds"] == 1
            assert each["cpu_seconds_per_gb"] > 0, name


def test_every_bar_is_reported(results: Any) -> None:  # noqa: ANN401 (any JSON)
    """Each bar has a number and a verdict, or says that what it needs is not served."""
    assert [bar["name"] for bar in results["bars"]] == [*(bar.name for bar in BARS), MEMORY_NAME]
    for bar in results["bars"]:
        assert bar["status"] in _STATUSES, bar["name"]
        assert (bar["status"] == "ok") == (bar["measured"] is not None) == (bar["met"] is not None)


def test_everything_is_served(results: Any) -> None:  # noqa: ANN401 (any JSON)
    """Only shared memory may be missing, where the system has none."""
    shared = {case.name for case in cases(QUICK) if case.spec.work in SAME_MACHINE}
    missing = {name for name, each in results["cases"].items() if each["status"] != "ok"}
    assert missing <= (set() if sys.platform == "linux" else shared)


_FLOORS = """
import sys
from importlib import import_module
from benchmarks.floors.__main__ import PROGRAMS

for name in PROGRAMS:
    import_module(f"benchmarks.floors.{name}")
print([name for name in sys.modules if name.split(".")[0] == "losswire"])
"""


def test_floors_share_no_code() -> None:
    """No floor imports anything of Losswire."""
    ran = subprocess.run(
        [sys.executable, "-c", _FLOORS], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ran.stdout == "[]\n"


def test_names_in_tables_are_names_of_cases() -> None:
    """Bars and picture speak of cases that exist."""
    known = {case.name for case in cases(QUICK)}
    named = {name for bar in BARS for name in (bar.case, *bar.floors)}
    named |= {name for _, panel in plot.PANELS for line in panel for name in line.cases}
    assert named <= known


def test_picture_and_page_follow_from_the_results(folder: Path) -> None:
    """The picture is XML with a bar or a word for each line; the page takes the tables twice."""
    assert plot.main([str(folder / "latest.json"), str(folder / "picture.svg")]) == 0
    picture = ET.parse(folder / "picture.svg").getroot()  # noqa: S314 - our own
    texts = [each.text for each in picture.iter("{http://www.w3.org/2000/svg}text")]
    for _, panel in plot.PANELS:
        assert {line.label for line in panel} <= set(texts)
    copy = folder / "page.md"
    copy.write_text((ROOT / "docs" / "performance.md").read_text())
    for _ in range(2):
        assert page.main([str(folder / "latest.json"), str(copy)]) == 0
        assert copy.read_text().count((folder / "latest.md").read_text().strip()) == 1


def test_page_and_picture_show_the_kept_results(tmp_path: Path) -> None:
    """The published page and picture were made from the committed results."""
    kept = str(ROOT / "benchmarks" / "results" / "latest.json")
    for name, write in (
        ("docs/performance.md", page.main),
        ("docs/performance.svg", plot.main),
        ("README.md", page.main),
    ):
        published = ROOT / name
        again = tmp_path / published.name
        again.write_text(published.read_text())
        assert write([kept, str(again)]) == 0
        assert again.read_text() == published.read_text(), name


def test_a_page_without_markers_is_left_alone() -> None:
    """Nothing is written where nobody said where."""
    with pytest.raises(ValueError, match="lacks"):
        page.with_figures("# A page", {})


@pytest.mark.parametrize(
    ("arguments", "status", "expected"),
    [
        (["--only", "nothing"], 2, "no case is named nothing"),
        (["--rounds", "0"], 2, "0 is not a whole number greater than 0"),
        (["--list", "--only", "L tcp b*"], 0, "L tcp bf16\n"),
    ],
)
def test_the_command_line_helps(arguments: list[str], status: int, expected: str) -> None:
    """Wrong arguments are explained; cases can be named."""
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == status
    assert expected in ran.stdout + ran.stderr


@pytest.mark.parametrize("loss", ["cross_entropy", "mse_loss"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("value", [1.0, float("nan")])
def test_wrong_results_are_found(loss: str, dtype: str, value: float) -> None:
    """The check of results can fail."""
    spec = Spec(work="", rows=4, columns=3, loss=loss, dtype=dtype)
    with pytest.raises(WrongResultError):
        data.check(spec, value, None)
    with pytest.raises(WrongResultError):
        data.check(spec, _right(spec), data.logits(4, 3, dtype))
    assert data.check(spec, _right(spec), None)


def _right(spec: Spec) -> float:
    """Return the right loss, by torch."""
    x = torch.from_numpy(data.logits(spec.rows, spec.columns, spec.dtype).astype(np.float64))
    t = torch.from_numpy(data.target(spec.loss, spec.rows, spec.columns))
    loss = F.cross_entropy(x, t) if spec.loss == "cross_entropy" else F.mse_loss(x, t.double())
    return loss.item()
