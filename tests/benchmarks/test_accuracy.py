"""No closed form errs more than torch, by the program that writes docs/accuracy.md."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from benchmarks.accuracy import __main__ as program
from benchmarks.accuracy.forms import FORMS, Form
from benchmarks.accuracy.measure import DTYPES, Errors, Key, above, measure
from benchmarks.accuracy.servers import clients

from losswire.client import Client
from losswire.server.losses import builtin_registry

_MOST, _DRAWS = 1000, 4
"""Elements and draws of each size: seconds instead of minutes."""

_UNMEASURED = {"linear_cross_entropy"}
"""Closed forms over a projection, which have tests of their own."""

needs_wide = pytest.mark.skipif(
    float(np.finfo(np.longdouble).eps) >= float(np.finfo(np.float64).eps),
    reason="nothing wider is at hand",
)


@pytest.fixture(scope="module")
def paths() -> Iterator[Mapping[str, Client]]:
    """A server with the native library, and one without it."""
    with clients() as connected:
        yield connected


@needs_wide
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_no_result_is_further_from_exact_arithmetic_than_torchs(
    form: Form, dtype: str, paths: Mapping[str, Client]
) -> None:
    """Values, losses and gradients, of the same inputs; a tie may scatter by four errors of it."""
    found = measure(form, dtype, paths, most=_MOST, draws=_DRAWS)
    assert {key.path for key in found.cells} == set(paths)
    assert above(found.cells) == {}


def test_every_closed_form_is_measured() -> None:
    """A loss that gets a closed form must get a row in the page, too."""
    wanted = {record.name for record in builtin_registry() if record.closed_forms}
    assert {form.loss for form in FORMS} == wanted - _UNMEASURED


def test_more_error_than_torchs_is_noticed() -> None:
    """An error that is a tenth larger in every draw is above torch, a tie that scatters is not."""
    row = Key("form", "native", "float32", "normal", 1, "values")
    rng = np.random.default_rng(0)
    for scale, expected in ((1.1, True), (1.0, False), (0.9, False)):
        cells: dict[Key, Errors] = {row: Errors()}
        for each in rng.uniform(0.9, 1.1, 64):
            cells[row].add(scale * each, 1.0)
        assert (row in above(cells)) is expected


def test_the_page_is_written(tmp_path: Path) -> None:
    """By one command, whose status says whether anything is above torch."""
    page = tmp_path / "accuracy.md"
    arguments = [
        str(page),
        "--only",
        "l1_loss",
        "--dtypes",
        "float32",
        "--most",
        "30",
        "--draws",
        "2",
    ]
    assert program.main(arguments) == 0
    text = page.read_text(encoding="utf-8")
    assert "| l1_loss, weight | float32 |" in text
    assert text.endswith("## Above torch\n\nNone.\n")
