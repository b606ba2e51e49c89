"""The order of merging depends on the number of parts alone."""

import random

import pytest

from losswire.client._distributed.tree import MergeTree


def _text(
    parts: int, fan_in: int, order: list[int], missing: frozenset[int] = frozenset()
) -> str | None:
    """Settle parts in an order; returns how they were merged."""
    tree = MergeTree[str](parts, fan_in, lambda states: f"({' '.join(states)})")
    for part in order:
        assert tree.root is None
        tree.settle(part, None if part in missing else str(part))
    return tree.root


@pytest.mark.parametrize(
    ("parts", "fan_in", "expected"),
    [
        (1, 2, "0"),
        (2, 2, "(0 1)"),
        (3, 2, "((0 1) 2)"),
        (5, 2, "(((0 1) (2 3)) 4)"),
        (4, 4, "(0 1 2 3)"),
        (5, 4, "((0 1 2 3) 4)"),
        (7, 3, "((0 1 2) (3 4 5) 6)"),
        (10, 3, "(((0 1 2) (3 4 5) (6 7 8)) 9)"),
    ],
)
def test_neighbours_are_merged(parts: int, fan_in: int, expected: str) -> None:
    """In groups, and the groups again, whatever comes first."""
    order = list(range(parts))
    assert _text(parts, fan_in, order) == expected
    assert _text(parts, fan_in, order[::-1]) == expected


def test_every_order_gives_the_same() -> None:
    """Parts are done in any order, and some not at all."""
    draw = random.Random(13)  # noqa: S311 - no secret
    for parts in (2, 15, 16, 17, 63, 64, 65, 300):
        order = list(range(parts))
        missing = frozenset(draw.sample(order, parts // 5))
        expected = _text(parts, 16, order), _text(parts, 16, order, missing)
        for _ in range(5):
            draw.shuffle(order)
            assert (_text(parts, 16, order), _text(parts, 16, order, missing)) == expected


def test_nothing_but_missing_parts_is_nothing() -> None:
    """There is no state then."""
    assert _text(3, 2, [0, 1, 2], frozenset({0, 1, 2})) is None


@pytest.mark.parametrize("fan_in", [1, 0, -2])
def test_a_fan_in_that_merges_nothing_is_refused(fan_in: int) -> None:
    """One state is nothing to merge."""
    with pytest.raises(ValueError, match="fan_in: expected an integer of at least 2"):
        MergeTree[str](3, fan_in, "".join)
