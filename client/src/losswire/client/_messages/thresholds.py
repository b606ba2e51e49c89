"""The sizes, counts and times at which the SDK chooses another transport, each with its reason.

"Not measured" marks limits that protect against endless work or that no caller can notice.
"""

from typing import Final

# Which transport an evaluation takes.

INLINE_BYTES: Final = 64 * 1024
"""Bytes of inputs up to which they are sent even from a region: copying them costs less than the
server's look-up of their place (docs/decisions/0019-calls-over-leases.md)."""

SENT_TENSOR_BYTES: Final = 64 * 1024
"""Bytes up to which one tensor of a staged evaluation is sent in its message. Not measured: a
copy of this size takes some 10 microseconds either way."""

STAGED_BYTES: Final = 512 * 1024
"""Bytes of inputs and gradients together from which a copy through shared memory is faster than
gRPC (M copies and L copies in docs/performance.md)."""

SURE_MESSAGE_BYTES: Final = 960 * 1024
"""Bytes of tensors that fit into one message of any server. Not measured: no server has a limit
below 1 MiB, and 64 KiB are room for all other fields."""

CHUNKED_BYTES: Final = 5 * 1024 * 1024
"""Bytes of inputs from which chunks are faster than one message: 4.1 MB took 6 ms in one message
and 7 to 9 ms in four chunks (docs/decisions/0010-chunked-evaluation.md)."""

MIN_CHUNK_BYTES: Final = 1024 * 1024
"""Bytes of the smallest chunk: 4096 x 4096 logits took 153 ms in chunks of 512 KiB, 119 ms in
chunks of 1 MiB (docs/decisions/0010-chunked-evaluation.md)."""

MIN_CHUNKS: Final = 8
"""Number of chunks of an evaluation, so that sending and receiving overlap. Not measured: with
fewer, the first answer comes when nearly all is sent."""

CHUNK_FRAME_BYTES: Final = 64
"""Bytes reserved for the fields of a chunk beside its rows. Not measured: an upper bound."""

PUT_PART_BYTES: Final = 512 * 1024
"""Bytes of one message of PutTensor. Not measured: every server takes messages of 1 MiB."""

# How often something is tried.

MAX_RESTORES: Final = 8
"""Times that one evaluation sends missing resident tensors again. Not measured: tensors that evict
each other in every round will not both stay (docs/decisions/0011-resident-tensors.md)."""

MAX_REGION_TRIES: Final = 3
"""Times that one evaluation is tried with regions that a server turns out not to have. Not
measured: the second try uses a new region, and the third follows a restart in between."""

# Leases for small calls.

LEASE_AFTER_CALLS: Final = 8
"""Calls by gRPC before a client opens a lease: opening one takes as long as they save
(docs/decisions/0019-calls-over-leases.md)."""

MAX_LEASES: Final = 4
"""Leases of one client, each a region of one page: sixteen threads over four leases had 9,400 calls
a second instead of 3,600 (docs/decisions/0019-calls-over-leases.md)."""

LEASE_MIN_TIMEOUT_SECONDS: Final = 5.0
"""Seconds of a call's timeout from which it may open a lease. Not measured: a call with less time
has none to spare for later calls."""

LEASE_PAUSE_SECONDS: Final = 10.0
"""Seconds without another request for a lease after one failed. Not measured: the cost of a request
is about one call."""

# Regions that large evaluations are copied through.

MAX_STAGING_REGIONS: Final = 4
"""Staging regions of one client, and so its staged evaluations at once. Not measured: more of them
wait for the server's one worker thread."""

MAX_STAGING_BYTES: Final = 2 << 30
"""Bytes of all staging regions of one client. Not measured: they count in the server's quota."""

MIN_STAGING_BYTES: Final = 4 << 20
"""Bytes of the smallest staging region: making one takes about 1 ms for each MiB
(docs/decisions/0012-same-host-regions.md), and a larger one fits more evaluations."""

STAGING_PAUSE_SECONDS: Final = 60.0
"""Seconds without another request for a staging region after one failed. Not measured: a request
costs one call, and gRPC is the fallback."""

STAGING_CONNECT_SECONDS: Final = 1.0
"""Seconds to wait for a pooled region's descriptor. Not measured: gRPC is the fallback."""

CONNECT_SECONDS: Final = 5.0
"""Seconds to wait for the descriptor of a caller's own region. Not measured: the server drops a
region that was not fetched within 2 seconds."""

# Summaries of data sets.

SUMMARY_WINDOW_BYTES: Final = 64 << 20
"""Bytes of batches that are kept to be sent again, because no report covers them. Not measured: a
bound of the memory of one call."""

SUMMARY_WINDOW_BATCHES: Final = 4096
"""Number of such batches. Not measured: as the bytes, for small batches."""

SUMMARY_REPORT_BYTES: Final = 16 << 20
"""Bytes of batches after which a report is asked for; more, up to the window, where reports are
large: with 4096 slices each took as long as 10 MiB of batches. Not measured: so small a part of
the window that sending does not wait for an ordinary report."""

SUMMARY_REPORT_SECONDS: Final = 2.0
"""Seconds after which a report is asked for. Not measured: the work that a broken call repeats."""

SUMMARY_RING_BYTES: Final = 32 << 20
"""Bytes of shared memory for the batches of a summary: 5 million rows of 10 logits took 0.86 s in
32 MiB, 1.2 s by TCP; with 64 MiB, which take twice as long to make, no less."""

SUMMARY_DIRECT_PIECE_BYTES: Final = 6 << 20
"""Bytes of a batch for a server in this process to aim at: 4 million rows of 10 logits took 0.6 s
in pieces of 3 to 8 MiB, 0.8 s in pieces of 1 or 2 MiB, of which each is some work in Python."""

SUMMARY_SILENCE_SECONDS: Final = 1.0
"""Seconds that the caller's data took, from which a server that gave up waiting for it is simply
called again. Not measured: servers wait far longer."""

SUMMARY_AHEAD_BYTES: Final = 4 << 20
"""Bytes of encoded batches that wait for the connection. Not measured: enough that it never waits,
and few enough to be in the cache still."""

# Connections.

DEFAULT_TIMEOUT_SECONDS: Final = 60.0
"""Seconds that a call may take by default, all tries included. Not measured: finite, and longer
than any evaluation of docs/performance.md."""

MAX_TIMEOUT_SECONDS: Final = 1e8
"""Seconds of the longest timeout, three years; longer ones are as long. gRPC counts nanoseconds
since 1970 in 64 bits: with 7.5e9 seconds more, a call ends before it begins."""

FAILED_TARGET_SECONDS: Final = 1.0
"""Seconds during which a target that failed is skipped. Not measured: gRPC connects again at
most once a second."""

READY_SECONDS: Final = 2.0
"""Seconds that a call waits for a first answer of a server by default. Not measured: a server that
runs accepts connections in milliseconds, and a caller at a terminal waits that long."""

LAST_TRY_SECONDS: Final = 0.02
"""The seconds of a call that are left for a last try. Not measured: what a call takes."""

READY_BACKOFF_SECONDS: Final = 0.1
"""Seconds of the longest wait between tries before that. Not measured: as gRPC's first wait before
it connects again."""

RESET_BACKOFF_SECONDS: Final = 0.25
"""Seconds of the longest wait after a call that was reset before a server had taken it. Refusing
one so costs a server 12 us, and which ones is chance: longer waits only delay callers (0031)."""

PATIENCE_SECONDS: Final = 1.0
"""Seconds without an answer after which a server is asked for its health, where there is another
one or it never answered. Not measured: ten times what health may take under any load."""

HEALTH_SECONDS: Final = 1.0
"""Seconds that it may take to answer: as above."""

RECHECK_SECONDS: Final = 0.5
"""Seconds that a server which was silent may take to answer for its health before it is used again.
Not measured: one caller waits for it."""

SILENT_TARGET_SECONDS: Final = 5.0
"""Seconds between two such questions. Not measured: so rare that the caller who waits for one is
one of thousands."""

FORK_SECONDS: Final = 1.0
"""Seconds that a fork waits at most for the loops of open streams. Not measured: they take the
next turn, and a fork must not hang."""

FORK_SETTLE_SECONDS: Final = 0.005
"""Seconds that a fork waits for gRPC's threads to end the calls of open streams. Not measured: of
120 children none crashed without, but a busy machine may give those threads no time."""

STREAM_CLOSE_SECONDS: Final = 1.0
"""Seconds to wait for the server to end a stream that has no more items. Not measured: all answers
are there already."""

LEASE_RECEIVE_BYTES: Final = 64 * 1024
"""Bytes of the first `recv` for an answer over a lease. Not measured: most answers fit."""

LEASE_MAX_RECEIVE_BYTES: Final = 1 << 20
"""Bytes of any `recv` over a lease. Not measured: a bound of the buffer for long answers."""

# Dense gradients from factors (docs/decisions/0013-factored-gradients.md).

REBUILD_BLOCK_BYTES: Final = 2 * 1024 * 1024
"""Bytes of the block in which a gradient is rebuilt, in the type of the computation: it fits into
the cache, and numpy runs long enough without the GIL for other threads."""

REBUILD_FLOAT32_CLASSES: Final = 256
"""Number of classes from which float32 is exact enough for small probabilities."""

REBUILD_BUFFER_ELEMENTS: Final = 512
"""Elements of numpy's buffer for one number a row: with the usual 8192, numpy fills it again and
again, which takes three times as long as the multiplication."""

TEMPLATE_BYTES: Final = 96 << 10
"""Bytes of a message up to which a known request is sent at once, without looking for shared
memory or chunks: it always fits, and they never make it faster (0017)."""

MAX_TEMPLATES: Final = 1280
"""Request templates that are kept, each of some hundred bytes. Not measured: far more than a caller
has kinds of evaluations."""

LARGE_BYTES: Final = 256 << 10
"""Bytes of a message from which its call says that it is large. Not measured: a smaller one comes
in a few milliseconds, even while many do."""

TOKEN_SECONDS: Final = 1.0
"""Seconds between two looks at the file of a token. Not measured: a look costs microseconds, and
another one follows when the server refuses the token."""

CERTIFICATE_SECONDS: Final = 5.0
"""Seconds between two looks at the files of certificates. Not measured: they are replaced hours
before they end, and are looked at again when a connection fails."""

WEIGHT_AFTER: Final = "1s"
"""How long a server has reported its load before calls are shared out by that, as gRPC writes it.
Not measured: gRPC's own 10 s are for fleets that restart; calls go in turn meanwhile."""

WEIGHT_PERIOD: Final = "1s"
"""How often the shares are computed anew, as gRPC writes it: gRPC's own choice."""
