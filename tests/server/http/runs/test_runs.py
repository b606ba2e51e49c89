"""Runs over HTTP are those of gRPC: saved, listed in pages, read and deleted."""

import uuid
from base64 import b64decode, b64encode
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from losswire.client import Client, Summary
from tests.support.http_door import Door
from tests.support.http_summaries import Rows, is_within, violations

_X = np.random.default_rng(1).standard_normal(100).astype(np.float32)
_COLUMNS: dict[str, Any] = {"input": _X, "target": -_X, "c": ["a", "b"] * 50}
_REQUEST: dict[str, Any] = {
    "loss": "huber_loss",
    "options": {"delta": 0.5},
    "slices": ["c"],
    "worst": 3,
    "partition": "p",
    "relative_accuracy": 0.02,
}


@pytest.fixture(scope="module")
def answer(kept: Door) -> Any:  # noqa: ANN401 (JSON)
    """A summary, as the HTTP door answers."""
    return Rows(_REQUEST, _COLUMNS).send(kept, "form").json()


def _save(kept: Door, answer: Any, **fields: Any) -> Any:  # noqa: ANN401 (JSON)
    return kept.client.post("/v1/runs", json={"state": answer["state"], **fields})


def test_a_run_goes_round(kept: Door, client: Client, answer: Any) -> None:  # noqa: ANN401 (JSON)
    """Saved here, it is the same for the SDK; with its times, labels, header and figures."""
    run_id = str(uuid.uuid4())
    fields = {
        "run_id": run_id,
        "name": "nightly",
        "labels": {"model": "m1", "commit": "abc"},
        "started": "2026-01-02T03:04:05Z",
        "ended": "2026-01-02T04:04:05.5+01:00",
        "request": _REQUEST,
    }
    response = _save(kept, answer, **fields)
    assert (response.status_code, response.json()["created"]) == (201, True)
    again = _save(kept, answer, **fields)
    assert (again.status_code, again.json()["created"]) == (200, False)

    run = client.runs.get(run_id)
    assert (run.name, run.labels) == ("nightly", fields["labels"])
    assert run.started == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert run.summary == Summary.from_bytes(b64decode(answer["state"]))

    found = kept.client.get(f"/v1/runs/{run_id}").json()
    assert found["state"] == answer["state"]
    assert found["summary"] == answer["summary"]
    assert (found["started"], found["ended"]) == (
        "2026-01-02T03:04:05Z",
        "2026-01-02T03:04:05.500Z",
    )
    assert is_within({**_REQUEST, "slices": [["c"]]}, found["header"])
    [figures] = found["figures"]
    summary = answer["summary"]
    assert (figures["count"], figures["mean"]) == (100, summary["mean"])
    assert [figures["low"], figures["high"]] == summary["interval"]
    assert found["loss"] == "huber_loss"


def test_a_run_of_the_sdk_is_read(kept: Door, client: Client) -> None:
    """With the header that the SDK kept: tensors as data type and shape."""
    batch = {"input": np.eye(3, dtype=np.float32), "target": [0, 1, 2]}
    weight = np.ones(3, np.float32)
    summary = client.summarize("cross_entropy", [batch], shared={"weight": weight})
    run_id = client.runs.save(summary, "by the SDK").run_id
    found = kept.client.get(f"/v1/runs/{run_id}").json()
    assert b64decode(found["state"]) == summary.to_bytes()
    assert found["header"]["inputs"] == {"weight": {"data_type": "float32", "shape": [3]}}
    comparison = client.compare(
        "mse_loss",
        [{"x": [1.0, 2.0], "y": [0.0, 1.0], "target": [0.0, 0.0]}],
        candidates={"a": {"input": "x"}, "b": {"input": "y"}},
    )
    run_id = client.runs.save(comparison).run_id
    found = kept.client.get(f"/v1/runs/{run_id}").json()
    assert found["summary"]["candidate_names"] == ["a", "b"]
    assert [each["candidate"] for each in found["figures"]] == ["a", "b"]
    assert set(found["header"]["candidates"]) == {"a", "b"}


def test_lists_come_in_pages(kept: Door, client: Client, answer: Any) -> None:  # noqa: ANN401 (JSON)
    """With the filters of gRPC, the one saved last first."""
    tag = str(uuid.uuid4())
    saved = [
        _save(kept, answer, name=f"n{each}", labels={"tag": tag}).json()["run_id"]
        for each in range(5)
    ]
    pages, token = [], ""
    while True:
        query: dict[str, Any] = {
            "label.tag": tag,
            "loss": "huber_loss",
            "page_size": 2,
            "page_token": token,
        }
        found = kept.client.get("/v1/runs", params=query).json()
        pages.append([each["run_id"] for each in found["runs"]])
        token = found["next_page_token"]
        if not token:
            break
    assert pages == [saved[:2:-1], saved[2:0:-1], saved[:1]]
    assert [each.run_id for each in client.runs.list(labels={"tag": tag})] == saved[::-1]
    one = kept.client.get("/v1/runs", params={"label.tag": tag, "name": "n3"}).json()["runs"]
    assert [each["run_id"] for each in one] == [saved[3]]
    assert kept.client.get("/v1/runs", params={"label.tag": "none"}).json()["runs"] == []


def test_a_run_is_deleted_once(kept: Door, answer: Any) -> None:  # noqa: ANN401 (JSON)
    """Deleting it again succeeds, reading it is 404."""
    run_id = _save(kept, answer).json()["run_id"]
    assert kept.client.delete(f"/v1/runs/{run_id}").json() == {"deleted": True}
    assert kept.client.delete(f"/v1/runs/{run_id}").json() == {"deleted": False}
    assert violations(kept.client.get(f"/v1/runs/{run_id}"), 404) == ["run_id"]


def test_wrong_runs_are_refused(kept: Door, answer: Any) -> None:  # noqa: ANN401 (JSON)
    """With the paths of gRPC; another run of the same id is 409."""
    state = answer["state"]
    wrong: dict[str, tuple[dict[str, Any], list[str]]] = {
        "texts": (
            {"run_id": 7, "name": [], "labels": {"a": 1}, "started": "today", "x": 1},
            ["run.run_id", "run.name", "run.labels", "run.started", "run.x"],
        ),
        "values": (
            {"run_id": "a b", "name": "x" * 300, "labels": {"": "x"}},
            ["run.run_id", "run.name", 'run.labels[""]'],
        ),
        "times": (
            {"started": "2026-01-02T00:00:00Z", "ended": "2026-01-01T00:00:00Z"},
            ["run.ended"],
        ),
        "no state": ({"state": None}, ["run.summary"]),
        "a state that is none": ({"state": "AAAA"}, ["run.summary"]),
        "a request that is none": ({"request": {"loss": 1}}, ["header.evaluation.loss"]),
    }
    for fields, expected in wrong.values():
        response = kept.client.post("/v1/runs", json={"state": state, **fields})
        assert violations(response) == expected
    run_id = _save(kept, answer).json()["run_id"]
    other = Rows({"loss": "mse_loss"}, {"input": _X, "target": _X}).send(kept, "form").json()
    assert violations(_save(kept, other, run_id=run_id), 409) == ["run.run_id"]
    for query, field in (
        ("page_size=x", "page_size"),
        ("page_size=2000", "page_size"),
        ("a=b", "a"),
    ):
        assert violations(kept.client.get(f"/v1/runs?{query}")) == [field]
    assert violations(kept.client.get("/v1/runs?page_token=x")) == ["page_token"]
    assert violations(kept.client.get("/v1/runs/a%20b")) == ["run_id"]


def test_a_server_without_a_store_says_so(door: Door) -> None:
    """Every path of runs is 501."""
    for path in ("/v1/runs", "/v1/runs/a", "/v1/query"):
        response = door.client.get(path)
        assert (response.status_code, response.json()["reason"]) == (501, "NOT_SERVED")


def test_equal_bytes_are_sent_twice(kept: Door, answer: Any) -> None:  # noqa: ANN401 (JSON)
    """The state of a run that was read can be saved as another run."""
    first = _save(kept, answer).json()["run_id"]
    state = kept.client.get(f"/v1/runs/{first}").json()["state"]
    assert b64encode(b64decode(state)).decode() == state
    assert _save(kept, {"state": state}).status_code == 201
