"""The gate over HTTP decides as `losswire gate` does."""

import json
import uuid
from collections.abc import Sequence
from typing import Any

import pytest

from losswire.client import Client
from losswire.client.cli import main
from tests.support.http_door import Door
from tests.support.http_summaries import violations
from tests.support.runs import summary

_LABELS = ["DE", "DE", "FR", "FR"]


def _saved(client: Client, values: Sequence[float]) -> str:
    message = summary(values, {"country": (_LABELS * 21)[: len(values)]})
    return client.runs.save(message, f"gate {uuid.uuid4()}").run_id


@pytest.fixture(scope="module")
def ids(client: Client) -> dict[str, str]:
    """Runs of low, of higher, of NaN losses, and a comparison."""
    low = [1.0, 1.1, 0.9, 1.0] * 20
    candidates = {"old": {"input": "x"}, "new": {"input": "y"}}
    batch = {"x": [1.0, 2.0, 3.0] * 20, "y": [1.5, 2.1, 3.2] * 20, "target": [0.0] * 60}
    comparison = client.compare("l1_loss", [batch], candidates=candidates)
    return {
        "low": _saved(client, low),
        "high": _saved(client, [each + 0.5 for each in low]),
        "sliced": _saved(client, [each + (0, 0, 2, 2)[at % 4] for at, each in enumerate(low)]),
        "broken": _saved(client, [*low, float("nan")]),
        "pair": client.runs.save(comparison).run_id,
    }


_CASES: dict[str, dict[str, Any]] = {
    "higher": {"baseline": "low", "candidate": "high", "max_increase": 0.01},
    "within the limit": {"baseline": "low", "candidate": "high", "max_increase": 0.6},
    "not enough evidence": {"baseline": "low", "candidate": "high", "max_increase": 0.5},
    "relative": {"baseline": "low", "candidate": "high", "max_increase": 0.2, "relative": "true"},
    "lower": {"baseline": "high", "candidate": "low", "max_increase": 0},
    "NaN": {"baseline": "low", "candidate": "broken", "max_increase": 10},
    "a slice": {
        "baseline": "low",
        "candidate": "sliced",
        "max_increase": 1.5,
        "slice": ["country"],
        "level": 0.99,
    },
    "of a comparison": {
        "baseline": "old",
        "candidate": "new",
        "comparison": "pair",
        "max_increase": 0.1,
    },
}


def _words(case: dict[str, Any]) -> list[str]:
    """Return the words of the command line."""
    words = []
    for name, value in case.items():
        option = f"--{name.replace('_', '-')}"
        if value == "true":
            words.append(option)
        for each in value if isinstance(value, list) else [value]:
            words += [] if value == "true" else [f"{option}={each}"]
    return words


@pytest.mark.parametrize("name", _CASES)
def test_the_verdict_is_that_of_the_command(
    kept: Door, ids: dict[str, str], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every check has the same numbers; the exit status says whether it passed."""
    case: dict[str, Any] = {
        key: ids.get(value, value) if isinstance(value, str) else value
        for key, value in _CASES[name].items()
    }
    status = main(["gate", "--server", kept.child.address, "--json", *_words(case)])
    expected = json.loads(capsys.readouterr().out)
    found = kept.client.get("/v1/gate", params=case).json()
    assert {key: found[key] for key in expected} == expected
    assert status == (0 if found["passed"] else 1)
    assert found["slices"] == found["checks"][1:]
    assert (found["increase"], found["interval"]) == (
        found["checks"][0]["increase"],
        found["checks"][0]["interval"],
    )
    assert found["sentence"].startswith(f"total: {found['checks'][0]['verdict']}: mean ")


def test_the_newest_run_of_a_name_is_found(kept: Door, client: Client, ids: dict[str, str]) -> None:
    """As NAME@latest."""
    name = str(uuid.uuid4())
    for values in ([1.0, 2.0] * 20, [5.0, 6.0] * 20):
        client.runs.save(summary(values, {}), name)
    query: dict[str, Any] = {
        "baseline": ids["low"],
        "candidate": f"{name}@latest",
        "max_increase": 1,
    }
    found = kept.client.get("/v1/gate", params=query).json()
    assert found["checks"][0]["candidate_mean"] == 5.5


def test_wrong_questions_are_refused(kept: Door, ids: dict[str, str]) -> None:
    """With the parameter that is wrong; a run that is not there is 404."""
    good: dict[str, Any] = {"baseline": ids["low"], "candidate": ids["high"], "max_increase": "0.1"}
    wrong = (
        ({"max_increase": "x"}, ["max_increase"]),
        ({"max_increase": "inf"}, ["max_increase"]),
        ({"level": "1"}, ["level"]),
        ({"relative": "yes"}, ["relative"]),
        ({"slice": "age"}, ["slice"]),
        ({"candidate": ids["pair"]}, ["candidate"]),
        ({"baseline": ids["broken"]}, ["baseline"]),
        ({"comparison": ids["pair"]}, ["baseline"]),
        ({"color": "red"}, ["color"]),
    )
    for fields, expected in wrong:
        response = kept.client.get("/v1/gate", params={**good, **fields})
        assert violations(response) == expected
    assert violations(kept.client.get("/v1/gate")) == ["baseline", "candidate", "max_increase"]
    for name in ("nothing", "nothing@latest"):
        query = {**good, "candidate": name}
        assert violations(kept.client.get("/v1/gate", params=query), 404) == ["run_id"]
