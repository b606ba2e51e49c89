"""POST /v1/evaluate: a body becomes an Evaluation, which takes the way of all others."""

import asyncio
import secrets
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from losswire.server.catalogue.record import LossRecord
from losswire.server.errors import InvalidEvaluationError
from losswire.server.http import limits
from losswire.server.http.answer import Answer, json_answer
from losswire.server.http.call import Call, as_object
from losswire.server.http.evaluation_json import Read, read_evaluation
from losswire.server.http.json_text import dump
from losswire.server.http.multipart import Part, write_parts
from losswire.server.http.npy import write_npy
from losswire.server.http.result_json import result_bytes, result_json
from losswire.server.http.route import JSON, MULTIPART, Route, ref
from losswire.server.http.tensors import ENCODINGS
from losswire.server.memory.residents import TENANT
from losswire.server.pipeline.encode import Encoded
from losswire.wire import TensorSpec, Violation

_COPIES: Final[Mapping[str, int]] = {
    "list": limits.HTTP_LIST_COPIES,
    "base64": limits.HTTP_BASE64_COPIES,
}
"""Memory of an answer in JSON, in multiples of its tensors, by encoding."""

_REQUEST: Final = "request"
"""The name of the part that holds the request's JSON."""


async def evaluate(call: Call) -> Answer:
    """Evaluate one batch."""
    parts: Mapping[str, Part] = {}
    if call.media_type == MULTIPART:
        parts = await call.parts()
        content = await _request_of(call, parts)
    else:
        content = await call.json_object()
    read = await call.work(partial(_read, call, content, parts))
    encoded = await call.services.evaluator.evaluate(
        read.evaluation, call.deadline, detached=read.detached
    )
    size = result_bytes(encoded)
    if call.accepts(MULTIPART):
        return _multipart_result(encoded)
    call.hold(size * _COPIES[read.encoding])
    answer = partial(_json_result, encoded, read.encoding)
    return answer() if size < limits.HTTP_OFF_LOOP_BYTES else await asyncio.to_thread(answer)


async def _request_of(call: Call, parts: Mapping[str, Part]) -> dict[str, Any]:
    """Return the JSON of a multipart request."""
    part = parts.get(_REQUEST)
    if part is None:
        raise InvalidEvaluationError([Violation(_REQUEST, "is missing: a part with the JSON")])
    call.check_json_size(len(part.data))
    return as_object(await call.parse(bytes(part.data)), _REQUEST)


def _read(call: Call, content: Mapping[str, Any], parts: Mapping[str, Part]) -> Read:
    """Read a request, on any thread."""
    files = {name: part.data for name, part in parts.items() if name != _REQUEST}
    return read_evaluation(content, record_of(call, content.get("loss")), finder(call), files)


def record_of(call: Call, name: object) -> LossRecord | None:
    """Return the record of a loss; None when there is none of this name."""
    registry = call.services.evaluator.registry
    return registry.find(name) if isinstance(name, str) and name in registry else None


def finder(call: Call) -> "partial[TensorSpec | None]":
    """Return the function that finds the specs of the caller's resident tensors."""
    return partial(_resident_spec, call)


def _resident_spec(call: Call, sha256: bytes) -> TensorSpec | None:
    return call.services.evaluator.residents.spec((TENANT, sha256))


def _json_result(encoded: Encoded, encoding: str) -> Answer:
    """Return the answer of a result in JSON."""
    write = ENCODINGS[encoding]
    return json_answer(result_json(encoded, lambda _, array: write(array)))


def _multipart_result(encoded: Encoded) -> Answer:
    """Return the answer of a result in which tensors are .npy files, not copied."""
    files: dict[str, tuple[bytes, memoryview]] = {}
    content = result_json(encoded, lambda name, array: files.update({name: write_npy(array)}))
    for each in ("loss", "gradients", "factored_gradients"):
        del content[each]
    boundary = secrets.token_hex(16)
    return Answer(
        media_type=f"{MULTIPART}; boundary={boundary}",
        body=write_parts(boundary, {"result": dump(content)}, files),
    )


_BODY: Final = ref("EvaluateRequest")

ROUTES: Final = (
    Route(
        path="/v1/evaluate",
        method="POST",
        handler=evaluate,
        name="evaluate",
        summary="Evaluate one batch",
        description="Returns the loss and, for the inputs in `gradients_for`, exact gradients. As "
        "multipart/form-data the part `request` holds the JSON, and each further part is a tensor "
        "in the .npy format: `inputs.NAME`, `sample_weight` or `grad_output`. With `Accept: "
        "multipart/form-data` the answer has the part `result` and the tensors as .npy: `loss`, "
        "`gradients.NAME`, `factored_gradients.NAME.lse`, `.scale` and `.lse_tail`.",
        accepts={
            JSON: _BODY,
            MULTIPART: {
                "type": "object",
                "properties": {_REQUEST: _BODY},
                "required": [_REQUEST],
                "additionalProperties": {"type": "string", "format": "binary"},
            },
        },
        answers={JSON: ref("EvaluateResult"), MULTIPART: {"type": "object"}},
        problems=(400, 404, 412, 413, 429, 504),
    ),
)
