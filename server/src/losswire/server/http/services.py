"""What the handlers of the HTTP door work with: the parts of a running server."""

import ssl
from collections.abc import Callable
from dataclasses import dataclass

from losswire.server.http.siblings import Siblings
from losswire.server.identity.gatekeeper import Gatekeeper
from losswire.server.metrics.recorder import Recorder
from losswire.server.pipeline.evaluator import Evaluator
from losswire.server.runs.keeper import RunKeeper
from losswire.server.settings import Settings
from losswire.server.summaries.call import Summarizer


@dataclass(frozen=True, kw_only=True)
class Services:
    """The parts of a running server, which gRPC uses too."""

    settings: Settings
    evaluator: Evaluator
    """With the registry, the budget, the resident tensors and the worker."""
    summarizer: Summarizer
    runs: RunKeeper
    worker_id: str
    """The random id of this process, as GetServerInfo returns it."""
    grpc_address: Callable[[], str]
    """Returns where gRPC listens, `HOST:PORT` or `unix:PATH`; empty before it does."""
    is_ready: Callable[[], bool]
    """Returns whether health reports SERVING."""
    is_live: Callable[[], bool]
    """Returns whether the process should go on; one that should not has to be replaced."""
    is_draining: Callable[[], bool]
    """Returns whether the server takes no further calls."""
    recorder: Recorder
    """The counts of calls, stages and refusals."""
    gatekeeper: Gatekeeper | None = None
    """Asks who calls; None: everybody may."""
    tls: ssl.SSLContext | None = None
    """What HTTP proves itself with; None: it has no TLS."""
    siblings: Siblings | None = None
    """The other workers of this server; None: it has one process."""
