"""The page that Prometheus reads, at an address of its own."""

import asyncio
from collections.abc import Iterable
from typing import Any, Final

from prometheus_client.metrics_core import Metric

from losswire.server import thresholds
from losswire.server.http.all_workers import labelled, plain
from losswire.server.http.answer import Answer
from losswire.server.http.call import Call
from losswire.server.http.reading import read
from losswire.server.http.route import Handler, Route
from losswire.server.http.services import Services
from losswire.server.memory.residents import TENANT
from losswire.server.metrics.exposition import exposition
from losswire.server.metrics.families import families_of
from losswire.server.metrics.run_losses import losses_of
from losswire.server.runs.newest import NewestRuns
from losswire.server.runs.thresholds import STORE_PAGE_BYTES

_TEXT: Final = "text/plain"


def routes(services: Services) -> tuple[Route, ...]:
    """Return the routes of the address where metrics are read."""
    return (
        Route(
            path="/metrics",
            handler=_handler(services),
            name="getMetrics",
            summary="Read the metrics of the server",
            tag="server",
            answers={_TEXT: {"type": "string"}},
        ),
    )


def _handler(services: Services) -> Handler:
    newest = NewestRuns(
        services.runs,
        TENANT,
        count=thresholds.METRICS_RUNS,
        max_run_bytes=thresholds.METRICS_RUN_BYTES,
        page_bytes=STORE_PAGE_BYTES,
    )

    async def get_metrics(call: Call) -> Answer:
        """Return the page in the format that the reader wants most."""
        runs, accept = await newest.read(), call.headers.get("accept", "")
        families = await _families(services)

        def make() -> tuple[str, bytes]:
            return exposition(families, losses_of(runs), accept)

        # Some thousand lines take tens of milliseconds.
        content_type, page = await asyncio.to_thread(make)
        return Answer(media_type=content_type, body=(page,))

    return get_metrics


async def _families(services: Services) -> Iterable[Metric]:
    """Return the families of this worker, or of all where there are several."""
    if services.siblings is not None:
        return labelled(await services.siblings.ask("metrics"))
    return families_of(services.recorder.counts(), read(services))


async def own_families(services: Services) -> list[list[Any]]:
    """Return the families of this worker in the values that JSON has."""
    counts, reading = services.recorder.counts(), read(services)
    return await asyncio.to_thread(lambda: plain(families_of(counts, reading)))
