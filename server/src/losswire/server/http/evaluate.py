"""POST /v1/evaluate: a body becomes an Evaluation, which takes the way of all others."""

import secrets
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from losswire.server.http import limits
from losswire.server.http.answer import Answer, json_answer
from losswire.server.http.call import REQUEST, Call
from losswire.server.http.evaluation_json import Read, read_evaluation
from losswire.server.http.json_text import dump
from losswire.server.http.multipart import Part, write_parts
from losswire.server.http.npy import copied_bytes, write_npy
from losswire.server.http.result_json import result_bytes, result_json, result_numbers
from losswire.server.http.route import JSON, MULTIPART, Route, ref
from losswire.server.http.tensors import ENCODINGS
from losswire.server.http.threads import in_thread
from losswire.server.memory.budget import Kind
from losswire.server.pipeline.encode import Encoded

_TEXT_BYTES: Final[Mapping[str, Callable[[Encoded], int]]] = {
    "list": lambda encoded: result_numbers(encoded) * limits.HTTP_LIST_NUMBER_BYTES,
    "base64": lambda encoded: result_bytes(encoded) * limits.HTTP_BASE64_COPIES,
}
"""Memory that an answer in JSON takes beside its tensors, by encoding."""


async def evaluate(call: Call) -> Answer:
    """Evaluate one batch."""
    read = await _request(call)
    encoded = await call.services.evaluator.evaluate(
        read.evaluation, call.deadline, detached=read.detached, reservation=call.reservation
    )
    encoding = read.encoding
    del read
    size = result_bytes(encoded)
    call.keep(size, Kind.ANSWER)
    if call.accepts(MULTIPART):
        return _multipart_result(encoded)
    await call.grow_by(_TEXT_BYTES[encoding](encoded), Kind.ANSWER)
    answer = partial(_json_result, encoded, encoding)
    return answer() if size < limits.HTTP_OFF_LOOP_BYTES else await in_thread(answer)


async def _request(call: Call) -> Read:
    """Read the request; from then on the budget holds only what it became."""
    if call.media_type != MULTIPART:
        read = await call.json(partial(_read, call, {}), numbers=True)
        call.keep(sum(each.nbytes for each in read.detached.values()))
        return read
    parts = await call.parts()
    received = call.reservation.held_bytes
    await call.grow_by(sum(copied_bytes(each.data) for each in parts.values()))
    copied = call.reservation.held_bytes - received
    read = await call.request_part(parts, partial(_read, call, parts), numbers=True)
    call.reservation.change_to(received + copied, Kind.COMPUTE)
    return read


def _read(call: Call, parts: Mapping[str, Part], content: Mapping[str, Any]) -> Read:
    """Read a request, on any thread."""
    files = {name: part.data for name, part in parts.items() if name != REQUEST}
    record = call.find_record(content.get("loss"))
    return read_evaluation(content, record, call.find_spec, files)


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
                "properties": {REQUEST: _BODY},
                "required": [REQUEST],
                "additionalProperties": {"type": "string", "format": "binary"},
            },
        },
        answers={JSON: ref("EvaluateResult"), MULTIPART: {"type": "object"}},
        problems=(400, 404, 412, 413, 429, 504),
    ),
)
