"""What a summary over HTTP refuses: with the paths that gRPC has, or those of columns and rows."""

from collections.abc import Mapping, Sequence
from typing import Any

import grpc
import numpy as np
import pytest

from tests.support.http_door import JSON, MULTIPART, Door
from tests.support.http_summaries import NDJSON, Rows, send_lines, violations
from tests.support.requests import f32, i64, item_status
from tests.support.summary_calls import Request, batch, column, header, summarize

_PAIR: dict[str, Any] = {"input": f32(1, 2, 3), "target": f32(0, 0, 0)}
_LONG = "x" * 200

_SAME: dict[str, tuple[dict[str, Any], dict[str, Any], Request, Request | None]] = {
    "an unknown loss": ({"loss": "nope"}, _PAIR, header("nope"), None),
    "an activation": ({"loss": "softmax"}, {"input": f32(1)}, header("softmax"), None),
    "an unknown option": (
        {"loss": "mse_loss", "options": {"delta": 1.0}},
        _PAIR,
        header("mse_loss", options={"delta": 1.0}),
        batch(_PAIR),
    ),
    "a reduction without a mean": (
        {"loss": "mse_loss", "reduction": "sum"},
        _PAIR,
        header("mse_loss", fields={"reduction": 3}),
        None,
    ),
    "limits": (
        {
            "loss": "mse_loss",
            "max_slices": 4097,
            "max_open_clusters": -1,
            "worst": 1001,
            "first_row": -1,
            "report_every_batches": -1,
            "relative_accuracy": 0.001,
            "partition": "é" * 600,
        },
        _PAIR,
        header(
            "mse_loss",
            max_slices=4097,
            max_open_clusters=-1,
            worst=1001,
            first_row=-1,
            report_every_batches=-1,
            relative_accuracy=0.001,
            partition="é" * 600,
        ),
        None,
    ),
    "names of columns": (
        {"loss": "mse_loss", "slices": [["", _LONG], ["a", "a"], []]},
        _PAIR,
        header("mse_loss", tables=[["", _LONG], ["a", "a"], []]),
        None,
    ),
    "a missing input": (
        {"loss": "mse_loss"},
        {"input": f32(1, 2)},
        header("mse_loss"),
        batch({"input": f32(1, 2)}),
    ),
    "shapes that do not fit": (
        {"loss": "mse_loss"},
        {"input": f32(1, 2), "target": f32(1, 2, 3)},
        header("mse_loss"),
        batch({"input": f32(1, 2), "target": f32(1, 2, 3)}),
    ),
    "a class out of range": (
        {"loss": "cross_entropy"},
        {"input": np.zeros((2, 3), np.float32), "target": i64(0, 3)},
        header("cross_entropy"),
        batch({"input": np.zeros((2, 3), np.float32), "target": i64(0, 3)}),
    ),
    "negative weights": (
        {"loss": "mse_loss", "sample_weight": "w"},
        {**_PAIR, "w": np.array([1.0, -1.0, 1.0])},
        header("mse_loss"),
        batch(_PAIR, sample_weight=np.array([1.0, -1.0, 1.0])),
    ),
    "a column of other length": (
        {"loss": "mse_loss", "slices": ["c"]},
        {**_PAIR, "c": i64(1, 2)},
        header("mse_loss", tables=[["c"]]),
        batch(_PAIR, columns={"c": column(i64(1, 2))}),
    ),
    "too many slices": (
        {"loss": "mse_loss", "slices": ["c"], "max_slices": 2},
        {**_PAIR, "c": i64(1, 2, 3)},
        header("mse_loss", tables=[["c"]], max_slices=2),
        batch(_PAIR, columns={"c": column(i64(1, 2, 3))}),
    ),
    "an input that is shared, too": (
        {
            "loss": "mse_loss",
            "inputs": {"target": [0.0]},
            "columns": {"target": "target"},
        },
        _PAIR,
        header("mse_loss", {"target": f32(0)}),
        batch(_PAIR),
    ),
}


@pytest.mark.parametrize("name", _SAME)
def test_mistakes_are_those_of_grpc(door: Door, name: str) -> None:
    """The same code, reason, text and violations."""
    request, columns, first, second = _SAME[name]
    with pytest.raises(grpc.RpcError) as caught:
        summarize(door.stub, [first, *([second] if second else [])])
    status = item_status(caught.value)
    found = Rows(request, columns).send(door, "form").json()
    assert found["detail"] == status.message
    assert (found["code"], found["reason"]) == (caught.value.code().name, status.reason)
    assert found["violations"] == [
        {"field": each.field, "description": each.description} for each in status.violations
    ]


_ROW = {"input": [1.0, 2.0], "target": [0.0, 0.0], "c": "DE"}
_LINES: dict[str, tuple[object, str, str]] = {
    "a text": ({**_ROW, "input": [1.0, "x"]}, "rows[2].input[1]", "is a text"),
    "null": ({**_ROW, "input": [1.0, None]}, "rows[2].input[1]", "is null"),
    "a row without it": ({"input": [1, 2], "c": "DE"}, "rows[2].target", "is missing"),
    "a null": ({**_ROW, "target": None}, "rows[2].target", "is null"),
    "a longer list": ({**_ROW, "input": [1, 2, 3]}, "rows[2].input", "has 3 values"),
    "no list": ({**_ROW, "input": 1}, "rows[2].input", "has no list"),
    "a slice that is null": ({**_ROW, "c": None}, "rows[2].c", "is null"),
    "a slice of another type": ({**_ROW, "c": 7}, 'columns["c"]', "holds values of int, str"),
    "a slice that is a list": ({**_ROW, "c": ["DE"]}, 'columns["c"]', "holds values of list, str"),
    "a list": ([1, 2], "rows[2]", "must be an object"),
    "no JSON": ("{", "rows[2]", "is not JSON"),
    "two rows in one line": ('{"input": [1, 2]}, {"input": [1, 2]}', "rows[2]", "is not JSON"),
}


@pytest.mark.parametrize("name", _LINES)
def test_a_wrong_line_is_named(door: Door, name: str) -> None:
    """By the number of its row, its column, and the place in its value."""
    line, field, text = _LINES[name]
    request = {"loss": "mse_loss", "slices": ["c"]}
    response = send_lines(door.client, "/v1/summarize", [request, _ROW, _ROW, line, _ROW])
    [found] = response.json()["violations"]
    assert found["field"] == field
    assert text in found["description"]


_COLUMNS: dict[str, tuple[Mapping[str, Any], Mapping[str, Any], Sequence[str]]] = {
    "a missing slice": ({"slices": ["c"]}, _PAIR, ['columns["c"]']),
    "a missing column": ({"columns": {"input": "x"}}, _PAIR, ['columns["input"]']),
    "missing roles": (
        {"sample_weight": "w", "clusters": "u", "ids": "i"},
        _PAIR,
        ['columns["w"]', 'columns["u"]', 'columns["i"]'],
    ),
    "a part that nothing reads": ({}, {**_PAIR, "x": f32(1)}, ['columns["x"]']),
    "floats as slices": (
        {"slices": ["c"]},
        {**_PAIR, "c": np.array([0.5, 1, 2])},
        ['columns["c"]'],
    ),
    "slices with two axes": (
        {"slices": ["c"]},
        {**_PAIR, "c": np.zeros((3, 1), np.int64)},
        ['columns["c"]'],
    ),
    "texts as numbers": ({}, {**_PAIR, "input": ["a", "b", "c"]}, ['columns["input"][0]']),
}


@pytest.mark.parametrize("name", _COLUMNS)
def test_a_wrong_column_is_named(door: Door, name: str) -> None:
    """Of a form, by the name of its part."""
    fields, columns, expected = _COLUMNS[name]
    response = Rows({"loss": "mse_loss", **fields}, columns).send(door, "form")
    found = violations(response)
    assert [each for each in found if each in expected] == list(expected)


_REQUESTS: dict[str, tuple[Mapping[str, Any], Sequence[str]]] = {
    "an unknown field": ({"gradients": ["input"]}, ["gradients"]),
    "a field of an evaluation": ({"grad_output": 1.0}, ["grad_output"]),
    "slices that are no list": ({"slices": "c"}, ["slices"]),
    "slices that are no texts": ({"slices": ["c", 1]}, ["slices[1]"]),
    "no texts": (
        {"columns": ["input"], "clusters": 1, "partition": 2},
        ["columns", "clusters", "header.partition"],
    ),
    "no numbers": (
        {"worst": 1.5, "first_row": True, "max_slices": 2**40, "relative_accuracy": "x"},
        [
            "header.worst",
            "header.first_row",
            "header.max_slices",
            "header.relative_accuracy",
        ],
    ),
    "no names of enums": (
        {"slice_overflow": "drop", "cluster_order": 1, "engine": "fast"},
        ["header.evaluation.engine", "header.slice_overflow", "header.cluster_order"],
    ),
    "no state": ({"resume_from": "!"}, ["header.resume_from"]),
    "candidates": ({"candidates": {"a": {"input": "x"}, "b": {"input": "y"}}}, ["candidates"]),
}


@pytest.mark.parametrize("name", _REQUESTS)
def test_a_wrong_request_is_named(door: Door, name: str) -> None:
    """All that is wrong with its form, before any row is read."""
    fields, expected = _REQUESTS[name]
    response = Rows({"loss": "mse_loss", **fields}, _PAIR).send(door, "form")
    assert violations(response) == list(expected)


def test_a_comparison_needs_candidates(door: Door) -> None:
    """And says how many; their inputs must have columns."""
    missing = Rows({"loss": "mse_loss"}, _PAIR, "/v1/compare").send(door, "form")
    assert violations(missing) == ["candidates"]
    request = {"loss": "mse_loss", "candidates": {"a": {"input": "input"}, "b": {"input": "y"}}}
    lacking = Rows(request, _PAIR, "/v1/compare").send(door, "form")
    assert violations(lacking) == ['columns["y"]']
    one = {"loss": "mse_loss", "candidates": {"a": {"input": "input"}}}
    assert violations(Rows(one, _PAIR, "/v1/compare").send(door, "form")) == ["header.candidates"]


def test_bodies_of_other_forms_are_refused(door: Door) -> None:
    """Another media type is 415, a form without a request and lines without one are 400."""
    assert door.client.post("/v1/summarize", json={"loss": "mse_loss"}).status_code == 415
    empty = door.client.post("/v1/summarize", files={"input": (None, "[1]", JSON)})
    assert violations(empty) == ["request"]
    for content in (b"", b"\n", b" \n\n", b"[1]\n", b"x"):
        response = door.client.post(
            "/v1/summarize", content=content, headers={"content-type": NDJSON}
        )
        assert response.status_code == 400
    headers = {"content-type": f"{MULTIPART}; boundary=x"}
    assert door.client.post("/v1/summarize", content=b"x", headers=headers).status_code == 400


def test_a_line_without_an_end_is_refused(door: Door) -> None:
    """Before it takes more memory than a message may."""
    text = '{"loss": "' + "x" * (9 << 20)
    response = door.client.post(
        "/v1/summarize", content=text.encode(), headers={"content-type": NDJSON}
    )
    assert response.status_code == 413


def test_no_rows_are_an_empty_summary(door: Door) -> None:
    """The request alone, and blank lines."""
    response = send_lines(door.client, "/v1/summarize", [{"loss": "mse_loss"}, "", " "])
    found = response.json()["summary"]
    assert (found["count"], found["mean"], found["histogram"]["low"]) == (0, "NaN", [])
    assert found["sentence"] == "No row took part in mse_loss."


def test_other_slices_are_counted_where_that_is_asked_for(door: Door) -> None:
    """The label null stands for them."""
    request = {
        "loss": "mse_loss",
        "slices": ["c"],
        "max_slices": 1,
        "slice_overflow": "other",
        "cluster_order": "grouped",
        "clusters": "c",
    }
    rows = Rows(request, {**_PAIR, "c": ["a", "b", "c"]})
    found = rows.send(door, "form").json()["summary"]["slices"]["c"]
    assert [(each["label"], each["count"]) for each in found] == [("a", 1), (None, 2)]
