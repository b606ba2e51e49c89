"""The table of routes, from which both the application and the OpenAPI document are made."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route as Path
from starlette.routing import Router

from losswire.server.http import (
    catalogue,
    evaluate,
    files,
    gate,
    live,
    openapi,
    query,
    residents,
    runs,
    schemas,
    static,
    summarize,
    summary_schemas,
)
from losswire.server.http.guard import GuardedPath
from losswire.server.http.recorded import UNKNOWN, RecordedPath
from losswire.server.http.route import Route, Schema
from losswire.server.http.services import Services
from losswire.server.http.turns import Turns

_ROUTES: Final[Sequence[Route]] = (
    *catalogue.ROUTES,
    *evaluate.ROUTES,
    *residents.ROUTES,
    *summarize.ROUTES,
    *runs.ROUTES,
    *gate.ROUTES,
    *query.ROUTES,
    *live.ROUTES,
    *files.ROUTES,
    *static.ROUTES,
)
"""Every route; a module of a feature adds its own `ROUTES` here."""

SCHEMAS: Final[Mapping[str, Schema]] = {
    **schemas.SCHEMAS,
    **live.SCHEMAS,
    **summary_schemas.SCHEMAS,
}
"""Every schema; a module of a feature adds its own `SCHEMAS` here."""

ROUTES: Final[Sequence[Route]] = (*_ROUTES, openapi.document_route(_ROUTES, SCHEMAS))
"""The routes and the document that describes them."""


def make_application(services: Services, routes: Sequence[Route] = ROUTES) -> Any:  # noqa: ANN401
    """Return the ASGI application of some routes."""
    by_path: dict[str, list[Route]] = {}
    turns = Turns()
    for each in routes:
        by_path.setdefault(each.path, []).append(each)
    paths = [Path(path, _counted(services, path, found, turns)) for path, found in by_path.items()]
    router = Router(paths, redirect_slashes=False, default=_counted(services, UNKNOWN, (), turns))
    origins = services.settings.http_cors
    if not origins:
        return router
    return CORSMiddleware(
        router,
        allow_origins=origins,
        allow_methods=sorted({each.method for each in routes}),
        allow_headers=["authorization", "content-type", "losswire-timeout-ms"],
        expose_headers=["x-request-id", "retry-after"],
        max_age=600,
    )


def _counted(
    services: Services, template: str, routes: Sequence[Route], turns: Turns
) -> RecordedPath:
    """Return the routes of one path, guarded and counted."""
    return RecordedPath(GuardedPath(services, routes, turns), template, services.recorder)
