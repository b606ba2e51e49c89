"""Whether calls are counted at all, and who learns of each."""

from losswire.server.metrics.recorder import Recorder
from losswire.server.settings import Settings
from losswire.server.telemetry.call_log import make_call_log


def make_recorder(settings: Settings) -> Recorder | None:
    """Return what counts calls; None where nobody would read it.

    Raises StartError as `make_call_log` does.
    """
    call_log = make_call_log(settings.call_log)
    is_read = settings.metrics or settings.http or settings.orca or call_log
    return Recorder(call_log) if is_read else None
