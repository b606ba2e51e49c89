"""The OpenAPI document says what the server does: schemathesis calls it by the document alone."""

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis import checks
from schemathesis.specs.openapi import checks as openapi_checks

from losswire.server.http.openapi import make_document
from losswire.server.http.routes import ROUTES, SCHEMAS
from losswire.server.losses import builtin_registry
from tests.support.http_door import Door, open_door
from tests.support.requests import GOLDEN, by_call, is_golden

DOCUMENT = json.loads(json.dumps(make_document(ROUTES, SCHEMAS)))
API = schemathesis.openapi.from_dict(DOCUMENT)
CHECKS = (
    checks.not_a_server_error,
    openapi_checks.content_type_conformance,
    openapi_checks.response_schema_conformance,
    openapi_checks.status_code_conformance,
    openapi_checks.unsupported_method,
)


@schemathesis.serializer("application/x-ndjson", "application/vnd.apache.arrow.stream")
def _raw(_: object, value: object) -> bytes:
    """Send bytes as they are, and anything else as a line of JSON."""
    return value if isinstance(value, bytes) else json.dumps(value).encode()


@pytest.fixture(scope="module")
def keeping(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """A server that keeps runs too, so that nothing is unimplemented."""
    folder = tmp_path_factory.mktemp("openapi")
    with open_door(folder / "log", "--store", str(folder / "runs")) as door:
        yield door
        assert door.child.alive
        assert all("exception" not in each for each in door.child.entries())


@API.parametrize()
@settings(
    max_examples=20,
    derandomize=True,
    deadline=None,
    database=None,
    # Without shrinking: a failure is as good as its smallest form.
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
def test_whatever_is_sent_the_document_holds(case: "schemathesis.Case[Any]", keeping: Door) -> None:
    """Requests by the document, and some against it, are answered as it says, and never by 500."""
    # A deadline of no time is met by a 504, which is right and looks like a failure.
    case.headers.pop("Losswire-Timeout-Ms", None)
    response = case.call(base_url=f"http://{keeping.address}")
    case.validate_response(response, checks=list(CHECKS))


def test_the_server_sends_the_document(door: Door) -> None:
    """What is served is what was tested, and is OpenAPI 3.1."""
    response = door.client.get("/openapi.json")
    assert response.json() == DOCUMENT
    assert DOCUMENT["openapi"].startswith("3.1.")


def test_every_route_is_described_once() -> None:
    """Each route has an operation with a name of its own, and each parameter in a path is there."""
    names = [each.name for each in ROUTES]
    assert len(set(names)) == len(names)
    for each in ROUTES:
        if each.documented:
            path = re.sub(r":\w+\}", "}", each.path)
            operation = DOCUMENT["paths"][path][each.method.lower()]
            found = {one["name"] for one in operation["parameters"] if one["in"] == "path"}
            assert found == set(re.findall(r"\{(\w+)\}", path))
            assert operation["operationId"] == each.name


def _references(content: Any) -> Iterator[str]:  # noqa: ANN401 (JSON)
    if isinstance(content, dict):
        if isinstance(content.get("$ref"), str):
            yield content["$ref"]
        for each in content.values():
            yield from _references(each)
    elif isinstance(content, list):
        for each in content:
            yield from _references(each)


def test_every_schema_is_there_and_used() -> None:
    """References lead to schemas, which are schemas, and none is left over."""
    found = {each.rpartition("/")[2] for each in _references(DOCUMENT)}
    assert found == set(DOCUMENT["components"]["schemas"])
    for each in DOCUMENT["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(each)


def _check(name: str, response: httpx.Response) -> None:
    """Check an answer against a schema, which resolves references within the document."""
    schema = {**DOCUMENT["components"]["schemas"][name], "components": DOCUMENT["components"]}
    jsonschema.Draft202012Validator(schema).validate(response.json())


@pytest.mark.parametrize("loss", [each.name for each in builtin_registry()])
def test_every_loss_is_as_its_schema_says(door: Door, loss: str) -> None:
    """The description of each loss has exactly the fields of the schema."""
    _check("LossInfo", door.client.get(f"/v1/losses/{loss}"))


def test_answers_are_as_their_schemas_say(door: Door) -> None:
    """The list of losses, the server's description, a result and a problem."""
    _check("LossList", door.client.get("/v1/losses"))
    _check("ServerInfo", door.client.get("/v1/server"))
    inputs = {"input": [[1.0, 2.0], ["NaN", 0.0]], "target": [0, 1]}
    content = {"loss": "cross_entropy", "inputs": inputs, "gradients_for": ["input"]}
    for encoding in ("list", "base64"):
        _check("EvaluateResult", door.evaluate({**content, "encoding": encoding}))
    factored = door.evaluate({**content, "gradient_form": "factored"})
    _check("EvaluateResult", factored)
    assert factored.json()["factored_gradients"]
    _check("Problem", door.evaluate({**content, "engine": "fast"}))
    assert is_golden(by_call(door.stub, GOLDEN).result)
