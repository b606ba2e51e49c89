"""GET /v1/query: runs as flat rows, for Grafana's Infinity source and for spreadsheets."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import numpy as np

from losswire.server.errors import InvalidRunError, MissingRunError, OverLimitError
from losswire.server.http import limits
from losswire.server.http.answer import Answer, json_answer
from losswire.server.http.call import Call, whole_number
from losswire.server.http.route import JSON, Parameter, Route, ref
from losswire.server.http.run_json import figures_row, time_of
from losswire.server.http.runs import FILTERS, calls_of, list_request
from losswire.server.http.threads import in_thread
from losswire.summaries.figures.candidates import CandidateStatistics
from losswire.summaries.figures.documents import differences
from losswire.summaries.figures.statistics import QUANTILES
from losswire.v1 import run_service_pb2
from losswire.wire import Violation

Row = dict[str, Any]
Expand = Callable[[run_service_pb2.Run, str], Iterator[Row]]
"""Returns the rows of a run, without the columns of the run itself; the text names a column."""

_OTHERS: Final = ("select", "run_id", "column", "from", "to", "limit")
"""The parameters beside the filters of a list."""

_SECONDS_OF_LARGEST: Final = 253_402_300_799
"""The last second of the year 9999."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    """What is asked for."""

    select: str
    request: run_service_pb2.ListRunsRequest
    run_id: str
    column: str
    begin: float
    """The first second since 1970 that is asked for."""
    end: float
    limit: int
    """How many runs at most, the newest ones."""


async def get_query(call: Call) -> Answer:
    """Return runs, or parts of them, as a list of flat objects with the same columns."""
    question = _question(call)
    expand = _SELECTS[question.select]
    rows: list[tuple[Row, Mapping[str, str]]] = []
    names: set[str] = set()
    held, before = call.reservation, call.reservation.held_bytes
    async with aclosing(_runs(call, question)) as runs:
        async for run in runs:
            names |= set(run.labels)
            labels = dict(run.labels)
            rows += [(each, labels) for each in await _rows_of(call, run, question, expand)]
            row_bytes = limits.QUERY_ROW_BYTES + len(names) * limits.QUERY_LABEL_BYTES
            await held.grow_to(before + len(rows) * row_bytes, call.deadline)
            _check_counts(len(rows), len(names))
    return await in_thread(partial(_answer, rows, sorted(names)))


def _check_counts(rows: int, labels: int) -> None:
    """Raise OverLimitError for more than anybody looks at."""
    counts = (("rows", rows, limits.MAX_QUERY_ROWS), ("labels", labels, limits.MAX_QUERY_LABELS))
    for what, count, most in counts:
        if count > most:
            message = f"there are more than {most} {what}; ask for fewer runs"
            raise OverLimitError(message)


def _answer(rows: Sequence[tuple[Row, Mapping[str, str]]], names: Sequence[str]) -> Answer:
    # Numbers that JSON lacks become null: a column of numbers has no texts.
    return json_answer([_with_labels(*each, names) for each in rows])


async def _rows_of(
    call: Call, run: run_service_pb2.Run, question: _Question, expand: Expand | None
) -> list[Row]:
    facts = _facts(run)
    if expand is None:
        return [{**facts, **figures_row(each)} for each in run.figures]

    def use(whole: run_service_pb2.Run) -> list[Row]:
        with np.errstate(all="ignore"):
            return [{**facts, **each} for each in expand(whole, question.column)]

    try:
        return await calls_of(call).get(run.run_id, use)
    except MissingRunError:
        # Somebody deleted it meanwhile.
        return []


def _facts(run: run_service_pb2.Run) -> Row:
    """Return the columns that every row of a run has."""
    return {
        "time": _time(run),
        "run_id": run.run_id,
        "name": run.name,
        "loss": run.loss,
    }


def _with_labels(row: Row, labels: Mapping[str, str], order: Sequence[str]) -> Row:
    """Return a row with a column for each label; one that its run does not have is null."""
    return {**row, **{f"label_{name}": labels.get(name) for name in order}}


def _time(run: run_service_pb2.Run) -> str | None:
    """Return when a run ended, or else when it was saved."""
    return time_of(run, "ended") or time_of(run, "saved")


def _second(run: run_service_pb2.Run) -> float:
    time = run.ended if run.HasField("ended") else run.saved
    return time.seconds + time.nanos / 1e9


async def _runs(call: Call, question: _Question) -> AsyncGenerator[run_service_pb2.Run]:
    """Yield the runs that are asked for, the one saved last first."""
    if question.run_id:
        with suppress(MissingRunError):
            run = await calls_of(call).get(question.run_id, _listed)
            if _fits(run, question):
                yield run
        return
    request, found = question.request, 0
    request.page_size = limits.QUERY_PAGE
    for _ in range(limits.MAX_QUERY_PAGES):
        page = await calls_of(call).list(request)
        for run in page.runs:
            if question.begin <= _second(run) <= question.end:
                yield run
                found += 1
                if found == question.limit:
                    return
        request.page_token = page.next_page_token
        if not page.next_page_token:
            return
        await asyncio.sleep(0)


def _listed(run: run_service_pb2.Run) -> run_service_pb2.Run:
    """Return a run as lists have it."""
    run.ClearField("summary")
    run.ClearField("header")
    return run


def _fits(run: run_service_pb2.Run, question: _Question) -> bool:
    """Return whether the filters of the question let a run pass."""
    wanted = question.request
    return (
        wanted.loss in ("", run.loss)
        and wanted.name in ("", run.name)
        and all(run.labels.get(name) == value for name, value in wanted.labels.items())
        and question.begin <= _second(run) <= question.end
    )


def _question(call: Call) -> _Question:
    """Read the parameters; InvalidRunError with all violations."""
    query, wrong = call.query, list[Violation]()
    try:
        request = list_request(call.query_items, _OTHERS)
    except InvalidRunError as error:
        wrong += error.violations
        request = run_service_pb2.ListRunsRequest()
    select = query.get("select", "runs")
    limit = whole_number(query.get("limit") or "100", _MOST_RUNS)
    if select not in _SELECTS:
        wrong.append(Violation("select", f"must be one of {', '.join(_SELECTS)}"))
    if not limit:
        wrong.append(Violation("limit", f"must be a whole number from 1 to {_MOST_RUNS}"))
    times = {"from": 0.0, "to": float(_SECONDS_OF_LARGEST)}
    for name in times:
        if query.get(name):
            try:
                times[name] = _seconds(query[name])
            except (ValueError, OverflowError):
                text = "must be a time as RFC 3339 has it, or milliseconds since 1970"
                wrong.append(Violation(name, text))
    if wrong or not limit:
        raise InvalidRunError(wrong)
    return _Question(
        select=select,
        request=request,
        run_id=query.get("run_id", ""),
        column=query.get("column", ""),
        begin=times["from"],
        end=times["to"],
        limit=limit,
    )


_MOST_RUNS: Final = 1000


def _seconds(text: str) -> float:
    """Return a time in seconds since 1970; ValueError for anything else."""
    milliseconds = whole_number(text, _SECONDS_OF_LARGEST * 1000)
    if milliseconds is not None:
        return milliseconds / 1000
    if text.isdecimal():
        # Python reads a date in any digits that begin with one.
        raise ValueError(text[:64])
    time = datetime.fromisoformat(text)
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()


def _names(run: run_service_pb2.Run) -> list[str]:
    return list(run.summary.candidates) or [""]


def _slices(run: run_service_pb2.Run, column: str) -> Iterator[Row]:
    """Yield each slice of each table, or of one column."""
    for number, name in enumerate(_names(run)):
        for table_name, table in CandidateStatistics(run.summary, number).slices.items():
            if column not in ("", table_name):
                continue
            for each in table.by_lift():
                low, high = each.statistics.interval()
                yield {
                    "candidate": name,
                    "column": table_name,
                    "slice": each.label,
                    "count": each.statistics.count,
                    "mean": each.statistics.mean,
                    "standard_error": each.statistics.standard_error,
                    "low": low,
                    "high": high,
                    "lift": each.lift,
                    "p_adjusted": each.p_adjusted,
                }


def _quantiles(run: run_service_pb2.Run, _: str) -> Iterator[Row]:
    """Yield each quantile that tables show."""
    for number, name in enumerate(_names(run)):
        found = CandidateStatistics(run.summary, number)
        for share, value in zip(QUANTILES, found.quantile(QUANTILES), strict=True):
            yield {"candidate": name, "quantile": share, "value": value}


def _differences(run: run_service_pb2.Run, _: str) -> Iterator[Row]:
    """Yield the difference of each two candidates; a summary of one has none."""
    for each in differences(run.summary):
        low, high = each.interval()
        yield {
            "first": each.names[0],
            "second": each.names[1],
            "count": each.count,
            "mean": each.mean,
            "standard_error": each.standard_error,
            "low": low,
            "high": high,
            "p_value": each.p_value,
            "wins": each.wins,
            "ties": each.ties,
            "losses": each.losses,
        }


_SELECTS: Final[Mapping[str, Expand | None]] = {
    "runs": None,
    "slices": _slices,
    "quantiles": _quantiles,
    "differences": _differences,
}
"""What can be selected, and how a run becomes rows; None: what a list knows is enough."""

_TEXT: Final = {"type": "string"}

ROUTES: Final = (
    Route(
        path="/v1/query",
        handler=get_query,
        name="query",
        summary="Return runs as flat rows",
        description=(
            "For Grafana's Infinity source. All rows have the same columns; `time` is when the run "
            "ended, or else when it was saved; labels are columns `label_KEY`; numbers that JSON "
            "lacks are null."
        ),
        tag="runs",
        parameters=(
            Parameter(name="select", description="Default runs.", schema={"enum": list(_SELECTS)}),
            *FILTERS,
            Parameter(name="run_id", description="Only this run.", schema=_TEXT),
            Parameter(name="column", description="Only slices of this column.", schema=_TEXT),
            Parameter(name="from", description="Only runs from this time on.", schema=_TEXT),
            Parameter(name="to", description="Only runs up to this time.", schema=_TEXT),
            Parameter(
                name="limit",
                description="How many runs at most, the newest; default 100.",
                schema={"type": "integer", "minimum": 1, "maximum": _MOST_RUNS},
            ),
        ),
        answers={JSON: ref("QueryRows")},
        problems=(413, 429, 501, 503),
    ),
)
