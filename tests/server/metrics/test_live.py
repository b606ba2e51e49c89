"""/v1/live: the numbers of /metrics, as the Live screen and `losswire top` draw them."""

import itertools
from datetime import datetime

import jsonschema
import numpy as np
import pytest

from losswire.client import Client, LosswireError
from losswire.server.http.live import SCHEMAS
from losswire.server.metrics.recorder import RECENT_REFUSALS
from tests.support.doors import Doors
from tests.support.requests import f32


def _count(live: dict[str, list[dict[str, object]]], **labels: str) -> int:
    found = [
        each["count"]
        for each in live["calls"]
        if all(each[key] == value for key, value in labels.items())
    ]
    assert all(isinstance(each, int) for each in found)
    return sum(each for each in found if isinstance(each, int))


def test_it_is_what_its_schema_says(doors: Doors) -> None:
    """With calls, refusals and requests in it."""
    with Client(doors.grpc) as client, pytest.raises(LosswireError):
        client.evaluate("mse_loss", {"input": f32(1), "target": f32(1, 2)})
    doors.get("/v1/losses")
    jsonschema.validate(doors.get("/v1/live"), SCHEMAS["Live"])


def test_its_counts_are_those_of_metrics(doors: Doors) -> None:
    """Calls by status, refusals by reason, stages and bytes."""
    with Client(doors.grpc) as client:
        for _ in range(3):
            client.evaluate("mse_loss", {"input": f32(1, 2), "target": f32(2, 3)})
    live, metrics = doors.get("/v1/live"), doors.samples()
    for each in live["calls"]:
        if each["transport"] == "grpc":
            labels = {"grpc_method": each["method"], "grpc_status": each["code"]}
            name = "grpc_server_call_duration_seconds"
            assert each["count"] == metrics.of(f"{name}_count", **labels)
            assert each["seconds_sum"] == metrics.of(f"{name}_sum", **labels)
    for each in live["refusals"]:
        assert each["count"] == metrics.of("losswire_refusals_total", reason=each["reason"])
    for stage, each in live["stages"].items():
        name = "losswire_stage_duration_seconds_count"
        assert each["count"] == metrics.of(name, stage=stage)
    assert live["budget_bytes"] == metrics.of("losswire_budget_bytes")
    assert live["ready"] is True


def test_buckets_ascend_and_end_at_infinity(doors: Doors) -> None:
    """Each pair is a bound and the count up to it."""
    for each in doors.get("/v1/live")["calls"]:
        counts = [count for _, count in each["buckets"]]
        assert each["buckets"][-1] == ["Infinity", each["count"]]
        assert all(low <= high for low, high in itertools.pairwise(counts))


def test_it_counts_requests_but_not_its_own(doors: Doors) -> None:
    """A screen that asks every second must not show itself."""
    before = doors.get("/v1/live")
    doors.get("/v1/losses/mse_loss")
    after = doors.get("/v1/live")
    method = "GET /v1/losses/{name}"
    assert _count(after, method=method, code="200") == _count(before, method=method, code="200") + 1
    methods = {each["method"] for each in after["calls"] if each["transport"] == "http"}
    assert not {each for each in methods if "live" in each or "health" in each}


def test_recent_refusals_are_the_newest(doors: Doors) -> None:
    """At most fifty, the newest first, with method, reason, code and the caller's own sentence."""
    with Client(doors.grpc) as client:
        for number in range(RECENT_REFUSALS + 3):
            with pytest.raises(LosswireError):
                client.evaluate(f"loss_{number}", {"input": np.zeros(1)})
    doors.ask("POST", "/v1/evaluate", {"loss": "nope", "inputs": {}})
    refusals = doors.get("/v1/live")["recent_refusals"]
    assert len(refusals) == RECENT_REFUSALS
    newest, second = refusals[0], refusals[1]
    assert (newest["method"], newest["reason"]) == ("POST /v1/evaluate", "UNKNOWN_LOSS")
    assert second["code"] == "NOT_FOUND"
    assert f'"loss_{RECENT_REFUSALS + 2}"' in second["detail"]
    times = [datetime.fromisoformat(each["time"]) for each in refusals]
    assert times == sorted(times, reverse=True)
