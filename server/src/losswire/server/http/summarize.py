"""POST /v1/summarize, /v1/compare and /v1/summaries/merge: SummarizeLosses over HTTP."""

from base64 import b64encode
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Any, Final, TypeVar

from losswire.server.errors import InvalidEvaluationError, OverLimitError
from losswire.server.http import limits
from losswire.server.http.answer import Answer, json_answer
from losswire.server.http.arrow import ARROW_STREAM, arrow_batches, check_arrow
from losswire.server.http.body import CallerGoneError
from losswire.server.http.call import REQUEST, Call, as_object
from losswire.server.http.columns import Part
from losswire.server.http.form_columns import form_batch, needed_bytes
from losswire.server.http.json_text import dump
from losswire.server.http.ndjson import Lines, line_batches
from losswire.server.http.problems import problem_of
from losswire.server.http.route import JSON, MULTIPART, Parameter, Route, ref
from losswire.server.http.summary_json import summary_json
from losswire.server.http.summary_request import SummaryRequest, read_request, read_state
from losswire.server.http.threads import FIGURES, in_thread
from losswire.server.summaries.accumulate import Response
from losswire.summaries import MergeError, TooManyError, check_message, merge
from losswire.v1 import loss_service_pb2, summary_pb2
from losswire.wire import Violation, json_number

_T = TypeVar("_T")

NDJSON: Final = "application/x-ndjson"


async def summarize(call: Call) -> Answer:
    """Summarize a loss over the rows of the body."""
    return await _answer(call, compares=False)


async def compare(call: Call) -> Answer:
    """Compare 2 to 8 candidates over the rows of the body."""
    return await _answer(call, compares=True)


async def _answer(call: Call, *, compares: bool) -> Answer:
    parts = _READERS[call.media_type](call, compares=compares)
    answers = call.services.summarizer.summarize(parts, call.deadline)
    if call.accepts(NDJSON):
        lines = _lines(call, parts, answers)
        # What is wrong before the first line becomes a status.
        first = await anext(lines)
        await call.close_later(lines)
        return Answer(media_type=NDJSON, body=_continued(first, lines))
    async with aclosing(parts), aclosing(answers):
        last = b""
        async for each in answers:
            if isinstance(each, bytes):
                last = each
    async with _report(call, last) as found:
        del found["final"]
        return json_answer(found)


async def _lines(
    call: Call,
    parts: AsyncGenerator[Part],
    answers: AsyncGenerator[bytes | Response],
) -> AsyncGenerator[bytes]:
    """Yield a line for each progress and report; an error after the first one is a line, too."""
    begun = False
    try:
        async with aclosing(parts), aclosing(answers):
            async for each in answers:
                begun = True
                if not isinstance(each, bytes):
                    yield _line({"progress": _progress(each)})
                    continue
                # Held until the line was sent.
                async with _report(call, each) as found:
                    final = found.pop("final")
                    yield _line(found if final else {"progress": found})
    except CallerGoneError:
        raise
    except Exception as error:
        if not begun:
            raise
        yield _line({"error": problem_of(error, call.request_id)})


def _line(content: Any) -> bytes:  # noqa: ANN401 (whatever JSON can hold)
    return dump(content) + b"\n"


async def _continued(first: bytes, lines: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    yield first
    async for each in lines:
        yield each


def _progress(answer: Response) -> dict[str, Any]:
    found = answer.progress
    return {
        "rows": found.rows,
        "batches": found.batches,
        "means": list(map(json_number, found.means)),
        "standard_errors": list(map(json_number, found.standard_errors)),
    }


@asynccontextmanager
async def _report(call: Call, serialized: bytes) -> AsyncIterator[dict[str, Any]]:
    """Yield a report as JSON, made off the event loop and held in the budget."""
    async with call.hold_briefly(len(serialized) * limits.SUMMARY_JSON_COPIES):
        yield await in_thread(partial(_report_json, serialized), FIGURES)


def _report_json(serialized: bytes) -> dict[str, Any]:
    report = loss_service_pb2.SummarizeLossesResponse.FromString(serialized).report
    found = state_json(report.summary)
    return {"rows": found["summary"]["rows"], **found, "final": report.final}


def state_json(message: summary_pb2.LossSummary) -> dict[str, Any]:
    """Return a state: what it says, and its bytes."""
    state = message.SerializeToString(deterministic=True)
    return {"summary": summary_json(message), "state": b64encode(state).decode()}


async def _from_form(call: Call, *, compares: bool) -> AsyncGenerator[Part]:
    """Yield the header and the one batch of a multipart body."""
    parts = await call.parts()
    content = await call.request_part(parts, _same)
    request = await _request(call, content, compares=compares)
    yield _header(request)
    needed = await call.work(partial(needed_bytes, parts, request.columns))
    async with call.hold_briefly(needed):
        part = await in_thread(partial(form_batch, parts, request.columns))
    yield part


async def _from_lines(call: Call, *, compares: bool) -> AsyncGenerator[Part]:
    """Yield the header of the first line, and the batches of the others."""
    lines = Lines(call)
    content = await call.parse(await lines.first(), _same)
    request = await _request(call, content, compares=compares)
    yield _header(request)
    async with (
        aclosing(lines.blocks()) as blocks,
        aclosing(line_batches(blocks, request.columns)) as batches,
    ):
        async for each in batches:
            yield each


async def _from_arrow(call: Call, *, compares: bool) -> AsyncGenerator[Part]:
    """Yield the header in the query, and the record batches of the body."""
    check_arrow()
    text = call.query.get(REQUEST)
    if text is None:
        raise InvalidEvaluationError([Violation(REQUEST, "is missing in the query")])
    content = await call.parse(text.encode(), _same)
    request = await _request(call, content, compares=compares)
    yield _header(request)
    async with aclosing(arrow_batches(call, request.columns)) as batches:
        async for each in batches:
            yield each


_READERS: Final = {
    MULTIPART: _from_form,
    NDJSON: _from_lines,
    ARROW_STREAM: _from_arrow,
}


async def _request(call: Call, content: object, *, compares: bool) -> SummaryRequest:
    wanted = as_object(content, REQUEST)
    record = call.find_record(wanted.get("loss"))
    return await call.work(partial(read_request, wanted, record, call.find_spec, compares=compares))


def _same(content: _T) -> _T:
    return content


def _header(request: SummaryRequest) -> Part:
    return loss_service_pb2.SummarizeLossesRequest(header=request.header), request.detached


async def merge_states(call: Call) -> Answer:
    """Merge states of other rows; one state alone is described."""
    content = await call.json_object()
    states = content.get("states")
    if set(content) != {"states"} or not isinstance(states, list) or not states:
        raise InvalidEvaluationError([Violation("states", "must be a list of states in base64")])
    size = sum(len(each) for each in states if isinstance(each, str))
    await call.grow_by(size * limits.SUMMARY_JSON_COPIES)
    return json_answer(await in_thread(partial(merged_json, states), FIGURES))


def merged_json(states: list[object]) -> dict[str, Any]:
    """Return the merged state; InvalidEvaluationError with the path of the wrong one."""
    messages = [checked_state(each, f"states[{at}]") for at, each in enumerate(states)]
    try:
        merged = messages[0] if len(messages) == 1 else merge(messages)
    except TooManyError as error:
        raise OverLimitError(str(error)) from None
    except MergeError as error:
        raise InvalidEvaluationError([Violation("states", str(error))]) from None
    return state_json(merged)


def checked_state(value: object, where: str) -> summary_pb2.LossSummary:
    """Return the message of a state whose form was checked."""
    message = read_state(value, where)
    try:
        check_message(message)
    except MergeError as error:
        raise InvalidEvaluationError([Violation(where, str(error))]) from None
    return message


_DESCRIPTION: Final = (
    "The data comes as `multipart/form-data` (the part `request`, and one part for each column: "
    "`.npy` or a JSON list; one batch), as `application/x-ndjson` (the first line is the request, "
    "each further one a row as an object), or as `application/vnd.apache.arrow.stream` (the "
    "request in the query). With `Accept: application/x-ndjson` progress is sent as lines."
)
_ANSWERS: Final = {JSON: ref("SummaryAnswer"), NDJSON: ref("SummaryLine")}
_QUERY: Final = (
    Parameter(
        name=REQUEST,
        description="The request as JSON, where the body is an Arrow stream.",
        schema={"type": "string", "contentMediaType": JSON},
    ),
)
_over_rows: Final = partial(
    Route,
    method="POST",
    description=_DESCRIPTION,
    tag="summaries",
    parameters=_QUERY,
    answers=_ANSWERS,
    lasts=True,
    problems=(400, 404, 412, 413, 429, 503, 504),
)

ROUTES: Final = (
    _over_rows(
        path="/v1/summarize",
        handler=summarize,
        name="summarize",
        summary="Summarize a loss over rows",
        accepts={each: ref("SummaryRequest") for each in _READERS},
    ),
    _over_rows(
        path="/v1/compare",
        handler=compare,
        name="compare",
        summary="Compare 2 to 8 candidates over the same rows",
        accepts={each: ref("CompareRequest") for each in _READERS},
    ),
    Route(
        path="/v1/summaries/merge",
        method="POST",
        handler=merge_states,
        name="mergeSummaries",
        summary="Merge states of other rows; one state alone is described",
        tag="summaries",
        accepts={JSON: ref("MergeRequest")},
        answers={JSON: ref("SummaryAnswer")},
        problems=(400, 413, 429),
    ),
)
