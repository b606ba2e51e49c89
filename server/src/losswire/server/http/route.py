"""One route of the HTTP door: what is served, and what the OpenAPI document says of it."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from losswire.server.http.answer import Answer
from losswire.server.http.call import Call

Schema = Mapping[str, Any]
"""A JSON schema, as OpenAPI 3.1 has them."""

Handler = Callable[[Call], Awaitable[Answer]]
"""Answers one call, or raises an error of `losswire.server.errors`."""

JSON: Final = "application/json"
MULTIPART: Final = "multipart/form-data"
NPY: Final = "application/octet-stream"


def ref(name: str) -> Schema:
    """Return a reference to a schema in `schemas.py`."""
    return {"$ref": f"#/components/schemas/{name}"}


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One parameter in the path, the query or the header."""

    name: str
    description: str
    schema: Schema
    place: str = "query"
    """`path`, `query` or `header`."""
    required: bool = False


@dataclass(frozen=True, kw_only=True)
class Route:
    """One method of one path."""

    path: str
    """Such as `/v1/losses/{name}`; `{rest:path}` matches slashes too."""
    method: str = "GET"
    handler: Handler
    name: str
    """The operation's id in the OpenAPI document, such as `evaluate`."""
    summary: str
    """One sentence without a full stop."""
    description: str = ""
    tag: str = "losses"
    parameters: Sequence[Parameter] = ()
    accepts: Mapping[str, Schema] | None = None
    """The schema of the body by media type; None: the route reads no body. A body of another type
    is refused."""
    answers: Mapping[str, Schema]
    """The schema of the answer by media type."""
    statuses: Sequence[int] = (200,)
    """The statuses of answers that are no problems."""
    problems: Sequence[int] = ()
    """The statuses of problems that this route may answer with, besides those of every route."""
    lasts: bool = False
    """Whether a body of any length may come, and so a call without a deadline has no end."""
    is_open: bool = False
    """Whether everybody may call, also where callers have to say who they are."""
    documented: bool = True
    """Whether the OpenAPI document has it."""
