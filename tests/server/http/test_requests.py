"""Requests that are not as the HTTP door wants them: each is a precise problem."""

import json
from typing import Any

import httpx
import pytest

from tests.support.http_door import JSON, NPY, Door, npy
from tests.support.requests import GOLDEN, by_call, f32, is_golden

_X = {"input": [1.0], "target": [0.0]}
_EVALUATE = "/v1/evaluate"


def _check_problem(response: httpx.Response, status: int, code: str, reason: str) -> dict[str, Any]:
    problem: dict[str, Any] = response.json()
    assert response.status_code == status, problem
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["x-request-id"] == problem["request_id"]
    assert (problem["status"], problem["code"], problem["reason"]) == (status, code, reason)
    assert problem["type"] == "about:blank"
    assert problem["detail"]
    return problem


FIELDS: dict[str, tuple[dict[str, Any], str, str]] = {
    "an unknown field": ({"los": "mse_loss"}, "los", "is no field"),
    "a loss that is a number": ({"loss": 5}, "loss", "must be a text"),
    "inputs in a list": ({"inputs": [1]}, "inputs", "must be an object of tensors"),
    "a text as a number": ({"inputs": {"input": ["x"]}}, 'inputs["input"][0]', "is a text"),
    "a text as a tensor": ({"inputs": {"input": "x"}}, 'inputs["input"]', "is a text"),
    "null as a number": (
        {"inputs": {"input": [[1, 2], [3, None]]}},
        'inputs["input"][1][1]',
        "is null",
    ),
    "an object as a number": ({"inputs": {"input": [1, {}]}}, 'inputs["input"][1]', "an object"),
    "true among numbers": ({"inputs": {"input": [1, True]}}, 'inputs["input"][1]', "is true or"),
    "a number among true": ({"inputs": {"input": [True, 1]}}, 'inputs["input"][1]', "is a number"),
    "rows of two lengths": (
        {"inputs": {"input": [[1, 2], [3]]}},
        'inputs["input"]',
        "at depth 1 have different lengths",
    ),
    "a number beside a list": ({"inputs": {"input": [[1], 2]}}, 'inputs["input"][0]', "is a list"),
    "nine axes": (
        {"inputs": {"input": [[[[[[[[[1]]]]]]]]]}},
        'inputs["input"]',
        "more than 8 axes",
    ),
    "an integer of 64 bits": (
        {"inputs": {"input": [1 << 63]}},
        'inputs["input"]',
        "beyond 64 bits",
    ),
    "a tensor with other fields": (
        {"inputs": {"input": {"shape": [1]}}},
        'inputs["input"]',
        "data_type and values, or data_type and shape and data, or resident",
    ),
    "an unknown data type": (
        {"inputs": {"input": {"data_type": "float8", "values": [1]}}},
        'inputs["input"].data_type',
        "must be one of bool, uint8",
    ),
    "a value that is no integer": (
        {"inputs": {"input": {"data_type": "int8", "values": [1, 2.5]}}},
        'inputs["input"].values[1]',
        "is no int8",
    ),
    "a value beyond its type": (
        {"inputs": {"input": {"data_type": "uint8", "values": [255, 256]}}},
        'inputs["input"].values[1]',
        "is no uint8",
    ),
    "NaN as an integer": (
        {"inputs": {"input": {"data_type": "int32", "values": ["NaN"]}}},
        'inputs["input"].values[0]',
        "is no int32",
    ),
    "data that is not base64": (
        {"inputs": {"input": {"data_type": "float32", "shape": [1], "data": "#"}}},
        'inputs["input"].data',
        "is not base64",
    ),
    "a shape that is a number": (
        {"inputs": {"input": {"data_type": "float32", "shape": 1, "data": ""}}},
        'inputs["input"].shape',
        "must be a list of whole numbers",
    ),
    "an axis of true": (
        {"inputs": {"input": {"data_type": "float32", "shape": [True], "data": ""}}},
        'inputs["input"].shape',
        "must be a list of whole numbers",
    ),
    "too few bytes": (
        {"inputs": {"input": {"data_type": "float32", "shape": [2], "data": "AAAAAA=="}}},
        'inputs["input"].data',
        "has 4 bytes",
    ),
    "an id that is none": (
        {"inputs": {"input": {"resident": "ab"}}},
        'inputs["input"].resident',
        "must be 64 hexadecimal digits",
    ),
    "options in a list": ({"options": []}, "options", "must be an object"),
    "an option in a list": ({"options": {"delta": [1]}}, 'options["delta"]', "must be a number"),
    "an option of 64 bits": ({"options": {"delta": 1 << 63}}, 'options["delta"]', "must be a"),
    "an unknown reduction": ({"reduction": "max"}, "reduction", "must be one of none, mean, sum"),
    "a reduction in capitals": ({"reduction": "MEAN"}, "reduction", "must be one of"),
    "gradients for a text": ({"gradients_for": "input"}, "gradients_for", "must be a list of"),
    "a normalizer of true": ({"normalizer": True}, "normalizer", "must be a number"),
    "a normalizer without end": ({"normalizer": 10**400}, "body", "is not JSON"),
    "an unknown encoding": ({"encoding": "xml"}, "encoding", "must be one of list, base64"),
    "an unknown engine": ({"engine": 2}, "engine", "must be one of auto, autograd"),
}


@pytest.mark.parametrize(("change", "field", "says"), FIELDS.values(), ids=FIELDS)
def test_a_wrong_field_is_named(door: Door, change: dict[str, Any], field: str, says: str) -> None:
    """Each field that is not as it should be is a violation with its path."""
    response = door.evaluate({"loss": "mse_loss", "inputs": _X, **change})
    if field == "body":
        assert (
            says in _check_problem(response, 400, "INVALID_ARGUMENT", "MALFORMED_MESSAGE")["detail"]
        )
        return
    problem = _check_problem(response, 400, "INVALID_ARGUMENT", "INVALID_EVALUATION")
    violation, *further = problem["violations"]
    assert violation["field"] == field
    assert says in violation["description"]
    # A tensor that is not there does not fit to the others either.
    assert all(each["field"].startswith("inputs") for each in further)


def test_all_wrong_fields_are_named_at_once(door: Door) -> None:
    """Mistakes of form in one request come back together."""
    content = {"loss": 1, "inputs": {"input": ["x"], "target": [[1], 2]}, "engine": "fast"}
    problem = door.evaluate(content).json()
    assert [each["field"] for each in problem["violations"]] == [
        "loss",
        'inputs["input"][0]',
        'inputs["target"][0]',
        "engine",
    ]


BODIES: dict[str, tuple[bytes, int, str, str]] = {
    "nothing": (b"", 400, "INVALID_ARGUMENT", "MALFORMED_MESSAGE"),
    "half of it": (b'{"loss": "mse', 400, "INVALID_ARGUMENT", "MALFORMED_MESSAGE"),
    "no UTF-8": (b'{"loss": "\xff"}', 400, "INVALID_ARGUMENT", "MALFORMED_MESSAGE"),
    "a bare NaN": (b'{"normalizer": NaN}', 400, "INVALID_ARGUMENT", "MALFORMED_MESSAGE"),
    "a list": (b"[]", 400, "INVALID_ARGUMENT", "INVALID_EVALUATION"),
    "33 levels": (b"[" * 33 + b"]" * 33, 413, "RESOURCE_EXHAUSTED", "OVER_LIMIT"),
    "a bomb of brackets": (b"[" * 8_000_000, 413, "RESOURCE_EXHAUSTED", "OVER_LIMIT"),
    "9 MiB": (b'{"loss": "' + b"x" * (9 << 20) + b'"}', 413, "RESOURCE_EXHAUSTED", "OVER_LIMIT"),
}


@pytest.mark.parametrize(("body", "status", "code", "reason"), BODIES.values(), ids=BODIES)
def test_a_body_that_is_no_request(
    door: Door, body: bytes, status: int, code: str, reason: str
) -> None:
    """What is not JSON, or too much of it, is refused and harms nothing."""
    response = door.client.post(_EVALUATE, content=body, headers={"content-type": JSON})
    _check_problem(response, status, code, reason)
    assert is_golden(by_call(door.stub, GOLDEN).result)


def test_brackets_in_texts_are_no_depth(door: Door) -> None:
    """A text may hold as many brackets as it likes."""
    response = door.evaluate({"loss": "mse_loss", "inputs": _X, "reduction": '["' * 100})
    _check_problem(response, 400, "INVALID_ARGUMENT", "INVALID_EVALUATION")


PATHS: dict[str, tuple[str, str, dict[str, str], int, str, str]] = {
    "no path": ("GET", "/v2/losses", {}, 404, "NOT_FOUND", "UNKNOWN_PATH"),
    "a slash too many": ("GET", "/v1/losses/", {}, 404, "NOT_FOUND", "UNKNOWN_PATH"),
    "no loss": ("GET", "/v1/losses/mse", {}, 404, "NOT_FOUND", "UNKNOWN_LOSS"),
    "another method": ("DELETE", _EVALUATE, {}, 405, "UNIMPLEMENTED", "WRONG_METHOD"),
    "a made-up method": ("BREW", "/healthz", {}, 405, "UNIMPLEMENTED", "WRONG_METHOD"),
    "another type": (
        "POST",
        _EVALUATE,
        {"content-type": "text/xml"},
        415,
        "INVALID_ARGUMENT",
        "WRONG_MEDIA_TYPE",
    ),
    "no type": ("POST", _EVALUATE, {}, 415, "INVALID_ARGUMENT", "WRONG_MEDIA_TYPE"),
    "a bomb": (
        "POST",
        _EVALUATE,
        {"content-type": JSON, "content-encoding": "gzip"},
        415,
        "INVALID_ARGUMENT",
        "WRONG_MEDIA_TYPE",
    ),
    "no boundary": (
        "POST",
        _EVALUATE,
        {"content-type": "multipart/form-data"},
        415,
        "INVALID_ARGUMENT",
        "WRONG_MEDIA_TYPE",
    ),
    "a deadline in words": (
        "GET",
        "/v1/server",
        {"losswire-timeout-ms": "soon"},
        400,
        "INVALID_ARGUMENT",
        "INVALID_EVALUATION",
    ),
    "a deadline that passed": (
        "GET",
        "/v1/server",
        {"losswire-timeout-ms": "0"},
        504,
        "DEADLINE_EXCEEDED",
        "EXPIRED",
    ),
    "a deadline of many digits": (
        "GET",
        "/v1/server",
        {"losswire-timeout-ms": "9" * 400},
        400,
        "INVALID_ARGUMENT",
        "INVALID_EVALUATION",
    ),
}


@pytest.mark.parametrize("case", PATHS.values(), ids=PATHS)
def test_a_request_that_goes_nowhere(
    door: Door, case: tuple[str, str, dict[str, str], int, str, str]
) -> None:
    """A wrong path, method, type or header is a problem of its own."""
    method, path, headers, status, code, reason = case
    body = b"{}" if method == "POST" else None
    response = door.client.request(method, path, content=body, headers=headers)
    _check_problem(response, status, code, reason)


def test_a_wrong_method_is_told_the_right_ones(door: Door) -> None:
    """405 comes with Allow."""
    assert door.client.get(_EVALUATE).headers["allow"] == "POST"
    assert door.client.put("/v1/losses").headers["allow"] == "GET, HEAD"


PARTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "no request": ({"inputs.input": ("x", npy(f32(1)))}, "request", "is missing"),
    "a request that is a list": ({"request": (None, "[]")}, "request", "must be an object"),
    "a part with another name": (
        {"request": (None, '{"loss": "mse_loss"}'), "weights": ("x", npy(f32(1)))},
        "weights",
        "is no part of this request",
    ),
    "a tensor in both": (
        {
            "request": (None, json.dumps({"loss": "mse_loss", "inputs": _X})),
            "inputs.input": ("x", npy(f32(1))),
        },
        'inputs["input"]',
        "is there twice",
    ),
    "no .npy": (
        {"request": (None, '{"loss": "mse_loss"}'), "inputs.input": ("x", b"PK\x03\x04" * 9)},
        'inputs["input"]',
        "is not in the .npy format",
    ),
}


@pytest.mark.parametrize(("parts", "field", "says"), PARTS.values(), ids=PARTS)
def test_a_wrong_part_is_named(door: Door, parts: dict[str, Any], field: str, says: str) -> None:
    """Each part that is not as it should be is a violation with its path."""
    response = door.client.post(_EVALUATE, files=parts)
    problem = _check_problem(response, 400, "INVALID_ARGUMENT", "INVALID_EVALUATION")
    [violation] = problem["violations"]
    assert violation["field"] == field
    assert says in violation["description"]


MULTIPARTS: dict[str, bytes] = {
    "nothing": b"",
    "no boundary": b"{}",
    "no end": b'--b\r\nContent-Disposition: form-data; name="request"\r\n\r\n{}',
    "no header": b"--b\r\n{}\r\n--b--\r\n",
    "no name": b"--b\r\nContent-Disposition: form-data\r\n\r\n{}\r\n--b--\r\n",
    "a boundary with a tail": b"--bb\r\n\r\n\r\n--bb--\r\n",
    "a thousand parts": b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n' * 1000
    + b"--b--\r\n",
    "a long header": b"--b\r\nA: " + b"x" * 5000 + b"\r\n\r\n{}\r\n--b--\r\n",
}


@pytest.mark.parametrize("body", MULTIPARTS.values(), ids=MULTIPARTS)
def test_a_multipart_body_that_is_none(door: Door, body: bytes) -> None:
    """A body that is not what its type says is refused."""
    headers = {"content-type": "multipart/form-data; boundary=b"}
    response = door.client.post(_EVALUATE, content=body, headers=headers)
    _check_problem(response, 400, "INVALID_ARGUMENT", "MALFORMED_MESSAGE")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", "body"),
        (b"x" * 5000, "body"),
        (npy(f32(1, 2))[:-1], "data"),
        (npy(f32(1)) + b"x", "data"),
    ],
)
def test_a_tensor_to_keep_that_is_none(door: Door, body: bytes, field: str) -> None:
    """A file that is no .npy, or not of the size that it says, is not kept."""
    response = door.client.put("/v1/tensors", content=body, headers={"content-type": NPY})
    problem = _check_problem(response, 400, "INVALID_ARGUMENT", "MALFORMED_TENSOR")
    assert [each["field"] for each in problem["violations"]] == [field]
