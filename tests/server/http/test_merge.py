"""Pieces of an upload merge to the whole, whatever sent them."""

from base64 import b64encode
from typing import Any

import numpy as np

from losswire.client import Summary
from tests.support.http_door import Door
from tests.support.http_summaries import MEDIA, Rows, state_of, violations

_DRAW = np.random.default_rng(9)
_X = _DRAW.standard_normal(300).astype(np.float32)
_Y = _DRAW.standard_normal(300).astype(np.float32)
_C = [["a", "b", "c"][each] for each in _DRAW.integers(0, 3, 300)]
_REQUEST: dict[str, Any] = {"loss": "mse_loss", "slices": ["c"], "worst": 7, "partition": "p"}


def _piece(door: Door, begin: int, end: int, media: str = "form") -> Any:  # noqa: ANN401 (JSON)
    cut = slice(begin, end)
    rows = Rows(
        {**_REQUEST, "first_row": begin}, {"input": _X[cut], "target": _Y[cut], "c": _C[cut]}
    )
    return rows.send(door, media).json()


def _merge(door: Door, *states: object) -> Any:  # noqa: ANN401 (a response)
    return door.client.post("/v1/summaries/merge", json={"states": list(states)})


def test_pieces_merge_to_the_whole(door: Door) -> None:
    """Of three media types and in any order: counts, buckets, extremes, slices and worst rows."""
    whole = state_of(Rows(_REQUEST, {"input": _X, "target": _Y, "c": _C}).send(door, "form"))
    spans = [(0, 120), (120, 130), (130, 300)]
    states = [
        _piece(door, begin, end, media)["state"]
        for (begin, end), media in zip(spans, MEDIA, strict=True)
    ]
    for order in ((0, 1, 2), (2, 0, 1)):
        response = _merge(door, *(states[each] for each in order))
        merged = state_of(response)
        assert merged.included == whole.included
        assert merged.worst == whole.worst
        for ours, theirs in (
            (merged, whole),
            *((merged.slices["c"][each], whole.slices["c"][each]) for each in "abc"),
        ):
            assert ours.count == theirs.count
            assert abs(ours.mean - theirs.mean) <= 1e-12 * abs(theirs.mean)
        assert (
            response.json()["summary"]["histogram"]
            == (_merge(door, b64encode(whole.to_bytes()).decode()).json()["summary"]["histogram"])
        )


def test_one_state_is_described(door: Door) -> None:
    """It comes back with the same bytes and figures."""
    piece = _piece(door, 0, 300)
    found = _merge(door, piece["state"]).json()
    assert found == {"summary": piece["summary"], "state": piece["state"]}


def test_states_that_do_not_merge_are_named(door: Door) -> None:
    """Rows that would count twice, other losses, bytes that are no state."""
    state = _piece(door, 0, 10)["state"]
    response = _merge(door, state, state)
    assert violations(response) == ["states"]
    assert "rows 0 to 9 of partition 'p' would be counted twice" in response.json()["detail"]
    other = Rows({"loss": "l1_loss"}, {"input": _X, "target": _Y}).send(door, "form").json()
    assert violations(_merge(door, state, other["state"])) == ["states"]
    for wrong in ("?", "AAAA", 7, None):
        assert violations(_merge(door, state, wrong)) == ["states[1]"]
    bodies: list[dict[str, Any]] = [{}, {"states": []}, {"states": state}]
    for body in (*bodies, {"states": [state], "x": 1}):
        assert violations(door.client.post("/v1/summaries/merge", json=body)) == ["states"]


def test_a_hostile_state_is_refused(door: Door) -> None:
    """One whose form is right, and whose moments are not: it says so, and nothing is logged."""
    message = state_of(
        Rows({"loss": "mse_loss"}, {"input": _X, "target": _Y}).send(door, "form")
    ).message
    total = message.total.distributions[0]
    total.terms.products[:] = [float("nan")] * 3
    total.sum = float("inf")
    total.mean_denominator = 0
    response = _merge(door, b64encode(message.SerializeToString()).decode())
    assert response.status_code == 200
    assert response.json()["summary"]["standard_error"] == "NaN"
    assert Summary.from_bytes(message.SerializeToString()).count == 300
