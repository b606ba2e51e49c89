"""Reports of the load, from which load balancers learn which server has least to do.

They are those of the Open Request Cost Aggregation (ORCA), in the trailing metadata of calls: an
`xds.data.orca.v3.OrcaLoadReport`, of which three fields are sent.
"""

import struct
import time
from collections import deque
from typing import Any, Final

from losswire.server.memory.budget import Budget
from losswire.server.metrics.recorder import Recorder
from losswire.server.telemetry import thresholds

KEY: Final = "endpoint-load-metrics-bin"
"""The key of a report in the trailing metadata."""

_EIGHT_BYTES: Final = 1
_RPS, _EPS, _UTILIZATION = (number << 3 | _EIGHT_BYTES for number in (6, 7, 9))
"""The tags of `rps_fractional`, `eps` and `application_utilization`."""

_REPORT: Final = struct.Struct("<BdBdBd")


class Load:
    """The load of a server: what is reserved of its budget, and its calls and errors in a second.

    Belongs to the event loop.
    """

    def __init__(self, budget: Budget, recorder: Recorder) -> None:
        """Report what a budget and a recorder know."""
        self._budget = budget
        self._recorder = recorder
        self._report = b""
        self._until = float("-inf")
        """When the report is made again, on the monotonic clock."""
        self._samples = deque([(time.monotonic(), 0, 0)])
        """Times, and how many calls and errors there had been."""

    def report_to(self, context: Any) -> None:  # noqa: ANN401 (gRPC's)
        """Add a report to the end of a call, unless it came over a unix socket.

        Those have no load balancer between.
        """
        if not context.peer().startswith("unix:"):
            context.set_trailing_metadata(((KEY, self.report),))

    @property
    def report(self) -> bytes:
        """The report, which is made anew from time to time."""
        now = time.monotonic()
        if now >= self._until:
            self._until = now + thresholds.REPORT_SECONDS
            self._report = self._encode(now)
        return self._report

    def _encode(self, now: float) -> bytes:
        ended, failed = self._count()
        samples = self._samples
        # The oldest that is left is the newest of those that are old enough.
        while len(samples) > 1 and now - samples[1][0] >= thresholds.RATE_SECONDS:
            samples.popleft()
        since, ended_before, failed_before = samples[0]
        samples.append((now, ended, failed))
        seconds = max(now - since, thresholds.REPORT_SECONDS)
        used = self._budget.reserved_bytes / self._budget.limit_bytes
        return _REPORT.pack(
            *(_RPS, (ended - ended_before) / seconds),
            *(_EPS, (failed - failed_before) / seconds),
            *(_UTILIZATION, used),
        )

    def _count(self) -> tuple[int, int]:
        """Count the calls that have ended, and those of them that failed."""
        ended = failed = 0
        for method in self._recorder.methods.values():
            for status, each in method.ended.items():
                count = each.seconds.count
                ended += count
                failed += count if status != "OK" else 0
        return ended, failed
