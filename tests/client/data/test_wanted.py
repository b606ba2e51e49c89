"""The columns that an evaluation reads follow from the loss and the arguments."""

from collections.abc import Mapping
from typing import Any

import pytest

from losswire.client import Client
from losswire.client._data.wanted import columns_wanted
from losswire.client._messages.catalogue import LossInfo


@pytest.fixture(scope="module")
def losses(server: str) -> Mapping[str, LossInfo]:
    """The losses of a server."""
    with Client(server) as client:
        return {info.name: info for info in client.losses()}


def test_inputs_come_from_columns_of_their_names(losses: Mapping[str, LossInfo]) -> None:
    """Unless another is named, they are shared, or they are a candidate's own."""
    wanted = columns_wanted(
        losses["cross_entropy"],
        columns={"target": "label"},
        candidates={"a": {"input": "p"}, "b": {"input": "q"}},
        slices=["country", ("country", "device")],
        ids="id",
    )
    assert wanted.inputs == {"target": "label"}
    assert wanted.candidates == {"a": {"input": "p"}, "b": {"input": "q"}}
    assert wanted.slice_columns == ("country", "device")
    assert wanted.columns_in(["label", "p", "q", "country", "device", "id", "x"], "rows") == [
        "label",
        "p",
        "q",
        "country",
        "device",
        "id",
    ]


@pytest.mark.parametrize(
    ("loss", "shared", "sample_weight", "optional", "shared_only"),
    [
        # Class weights have no rows: no column is taken for them.
        ("cross_entropy", (), None, {}, {"weight"}),
        ("cross_entropy", ("weight",), None, {}, set()),
        ("cross_entropy", (), "weight", {}, set()),
        # These have, unless the column has another use.
        ("mse_loss", (), None, {"weight": "weight"}, set()),
        ("mse_loss", (), "weight", {}, set()),
    ],
)
def test_optional_inputs_are_read_if_they_have_rows(
    losses: Mapping[str, LossInfo],
    *,
    loss: str,
    shared: tuple[str, ...],
    sample_weight: str | None,
    optional: dict[str, str],
    shared_only: set[str],
) -> None:
    """Those without are refused in batches."""
    wanted = columns_wanted(losses[loss], shared=shared, sample_weight=sample_weight)
    assert wanted.inputs == {"input": "input", "target": "target"}
    assert wanted.optional == optional
    assert wanted.shared_only == shared_only


def test_rows_are_in_the_axis_of_the_layout(losses: Mapping[str, LossInfo]) -> None:
    """ctc_loss has its rows in the second axis of the probabilities; all others in the first."""
    assert columns_wanted(losses["ctc_loss"]).row_axes == {"log_probs": 1}
    shared = {"cross_entropy": {"weight": None}}
    for name in ("cross_entropy", "mse_loss", "cosine_embedding_loss", "triplet_margin_loss"):
        assert columns_wanted(losses[name]).row_axes == shared.get(name, {})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"columns": {"inputs": "p"}},
            (
                'columns: cross_entropy has no input "inputs"; nearest: input; it has input, '
                "target, weight"
            ),
        ),
        (
            {"candidates": {"a": {"logits": "p"}}},
            'candidates["a"]: cross_entropy has no input "logits"; it has input, target, weight',
        ),
        ({"shared": ["w"]}, 'shared: cross_entropy has no input "w"; it has input, target, weight'),
        (
            {"shared": ["input"], "columns": {"input": "p"}},
            'input "input" is both in shared and in columns',
        ),
        (
            {"columns": {"input": "p"}, "candidates": {"a": {"input": "q"}}},
            'input "input" is both in columns and in candidates',
        ),
        (
            {"columns": {"weight": "w"}},
            'columns: the input "weight" has no rows; give it in shared',
        ),
        ({"slices": [("a", "a")]}, "slices: ('a', 'a') names no column, or one of them twice"),
        ({"slices": [()]}, "slices: () names no column, or one of them twice"),
        ({"nulls": "drop"}, 'nulls: \'drop\' is neither "refuse" nor "skip"'),
    ],
)
def test_wrong_arguments_are_named(
    losses: Mapping[str, LossInfo], arguments: dict[str, Any], message: str
) -> None:
    """The error names the argument."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole text is compared below
        columns_wanted(losses["cross_entropy"], **arguments)
    assert str(caught.value) == message


def test_a_slices_argument_that_is_text_is_one_column(losses: Mapping[str, LossInfo]) -> None:
    """A single name need not be in a list."""
    assert columns_wanted(losses["mse_loss"], slices="country").slices == ("country",)
