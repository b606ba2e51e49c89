"""The OpenAPI 3.1 document, made of the table of routes."""

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from losswire.server import __version__
from losswire.server.http.answer import Answer, json_answer
from losswire.server.http.call import Call
from losswire.server.http.problems import PROBLEM
from losswire.server.http.route import JSON, Parameter, Route, Schema, ref

_TEMPLATE: Final = re.compile(r"\{(\w+):\w+\}")

_TIMEOUT: Final = Parameter(
    name="Losswire-Timeout-Ms",
    place="header",
    description="The milliseconds after which the caller does not wait any more: work that was not "
    "begun is dropped, and the answer is a 504.",
    schema={"type": "integer", "minimum": 0, "maximum": 999_999_999_999},
)


def make_document(routes: Sequence[Route], schemas: Mapping[str, Schema]) -> dict[str, Any]:
    """Return the document of some routes and the schemas that they refer to."""
    paths: dict[str, dict[str, Any]] = {}
    for each in routes:
        if each.documented:
            path = _TEMPLATE.sub(r"{\1}", each.path)
            paths.setdefault(path, {})[each.method.lower()] = _operation(each)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Losswire",
            "version": __version__,
            "summary": "Loss functions and their exact gradients, as a service",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": dict(schemas)},
    }


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "tags": [route.tag],
        "parameters": [_parameter(each) for each in (*route.parameters, _TIMEOUT)],
        "responses": _responses(route),
    }
    if route.description:
        operation["description"] = route.description
    if route.accepts is not None:
        operation["requestBody"] = {"required": True, "content": _content(route.accepts)}
    return operation


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.place,
        "required": parameter.required,
        "description": parameter.description,
        "schema": parameter.schema,
    }


def _responses(route: Route) -> dict[str, Any]:
    """Return the answers of a route: its own, and the problems."""
    answers: dict[str, Any] = {
        str(status): {
            "description": HTTPStatus(status).phrase,
            "headers": {
                "X-Request-Id": {
                    "description": "Connects the answer with the server's log.",
                    "schema": {"type": "string"},
                }
            },
            **({"content": _content(route.answers)} if route.answers else {}),
        }
        for status in route.statuses
    }
    problem = {"content": _content({PROBLEM: ref("Problem")})}
    for status in sorted({400, *route.problems, *((415,) if route.accepts else ())}):
        answers[str(status)] = {"description": HTTPStatus(status).phrase, **problem}
    answers["default"] = {"description": "Any other problem", **problem}
    return answers


def _content(schemas: Mapping[str, Schema]) -> dict[str, Any]:
    return {media_type: {"schema": schema} for media_type, schema in schemas.items()}


def document_route(routes: Sequence[Route], schemas: Mapping[str, Schema]) -> Route:
    """Return the route that serves the document of some routes, and itself."""

    async def get_document(call: Call) -> Answer:
        """Send the document."""
        del call
        return json_answer(document)

    own = Route(
        path="/openapi.json",
        handler=get_document,
        name="getOpenApi",
        summary="This document",
        tag="server",
        answers={JSON: {"type": "object"}},
    )
    document = make_document([*routes, own], schemas)
    return own
