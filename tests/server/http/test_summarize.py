"""Summaries and comparisons over HTTP are those that the SDK gets over gRPC, bit for bit."""

import json
import socket
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from losswire.client import Client, Comparison, Summary
from tests.support.http_door import Door
from tests.support.http_summaries import (
    MEDIA,
    NDJSON,
    Rows,
    comparison_of,
    is_within,
    state_of,
)

_DRAW = np.random.default_rng(7)
_N = 400
_X = _DRAW.standard_normal((_N, 4)).astype(np.float32)
_Z = (_X + 0.1 * _DRAW.standard_normal((_N, 4))).astype(np.float32)
_Y = _DRAW.integers(0, 4, _N)
_V = _DRAW.standard_normal(_N).astype(np.float32)
_COUNTRY = [["DE", "FR", "Österreich"][each] for each in _DRAW.integers(0, 3, _N)]
_AGE = _DRAW.integers(20, 24, _N)
_IDS = [f"row {each}" for each in range(_N)]
_USERS = _DRAW.integers(0, 50, _N)
_WEIGHT = _DRAW.integers(0, 3, _N).astype(np.float64)
_CLASSES = np.array([1, 2, 0.5, 1], np.float32)


@pytest.fixture(scope="module")
def client(door: Door) -> Iterator[Client]:
    """The SDK, over gRPC."""
    with Client(door.child.address) as client:
        yield client


_FEW: dict[str, Any] = {"input": _V, "target": -_V}

_SUMMARIES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "plain": ({"loss": "mse_loss"}, _FEW, {}),
    "everything": (
        {
            "loss": "cross_entropy",
            "options": {"label_smoothing": 0.1},
            "inputs": {"weight": {"data_type": "float32", "values": _CLASSES.tolist()}},
            "slices": ["country", ["country", "age"]],
            "ids": "id",
            "clusters": "user",
            "sample_weight": "w",
            "worst": 5,
            "relative_accuracy": 0.05,
            "partition": "june",
            "max_slices": 100,
        },
        {
            "input": _X,
            "target": _Y,
            "country": _COUNTRY,
            "age": _AGE,
            "id": _IDS,
            "user": _USERS,
            "w": _WEIGHT,
        },
        {
            "options": {"label_smoothing": 0.1},
            "shared": {"weight": _CLASSES},
            "slices": ["country", ("country", "age")],
            "ids": "id",
            "cluster": "user",
            "sample_weight": "w",
            "worst": 5,
            "accuracy": 0.05,
            "partition": "june",
            "max_slices": 100,
        },
    ),
    "columns of other names": (
        {
            "loss": "cross_entropy",
            "columns": {"input": "logits", "target": "label"},
            "compute_data_type": "float64",
            "engine": "autograd",
            "worst": 0,
            "slices": ["label"],
        },
        {"logits": _X.astype(np.float64), "label": _Y},
        {
            "columns": {"input": "logits", "target": "label"},
            "compute_dtype": np.float64,
            "engine": "autograd",
            "worst": 0,
            "slices": ["label"],
        },
    ),
    "NaN and infinite losses": (
        {"loss": "l1_loss", "worst": 3},
        {"input": np.array([1, 2, np.nan, np.inf], np.float32), "target": np.zeros(4, np.float32)},
        {"worst": 3},
    ),
}


def _by_sdk(client: Client, loss: str, columns: dict[str, Any], fields: dict[str, Any]) -> Summary:
    given = {"partition": "", **fields}
    return client.summarize(loss, [columns], given.pop("options", None), **given)


@pytest.mark.parametrize("media", MEDIA)
@pytest.mark.parametrize("name", _SUMMARIES)
def test_a_summary_is_that_of_the_sdk(door: Door, client: Client, name: str, media: str) -> None:
    """The state has the same bytes, and the JSON everything that to_dict returns."""
    request, columns, fields = _SUMMARIES[name]
    if media == "lines" and "NaN" in name:
        columns = {**columns, "input": [1.0, 2.0, "NaN", "Infinity"]}
    expected = _by_sdk(client, request["loss"], _SUMMARIES[name][1], fields)
    response = Rows(request, columns).send(door, media)
    assert state_of(response).to_bytes() == expected.to_bytes()
    found = response.json()
    assert is_within(json.loads(json.dumps(expected.to_dict())), found["summary"])
    assert found["rows"] == expected.rows


def test_a_summary_has_what_a_page_draws(door: Door, client: Client) -> None:
    """Buckets that hold all weight, lifts with Holm's correction, and sentences."""
    request, columns, fields = _SUMMARIES["everything"]
    expected = _by_sdk(client, request["loss"], columns, fields)
    found = Rows(request, columns).send(door, "form").json()["summary"]
    low, high, weight = (found["histogram"][name] for name in ("low", "high", "weight"))
    assert sum(weight) == expected.weight_sum
    assert low[0] == expected.minimum
    assert high[-1] == expected.maximum
    assert low == sorted(low)
    lifts = {each.label: each for each in expected.slices["country"].by_lift()}
    assert {each["label"] for each in found["slices"]["country"]} == set(lifts)
    for each in found["slices"]["country"]:
        lift = lifts[each["label"]]
        numbers = (lift.lift, list(lift.interval), lift.p_value, lift.p_adjusted)
        names = ("lift", "lift_interval", "p_value", "p_adjusted")
        assert tuple(each[name] for name in names) == numbers
        assert each["sentence"].startswith(f"{each['label']}: mean ")
    assert found["sentence"].startswith("Mean cross_entropy ")
    assert any("Rows may depend on each other" in each for each in found["notes"])


def test_zeros_and_negative_losses_are_buckets(door: Door) -> None:
    """In ascending order: negative ones, zeros without a width, positive ones."""
    # The first of these losses is 0, the third is negative.
    columns = {"input": [0.0, 0.0, 1.0, 50.0], "target": [1.0, 1.0, 2.0, 1.0]}
    request = {"loss": "poisson_nll_loss", "options": {"log_input": False, "eps": 1.0}}
    found = Rows(request, columns).send(door, "lines")
    histogram = found.json()["summary"]["histogram"]
    assert all(low <= high for low, high in zip(histogram["low"], histogram["high"], strict=True))
    assert sum(histogram["weight"]) == 4
    assert (0.0, 0.0) in list(zip(histogram["low"], histogram["high"], strict=True))
    assert histogram["low"][0] < 0


@pytest.mark.parametrize("media", MEDIA)
def test_a_comparison_is_that_of_the_sdk(door: Door, client: Client, media: str) -> None:
    """The same bytes; the JSON has each candidate by its name, and the differences in words."""
    request = {
        "loss": "cross_entropy",
        "candidates": {"new": {"input": "x"}, "old": {"input": "z"}},
        "slices": ["country"],
        "worst": 4,
    }
    columns: dict[str, Any] = {"x": _X, "z": _Z, "target": _Y, "country": _COUNTRY}
    expected: Comparison = client.compare(
        "cross_entropy",
        [columns],
        candidates={"new": {"input": "x"}, "old": {"input": "z"}},
        slices=["country"],
        worst=4,
        partition="",
    )
    response = Rows(request, columns, "/v1/compare").send(door, media)
    assert comparison_of(response) == expected
    found, known = response.json()["summary"], json.loads(json.dumps(expected.to_dict()))
    assert found["candidate_names"] == known["candidates"]
    assert is_within(known["statistics"], found["candidates"])
    for each in known["differences"]:
        each["most_different"] = each.pop("worst")
    assert is_within(known["differences"], found["differences"])
    [pair] = found["differences"]
    assert sum(pair["histogram"]["weight"]) == _N
    adjusted = {
        each.label: each.p_adjusted
        for each in expected.difference("new", "old").by_slice("country")
    }
    assert {each["label"]: each["p_adjusted"] for each in pair["slices"]["country"]} == adjusted


def test_lines_are_batched_by_the_server(door: Door, client: Client) -> None:
    """More rows than one block: the same counts and rows, and the same mean but for rounding."""
    values = np.random.default_rng(3).standard_normal(90_000).astype(np.float32)
    columns: dict[str, Any] = {"input": values, "target": np.zeros_like(values)}
    expected = client.summarize("mse_loss", [columns], partition="")
    found = state_of(Rows({"loss": "mse_loss"}, columns).send(door, "lines"))
    assert (found.count, found.included) == (expected.count, expected.included)
    assert found.worst == expected.worst
    assert found.message.total.distributions[0].sketch == (
        expected.message.total.distributions[0].sketch
    )
    assert found.mean == pytest.approx(expected.mean, rel=1e-12)


@pytest.mark.parametrize("media", MEDIA)
def test_an_answer_can_be_lines(door: Door, media: str) -> None:
    """Progress while rows are counted, reports where they were asked for, the answer last."""
    request = {"loss": "mse_loss", "report_every_batches": 1}
    rows = Rows(request, _FEW, headers={"accept": NDJSON})
    response = rows.send(door, media)
    assert response.headers["content-type"] == NDJSON
    *progress, last = map(json.loads, response.text.splitlines())
    assert all(set(each) == {"progress"} for each in progress)
    reports = [each["progress"] for each in progress if "summary" in each["progress"]]
    assert [each["rows"] for each in reports] == [_N]
    assert reports[0]["summary"]["count"] == _N
    assert last == Rows({"loss": "mse_loss"}, _FEW).send(door, media).json()


def test_an_error_after_progress_is_a_line(door: Door) -> None:
    """It is the problem that would have been the answer; before any line, it is a status."""
    rows = [json.dumps({"input": 1.0, "target": 0.0})] * 60_000
    wrong = json.dumps({"input": "one", "target": 0.0})
    request = json.dumps({"loss": "mse_loss", "report_every_batches": 1})
    content = "\n".join([request, *rows, wrong]).encode()
    headers = {"content-type": NDJSON, "accept": NDJSON}
    response = door.client.post("/v1/summarize", content=content, headers=headers)
    *_, last = map(json.loads, response.text.splitlines())
    assert last["error"]["status"] == 400
    assert [each["field"] for each in last["error"]["violations"]] == ["rows[60000].input"]
    early = door.client.post(
        "/v1/summarize", content=f"{request}\n{wrong}".encode(), headers=headers
    )
    assert early.status_code == 400


def test_a_summary_can_be_continued(door: Door, client: Client) -> None:
    """From the state that another answer had."""
    first = Rows({"loss": "mse_loss", "partition": "p"}, _FEW).send(door, "form").json()
    request = {"loss": "mse_loss", "partition": "p", "resume_from": first["state"]}
    found = state_of(Rows(request, _FEW).send(door, "lines"))
    batches = [_FEW, _FEW]
    assert found.included == client.summarize("mse_loss", batches, partition="p").included
    assert found.count == 2 * _N


def test_rows_may_lie_in_another_axis(door: Door, client: Client) -> None:
    """A loss whose inputs have them second is the same row by row."""
    draw = np.random.default_rng(5)
    logits = draw.standard_normal((6, 3, 4)).astype(np.float32)
    by_row: dict[str, Any] = {
        "log_probs": np.moveaxis(logits, 1, 0).tolist(),
        "targets": [[1, 2], [1, 1], [3, 2]],
        "input_lengths": [6, 6, 5],
        "target_lengths": [2, 2, 1],
    }
    columns: dict[str, Any] = {
        "log_probs": logits,
        "targets": np.array(by_row["targets"]),
        "input_lengths": np.array(by_row["input_lengths"]),
        "target_lengths": np.array(by_row["target_lengths"]),
    }
    expected = client.summarize("ctc_loss", [columns], partition="")
    found = state_of(Rows({"loss": "ctc_loss"}, by_row).send(door, "lines"))
    assert found == expected


@pytest.mark.parametrize("accept", ["application/json", NDJSON])
def test_a_caller_who_goes_away_leaves_nothing(door: Door, accept: str) -> None:
    """In the middle of the rows: their memory is released, and nothing is logged as an error."""
    host, _, port = door.address.partition(":")
    row = b'{"input": 1.0, "target": 0.0}\n'
    head = (
        f"POST /v1/summarize HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n"
        f"Content-Type: {NDJSON}\r\nContent-Length: {1 << 30}\r\n\r\n"
    )
    for _ in range(3):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(head.encode() + b'{"loss": "mse_loss"}\n' + row * 100_000)
            if accept == NDJSON:
                assert b"progress" in connection.recv(4096) + connection.recv(4096)
    while door.client.get("/v1/live").json()["reserved_bytes"]["compute"]:
        pass
