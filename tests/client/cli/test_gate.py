"""`losswire gate` fails when the interval says so, and only then; it needs no server for files."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from losswire.client.cli import main
from losswire.v1 import summary_pb2
from tests.client.cli.conftest import Run
from tests.support.runs import summary

Values = npt.NDArray[np.float64]
Files = Callable[..., str]
Z = 1.959963984540054

_RANDOM = np.random.default_rng(7)
LABELS = [("DE", "FR", "US")[each] for each in _RANDOM.integers(0, 3, 600)]
OLD: Values = _RANDOM.lognormal(size=600)
IN_DE = np.array(LABELS) == "DE"


@pytest.fixture
def file(tmp_path: Path) -> Files:
    """Write a summary of row losses to a file, and return its name."""

    def write(name: str, values: Any, labels: bool = True, **common: Any) -> str:  # noqa: ANN401, FBT001, FBT002 (of `summary`)
        slices = {"country": LABELS[: np.shape(values)[-1]]} if labels else None
        path = tmp_path / name
        path.write_bytes(summary(values, slices, **common).SerializeToString())
        return str(path)

    return write


def _gate(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    """Run a gate; returns its status and what it prints as JSON."""
    status = main(["gate", *words, "--json"])
    output = capsys.readouterr()
    assert output.err == ""
    return status, json.loads(output.out)


def _unpaired(new: Values, old: Values) -> tuple[float, float]:
    """Return the increase and its standard error, by the formula for two samples."""
    error = math.sqrt(new.var(ddof=1) / len(new) + old.var(ddof=1) / len(old))
    return new.mean() - old.mean(), error


@pytest.mark.parametrize(
    ("shift", "status", "verdict"),
    [(-1.0, 0, "pass"), (0.0, 0, "not enough evidence"), (1.0, 1, "fail")],
)
def test_the_lower_end_of_the_interval_decides(
    capsys: pytest.CaptureFixture[str], file: Files, shift: float, status: int, verdict: str
) -> None:
    """Of the two-sided interval of the increase, at the level that was asked for."""
    new = _RANDOM.permutation(OLD) + shift
    words = ["--baseline", file("a", OLD), "--candidate", file("b", new), "--max-increase", "0.01"]
    found_status, found = _gate(capsys, *words)
    mean, error = _unpaired(new, OLD)
    [check] = found["checks"]
    assert (found_status, check["verdict"], found["passed"]) == (status, verdict, status == 0)
    assert check["increase"] == pytest.approx(mean, abs=1e-12)
    assert check["interval"] == pytest.approx([mean - Z * error, mean + Z * error], abs=1e-12)
    assert not found["paired"]


@pytest.mark.parametrize("sign", [-1e-6, 1e-6])
def test_the_limit_is_sharp(capsys: pytest.CaptureFixture[str], file: Files, sign: float) -> None:
    """Just below the interval's lower end the gate fails, and just above it passes."""
    new = OLD[::-1] + 0.5
    mean, error = _unpaired(new, OLD)
    limit = mean - Z * error + sign
    words = ["--baseline", file("a", OLD), "--candidate", file("b", new)]
    status, _ = _gate(capsys, *words, "--max-increase", f"{limit:.17g}")
    assert status == (1 if sign < 0 else 0)


def test_the_level_widens_the_interval(capsys: pytest.CaptureFixture[str], file: Files) -> None:
    """What fails at 80 % may pass at 99.9 %."""
    new = OLD[::-1] + 0.2
    mean, error = _unpaired(new, OLD)
    assert 1.2816 < mean / error < 3.29
    words = ["--baseline", file("a", OLD), "--candidate", file("b", new), "--max-increase", "0"]
    statuses = [_gate(capsys, *words, "--level", each)[0] for each in ("0.8", "0.999")]
    assert statuses == [1, 0]


def test_a_comparison_is_judged_row_by_row(capsys: pytest.CaptureFixture[str], file: Files) -> None:
    """The same small increase that two unpaired runs cannot show."""
    new = OLD + 0.02 + 0.01 * np.sin(np.arange(600))
    both = file("both", [OLD, new], candidates=("old", "new"))
    words = ["--comparison", both, "--baseline", "old", "--candidate", "new"]
    status, found = _gate(capsys, *words, "--max-increase", "0.01")
    [check] = found["checks"]
    difference = new - OLD
    half = Z * difference.std(ddof=1) / math.sqrt(600)
    assert (status, found["paired"]) == (1, True)
    assert check["interval"] == pytest.approx(
        [difference.mean() - half, difference.mean() + half], rel=1e-6
    )
    words = ["--baseline", file("a", OLD), "--candidate", file("b", new)]
    status, found = _gate(capsys, *words, "--max-increase", "0.01")
    assert (status, found["checks"][0]["verdict"]) == (0, "not enough evidence")


@pytest.mark.parametrize("paired", [True, False])
def test_a_relative_limit_is_a_fraction_of_the_baseline(
    capsys: pytest.CaptureFixture[str], file: Files, *, paired: bool
) -> None:
    """The interval is that of the quotient of the means, by the delta method."""
    new = 1.1 * OLD + 0.05 * np.cos(np.arange(600))
    if paired:
        both = file("both", [OLD, new], candidates=("old", "new"))
        words = ["--comparison", both, "--baseline", "old", "--candidate", "new"]
        residual = new - new.mean() / OLD.mean() * OLD
        error = residual.std(ddof=1) / math.sqrt(600) / OLD.mean()
    else:
        words = ["--baseline", file("a", OLD), "--candidate", file("b", new)]
        quotient = new.mean() / OLD.mean()
        variance = new.var(ddof=1) + quotient**2 * OLD.var(ddof=1)
        error = math.sqrt(variance / 600) / OLD.mean()
    _, found = _gate(capsys, *words, "--max-increase", "0.05", "--relative")
    [check] = found["checks"]
    mean = new.mean() / OLD.mean() - 1
    assert check["increase"] == pytest.approx(mean, rel=1e-9)
    assert check["interval"] == pytest.approx([mean - Z * error, mean + Z * error], rel=1e-6)


def test_slices_are_checked_with_correction(
    capsys: pytest.CaptureFixture[str], file: Files
) -> None:
    """One slice has become worse, the others and so the total have not enough evidence."""
    new = np.where(IN_DE, OLD + 0.1 + 0.01 * np.sin(np.arange(600)), OLD - 0.05 * IN_DE.mean())
    both = file("both", [OLD, new], candidates=("old", "new"))
    words = ["--comparison", both, "--baseline", "old", "--candidate", "new"]
    words += ["--max-increase", "0.05"]
    assert _gate(capsys, *words)[0] == 0
    status, found = _gate(capsys, *words, "--slice", "country")
    verdicts = {each["where"]: each["verdict"] for each in found["checks"]}
    assert status == 1
    assert verdicts == {
        "total": "pass",
        "country=DE": "fail",
        "country=FR": "pass",
        "country=US": "pass",
    }


def test_holm_lets_one_of_many_slices_pass(capsys: pytest.CaptureFixture[str], file: Files) -> None:
    """A slice that would fail alone passes among others, as its corrected p value says."""
    difference = np.where(np.arange(600) % 2, 1.0, -1.0)
    # 2.1 standard errors in one slice: alone, its p value is 0.018.
    shift = 2.1 * difference[IN_DE].std(ddof=1) / math.sqrt(IN_DE.sum())
    difference[IN_DE] += shift - difference[IN_DE].mean()
    both = file("both", [OLD, OLD + difference], candidates=("old", "new"))
    words = ["--comparison", both, "--baseline", "old", "--candidate", "new"]
    status, found = _gate(capsys, *words, "--max-increase", "0", "--slice", "country")
    [slice_] = [each for each in found["checks"] if each["where"] == "country=DE"]
    assert slice_["interval"][0] > 0
    assert slice_["p_value"] == pytest.approx(3 * 0.5 * math.erfc(2.1 / math.sqrt(2)))
    assert (status, slice_["verdict"]) == (0, "not enough evidence")


def test_slices_of_one_run_only_are_named(file: Files, capsys: pytest.CaptureFixture[str]) -> None:
    """They cannot be compared, and are not passed over in silence."""
    names = [["DE", "DE", "FR", "FR"], ["DE", "DE", "US", "US"]]
    paths = []
    for number, labels in enumerate(names):
        paths.append(file(f"own-{number}", [1.0], labels=False))
        message = summary([1.0, 2.0, 3.0, 4.0], {"country": labels})
        Path(paths[-1]).write_bytes(message.SerializeToString())
    words = ["--baseline", paths[0], "--candidate", paths[1], "--max-increase", "1"]
    _, found = _gate(capsys, *words, "--slice", "country")
    assert [each["where"] for each in found["checks"]] == ["total", "country=DE"]
    assert "country=FR: not checked, the candidate has no such rows" in found["notes"]
    assert "country=US: not checked, the baseline has no such rows" in found["notes"]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_mean_that_is_no_number_any_more_fails(
    capsys: pytest.CaptureFixture[str], file: Files, bad: float
) -> None:
    """One row is enough; the exit status of a NaN must not be that of a pass."""
    new = OLD.copy()
    new[5] = bad
    words = ["--baseline", file("a", OLD), "--candidate", file("b", new), "--max-increase", "9"]
    status, found = _gate(capsys, *words)
    assert (status, found["checks"][0]["verdict"]) == (1, "fail")


def test_few_rows_are_said(capsys: pytest.CaptureFixture[str], file: Files) -> None:
    """Fewer than 30: the normal law is too narrow. One row has no interval, and passes."""
    words = ["--baseline", file("a", OLD[:20]), "--candidate", file("b", OLD[:1])]
    status, found = _gate(capsys, *words, "--max-increase", "0")
    [check] = found["checks"]
    assert (status, check["small"], check["verdict"]) == (0, True, "not enough evidence")
    assert check["interval"] == ["NaN", "NaN"]


def _empty(name: str, file: Files) -> str:
    path = Path(file(name, [1.0], labels=False))
    message = summary_pb2.LossSummary.FromString(path.read_bytes())
    message.total.distributions[0].count = 0
    path.write_bytes(message.SerializeToString())
    return str(path)


MISTAKES: Mapping[str, tuple[Callable[[Files], Sequence[str]], str]] = {
    "another loss": (
        lambda file: ["--baseline", file("a", OLD), "--candidate", file("b", OLD, loss="l1_loss")],
        "is of mse_loss, ",
    ),
    "other options": (
        lambda file: [
            *("--baseline", file("a", OLD)),
            *("--candidate", file("b", OLD, options={"delta": 2.0})),
        ],
        "have other options of mse_loss",
    ),
    "a comparison without --comparison": (
        lambda file: [
            *("--baseline", file("a", [OLD, OLD], candidates=("x", "y"))),
            *("--candidate", file("b", OLD)),
        ],
        "is a comparison of x, y: write --comparison",
    ),
    "no such candidate": (
        lambda file: [
            *("--comparison", file("a", [OLD, OLD], candidates=("x", "y"))),
            *("--baseline", "x", "--candidate", "z"),
        ],
        'has no candidate "z"; it has x, y',
    ),
    "no comparison": (
        lambda file: ["--comparison", file("a", OLD), "--baseline", "x", "--candidate", "z"],
        "it is no comparison",
    ),
    "no rows": (
        lambda file: ["--baseline", file("a", OLD), "--candidate", _empty("b", file)],
        "b: no row takes part",
    ),
    "no slices": (
        lambda file: [
            *("--baseline", file("a", OLD), "--candidate", file("b", OLD, labels=False)),
            *("--slice", "country"),
        ],
        "--slice country: both must have slices of it; both have: none",
    ),
    "no finite baseline": (
        lambda file: ["--baseline", file("a", [math.nan]), "--candidate", file("b", OLD)],
        "the mean of the baseline is nan",
    ),
    "relative to 0": (
        lambda file: [
            *("--baseline", file("a", [-1.0, 1.0]), "--candidate", file("b", OLD)),
            "--relative",
        ],
        "--relative: the mean of the baseline is 0, and not above 0",
    ),
    "level": (
        lambda file: [
            *("--baseline", file("a", OLD), "--candidate", file("b", OLD), "--level", "95")
        ],
        "'95' is not between 0 and 1",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_cannot_be_compared_is_status_2(
    capsys: pytest.CaptureFixture[str], file: Files, mistake: str
) -> None:
    """Neither a pass nor a fail: a pipeline must not go on with a gate that checks nothing."""
    words, text = MISTAKES[mistake]
    status = main(["gate", *words(file), "--max-increase", "0"])
    output = capsys.readouterr()
    assert (status, output.out) == (2, "")
    assert text in output.err


def test_a_file_that_is_no_summary_is_named(
    capsys: pytest.CaptureFixture[str], file: Files, tmp_path: Path
) -> None:
    """Any other file is a wrong argument."""
    (tmp_path / "other").write_bytes(b"PK\x03\x04")
    words = ["--baseline", str(tmp_path / "other"), "--candidate", file("b", OLD)]
    assert main(["gate", *words, "--max-increase", "0"]) == 2
    assert "other: it is not a summary" in capsys.readouterr().err


def test_the_lines_say_which_slices_fail(losswire: Run, file: Files) -> None:
    """For people: a line for each check, and the outcome last."""
    new = np.where(IN_DE, OLD + 1, OLD)
    words = ["--baseline", file("a", OLD), "--candidate", file("b", new), "--max-increase", "0.5"]
    ran = losswire("gate", *words, "--slice", "country")
    lines = ran.out.splitlines()
    assert ran.status == 1
    assert lines[1].startswith("country=DE: fail: mean ")
    assert lines[-1] == "FAILED, compared as unpaired evaluations"
    assert lines[-2] == (
        "both are of the same rows: a comparison of both would tell smaller differences"
    )


def test_a_slice_with_the_name_of_the_others_is_checked(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The rows of all other slices do not hide a slice that is called like them."""
    words = ["--max-increase", "2", "--slice", "kind"]
    for side, shift in (("baseline", 0.0), ("candidate", 9.0)):
        values = np.where(np.arange(100) % 2, shift, 0.0) + np.arange(100) % 7
        message = summary(values, {"kind": ["a", "(other)"] * 50})
        message.total.CopyFrom(message.tables[0].slices[1])
        message.total.ClearField("labels")
        message.tables[0].other.CopyFrom(message.total)
        path = tmp_path / side
        path.write_bytes(message.SerializeToString())
        words += [f"--{side}", str(path)]
    status, found = _gate(capsys, *words)
    checked = [(each["where"], each["verdict"]) for each in found["checks"]]
    assert status == 1
    assert checked == [
        ("total", "pass"),
        ("kind=(other)", "fail"),
        ("kind=a", "pass"),
        ("kind=(other)", "pass"),
    ]
