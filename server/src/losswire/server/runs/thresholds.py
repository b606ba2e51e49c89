"""The limits of the store of runs; see `losswire.server.thresholds`."""

from typing import Final

_MIB: Final = 1 << 20

STORE_THREADS: Final = 4
"""Threads that talk to the database of runs, and its connections. Not measured: SQLite has one
writer at a time, and a run is saved once for each evaluation of a data set."""

STORE_MAX_WAITING: Final = 64
"""Calls that wait for such a thread. Not measured: bounds memory."""

STORE_BUSY_SECONDS: Final = 10
"""Seconds that a writer waits for others of the same SQLite file. Not measured: a run of 8 MiB is
written in far less."""

STORE_LOCK_RETRY_SECONDS: Final = 0.02
"""Seconds between two tries to lock the file while a server starts. Not measured."""

STORE_CONNECT_SECONDS: Final = 5
"""Seconds to connect to a database server. Not measured: a server that starts waits as long."""

STORE_STATEMENT_SECONDS: Final = 15
"""Seconds that one statement may take. Not measured: less than a caller's patience."""

STORE_RETRY_MS: Final = 1000
"""Milliseconds before a retry when the database does not answer. Not measured: it is started
again, or another takes over."""

STORE_FETCHED: Final = 50
"""Rows of a list that are fetched at a time. Not measured: bounds what is read beyond a page."""

STORE_PAGE_BYTES: Final = _MIB
"""Bytes of one page of a list, unless one run has more. Not measured: below the 4 MiB that gRPC
accepts by default."""

STORE_COMPRESSION: Final = 1
"""The level of zlib for the summary of a run: 2,000 slices, 2.1 MB, become 0.50 MB in 12 ms, and
0.44 MB in 28 ms at level 6."""

SAVED_RUN_COPIES: Final = 8
"""Memory that saving a run takes, in multiples of its bytes. Not measured: the message, parsed and
copied, its bytes in order, and their compressed form."""

READ_RUN_COPIES: Final = 6
"""Memory that reading a run takes, in multiples of its bytes. Not measured, for the same reason."""
