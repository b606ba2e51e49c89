"""Runs over HTTP: save, get, list, delete."""

import uuid
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Final

from google.protobuf.timestamp_pb2 import Timestamp

from losswire.server.errors import InvalidRunError
from losswire.server.http import limits
from losswire.server.http.answer import Answer, json_answer
from losswire.server.http.call import Call, as_object, whole_number
from losswire.server.http.route import JSON, Parameter, Route, ref
from losswire.server.http.run_json import header_json, run_json
from losswire.server.http.summarize import state_json
from losswire.server.http.summary_request import read_request, read_state
from losswire.server.memory.residents import TENANT
from losswire.server.runs import thresholds
from losswire.server.runs.calls import RunCalls
from losswire.v1 import run_service_pb2, summary_pb2
from losswire.wire import Violation

LABEL: Final = "label."
"""What the name of a parameter begins with that asks for a label."""

_TEXTS: Final = ("run_id", "name")
_TIMES: Final = ("started", "ended")
_INT32: Final = (1 << 31) - 1


def calls_of(call: Call) -> RunCalls:
    """Return the calls on the runs of the caller's tenant."""
    services = call.services
    return RunCalls(services.runs, services.evaluator.budget, TENANT)


async def list_runs(call: Call) -> Answer:
    """List runs in pages, the one saved last first."""
    found = await calls_of(call).list(list_request(call.query_items))
    return json_answer(
        {"runs": list(map(run_json, found.runs)), "next_page_token": found.next_page_token}
    )


def list_request(
    items: Iterable[tuple[str, str]], others: Iterable[str] = ()
) -> run_service_pb2.ListRunsRequest:
    """Return the request of some parameters; `others` are names that somebody else reads.

    Raises InvalidRunError for names that nobody reads, and for a page size that is no number.
    """
    request, others = run_service_pb2.ListRunsRequest(), set(others)
    wrong: list[Violation] = []
    for name, text in items:
        if name in ("loss", "name", "page_token"):
            setattr(request, name, text)
        elif name.startswith(LABEL) and len(name) > len(LABEL):
            request.labels[name.removeprefix(LABEL)] = text
        elif name == "page_size":
            size = whole_number(text, _INT32)
            if size is None:
                wrong.append(Violation(name, f"must be a whole number of at most {_INT32}"))
            else:
                request.page_size = size
        elif name not in others:
            wrong.append(Violation(name[:64], "is no parameter of this path"))
    if wrong:
        raise InvalidRunError(wrong)
    return request


async def get_run(call: Call) -> Answer:
    """Return a run with its summary, state and header."""
    size = limits.SUMMARY_JSON_COPIES // thresholds.READ_RUN_COPIES

    def use(run: run_service_pb2.Run) -> dict[str, Any]:
        return {
            **run_json(run),
            **state_json(run.summary),
            "header": header_json(run.header) if run.HasField("header") else None,
        }

    return json_answer(await calls_of(call).get(call.path["id"], use, size))


async def save_run(call: Call) -> Answer:
    """Keep a run; saving the same one again changes nothing."""
    content = await call.json_object()
    run = await call.work(partial(_run_of, call, content))
    size = run.ByteSize()
    request = run_service_pb2.SaveRunRequest(run=run)
    saved = await calls_of(call).save(size, lambda: request)
    return json_answer(
        {**run_json(saved.run), "created": saved.created}, status=201 if saved.created else 200
    )


def _run_of(call: Call, content: Mapping[str, Any]) -> run_service_pb2.Run:
    """Read a run; InvalidRunError with what has a wrong form."""
    run = run_service_pb2.Run(run_id=uuid.uuid4().hex)
    wrong: list[Violation] = []
    for name, value in content.items():
        if value is None:
            continue
        if name in _TEXTS and isinstance(value, str):
            setattr(run, name, value)
        elif name == "labels" and _are_texts(value):
            run.labels.update(value)
        elif name in _TIMES and isinstance(value, str) and _set_time(getattr(run, name), value):
            continue
        elif name == "state":
            run.summary.CopyFrom(read_state(value, "run.summary"))
        elif name == "request":
            run.header.CopyFrom(_header_of(call, value))
        else:
            text = _RULES.get(name, "is no field of a run")
            wrong.append(Violation(f"run.{name[:64]}", text))
    if wrong:
        raise InvalidRunError(wrong)
    return run


_RULES: Final[Mapping[str, str]] = {
    **dict.fromkeys(_TEXTS, "must be a text"),
    **dict.fromkeys(_TIMES, "must be a time as RFC 3339 has it, such as 2026-01-31T12:00:00Z"),
    "labels": "must be an object of texts",
}


def _are_texts(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(each, str) for each in value.values())


def _set_time(time: Timestamp, text: str) -> bool:
    try:
        time.FromJsonString(text)
    except ValueError:
        return False
    return True


def _header_of(call: Call, value: object) -> summary_pb2.SummaryHeader:
    """Return the header of the request that a run was made of, without elements of tensors."""
    content = as_object(value, "request")
    record = call.find_record(content.get("loss"))
    compares = bool(content.get("candidates"))
    header = read_request(content, record, lambda _: None, compares=compares).header
    header.ClearField("resume_from")
    for each in header.evaluation.inputs.values():
        each.ClearField("source")
    return header


async def delete_run(call: Call) -> Answer:
    """Delete a run for good; deleting one that is not there succeeds."""
    return json_answer({"deleted": await calls_of(call).delete(call.path["id"])})


_ID: Final = Parameter(
    name="id",
    place="path",
    required=True,
    description="The run's id.",
    schema={"type": "string", "minLength": 1},
)
_TEXT: Final = {"type": "string"}
FILTERS: Final = (
    Parameter(name="loss", description="Only runs of this loss.", schema=_TEXT),
    Parameter(name="name", description="Only runs of this name.", schema=_TEXT),
    Parameter(
        name="label.KEY",
        description="Only runs with this value of the label KEY; for several labels, all.",
        schema=_TEXT,
    ),
)
_PAGES: Final = (
    Parameter(
        name="page_size",
        description="How many at most; default 50.",
        schema={"type": "integer", "minimum": 0, "maximum": 1000},
    ),
    Parameter(
        name="page_token", description="The next_page_token of the page before.", schema=_TEXT
    ),
)

ROUTES: Final = (
    Route(
        path="/v1/runs",
        handler=list_runs,
        name="listRuns",
        summary="List runs, the one saved last first",
        tag="runs",
        parameters=(*FILTERS, *_PAGES),
        answers={JSON: ref("RunList")},
        problems=(429, 501, 503),
    ),
    Route(
        path="/v1/runs",
        method="POST",
        handler=save_run,
        name="saveRun",
        summary="Keep a run; saving the same one again changes nothing",
        tag="runs",
        accepts={JSON: ref("SaveRunRequest")},
        answers={JSON: ref("SavedRun")},
        statuses=(200, 201),
        problems=(409, 413, 429, 501, 503),
    ),
    Route(
        path="/v1/runs/{id}",
        handler=get_run,
        name="getRun",
        summary="Return a run with its summary, state and header",
        tag="runs",
        parameters=(_ID,),
        answers={JSON: ref("WholeRun")},
        problems=(404, 413, 429, 501, 503),
    ),
    Route(
        path="/v1/runs/{id}",
        method="DELETE",
        handler=delete_run,
        name="deleteRun",
        summary="Delete a run for good",
        tag="runs",
        parameters=(_ID,),
        answers={JSON: ref("Deleted")},
        problems=(429, 501, 503),
    ),
)
