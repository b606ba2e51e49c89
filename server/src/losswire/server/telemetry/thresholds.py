"""The limits of telemetry, and what chose them."""

from typing import Final

LINES_PER_SECOND: Final = 1000
"""Lines of the log of calls in a second at most. Not measured: more than a person reads and a
collector of logs minds, and writing them takes a few percent of a CPU."""

REPORT_SECONDS: Final = 0.1
"""Seconds for which a report of the load is used. Not measured: load balancers weigh servers about
once a second, and making a report takes tens of microseconds."""

RATE_SECONDS: Final = 1.0
"""Seconds over which the rates in a report are taken at least. Not measured: as long as a load
balancer waits before it weighs again."""
