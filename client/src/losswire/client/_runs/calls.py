"""The calls of RunService: their requests and answers, for both clients."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from losswire.client._calls.operations import (
    DELETE_RUN,
    GET_RUN,
    LIST_RUNS,
    SAVE_RUN,
    Operation,
)
from losswire.client._messages.request import serialize, text_of
from losswire.client._runs.contents import to_message
from losswire.client._runs.run import Run, read_run, timestamp_of
from losswire.v1 import run_service_pb2

PAGE_SIZE = 100
"""The runs that one call asks for."""


def save(
    summary: Any,
    name: str,
    labels: Mapping[str, str] | None,
    *,
    run_id: str | None,
    started: datetime | None,
    ended: datetime | None,
) -> Operation[Run]:
    """Keep a run. Its id is made once, so that all tries save the same run."""
    run = run_service_pb2.Run(
        run_id=str(uuid.uuid4()) if run_id is None else text_of(run_id, "run_id"),
        name=text_of(name, "name"),
        labels=_labels(labels),
        started=None if started is None else timestamp_of(started, "started"),
        ended=None if ended is None else timestamp_of(ended, "ended"),
        header=getattr(summary, "header", None),
        summary=to_message(summary),
    )

    def read(answer: run_service_pb2.SaveRunResponse) -> Run:
        answer.run.summary.CopyFrom(run.summary)
        if run.HasField("header"):
            answer.run.header.CopyFrom(run.header)
        return read_run(answer.run)

    return Operation(SAVE_RUN, serialize(run_service_pb2.SaveRunRequest(run=run)), read)


def get(run_id: str) -> Operation[Run]:
    """Ask for a run."""
    request = run_service_pb2.GetRunRequest(run_id=text_of(run_id, "run_id"))
    return Operation(GET_RUN, serialize(request), lambda answer: read_run(answer.run))


def delete(run_id: str) -> Operation[bool]:
    """Delete a run; returns whether there was one."""
    request = run_service_pb2.DeleteRunRequest(run_id=text_of(run_id, "run_id"))
    return Operation(DELETE_RUN, serialize(request), lambda answer: bool(answer.deleted))


@dataclass(slots=True)
class Listing:
    """A list of runs, page by page."""

    loss: str
    name: str
    labels: Mapping[str, str] | None
    limit: int | None
    """How many runs at most; None: all of them."""
    done: bool = False
    _token: str = ""

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 0:
            raise ValueError(f"limit: expected a number of runs or None, got {self.limit}")
        # Refused here, not at the first page.
        self._request()
        self.done = self.limit == 0

    def page(self) -> Operation[list[Run]]:
        """Ask for the next page, until `done`."""
        return Operation(LIST_RUNS, serialize(self._request()), self._read)

    def _request(self) -> run_service_pb2.ListRunsRequest:
        return run_service_pb2.ListRunsRequest(
            loss=text_of(self.loss, "loss"),
            name=text_of(self.name, "name"),
            labels=_labels(self.labels),
            page_size=PAGE_SIZE if self.limit is None else min(self.limit, PAGE_SIZE),
            page_token=self._token,
        )

    def _read(self, answer: run_service_pb2.ListRunsResponse) -> list[Run]:
        self._token = answer.next_page_token
        if self.limit is not None:
            self.limit -= len(answer.runs)
        self.done = not self._token or self.limit == 0
        return [read_run(each) for each in answer.runs]


def _labels(labels: Mapping[str, str] | None) -> dict[str, str]:
    return {
        text_of(key, "labels"): text_of(value, f'labels["{key}"]')
        for key, value in (labels or {}).items()
    }
