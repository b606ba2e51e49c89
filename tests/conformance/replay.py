"""Replays the vectors against a server; the Python reading of what README.md says in words."""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from losswire.v1 import evaluation_pb2, loss_service_pb2, loss_service_pb2_grpc, tensor_pb2
from losswire.v1 import status_pb2 as losswire_status_pb2
from losswire.wire import decode_tensor

FOLDER = Path(__file__).parent

DETAILS = "grpc-status-details-bin"

EPSILONS = {"FLOAT16": 2.0**-10, "BFLOAT16": 2.0**-7, "FLOAT32": 2.0**-23, "FLOAT64": 2.0**-52}

_TYPES: dict[str, type[Message]] = {
    each.DESCRIPTOR.full_name: each
    for each in (
        loss_service_pb2.EvaluateRequest,
        loss_service_pb2.EvaluateResponse,
        loss_service_pb2.EvaluateManyRequest,
        loss_service_pb2.EvaluateManyResponse,
        status_pb2.Status,
    )
}

Entry = Mapping[str, Any]


def entries() -> list[Entry]:
    """Read the index."""
    vectors: list[Entry] = json.loads((FOLDER / "index.json").read_text())["vectors"]
    return vectors


def message(entry: Entry, role: str) -> Any:  # noqa: ANN401 (the entry names the type)
    """Read the request or the response of a vector."""
    data = (FOLDER / "vectors" / f"{entry['name']}.{role}.binpb").read_bytes()
    return _TYPES[entry[f"{role}_type"]].FromString(data)


def replay(stub: loss_service_pb2_grpc.LossServiceStub, entry: Entry) -> list[str]:
    """Send a vector's request; return the differences of the answer."""
    wanted = message(entry, "response")
    try:
        got = getattr(stub, entry["method"])(message(entry, "request"), timeout=60)
    except grpc.RpcError as error:
        return list(_call_problems(entry, wanted, error))
    if entry["code"]:
        return [f"succeeded; expected code {entry['code']}"]
    if entry["method"] == "Evaluate":
        return list(_result_problems(got.result, wanted.result, entry["tolerances"][0]))
    if len(got.outcomes) != len(wanted.outcomes):
        return [f"{len(got.outcomes)} outcomes; expected {len(wanted.outcomes)}"]
    triples = zip(got.outcomes, wanted.outcomes, entry["tolerances"], strict=True)
    return [
        f"outcomes[{position}]: {problem}"
        for position, triple in enumerate(triples)
        for problem in _outcome_problems(*triple)
    ]


def _call_problems(entry: Entry, wanted: status_pb2.Status, error: grpc.RpcError) -> Iterator[str]:
    """Compare the status of a failed call: code, reason and the set of field paths."""
    if not entry["code"]:
        yield f"failed: {error}"
        return
    details = {each.key: each.value for each in error.trailing_metadata() or ()}
    got = status_pb2.Status.FromString(details.get(DETAILS, b""))
    if got.code != wanted.code:
        yield f"code is {got.code}; expected {wanted.code}"
    facts = [_facts(got), _facts(wanted)]
    if facts[0] != facts[1]:
        yield f"details are {facts[0]}; expected {facts[1]}"


def _facts(status: status_pb2.Status) -> tuple[str, str, list[str]]:
    """Return the domain, the reason and the distinct paths of a status."""
    info, request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details:
        for known in (info, request):
            detail.Unpack(known)
    return info.domain, info.reason, sorted({each.field for each in request.field_violations})


def _outcome_problems(
    got: evaluation_pb2.EvaluationOutcome,
    wanted: evaluation_pb2.EvaluationOutcome,
    tolerance: Mapping[str, Any] | None,
) -> Iterator[str]:
    if got.WhichOneof("outcome") != wanted.WhichOneof("outcome") or tolerance is None:
        facts = [_item_facts(got.error), _item_facts(wanted.error)]
        if facts[0] != facts[1]:
            yield f"is {facts[0]}; expected {facts[1]}"
        return
    yield from _result_problems(got.result, wanted.result, tolerance)


def _item_facts(error: losswire_status_pb2.Status) -> tuple[int, str, list[str]]:
    return error.code, error.reason, sorted({each.field for each in error.violations})


def _result_problems(
    got: evaluation_pb2.EvaluationResult,
    wanted: evaluation_pb2.EvaluationResult,
    tolerance: Mapping[str, Any],
) -> Iterator[str]:
    """Compare a result, field by field."""
    yield from _tensor_problems("loss", got.loss, wanted.loss, tolerance["loss"])
    for field in ("sum", "mean_numerator", "mean_denominator"):
        pair = np.float64(getattr(got, field)), np.float64(getattr(wanted, field))
        if not near(*pair, tolerance[field]):
            yield f"{field} is {pair[0]!r}; expected {pair[1]!r}"
    if got.count != wanted.count:
        yield f"count is {got.count}; expected {wanted.count}"
    if set(got.gradients) != set(wanted.gradients):
        yield f"gradients are {sorted(got.gradients)}; expected {sorted(wanted.gradients)}"
        return
    for name, gradient in wanted.gradients.items():
        own = tolerance["gradients"][name]
        yield from _tensor_problems(f"gradients[{name!r}]", got.gradients[name], gradient, own)
    for field in ("engine", "compute_data_type"):
        got_value, expected = getattr(got.receipt, field), getattr(wanted.receipt, field)
        if expected and got_value != expected:
            yield f"receipt.{field} is {got_value}; expected {expected}"


def _tensor_problems(
    path: str, got: tensor_pb2.Tensor, wanted: tensor_pb2.Tensor, tolerance: Mapping[str, Any]
) -> Iterator[str]:
    if got.data_type != wanted.data_type or list(got.shape) != list(wanted.shape):
        yield f"{path} has another data type or shape: {got.data_type} {list(got.shape)}"
        return
    one, other = (decode_tensor(each).astype(np.float64) for each in (got, wanted))
    pairs = enumerate(zip(one.ravel(), other.ravel(), strict=True))
    for position, pair in pairs:
        if not near(*pair, tolerance):
            yield f"{path}[{position}] is {pair[0]!r}; expected {pair[1]!r} within {tolerance}"


def near(got: float, wanted: float, tolerance: Mapping[str, Any]) -> bool:
    """Return whether a number is near enough to the expected one."""
    if math.isnan(wanted) or math.isinf(wanted) or not tolerance["ulps"]:
        return bool(got == wanted or (math.isnan(got) and math.isnan(wanted)))
    unit = EPSILONS[tolerance["of"]] * max(abs(wanted), tolerance["scale"])
    return bool(abs(got - wanted) <= tolerance["ulps"] * unit)
