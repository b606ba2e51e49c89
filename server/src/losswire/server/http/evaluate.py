"""POST /v1/evaluate: a body becomes an Evaluation, which takes the way of all others."""

import asyncio
from typing import Final

from losswire.server import thresholds
from losswire.server.catalogue.record import LossRecord
from losswire.server.http.answer import Answer, json_answer
from losswire.server.http.call import Call
from losswire.server.http.evaluation_json import read_evaluation
from losswire.server.http.result_json import result_bytes, result_json
from losswire.server.http.route import JSON, Route, ref
from losswire.server.http.tensors import ENCODINGS
from losswire.server.memory.residents import TENANT
from losswire.server.pipeline.encode import Encoded
from losswire.wire import TensorSpec


async def evaluate(call: Call) -> Answer:
    """Evaluate one batch."""
    content, evaluator = await call.json_object(), call.services.evaluator

    def find_spec(sha256: bytes) -> TensorSpec | None:
        return evaluator.residents.spec((TENANT, sha256))

    record = record_of(call, content.get("loss"))
    read = await call.work(lambda: read_evaluation(content, record, find_spec))
    encoded = await evaluator.evaluate(read.evaluation, call.deadline, detached=read.detached)
    return await _json_result(call, encoded, read.encoding)


def record_of(call: Call, name: object) -> LossRecord | None:
    """Return the record of a loss; None when there is none of this name."""
    registry = call.services.evaluator.registry
    return registry.find(name) if isinstance(name, str) and name in registry else None


async def _json_result(call: Call, encoded: Encoded, encoding: str) -> Answer:
    """Return the answer of a result, off the event loop when it is large."""
    write = ENCODINGS[encoding]

    def answer() -> Answer:
        return json_answer(result_json(encoded, lambda _, array: write(array)))

    size = result_bytes(encoded)
    call.hold(size * thresholds.HTTP_ANSWER_COPIES)
    if size < thresholds.HTTP_OFF_LOOP_BYTES:
        return answer()
    return await asyncio.to_thread(answer)


ROUTES: Final = (
    Route(
        path="/v1/evaluate",
        method="POST",
        handler=evaluate,
        name="evaluate",
        summary="Evaluate one batch",
        description="Returns the loss and, where asked for, exact gradients.",
        accepts={JSON: ref("EvaluateRequest")},
        answers={JSON: ref("EvaluateResult")},
        problems=(400, 404, 412, 413, 429, 504),
    ),
)
