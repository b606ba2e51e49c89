"""The limits of telemetry, and what chose them."""

from typing import Final

LINES_PER_SECOND: Final = 1000
"""Lines of the log of calls in a second at most. Not measured: more than a person reads and a
collector of logs minds, and writing them takes a few percent of a CPU."""
