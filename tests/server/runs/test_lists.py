"""Lists come in pages, the newest first, are filtered, and stable while others save."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import grpc
import pytest

from losswire.v1 import run_service_pb2
from tests.support.requests import TIMEOUT
from tests.support.runs import RunStub as Stub
from tests.support.runs import code_of, field_paths, run, save, summary

Response = run_service_pb2.ListRunsResponse


def page(stub: Stub, **fields: Any) -> Response:  # noqa: ANN401 (of the request)
    """Ask for a page."""
    answer: Response = stub.ListRuns(run_service_pb2.ListRunsRequest(**fields), timeout=TIMEOUT)
    return answer


def ids(answer: Response) -> list[str]:
    """Return the ids of a page."""
    return [each.run_id for each in answer.runs]


def pages(stub: Stub, **fields: Any) -> list[list[str]]:  # noqa: ANN401 (of the request)
    """Return the ids of all pages."""
    found, token = [], ""
    while True:
        answer = page(stub, page_token=token, **fields)
        found.append(ids(answer))
        token = answer.next_page_token
        if not token:
            return found


def save_many(stub: Stub, name: str, count: int) -> list[str]:
    """Save some runs of a name; returns their ids, the newest first."""
    saved = [f"{name}-{number}" for number in range(count)]
    for run_id in saved:
        save(stub, run(run_id, name=name))
    return saved[::-1]


def test_pages_have_all_runs_once_the_newest_first(stub: Stub) -> None:
    """Full pages, and one with the rest."""
    saved = save_many(stub, "paged", 7)
    assert pages(stub, name="paged", page_size=3) == [saved[:3], saved[3:6], saved[6:]]
    assert pages(stub, name="paged", page_size=7) == [saved]
    assert pages(stub, name="paged") == [saved]


def test_a_list_is_stable_while_others_save_and_delete(stub: Stub) -> None:
    """New runs do not push others to the next page, and deleted ones leave no gap."""
    saved = save_many(stub, "stable", 6)
    first = page(stub, name="stable", page_size=2)
    save(stub, run("stable-new", name="stable"))
    for run_id in (saved[1], saved[2]):
        stub.DeleteRun(run_service_pb2.DeleteRunRequest(run_id=run_id), timeout=TIMEOUT)
    second = page(stub, name="stable", page_size=2, page_token=first.next_page_token)
    assert (ids(first), ids(second)) == (saved[:2], saved[3:5])


def test_a_list_has_no_summaries_and_no_headers(stub: Stub) -> None:
    """But names, labels, times, the loss and figures."""
    answer = save(stub, run("light", name="light", labels={"a": "b"}))
    [listed] = page(stub, name="light").runs
    assert listed == answer.run
    assert not listed.HasField("summary")
    assert (listed.loss, listed.figures[0].mean) == ("mse_loss", 3.0)


FILTERS: Sequence[tuple[Mapping[str, Any], list[str]]] = (
    ({}, ["f-4", "f-3", "f-2", "f-1"]),
    ({"loss": "l1_loss"}, ["f-4"]),
    ({"loss": "mse"}, []),
    ({"name": "one"}, ["f-3", "f-1"]),
    ({"name": "o"}, []),
    ({"name": "one' OR '1'='1"}, []),
    ({"labels": {"commit": "b"}}, ["f-3", "f-2"]),
    ({"labels": {"commit": "b", "model": "x"}}, ["f-3"]),
    ({"labels": {"commit": "x"}}, []),
    ({"labels": {"b": "commit"}}, []),
    ({"labels": {"commit": ""}}, []),
    ({"name": "two", "labels": {"commit": "b"}, "loss": "mse_loss"}, ["f-2"]),
)


@pytest.mark.parametrize(("given", "expected"), FILTERS, ids=lambda each: str(each)[:60])
def test_all_filters_hold_together(
    stub: Stub, given: Mapping[str, Any], expected: list[str]
) -> None:
    """Loss, name and labels are compared as wholes; all labels must be there."""
    runs = (
        run("f-1", name="one", labels={"commit": "a", "model": "x"}),
        run("f-2", name="two", labels={"commit": "b"}),
        run("f-3", name="one", labels={"commit": "b", "model": "x"}),
        run("f-4", summary=summary([1.0, 2.0], loss="l1_loss")),
    )
    for each in runs:
        each.labels["of"] = "filters"
        save(stub, each)
    labels = {"of": "filters", **given.get("labels", {})}
    assert ids(page(stub, **{**given, "labels": labels})) == expected


def test_a_page_ends_early_when_it_has_many_bytes(stub: Stub) -> None:
    """Runs with long labels make pages of about a megabyte, with one run at least."""
    labels = {str(number): "x" * 1024 for number in range(64)}
    for number in range(40):
        save(stub, run(f"long-{number}", name="long", labels=labels))
    found = pages(stub, name="long", page_size=1000)
    assert [each for one in found for each in one] == [f"long-{n}" for n in range(39, -1, -1)]
    assert [len(each) for each in found] == [15, 15, 10]


MISTAKES: Mapping[str, tuple[Mapping[str, Any], list[str]]] = {
    "negative size": ({"page_size": -1}, ["page_size"]),
    "size of 1001": ({"page_size": 1001}, ["page_size"]),
    "no token": ({"page_token": "nonsense"}, ["page_token"]),
    "no base64": ({"page_token": "ä%"}, ["page_token"]),
    "made up": ({"page_token": base64.urlsafe_b64encode(bytes(24)).decode()}, ["page_token"]),
    "NUL": ({"name": "\0", "loss": "\0", "labels": {"a": "\0"}}, ["loss", "name", 'labels["a"]']),
    "long": ({"name": "x" * 257, "page_size": -5}, ["name", "page_size"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_by_its_field(stub: Stub, mistake: str) -> None:
    """INVALID_ARGUMENT with every field."""
    given, fields = MISTAKES[mistake]
    with pytest.raises(grpc.RpcError) as refused:
        page(stub, **given)
    assert code_of(refused) is grpc.StatusCode.INVALID_ARGUMENT
    assert field_paths(refused) == fields


@pytest.mark.parametrize(
    "other", [{}, {"name": "tok"}, {"name": "token", "loss": "mse_loss"}, {"labels": {"a": "b"}}]
)
def test_a_token_is_of_its_own_list(stub: Stub, other: Mapping[str, Any]) -> None:
    """With other filters it is refused, instead of a page with gaps."""
    save_many(stub, "token", 3)
    token = page(stub, name="token", page_size=1).next_page_token
    with pytest.raises(grpc.RpcError) as refused:
        page(stub, page_token=token, **other)
    assert code_of(refused) is grpc.StatusCode.INVALID_ARGUMENT
    assert field_paths(refused) == ["page_token"]
