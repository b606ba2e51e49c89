"""Runs as flat rows, as Grafana's Infinity source reads them."""

import uuid
from base64 import b64encode
from typing import Any

import numpy as np
import pytest

from losswire.client import Client, Summary
from tests.support.http_door import Door
from tests.support.http_summaries import violations

_TAG = str(uuid.uuid4())
_DRAW = np.random.default_rng(6)


@pytest.fixture(scope="module")
def saved(kept: Door, client: Client) -> list[str]:
    """Three runs, a day after each other, and a comparison."""
    found = []
    for day in (1, 2, 3):
        values = _DRAW.standard_normal(60) + day
        batch = {"input": values, "target": np.zeros(60), "c": ["a", "b", "c"] * 20}
        summary = client.summarize("l1_loss", [batch], slices=["c"])
        labels = {"tag": _TAG, "model": f"m{day}"} | ({"only": "here"} if day == 2 else {})
        response = kept.client.post(
            "/v1/runs",
            json={
                "name": "history",
                "labels": labels,
                "ended": f"2026-03-0{day}T12:00:00Z",
                "state": _base64(summary.to_bytes()),
            },
        )
        found.append(response.json()["run_id"])
    batch = {"x": [1.0, 2.0], "y": [2.0, 4.0], "target": [0.0, 0.0], "c": ["a", "b"]}
    candidates = {"a": {"input": "x"}, "b": {"input": "y"}}
    comparison = client.compare("l1_loss", [batch], candidates=candidates, slices=["c"])
    found.append(client.runs.save(comparison, "pair", {"tag": _TAG}).run_id)
    return found


def _base64(data: bytes) -> str:
    return b64encode(data).decode()


def _rows(kept: Door, **query: Any) -> list[dict[str, Any]]:  # noqa: ANN401 (parameters)
    response = kept.client.get("/v1/query", params={"label.tag": _TAG, **query})
    assert response.status_code == 200, response.text
    rows: list[dict[str, Any]] = response.json()
    assert all(list(each) == list(rows[0]) for each in rows)
    assert all(not isinstance(value, dict | list) for each in rows for value in each.values())
    return rows


def test_runs_are_rows_over_time(kept: Door, saved: list[str]) -> None:
    """Each candidate is one, with its figures, and a column for each label of any run."""
    rows = _rows(kept, name="history")
    assert [each["run_id"] for each in rows] == saved[2::-1]
    assert [each["time"] for each in rows] == [f"2026-03-0{day}T12:00:00Z" for day in (3, 2, 1)]
    assert [each["label_model"] for each in rows] == ["m3", "m2", "m1"]
    assert [each["label_only"] for each in rows] == [None, "here", None]
    assert list(rows[0])[:5] == ["time", "run_id", "name", "loss", "candidate"]
    for each in rows:
        assert each["low"] < each["mean"] < each["high"]
    assert [each["candidate"] for each in _rows(kept, name="pair")] == ["a", "b"]


def test_rows_are_filtered(kept: Door, saved: list[str]) -> None:
    """By time as RFC 3339 or in milliseconds, by run, by label, and by number."""
    begin, end = "2026-03-02T00:00:00Z", 1_772_539_200_000 - 1
    cases: tuple[tuple[dict[str, Any], list[str]], ...] = (
        ({"name": "history", "from": begin}, saved[2:0:-1]),
        ({"name": "history", "from": begin, "to": end}, saved[1:2]),
        ({"name": "history", "limit": 1}, saved[2:3]),
        ({"run_id": saved[0]}, saved[:1]),
        ({"run_id": saved[0], "loss": "mse_loss"}, []),
        ({"run_id": "nothing"}, []),
        ({"label.model": "m2"}, saved[1:2]),
        ({"loss": "mse_loss"}, []),
    )
    for query, expected in cases:
        assert [each["run_id"] for each in _rows(kept, **query)] == expected


def test_slices_are_rows(kept: Door, client: Client, saved: list[str]) -> None:
    """Each with its lift; of one column where it is named."""
    rows = _rows(kept, select="slices", name="history")
    assert len(rows) == 9
    summary = client.runs.get(saved[0]).summary
    assert isinstance(summary, Summary)
    lifts = {each.label: each for each in summary.slices["c"].by_lift()}
    for each in (each for each in rows if each["run_id"] == saved[0]):
        lift = lifts[each["slice"]]
        assert (each["column"], each["count"]) == ("c", 20)
        assert (each["mean"], each["lift"]) == (lift.statistics.mean, lift.lift)
    assert len(_rows(kept, select="slices", name="history", column="c")) == 9
    assert _rows(kept, select="slices", name="history", column="d") == []


def test_quantiles_and_differences_are_rows(kept: Door, client: Client, saved: list[str]) -> None:
    """Quantiles by their share; differences of comparisons only."""
    rows = _rows(kept, select="quantiles", run_id=saved[1])
    summary = client.runs.get(saved[1]).summary
    assert isinstance(summary, Summary)
    assert {each["quantile"]: each["value"] for each in rows} == {
        share: summary.quantile(share) for share in (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
    }
    [pair] = _rows(kept, select="differences")
    assert (pair["run_id"], pair["first"], pair["second"]) == (saved[3], "a", "b")
    assert (pair["mean"], pair["wins"]) == (-1.5, 2)


def test_numbers_that_json_lacks_are_null(kept: Door, client: Client) -> None:
    """A column of numbers has no texts."""
    tag = str(uuid.uuid4())
    batch = {"input": [1.0, float("nan")], "target": [0.0, 0.0]}
    client.runs.save(client.summarize("l1_loss", [batch]), labels={"tag": tag})
    [row] = _rows(kept, **{"label.tag": tag})
    assert (row["mean"], row["low"], row["count"]) == (None, None, 2)


def test_labels_of_all_runs_are_bounded(kept: Door, client: Client) -> None:
    """Each would be a column of every row, whoever saved the runs."""
    summary = client.summarize("l1_loss", [{"input": [1.0], "target": [0.0]}])
    state = _base64(summary.to_bytes())
    for run in range(5):
        labels = {f"k{run}_{each}": "" for each in range(60)}
        content = {"name": "labels", "labels": labels, "state": state}
        assert kept.client.post("/v1/runs", json=content).status_code == 201
    asked = {"name": "labels", "limit": "4"}
    [first, *_] = kept.client.get("/v1/query", params=asked).json()
    assert sum(name.startswith("label_k") for name in first) == 240
    assert violations(kept.client.get("/v1/query", params={"name": "labels"}), 413) == []


def test_wrong_questions_are_refused(kept: Door) -> None:
    """All that is wrong at once."""
    query = "select=all&limit=0&from=yesterday&to=x&colour=red"
    response = kept.client.get(f"/v1/query?{query}")
    assert sorted(violations(response)) == ["colour", "from", "limit", "select", "to"]


def test_numbers_of_any_length_are_refused(kept: Door) -> None:
    """Python itself reads no number of so many digits."""
    digits = "1" * 5000
    for path, field in (("query", "limit"), ("query", "to"), ("runs", "page_size")):
        response = kept.client.get(f"/v1/{path}?{field}={digits}")
        assert violations(response) == [field]
