"""Writes the conformance vectors, tests/conformance/index.json and vectors/, from their table.

Those of summaries, which have a folder of their own, are written as well.

Every expected value follows from exact arithmetic; nothing is asked of a server or of torch, and
nothing depends on the machine, so the same files come out everywhere.

Usage, from the root of the repository: python -m tools.make_conformance
"""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import any_pb2, text_format
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from tools import make_summary_conformance

from losswire.v1 import evaluation_pb2, loss_service_pb2, tensor_pb2
from losswire.v1 import status_pb2 as losswire_status_pb2
from losswire.wire import decode_tensor, encode_option, encode_tensor
from tests.conformance.cases import CASES, Case, Failure, Given
from tests.conformance.exact import Array, Number, rounded
from tests.conformance.formulas import Expected, evaluate

FOLDER = Path(__file__).resolve().parent.parent / "tests" / "conformance"

SERVICE = "losswire.v1.LossService"

_WIDTHS = ("bfloat16", "float16", "float32", "float64")
"""The floating types, by the width of their mantissa."""

_DIGITS = {"bfloat16": 4, "float16": 5, "float32": 9, "float64": 17}
"""How many digits distinguish the values of a type."""

_EXACT: Mapping[str, Any] = {"ulps": 0}


def main() -> None:
    """Write all files, and remove those of vectors that are no more."""
    files = build()
    for stale in set(present()) - set(files):
        (FOLDER / stale).unlink()
    for name, content in files.items():
        path = FOLDER / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    print(f"{len(CASES)} vectors in {FOLDER}")
    make_summary_conformance.write()


def present() -> list[str]:
    """List the generated files that are in the folder now."""
    return sorted(f"vectors/{path.name}" for path in (FOLDER / "vectors").glob("*")) + [
        path.name for path in FOLDER.glob("index.json")
    ]


def build() -> dict[str, bytes]:
    """Make the content of every generated file, by its path in the folder."""
    files: dict[str, bytes] = {}
    entries = []
    for case in CASES:
        request, response, entry = _vector(case)
        entries.append(entry)
        for role, message in (("request", request), ("response", response)):
            stem = f"vectors/{case.name}.{role}"
            files[f"{stem}.binpb"] = message.SerializeToString(deterministic=True)
            files[f"{stem}.textproto"] = _text(case, role, message).encode()
    index = {"service": SERVICE, "vectors": entries}
    files["index.json"] = (json.dumps(index, indent=2, allow_nan=False) + "\n").encode()
    return files


def _vector(case: Case) -> tuple[Message, Message, dict[str, Any]]:
    """Make a vector's request, its response and its entry in the index."""
    evaluations = [_evaluation(given) for given in case.evaluations]
    request: Message
    response: Message
    code = 0
    tolerances: list[Any] = []
    if len(evaluations) > 1:
        request = loss_service_pb2.EvaluateManyRequest(evaluations=evaluations)
        outcomes, tolerances = zip(*map(_outcome, case.evaluations), strict=True)
        response = loss_service_pb2.EvaluateManyResponse(outcomes=outcomes)
    else:
        [given] = case.evaluations
        request = loss_service_pb2.EvaluateRequest(evaluation=evaluations[0])
        if given.failure:
            code = given.failure.code
            response = _call_status(given.failure)
        else:
            result, tolerance = _result(given)
            tolerances = [tolerance]
            response = loss_service_pb2.EvaluateResponse(result=result)
    entry = {
        "name": case.name,
        "about": case.about,
        "method": "EvaluateMany" if len(evaluations) > 1 else "Evaluate",
        "request_type": request.DESCRIPTOR.full_name,
        "response_type": response.DESCRIPTOR.full_name,
        "code": code,
        "tolerances": list(tolerances),
    }
    return request, response, entry


def _evaluation(given: Given) -> evaluation_pb2.Evaluation:
    evaluation = evaluation_pb2.Evaluation(
        loss=given.loss,
        inputs={name: encode_tensor(array) for name, array in given.inputs.items()},
        options={name: encode_option(value) for name, value in given.options.items()},
        gradients_for=given.gradients_for,
        normalizer=given.normalizer,
        engine=evaluation_pb2.Engine.Value(given.engine),
    )
    if given.reduction:
        evaluation.reduction = evaluation_pb2.Reduction.Value(
            f"REDUCTION_{given.reduction.upper()}"
        )
    for field in ("grad_output", "sample_weight"):
        array = getattr(given, field)
        if array is not None:
            getattr(evaluation, field).CopyFrom(encode_tensor(array))
    if given.gradient_dtype:
        evaluation.gradient_data_type = _data_type(given.gradient_dtype)
    if given.compute_dtype:
        evaluation.compute_data_type = _data_type(given.compute_dtype)
    if given.spoil:
        given.spoil(evaluation)
    return evaluation


def _data_type(name: str) -> tensor_pb2.DataType.ValueType:
    return tensor_pb2.DataType.Value(f"DATA_TYPE_{name.upper()}")


def _outcome(given: Given) -> tuple[evaluation_pb2.EvaluationOutcome, dict[str, Any] | None]:
    if given.failure:
        status = losswire_status_pb2.Status(
            code=given.failure.code,
            reason=given.failure.reason,
            violations=[
                losswire_status_pb2.FieldViolation(field=each) for each in given.failure.fields
            ],
        )
        return evaluation_pb2.EvaluationOutcome(error=status), None
    result, tolerance = _result(given)
    return evaluation_pb2.EvaluationOutcome(result=result), tolerance


def _call_status(failure: Failure) -> status_pb2.Status:
    """Make the status of a failed call, without the texts, which are for people."""
    details: list[Message] = [
        error_details_pb2.ErrorInfo(reason=failure.reason, domain="losswire"),
        error_details_pb2.BadRequest(
            field_violations=[
                error_details_pb2.BadRequest.FieldViolation(field=each) for each in failure.fields
            ]
        ),
    ]
    status = status_pb2.Status(code=failure.code)
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def _result(given: Given) -> tuple[evaluation_pb2.EvaluationResult, dict[str, Any]]:
    """Compute the result of an evaluation and how near an answer must come to it."""
    expected = evaluate(
        given.loss,
        given.inputs,
        given.options,
        reduction=given.reduction or "mean",
        gradients_for=given.gradients_for,
        grad_output=given.grad_output,
        sample_weight=given.sample_weight,
        normalizer=given.normalizer,
    )
    compute = given.compute_dtype or _compute_dtype(given.inputs.values())
    exactly = given.ulps == 0
    gradients = {
        name: rounded(array, given.gradient_dtype or given.inputs[name].dtype.name, exactly=exactly)
        for name, array in expected.gradients.items()
    }
    result = evaluation_pb2.EvaluationResult(
        loss=encode_tensor(rounded(expected.loss, compute, exactly=exactly)),
        sum=_double(expected.sum, exactly=exactly),
        mean_numerator=_double(expected.mean_numerator, exactly=exactly),
        mean_denominator=_double(expected.mean_denominator, exactly=True),
        count=expected.count,
        gradients={name: encode_tensor(array) for name, array in gradients.items()},
        receipt=evaluation_pb2.Receipt(
            engine="autograd" if given.engine == "ENGINE_AUTOGRAD" else "",
            compute_data_type=_data_type(compute),
        ),
    )
    return result, _tolerances(given, expected, compute, gradients)


def _tolerances(
    given: Given, expected: Expected, compute: str, gradients: Mapping[str, Array]
) -> dict[str, Any]:
    """Return the tolerance of each field of the expected result."""
    sums = _tolerance(given.ulps, compute, _largest(expected.sum_terms))
    loss = _tolerance(given.ulps, compute, _largest(expected.loss_terms))
    return {
        "loss": loss,
        "sum": sums,
        "mean_numerator": sums,
        "mean_denominator": _EXACT,
        "gradients": {
            name: _gradient_tolerance(given, compute, array, expected.gradient_terms[name])
            for name, array in gradients.items()
        },
    }


def _gradient_tolerance(
    given: Given, compute: str, gradient: Array, terms: Array
) -> Mapping[str, Any]:
    own = gradient.dtype.name
    if _WIDTHS.index(own) < _WIDTHS.index(compute):
        # Computed in a wider type, it is off by its own rounding only.
        return _tolerance(min(given.ulps, 1), own, _largest(gradient))
    return _tolerance(given.ulps, compute, _largest(terms))


def _tolerance(ulps: int, dtype: str, scale: float) -> Mapping[str, Any]:
    if not ulps:
        return _EXACT
    # Three digits are enough for a scale, and are the same on every machine.
    return {"ulps": ulps, "of": dtype.upper(), "scale": float(f"{scale:.3g}")}


def _largest(values: Array) -> float:
    """Return the largest finite magnitude; 0 where there is none."""
    plain = (float(each.value if isinstance(each, Number) else each) for each in values.ravel())
    return max((abs(each) for each in plain if math.isfinite(each)), default=0.0)


def _double(value: Array, *, exactly: bool) -> float:
    return float(rounded(value, "float64", exactly=exactly).item())


def _compute_dtype(inputs: Iterable[Array]) -> str:
    """Return the type that an evaluation is computed in unless it asks for another."""
    return "float64" if any(array.dtype == np.float64 for array in inputs) else "float32"


def _text(case: Case, role: str, message: Message) -> str:
    """Write a message as text, with its tensors as numbers in comments at the top."""
    lines = [
        f"# proto-file: {message.DESCRIPTOR.file.name}",
        f"# proto-message: {message.DESCRIPTOR.full_name}",
        f"# {case.name}, {role}. {case.about}",
        *(f"#   {line}" for line in _tensors(message, "")),
    ]
    return "\n".join(lines) + "\n\n" + text_format.MessageToString(message)


def _tensors(message: Message, path: str) -> Iterable[str]:
    """Write each tensor of a message as a path, a type, a shape and numbers."""
    if isinstance(message, tensor_pb2.Tensor):
        yield f"{path} = {_numbers(message)}"
        return
    for descriptor, value in message.ListFields():
        where = f"{path}.{descriptor.name}" if path else descriptor.name
        if descriptor.message_type is None:
            continue
        if isinstance(value, Message):
            yield from _tensors(value, where)
        elif isinstance(value, Mapping):
            for key in sorted(value):
                if isinstance(value[key], Message):
                    yield from _tensors(value[key], f'{where}["{key}"]')
        else:
            for position, each in enumerate(value):
                yield from _tensors(each, f"{where}[{position}]")


def _numbers(tensor: tensor_pb2.Tensor) -> str:
    try:
        array = decode_tensor(tensor)
    except ValueError:
        return "malformed on purpose"
    digits = _DIGITS.get(array.dtype.name, 17)
    return (
        f"{array.dtype.name} {list(array.shape)}: {_nested(array.astype(float).tolist(), digits)}"
    )


def _nested(values: Any, digits: int) -> str:  # noqa: ANN401 (lists of lists of numbers)
    if isinstance(values, list):
        return "[" + ", ".join(_nested(each, digits) for each in values) + "]"
    return f"{values:.{digits}g}"


if __name__ == "__main__":
    main()
