"""`client.runs`, by both clients: runs are saved once, listed lazily, read and deleted."""

import asyncio
import math
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from losswire.client import (
    AlreadyExistsError,
    AsyncClient,
    Client,
    InvalidArgumentError,
    LosswireError,
    NotFoundError,
    UnimplementedError,
)
from tests.support.process import running_server
from tests.support.runs import summary

Runs = Callable[..., Any]
"""Calls a method of `client.runs`: (method, *arguments, **options); a list is read whole."""


def _blocking(address: str, method: str, *arguments: object, **options: object) -> object:
    with Client(address) as client:
        answer = getattr(client.runs, method)(*arguments, **options)
        return list(answer) if method == "list" else answer


def _async(address: str, method: str, *arguments: object, **options: object) -> object:
    async def call() -> object:
        async with AsyncClient(address) as client:
            answer = getattr(client.runs, method)(*arguments, **options)
            return [each async for each in answer] if method == "list" else await answer

    return asyncio.run(call())


@pytest.fixture(params=[_blocking, _async], ids=["Client", "AsyncClient"])
def runs(request: pytest.FixtureRequest, server: str) -> Runs:
    """The runs of a server, by both clients in turn."""
    return lambda method, *arguments, **options: request.param(
        server, method, *arguments, **options
    )


SUMMARY = summary([1.0, 2.0, 6.0])


def test_a_run_is_shown_without_its_message(runs: Runs) -> None:
    """Its id, name and figures are one line; the message has hundreds."""
    shown = repr(runs("save", SUMMARY, "nightly"))
    assert "name='nightly'" in shown
    assert "count=3, mean=3.0" in shown
    assert "\n" not in shown


def test_a_run_is_kept_with_all_that_was_said(runs: Runs) -> None:
    """Name, labels, times in UTC to the microsecond, loss and figures."""
    started = datetime(2026, 1, 2, 3, 4, 5, 678901, timezone(timedelta(hours=2)))
    before = datetime.now(UTC)
    saved = runs(
        "save", SUMMARY, "nightly", {"model": "b"}, started=started, ended=started + timedelta(1)
    )
    found = runs("get", saved.run_id)
    assert uuid.UUID(found.run_id).version == 4
    assert (found.name, found.labels, found.loss) == ("nightly", {"model": "b"}, "mse_loss")
    assert found.started == started
    assert found.started.utcoffset() == timedelta(0)
    assert found.ended - found.started == timedelta(days=1)
    assert abs(found.saved - before) < timedelta(minutes=1)
    [figures] = found.figures
    assert (figures.candidate, figures.count, figures.mean) == ("", 3, 3.0)
    assert figures.standard_error == pytest.approx(math.sqrt(7 / 3))
    assert found == saved
    assert found.summary.message == SUMMARY


def test_the_header_is_kept_without_elements(server: str) -> None:
    """What was asked for: options, slices, types and shapes of shared inputs."""
    batch = {"input": np.zeros((3, 2), np.float32), "target": [0, 1, 1], "country": ["a", "b", "a"]}
    with Client(server) as client:
        found = client.summarize(
            *("cross_entropy", [batch], {"label_smoothing": 0.1}),
            shared={"weight": [1.0, 2.0]},
            slices=["country"],
        )
        saved = client.runs.save(found, name="with a header")
        kept = client.runs.get(saved.run_id)
    assert kept == saved
    header = kept.summary.header
    assert header is not None
    assert header == found.header
    assert header.evaluation.options["label_smoothing"].double_value == 0.1
    assert list(header.tables[0].columns) == ["country"]
    weight = header.evaluation.inputs["weight"]
    assert (list(weight.shape), weight.WhichOneof("source")) == ([2], None)


def test_a_comparison_has_figures_of_each_candidate(runs: Runs) -> None:
    """In the order of the candidates."""
    both = summary([[1.0, 2.0], [3.0, 4.0]], candidates=("old", "new"))
    saved = runs("save", both)
    assert [(each.candidate, each.mean) for each in saved.figures] == [("old", 1.5), ("new", 3.5)]
    assert (saved.started, saved.ended, saved.name) == (None, None, "")


def test_a_run_can_be_saved_again_and_another_cannot(runs: Runs) -> None:
    """With an id of the caller's own."""
    run_id = f"own-{uuid.uuid4()}"
    first = runs("save", SUMMARY, "a", run_id=run_id)
    assert runs("save", SUMMARY, "a", run_id=run_id) == first
    with pytest.raises(AlreadyExistsError, match=run_id):
        runs("save", SUMMARY, "b", run_id=run_id)


def test_anything_with_a_message_is_saved(runs: Runs) -> None:
    """A Summary is one; the server never sees its class."""
    assert runs("save", SimpleNamespace(message=SUMMARY)).figures[0].count == 3


def test_a_list_goes_over_pages(runs: Runs) -> None:
    """All runs of more than two pages, the newest first; a limit may end it anywhere."""
    name = f"many-{uuid.uuid4()}"
    expected = [runs("save", SUMMARY, name, run_id=f"{name}-{n}").run_id for n in range(9)][::-1]
    assert [each.run_id for each in runs("list", name=name)] == expected
    for limit in (0, 1, 8, 9, 10):
        found = runs("list", name=name, limit=limit)
        assert [each.run_id for each in found] == expected[:limit]


@pytest.mark.parametrize("runs", [_blocking, _async], ids=["Client", "AsyncClient"])
def test_pages_are_fetched_as_they_are_needed(server: str, runs: Runs) -> None:
    """Of 205 runs; those saved meanwhile are not among them."""
    name = f"pages-{uuid.uuid4()}"
    with Client(server) as client:
        for number in range(205):
            client.runs.save(SUMMARY, name, run_id=f"{name}-{number}")
        listing = client.runs.list(name=name)
        first = next(listing)
        client.runs.save(SUMMARY, name)
        rest = [each.run_id for each in listing]
    assert first.run_id == f"{name}-204"
    assert rest == [f"{name}-{number}" for number in range(203, -1, -1)]
    assert len(runs(server, "list", name=name)) == 206


def test_filters_hold_together(runs: Runs) -> None:
    """Loss, name and labels."""
    tag = str(uuid.uuid4())
    runs("save", SUMMARY, "a", {"tag": tag, "model": "x"})
    runs("save", summary([1.0], loss="l1_loss"), "a", {"tag": tag})
    for filters, count in (
        ({}, 2),
        ({"loss": "l1_loss"}, 1),
        ({"loss": "l1_loss", "name": "b"}, 0),
    ):
        assert len(runs("list", labels={"tag": tag}, **filters)) == count
    assert len(runs("list", labels={"tag": tag, "model": "x"})) == 1


def test_a_run_of_a_list_has_no_summary(runs: Runs) -> None:
    """The error says where it is."""
    name = str(uuid.uuid4())
    saved = runs("save", SUMMARY, name)
    [listed] = runs("list", name=name)
    assert listed.figures == saved.figures
    with pytest.raises(ValueError, match=f'client.runs.get\\("{saved.run_id}"\\)'):
        _ = listed.summary


def test_a_deleted_run_is_gone(runs: Runs) -> None:
    """The second deletion says that there was none."""
    run_id = runs("save", SUMMARY).run_id
    assert (runs("delete", run_id), runs("delete", run_id)) == (True, False)
    with pytest.raises(NotFoundError, match=run_id):
        runs("get", run_id)


MISTAKES: Mapping[str, tuple[type[Exception], str, tuple[str, tuple[Any, ...], dict[str, Any]]]] = {
    "no summary": (TypeError, "summary: expected a Summary", ("save", (1.0,), {})),
    "name": (TypeError, "name: expected text, got int", ("save", (SUMMARY, 1), {})),
    "label": (TypeError, r'labels\["a"\]: expected text', ("save", (SUMMARY, "", {"a": 1}), {})),
    "naive": (
        ValueError,
        "started: expected a datetime with a time zone",
        ("save", (SUMMARY,), {"started": datetime(2026, 1, 1)}),  # noqa: DTZ001 (that is the mistake)
    ),
    "no time": (TypeError, "ended: expected a datetime", ("save", (SUMMARY,), {"ended": 1.0})),
    "id": (InvalidArgumentError, r"run\.run_id", ("save", (SUMMARY,), {"run_id": "a b"})),
    "long": (InvalidArgumentError, r"run\.name", ("save", (SUMMARY, "x" * 257), {})),
    "limit": (ValueError, "limit: expected", ("list", (), {"limit": -1})),
    "filter": (TypeError, "loss: expected text", ("list", (), {"loss": None})),
    "timeout": (ValueError, "timeout", ("get", ("a",), {"timeout": 0})),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named(runs: Runs, mistake: str) -> None:
    """Wrong types are found here, broken limits by the server."""
    kind, text, (method, arguments, options) = MISTAKES[mistake]
    with pytest.raises(kind, match=text):
        runs(method, *arguments, **options)


@pytest.mark.parametrize("runs", [_blocking, _async], ids=["Client", "AsyncClient"])
def test_a_server_without_a_store_says_how_to_have_one(runs: Runs) -> None:
    """UnimplementedError, for every method."""
    with running_server() as address:
        for method, arguments in (("save", (SUMMARY,)), ("get", ("a",)), ("list", ())):
            with pytest.raises(UnimplementedError, match="--store FOLDER") as refused:
                runs(address, method, *arguments)
            assert isinstance(refused.value, LosswireError)
            assert not refused.value.retryable
