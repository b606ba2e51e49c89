"""GET /v1/gate: whether a loss has become worse, as `losswire gate` decides."""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from losswire.server.errors import InvalidRunError, MissingRunError
from losswire.server.http.answer import Answer, json_answer
from losswire.server.http.call import Call
from losswire.server.http.route import JSON, Parameter, Route, ref
from losswire.server.http.runs import calls_of
from losswire.server.http.threads import FIGURES, in_thread
from losswire.server.runs import thresholds
from losswire.summaries.figures.gate import Decision, Limit, decide
from losswire.summaries.figures.increase import (
    Evaluation,
    IncomparableError,
    Pairing,
    Side,
    of_comparison,
)
from losswire.v1 import run_service_pb2, summary_pb2
from losswire.wire import Violation, json_values

_LATEST: Final = "@latest"
_BOOLS: Final[Mapping[str, bool]] = {"true": True, "false": False}
_SIDES: Final = ("baseline", "candidate")
_PARAMETERS: Final = (*_SIDES, "comparison", "max_increase", "relative", "slice", "level")


async def get_gate(call: Call) -> Answer:
    """Compare the mean of a candidate with that of a baseline."""
    limit = _limit(call)
    evaluations = {
        name: await _evaluation(call, call.query[name])
        for name in (("comparison",) if "comparison" in call.query else _SIDES)
    }
    columns = [text for name, text in call.query_items if name == "slice"]
    decide_ = partial(_decision, call.query, evaluations, limit, columns)
    try:
        decision = await in_thread(decide_, FIGURES)
    except IncomparableError as error:
        raise InvalidRunError([Violation(error.field, str(error))]) from None
    return json_answer(json_values(_json(decision, call.query)))


def _limit(call: Call) -> Limit:
    """Read the limit, and check that nothing is missing; InvalidRunError with all violations."""
    query, wrong = call.query, list[Violation]()
    numbers = {"level": 0.95}
    for name in ("max_increase", "level"):
        if name in query:
            numbers[name] = _number(query[name])
            if not math.isfinite(numbers[name]):
                wrong.append(Violation(name, "must be a finite number"))
    if not 0 < numbers["level"] < 1 and math.isfinite(numbers["level"]):
        wrong.append(Violation("level", "must be between 0 and 1"))
    if query.get("relative", "false") not in _BOOLS:
        wrong.append(Violation("relative", "must be true or false"))
    wrong += [
        Violation(name, "is missing") for name in (*_SIDES, "max_increase") if not query.get(name)
    ]
    wrong += [
        Violation(name[:64], "is no parameter of this path")
        for name in query
        if name not in _PARAMETERS
    ]
    if wrong:
        raise InvalidRunError(wrong)
    return Limit(
        max_increase=numbers["max_increase"],
        relative=_BOOLS[query.get("relative", "false")],
        level=numbers["level"],
    )


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


async def _evaluation(call: Call, text: str) -> Evaluation:
    """Return the summary of a run, whose memory is held until the answer is sent."""
    calls, run_id = calls_of(call), text
    if text.endswith(_LATEST):
        name = text.removesuffix(_LATEST)
        request = run_service_pb2.ListRunsRequest(name=name, page_size=1)
        found = (await calls.list(request)).runs if name else []
        if not found:
            raise MissingRunError(text)
        run_id = found[0].run_id
    summary: summary_pb2.LossSummary = await calls.get(run_id, lambda run: run.summary)
    await call.grow_by(summary.ByteSize() * thresholds.READ_RUN_COPIES)
    return Evaluation(text, summary)


def _decision(
    query: Mapping[str, str],
    evaluations: Mapping[str, Evaluation],
    limit: Limit,
    columns: list[str],
) -> Decision:
    comparison = evaluations.get("comparison")
    if comparison is not None:
        sides = [of_comparison(comparison, query[each], each) for each in _SIDES]
        return decide(Pairing(sides[0], sides[1], paired=True), limit, columns)
    for name, each in evaluations.items():
        if each.message.candidates:
            names = ", ".join(each.message.candidates)
            text = f"{each.text} is a comparison of {names}: name it in comparison instead"
            raise IncomparableError(name, text)
    sides = [Side(evaluations[each]) for each in _SIDES]
    return decide(Pairing(sides[0], sides[1], paired=False), limit, columns)


def _json(decision: Decision, query: Mapping[str, str]) -> dict[str, Any]:
    total, *slices = decision.checks
    found = decision.to_dict(query["baseline"], query["candidate"])
    return found | {
        "increase": total.increase.mean,
        "interval": total.bounds,
        "slices": [each.to_dict() for each in slices],
        "sentence": f"{decision.lines[0]}; {decision.outcome}.",
        "lines": [*decision.lines, *decision.notes, decision.outcome],
    }


_RUN: Final = "The id of a run, or NAME@latest for the newest run of a name."
_TEXT: Final = {"type": "string"}

ROUTES: Final = (
    Route(
        path="/v1/gate",
        handler=get_gate,
        name="getGate",
        summary="Say whether a loss has become worse",
        description=(
            "Fails only when the increase is surely more than max_increase: when the lower end of "
            "its interval is above it. The verdict of `losswire gate`."
        ),
        tag="runs",
        parameters=(
            Parameter(name="baseline", description=_RUN, schema=_TEXT, required=True),
            Parameter(name="candidate", description=_RUN, schema=_TEXT, required=True),
            Parameter(
                name="comparison",
                description=f"{_RUN} Both are its candidates then, and are compared row by row.",
                schema=_TEXT,
            ),
            Parameter(
                name="max_increase",
                description="How much the mean may increase.",
                schema={"type": "number"},
                required=True,
            ),
            Parameter(
                name="relative",
                description="Whether that is a fraction of the baseline's mean.",
                schema={"type": "boolean"},
            ),
            Parameter(
                name="slice",
                description="Check each slice of this column, too; may be repeated.",
                schema=_TEXT,
            ),
            Parameter(
                name="level",
                description="Of the intervals; default 0.95.",
                schema={"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
            ),
        ),
        answers={JSON: ref("GateVerdict")},
        problems=(404, 413, 429, 501, 503),
    ),
)
