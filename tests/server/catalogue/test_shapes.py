"""The notation of shapes: what fits, and how arrays over the values broadcast to it."""

import pytest

from losswire.server.catalogue.shapes import Axes, Bindings, Shape

_ROWS = Axes("*S K")


def _bound(shape: Shape = (4, 1, 3)) -> Bindings:
    """Return the bindings of an array `*S K` of a shape."""
    bindings = Bindings()
    assert _ROWS.match(shape, bindings)
    return bindings


@pytest.mark.parametrize(
    ("shape", "fits"),
    [
        ((4, 1, 3), True),
        ((1, 1, 3), True),
        ((4, 1, 1), True),
        ((1, 1, 1), False),
        ((2, 1, 3), False),
        ((4, 5, 3), False),
        ((1, 3), False),
        ((3,), False),
        ((), False),
        ((1, 4, 1, 3), False),
    ],
)
def test_one_axis_may_be_1(shape: Shape, fits: bool) -> None:  # noqa: FBT001 (a column of the table)
    """Behind `#1`, one axis may have length 1 instead of its own; none may be left out or added."""
    bindings = _bound()
    assert Axes("#1 *S K").match(shape, bindings) is fits
    assert bindings == _bound()


def test_without_another_array_it_binds() -> None:
    """Where no other array has bound the axes, a shape behind `#1` binds them as it is."""
    bindings = Bindings()
    assert Axes("#1 *S K").match((1, 3), bindings)
    assert bindings == _bound((1, 3))


@pytest.mark.parametrize(
    ("shape", "rows", "shared", "broadcast"),
    [
        ((4, 2, 3), True, (), (4, 2, 3)),
        ((1, 2, 3), False, (0,), (1, 2, 3)),
        ((4, 1, 3), True, (1,), (4, 1, 3)),
        ((4, 2, 1), True, (2,), (4, 2, 1)),
    ],
)
def test_an_axis_of_1_is_shared(
    shape: Shape,
    rows: bool,  # noqa: FBT001 (a column of the table)
    shared: tuple[int, ...],
    broadcast: Shape,
) -> None:
    """Values along an axis of 1 share an element; an array whose first axis is 1 has no rows."""
    axes, bindings = Axes("#1 *S K"), _bound((4, 2, 3))
    assert axes.has_rows(_ROWS, shape, bindings) is rows
    found = axes.broadcast_from(_ROWS, shape, bindings)
    assert (found.shared, found.shape) == (shared, broadcast)


def test_the_expected_shape_is_said() -> None:
    """The description has the lengths, and the rule."""
    expected = "[4, 2, 3], of which one axis may be 1 and none may be left out"
    assert Axes("#1 *S K").describe(_bound((4, 2, 3))) == expected
    assert Axes("#1 *S").describe(Bindings(groups={"S": ()})) == "[]"
