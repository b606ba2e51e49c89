"""examples/plugin: a loss in a package of its own is a loss like any other."""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from losswire.client import Client, InvalidArgumentError
from losswire.client.cli import main
from losswire.server import declare
from tests.docs.pages import blocks

Array = npt.NDArray[np.float64]

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 3, (5, 4))
TARGET = RNG.integers(0, 2, (5, 4)).astype(np.float64)

OPTIONS: tuple[dict[str, float], ...] = (
    {},
    {"alpha": 0.5, "gamma": 0.0},
    {"alpha": 0.9, "gamma": 1.5},
    {"alpha": -1.0, "gamma": 3.0},
    {"alpha": 0.0},
    {"alpha": 1.0, "gamma": 5.0},
)


@pytest.fixture
def client(plugins: str) -> Iterator[Client]:
    """A client of the server with the plugin."""
    with Client(plugins) as connected:
        yield connected


def focal(x: Array, t: Array, alpha: float = 0.25, gamma: float = 2.0) -> Array:
    """Equation 5 of the paper, with positives and negatives apart."""
    p = 1 / (1 + np.exp(-x))
    positive = -((1 - p) ** gamma) * np.log(p)
    negative = -(p**gamma) * np.log1p(-p)
    if alpha >= 0:
        positive, negative = alpha * positive, (1 - alpha) * negative
    return np.where(t == 1, positive, negative)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_values_and_means(client: Client, options: dict[str, float]) -> None:
    """Values are the paper's formula, written again in numpy, and reductions follow from them."""
    expected = focal(LOGITS, TARGET, **options)
    inputs = {"input": LOGITS, "target": TARGET}
    values = client.evaluate("sigmoid_focal_loss", inputs, options, reduction="none")
    mean = client.evaluate("sigmoid_focal_loss", inputs, options)
    np.testing.assert_allclose(values.loss, expected, rtol=1e-12)
    np.testing.assert_allclose(mean.loss, expected.mean(), rtol=1e-12)
    assert mean.mean_denominator == mean.count == 20


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_gradient(client: Client, options: dict[str, float]) -> None:
    """The gradient is the slope of the numpy formula, by central differences in float64."""
    step = 1e-5
    high, low = (focal(LOGITS + each, TARGET, **options) for each in (step, -step))
    found = client.evaluate(
        "sigmoid_focal_loss",
        {"input": LOGITS, "target": TARGET},
        options,
        reduction="sum",
        gradients=["input"],
    )
    expected = (high - low) / (2 * step)
    np.testing.assert_allclose(found.gradients["input"], expected, rtol=1e-6, atol=1e-10)


def test_sure_answers_have_finite_gradients(client: Client) -> None:
    """Far from 0 the factor is not rounded to 0 or 1 where its logarithm would not be finite."""
    found = client.evaluate(
        "sigmoid_focal_loss",
        {"input": np.array([80.0, -80.0, 80.0]), "target": np.array([1.0, 0.0, 0.0])},
        {"alpha": -1.0},
        reduction="sum",
        gradients=["input"],
    )
    assert found.loss == pytest.approx(80.0, rel=1e-12)
    np.testing.assert_allclose(found.gradients["input"], [0, 0, 1], atol=1e-12)


def test_it_is_listed_from_its_record(client: Client) -> None:
    """ListLosses has its inputs, options with their ranges, and where it comes from."""
    [info] = [each for each in client.losses() if each.name == "sigmoid_focal_loss"]
    assert [each.name for each in info.inputs] == ["input", "target"]
    assert [(each.name, each.default, each.range) for each in info.options] == [
        ("alpha", 0.25, "[-inf, 1]"),
        ("gamma", 2.0, "[0, inf)"),
    ]
    assert info.source == "torchvision.ops.sigmoid_focal_loss"


def test_wrong_options_are_refused_with_their_paths(client: Client) -> None:
    """The server enforces the ranges in the decorator."""
    options = {"alpha": 1.5, "gamma": -1.0, "beta": 1.0}
    with pytest.raises(InvalidArgumentError) as caught:
        client.evaluate("sigmoid_focal_loss", {"input": LOGITS, "target": TARGET[:2]}, options)
    assert {each.field for each in caught.value.violations} == {
        'inputs["target"].shape',
        'options["alpha"]',
        'options["beta"]',
        'options["gamma"]',
    }


def test_the_documentation_can_show_it(installed: Path) -> None:
    """The page of losses is made from all records, also those of plugins."""
    code = "import losswire_focal as m; from losswire.server.docs import render; "
    code += "print(render([m.sigmoid_focal_loss]))"
    shown = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "## sigmoid_focal_loss" in shown.stdout
    assert "| `gamma` | How much less an element counts the better it is predicted" in shown.stdout


def test_a_plugin_that_is_not_there_stops_the_start() -> None:
    """A name that cannot be imported is one line, and 2."""
    command = [sys.executable, "-m", "losswire.server", "serve", "--listen", "127.0.0.1:0"]
    ran = subprocess.run(
        [*command, "--losses", "losswire_missing"], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 2
    # The others are lines of the log.
    [line] = [each for each in ran.stderr.splitlines() if not each.startswith("{")]
    assert line == "losswire-server: --losses losswire_missing: No module named 'losswire_missing'"


CHECK = ("check-gradient", "sigmoid_focal_loss", "--input", "[2.0, -1.0]", "--target", "[1, 1]")


def test_check_gradient_passes_it(plugins: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The command that the README recommends, on the loss that it is about."""
    assert main([*CHECK, "--server", plugins]) == 0
    assert capsys.readouterr().out.endswith("passed: sigmoid_focal_loss by autograd\n")


@pytest.mark.parametrize("name", ["json", "server"])
def test_check_gradient_fails_a_wrong_loss(
    plugins: str, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """A gradient a thousandth too large is noticed, whichever input it belongs to."""
    words = ("--tensor", "json=[1.0, -3.0]", "--tensor", "server=[2.0, 0.5]", "--grad", name)
    assert main(["check-gradient", "wrong_loss", *words, "--server", plugins]) == 1
    out = capsys.readouterr().out
    assert out.startswith(f"{name}: DIFFERS\n")
    assert "relative to gradient  0.001\n" in out
    assert out.endswith("failed: wrong_loss by autograd\n")


def test_the_facade_is_complete() -> None:
    """Every public name can be imported, and the plugin needs nothing else of the server."""
    assert [name for name in declare.__all__ if not hasattr(declare, name)] == []
    assert sorted(declare.__all__) == sorted(set(declare.__all__))
    public = {name for name in vars(declare) if not name.startswith("_")}
    assert public == set(declare.__all__)


def test_the_commands_of_the_readme_run(plugins: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command that README.md shows after the start of the server works."""
    monkeypatch.setenv("LOSSWIRE_TARGET", plugins)
    [_, block] = blocks("examples/plugin/README.md", "sh")
    for line in block.text.splitlines():
        program, *words = shlex.split(line)
        assert (program, main(words)) == ("losswire", 0), line
