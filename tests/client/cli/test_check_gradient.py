"""`losswire check-gradient`: it passes what is right, and fails what is not."""

import json
from pathlib import Path

import numpy as np
import pytest

from losswire.server.catalogue.layouts import Layout
from losswire.server.catalogue.record import LossRecord
from losswire.server.losses import builtin_registry
from tests.client.cli.conftest import Ran, Run
from tests.support.extras import SMOOTH, WHILE_WEIGHTED
from tests.support.sampling import (
    doubles,
    draw_ground,
    draw_inputs,
    generator,
    presences,
    required_options,
)

CASES = [(record, layout) for record in builtin_registry() for layout in record.layouts]


@pytest.mark.parametrize(
    ("record", "layout"), CASES, ids=[f"{record.name}-{layout.name}" for record, layout in CASES]
)
def test_every_loss_passes(
    losswire: Run, tmp_path: Path, record: LossRecord, layout: Layout
) -> None:
    """Drawn inputs of each layout: every input that has a gradient there is checked."""
    rng = generator("check-gradient", record.name, layout.name)
    ground = draw_ground(record, layout, rng, longest=3)
    # A drawn sequence may be too short for its labels, which has an infinite value and no gradient.
    options = {**required_options(ground), **WHILE_WEIGHTED.get(record.name, {})}
    dtypes = doubles(ground, presences(ground)[-1])
    inputs = draw_inputs(ground, dtypes, options, rng)
    for name, shift in SMOOTH.get(record.name, {}).items():
        inputs[name] = np.asarray(inputs[name] + shift)
    np.savez(tmp_path / "batch.npz", allow_pickle=False, **inputs)
    words = [f"--tensor={name}={tmp_path / 'batch.npz'}:{name}" for name in inputs]
    words += [f"--option={name}={value}" for name, value in options.items()]
    ran = losswire("check-gradient", record.name, "--json", *words)
    facts = json.loads(ran.out)
    assert (ran.status, ran.err, facts["passed"]) == (0, "", True)
    found = {each["name"]: each["checked"] for each in facts["inputs"]}
    expected = ground.differentiable(list(inputs))
    assert found == {
        name: inputs[name].size for name in expected if inputs[name].dtype == np.float64
    }


HINGE = ("check-gradient", "l1_loss", "--input", "[0, 1, 3]")


def test_a_corner_is_not_a_slope(losswire: Run) -> None:
    """Where the loss has a corner within the step, differences differ, and the status is 1."""
    ran = losswire(*HINGE, "--target", "[0.000001, 2, 0]", "--grad", "input")
    assert (ran.status, ran.err) == (1, "")
    lines = ran.out.splitlines()
    assert lines[0] == "input: DIFFERS"
    assert lines[1].split() == ["elements", "3", "of", "3"]
    # The sign of the error is -1, a third of which is the gradient of the mean; the difference
    # spans the corner, 1.1 steps on one side of which are outweighed by 0.9 on the other.
    assert "[0]: the server says -0.3333333333, differences -0.03333333333" in ran.out
    assert lines[-1].startswith("failed: l1_loss by ")


def test_the_tolerance_is_the_callers(losswire: Run) -> None:
    """A difference within --tolerance passes, and a smaller --step avoids the corner."""
    corner = (*HINGE, "--target", "[0.000001, 2, 0]")
    assert losswire(*corner, "--tolerance", "2").status == 0
    assert losswire(*corner, "--step", "1e-7").status == 0


SETTINGS: tuple[tuple[str, ...], ...] = (
    ("--reduction", "sum", "--sample-weight", "[0.5, 2]"),
    ("--reduction", "none"),
    ("--reduction", "none", "--grad-output", "[1, -2]"),
    ("--normalizer", "3", "--grad-output", "5"),
    ("--engine", "autograd", "--option", "label_smoothing=0.3"),
    ("--grad", "input"),
)


@pytest.mark.parametrize("words", SETTINGS, ids=" ".join)
def test_settings_are_checked_along(losswire: Run, words: tuple[str, ...]) -> None:
    """The gradient is that of the loss as it was asked for."""
    batch = ("--input", "[[2, 1, 0], [0, 1, 2]]", "--target", "[[0.5, 0.5, 0], [0.1, 0.2, 0.7]]")
    ran = losswire("check-gradient", "cross_entropy", *batch, *words)
    assert (ran.status, ran.err) == (0, "")


def _elements(ran: Ran) -> list[int]:
    [found] = json.loads(ran.out)["inputs"]
    return [found["checked"], found["elements"]]


def test_large_inputs_are_sampled(losswire: Run, tmp_path: Path) -> None:
    """At most --elements elements are checked, and 0 means all."""
    np.save(tmp_path / "x.npy", np.random.default_rng(0).standard_normal((40, 30)))
    words = ("check-gradient", "logsigmoid", "--json", "--input", str(tmp_path / "x.npy"))
    assert _elements(losswire(*words)) == [1000, 1200]
    assert _elements(losswire(*words, "--elements", "7")) == [7, 1200]
    assert _elements(losswire(*words, "--elements", "0")) == [1200, 1200]


def test_ctc_loss_is_checked_through_log_softmax(losswire: Run) -> None:
    """Its gradient holds in composition only, which is what is checked, and what is said."""
    ran = losswire(
        *("check-gradient", "ctc_loss", "--log_probs", "[[1, 2, 3], [0, 1, 2], [4, 4, 1]]"),
        *("--targets", "[1, 2]", "--input_lengths", "3", "--target_lengths", "2"),
    )
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.startswith("log_probs through log_softmax: ok\n")


def test_empty_inputs_pass(losswire: Run) -> None:
    """There is nothing to check in nothing."""
    ran = losswire("check-gradient", "sigmoid", "--input", "[]", "--json")
    assert (ran.status, _elements(ran)) == (0, [0, 0])


MISTAKES: tuple[tuple[tuple[str, ...], str], ...] = (
    (("cross_entropy", "--target", "[0]"), 'inputs["input"]: cross_entropy needs this input'),
    (
        ("binary_cross_entropy", "--input", "[0, 0.5]", "--target", "[0, 1]"),
        (
            'beside the point that was given, by --step: inputs["input"]: -1e-05 at [0] is not in '
            "[0, 1]"
        ),
    ),
    (
        ("nll_loss", "--input", "[[1, 2]]", "--target", "[0]", "--grad", "target"),
        "gradients_for[0]: torch gives no gradient with respect to target",
    ),
    (
        ("sigmoid", "--input", "[1]", "--step", "0"),
        (
            "argument --step: '0' is not a number greater than 0 "
            "(see `losswire check-gradient --help`)"
        ),
    ),
    (
        ("multilabel_margin_loss", "--input", "[0.5]", "--target", "[0]", "--grad", "x"),
        'gradients_for[0]: multilabel_margin_loss has no input "x"',
    ),
    (("nll_loss", "--input", "x.csv"), "input: cannot read x.csv: No such file or directory"),
)


@pytest.mark.parametrize(("words", "line"), MISTAKES, ids=[each[1][:50] for each in MISTAKES])
def test_mistakes_are_lines(losswire: Run, words: tuple[str, ...], line: str) -> None:
    """What is wrong is said as `eval` says it."""
    ran = losswire("check-gradient", *words)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.splitlines()[0] == f"losswire: {line}"
