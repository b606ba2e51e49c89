"""The figures by matplotlib show what the summary says."""

import io

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from tests.support.evaluated import comparison, summary

ODD: tuple[dict[str, object], ...] = (
    {"rows": 5},
    {"rows": 6},
    {"nan": 2},
    {"below_zero": 0.3},
    {"below_zero": 10},
)
"""No rows, one, NaN and infinite losses, losses of both signs, all negative."""


def _means(axes: Axes) -> dict[str, float]:
    """Return the points of a forest plot by their labels, from the bottom."""
    labels = [each.get_text() for each in axes.get_yticklabels()]
    points = [each for each in axes.lines if each.get_marker() == "o"]
    return {
        label: float(np.asarray(each.get_xdata())[0])
        for label, each in zip(labels, points, strict=True)
    }


def _drawn(figure: Figure) -> Figure:
    figure.savefig(io.BytesIO(), format="svg")
    return figure


def test_a_summary() -> None:
    """Shares of the rows, the mean, and each slice, the highest on top."""
    evaluated = summary()
    figure = _drawn(evaluated.plot())
    losses, slices = figure.axes
    bars = [each for each in losses.patches if isinstance(each, Rectangle)]
    mean = np.asarray(losses.lines[0].get_xdata())[0]
    assert mean == evaluated.mean
    assert sum(each.get_height() for each in bars if each.get_width() < 10) >= 99
    assert losses.get_xlabel() == "cross_entropy"
    lifts = evaluated.slices["country"].by_lift()
    assert list(_means(slices).items())[::-1] == [
        (each.label, each.statistics.mean) for each in lifts
    ]


def test_a_table_is_chosen() -> None:
    """By its name; without tables there is one picture."""
    evaluated = summary(cross=True)
    figure = _drawn(evaluated.plot(column="country\u00d7half"))
    assert len(figure.axes[1].get_yticklabels()) == 8
    with pytest.raises(KeyError, match="no slices by 'city'; there are: country, country"):
        evaluated.plot(column="city")


@pytest.mark.parametrize(
    "drawn",
    [{"rows": 5}, {"rows": 6}, {"nan": 2}, {"below_zero": 0.3}, {"below_zero": 10}],
    ids=str,
)
def test_odd_losses(drawn: dict[str, object]) -> None:
    """They are drawn without a warning."""
    for figure in (summary(**drawn).plot(), comparison(**drawn).plot()):
        assert _drawn(figure).axes[0].has_data()


def test_hostile_names_are_texts() -> None:
    """What is between dollar signs is no formula."""
    label = r"$\frac{1}{$"
    figure = _drawn(summary(countries=(label, "FR", "JP", "NZ"), loss=label).plot())
    assert r"\$\frac{1}{\$" in [each.get_text() for each in figure.axes[1].get_yticklabels()]


def test_a_comparison() -> None:
    """The differences around zero, and each slice's."""
    evaluated = comparison()
    figure = _drawn(evaluated.plot())
    _, slices = figure.axes
    found = evaluated.difference("small", "large").slices["country"]
    assert _means(slices) == {label: each.mean for label, each in found.items()}
