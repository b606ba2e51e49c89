"""Summaries and runs to keep, and servers that keep them."""

from collections.abc import Mapping, Sequence
from typing import Any

import grpc
import numpy as np
import pytest

from losswire.summaries import Column, Rows, Settings, SummaryState, scale_for
from losswire.v1 import evaluation_pb2, run_service_pb2, run_service_pb2_grpc, summary_pb2
from losswire.wire import encode_option
from tests.support.requests import TIMEOUT, item_status

RunStub = run_service_pb2_grpc.RunServiceStub
Failure = pytest.ExceptionInfo[grpc.RpcError]


def settings(
    candidates: Sequence[str] = (),
    tables: Sequence[tuple[str, ...]] = (),
    loss: str = "mse_loss",
    options: Mapping[str, Any] | None = None,
) -> Settings:
    """Return what a summary has in common with those it merges with."""
    given: dict[str, evaluation_pb2.OptionValue] = {
        name: encode_option(value) for name, value in (options or {}).items()
    }
    return Settings(
        loss=loss,
        options=given,
        candidates=tuple(candidates),
        tables=tuple(tables),
        scale=scale_for(0.01),
        worst=3,
        max_slices=4096,
        overflow_to_other=False,
        grouped_clusters=False,
        max_open_clusters=1 << 18,
    )


def summary(
    values: Any,  # noqa: ANN401 (numbers, a row for each candidate)
    slices: Mapping[str, Sequence[str]] | None = None,
    **common: Any,  # noqa: ANN401 (arguments of `settings`)
) -> summary_pb2.LossSummary:
    """Return the summary of some row losses; `slices` has the label of each row, by column."""
    losses = np.atleast_2d(np.asarray(values, np.float64))
    columns = {}
    for name, labels in (slices or {}).items():
        known = sorted(set(labels))
        codes = np.array([known.index(each) for each in labels], np.int64)
        columns[name] = Column(codes=codes, labels=known)
    state = SummaryState(settings(tables=[(name,) for name in columns], **common))
    rows = Rows(
        values=losses,
        numerators=None,
        denominators=None,
        weights=None,
        counted=None,
        columns=columns,
        clusters=None,
        ids=None,
        partition="part",
        first_row=0,
    )
    state.add(rows)
    return state.message()


def run(run_id: str = "run-1", **fields: Any) -> run_service_pb2.Run:  # noqa: ANN401 (of a Run)
    """Return a run of three rows with the losses 1, 2 and 6."""
    return run_service_pb2.Run(run_id=run_id, **{"summary": summary([1.0, 2.0, 6.0]), **fields})


def save(stub: RunStub, message: run_service_pb2.Run) -> run_service_pb2.SaveRunResponse:
    """Save a run."""
    answer: run_service_pb2.SaveRunResponse = stub.SaveRun(
        run_service_pb2.SaveRunRequest(run=message), timeout=TIMEOUT
    )
    return answer


def get(stub: RunStub, run_id: str) -> run_service_pb2.Run:
    """Return a run."""
    answer: run_service_pb2.GetRunResponse = stub.GetRun(
        run_service_pb2.GetRunRequest(run_id=run_id), timeout=TIMEOUT
    )
    return answer.run


def code_of(failure: Failure) -> grpc.StatusCode:
    """Return the code of a call that failed."""
    code: grpc.StatusCode = failure.value.code()
    return code


def reason_of(failure: Failure) -> str:
    """Return the reason of a call that failed."""
    return item_status(failure.value).reason


def field_paths(failure: Failure) -> list[str]:
    """Return the fields that a call was refused for."""
    return [each.field for each in item_status(failure.value).violations]
