"""Sizes, times and counts that were chosen, not derived: one line for each says why this value.

"Not measured" marks a value without a figure; a number such as (0010) is a record in
docs/decisions. Limits of the protocol (the length of a token, the largest rank) are next to the
code that checks them. Modules read these numbers as `thresholds.NAME` when they need them, so
that a test can change one.
"""

from typing import Final

_KIB: Final = 1 << 10
_MIB: Final = 1 << 20

# settings

PREFERRED_CHUNK_BYTES: Final = 4 * _MIB
"""Bytes of a chunk that the server recommends: on two cores one call took 153 ms in parts of
512 KiB, 119 of 1 MiB, 115 of 2 MiB and 100 of 4 MiB (0010)."""

CHUNKS_IN_BUDGET: Final = 64
"""Chunks that fit into the memory budget. A chunked call holds up to 20 with its gradients, so
three calls with chunks of the recommended size fit at least (0010)."""

# event_loop

BULK_TURNS_PASSED: Final = 4
"""Turns of the event loop in a row in which the steps of bulk transfers let others go first. A
small call passes the loop in about six steps, two of which wait for gRPC's threads (0031)."""

BULK_BYTES: Final = 256 * _KIB
"""Bytes of a message from which its call is a bulk transfer: gRPC copies 4 GB a second and more, so
that a smaller one holds up others for some 0.1 ms."""

# rpc

MEASURED_FROM_BYTES: Final = 16 * _KIB
"""Bytes of a message from which the size that it will have is estimated before it is parsed, which
takes 3 us for a usual one. A smaller one grows to 1 MiB at most (0009)."""

PARSED_AT_ONCE_BYTES: Final = _MIB
"""Memory of parsed fields up to which the event loop parses a message, and of one piece of a larger
one: protobuf needs up to a nanosecond for each byte, during which nothing else runs (0009)."""

MAX_PARSED_BYTES: Final = 256 * _KIB
"""Memory that the fields of one evaluation take once they are parsed, beside the bytes of the
message: one with as many inputs, options and gradients as are accepted takes 80 KiB (0009)."""

MAX_MANY_PARSED_BYTES: Final = 32 * _MIB
"""Memory that the fields of an EvaluateMany take: 4,096 evaluations of a usual loss take 6 MiB."""

MAX_SUMMARY_PARSED_BYTES: Final = 64 * _MIB
"""Memory that the fields of a part of a SummarizeLosses or of a run take. Not measured: 8 MiB of a
summary to continue take about a half, as many texts of ten bytes 25 MiB."""

MAX_DETACHED_FIELDS: Final = 2048
"""Fields around tensors up to which their elements are cut out of a message, by a step of Python of
about half a microsecond for each: a usual evaluation has ten."""

MAX_PREPARED_IN_A_ROW: Final = 32
"""Prepared evaluations that are computed before the event loop serves other calls. An evaluation
of 50 in one message takes 5.6 us, so that others wait about 0.2 ms (0018)."""

MAX_FOUND_IN_A_ROW: Final = 256
"""Evaluations of one message that are found in its bytes, or in the cache, before the event loop
serves other calls. One takes about a microsecond, so that others wait about 0.3 ms."""

MAX_PREPARED_PER_CALL: Final = 16
"""Evaluations of one call that are stored in the cache. Not measured: preparing one takes longer
than computing it, and the evaluations of a call are usually alike."""

MAX_LEASE_REQUEST_BYTES: Final = 256 * _KIB
"""Bytes of one request over a lease. A larger one gains nothing over gRPC; 256 leases, each of
which has a region, may hold as many bytes each, 64 MiB together, while requests come (0019)."""

TOKEN_READ_SECONDS: Final = 2.0
"""Seconds in which a peer has to present its token. Not measured: it connects with the token at
hand."""

MAX_TOKEN_PEERS: Final = 64
"""Peers that may be about to present a token; a further one takes the place of the oldest. Not
measured: bounds descriptors."""

TOKEN_PEERS_IN_LINE: Final = 1024
"""Connections that the system accepts ahead of the server. Not measured: a burst of hostile ones
must not keep out others."""

ACCEPT_RETRY_SECONDS: Final = 0.1
"""Seconds before the next try to accept a connection. Not measured: descriptors get free."""

REFUSING_SECONDS: Final = 0.5
"""Seconds for which a server that drains refuses calls before it stops. Not measured: callers that
were refused go elsewhere, and those that come back at once would come for ever."""

QUIET_SECONDS: Final = 0.02
"""Seconds without a call that a draining server refuses, after which it stops. Not measured: calls
on their way through the kernel and gRPC's core arrive within milliseconds."""

UNTAKEN_SECONDS: Final = 0.5
"""Seconds for which a draining server waits for a call although it answers none. gRPC 1.85 loses a
call that arrives just as the server stops: 3 of 57 drains took the whole time for one."""

MAX_CONNECTIONS: Final = 1024
"""Connections that gRPC accepts at a time; it closes others at once. Not measured: bounds
descriptors and buffers."""

PENDING_CALLS: Final = 500
"""Calls that wait in gRPC's core for their handlers before it refuses some of the further ones.
Refusing one there takes 12 us of processor time; in a handler some 230, of 270 to answer it. As
many callers who each wait for their answer are served without a refusal (0031)."""

MAX_PENDING_CALLS: Final = 600
"""Calls in that line from which all are refused: a wait of 0.3 s at 2,000 small calls a second.
With the core's own 1,000 and 3,000, nearly all of five times too many calls are answered too late
for a caller who waits for a second (0031)."""

# prepared

MAX_PREPARED: Final = 1024
"""Prepared evaluations that are kept, each of a few kilobytes. Not measured: far more than the
training loops that one server has at a time (0018)."""

MAX_PREPARED_BYTES: Final = 32 * _MIB
"""Bytes of the responses that small ones keep, all together. Not measured: bounds memory."""

MAX_PREPARED_PER_SIZE: Final = 4
"""Prepared evaluations whose messages have one size, a size class. Not measured: a request is
compared with these one by one (0018)."""

EVICT_EVERY: Final = 17
"""When a size class is full, only every 17th new form evicts one: preparing costs more than
evaluating, so callers whose form changes on every request must not thrash the cache. A prime, so
that no periodic mix always misses (0018)."""

MAX_CONSTANT_BYTES: Final = 4 * _KIB
"""Bytes of a message beside the elements of its tensors. Not measured: bounds what is compared."""

# pipeline

MAX_SKELETONS: Final = 1024
"""Validated skeletons that are kept, each of about two kilobytes. Not measured: as MAX_PREPARED."""

OFF_LOOP_BYTES: Final = 256 * _KIB
"""Bytes of one call from which its values are checked off the event loop: the time that checks
take is in proportion to the bytes (0005)."""

OFF_LOOP_EVALUATIONS: Final = 32
"""Evaluations of one call from which they are checked off the event loop, however small. Not
measured: about as long as checking OFF_LOOP_BYTES."""

CHECKING_COPIES: Final = 2
"""Memory that checking values takes for a moment, in multiples of the tensor. Not measured: an
upper bound of what the rules of the catalogue allocate."""

MAX_INLINE_EVALUATIONS: Final = 8
"""Small evaluations of one call that are computed on the event loop: up to these, computing takes
about as long as checking did, and less than handing them to the worker's thread (0014)."""

MAX_DRAWN_JOBS: Final = 256
"""Waiting jobs that the worker looks at together. Not measured: bounds the time until the first
is answered."""

CANARY_SECONDS: Final = 15.0
"""Seconds between two canary evaluations: longer than IDLE_SECONDS, after which an idle server
returns memory, which a canary would prevent."""

FAILED_CANARY_SECONDS: Final = 1.0
"""Seconds between two after one that failed. Not measured: a device that was full may be free."""

MAX_FAILED_CANARIES: Final = 3
"""Failed canary evaluations in a row after which the process is given up. Not measured."""

IDLE_SECONDS: Final = 10.0
"""Seconds without a job after which freed memory returns to the system. Not measured: an idle
server should hold little (0007)."""

MAX_STEPS: Final = 10_000_000_000
"""Steps of one call. Not measured: about ten seconds, during which no other call is served."""

MAX_TILED_STEPS: Final = 500_000_000_000
"""Steps of one call whose evaluation goes by tiles, of which the largest head that was tried (2,048
rows of 4,096 features, 128,256 classes) takes 172 billion, in 50 to 70 s. Brief evaluations are
served meanwhile, and it ends when its caller has gone (0022)."""

BRIEF_BYTES: Final = 64 * _MIB
"""Bytes of all inputs up to which an evaluation is computed between two slices of another. Not
measured: it takes about as long as a tile of a projection head."""

BRIEF_STEPS: Final = 1_000_000_000
"""Steps up to which it is. Not measured, for the same reason."""

BRIEF_EVALUATIONS: Final = 64
"""Evaluations of one call up to which it is. Not measured: each takes some 50 us at least."""

PASSING_SECONDS: Final = 0.1
"""Seconds that brief evaluations may take in one go before an older, longer one; beyond it they get
no more of the time than that one. Not measured: little beside what takes long."""

COMPUTE_NICENESS: Final = 10
"""How much nicer the threads that compute are than the event loop, which gets a busy processor
sooner: beside two callers of 4096 x 4096 on two busy cores a small call took 12 to 17 ms, with 5
about 8, and with 10 from 4 to 6; the large ones got 0.92 to 1 as much done (0031)."""

MAX_NICENESS: Final = 19
"""The nicest that Linux has."""

MEMORY_RETRY_MS: Final = 200
"""Milliseconds before a retry when the system has no memory. Not measured: a few evaluations."""

CHUNKS_AHEAD: Final = 1
"""Parts of a chunked call that wait for the worker, beside the awaited one and the newest. Not
measured: enough for the worker to find the next part when it has finished one."""

CHUNKS_IN_TRANSIT: Final = 6
"""Parts in memory beside the one that is computed: arriving, waiting and computed ones, and one
each way in gRPC's buffers. A call of 8 GB grows the server by 39 MiB (docs/performance.md)."""

# summaries

SUMMARY_SILENCE_SECONDS: Final = 600.0
"""Seconds that the sender of a SummarizeLosses may be silent while its summary is kept. Not
measured: more than a model needs for a batch; the summary is small, and can be continued."""

PROGRESS_SECONDS: Final = 0.02
"""Seconds between two messages of progress while further batches are computed. A message takes
about 0.2 ms on each side; 50 a second are more than a person sees."""

SUMMARY_STEP_BYTES: Final = 256 * _KIB
"""Steps in which the memory of a growing summary is reserved. Not measured: a small summary takes
one, and few are on the way to a large one."""

LABEL_BYTES: Final = 64
"""Bytes that a text of a column takes beside its characters. Not measured: protobuf's and Python's
own texts, each with a pointer."""

ROW_ARRAYS: Final = 16
"""Numbers of 8 bytes of each row and candidate that are held while row losses are added to a
summary. Not measured: an upper bound of what is allocated at a time."""

# memory

BUDGET_RETRY_MS: Final = 50
"""Milliseconds before a retry when the budget is in use. Not measured: about as long as the
evaluations that fill it take."""

ADMISSION_WAIT_SECONDS: Final = 2.0
"""Seconds that a call waits for memory, and at most half of the time that is left to it. Not
measured: a caller with time left gains more by trying elsewhere."""

PASS_SECONDS: Final = 0.1
"""Seconds that one waits for memory before smaller ones no longer pass it. Not measured: what they
take is free again sooner."""

TINY_BYTES: Final = 256 * _KIB
"""Bytes that may always pass. Not measured: far fewer than what a large evaluation waits for."""

MAX_WAITING: Final = 1024
"""Reservations that wait for memory. Not measured: with evaluations of a millisecond, the last one
is reached before it gives up."""

GRACE_SECONDS: Final = 11.0
"""Seconds that a caller may take in all to send, or to take an answer, of any size. Not measured: a
slow network; with two in line for memory and one between two looks, less than the 15 s promised."""

BYTES_PER_SECOND: Final = _MIB
"""Bytes that must move in each second beyond the grace. Not measured: a slow network."""

PRESSED_GRACE_SECONDS: Final = 1.0
"""The grace while others wait for memory. Not measured."""

PRESSED_BYTES_PER_SECOND: Final = 8 * _MIB
"""The bytes in each second beyond it while others wait for memory. Not measured: a fast network."""

PATIENCE_STEP_SECONDS: Final = 0.25
"""Seconds between two looks at those who send or take slowly. Not measured."""

CALL_BYTES: Final = 16 * _KIB
"""Bytes that a call takes beside its messages, with a small message and a small answer. Not
measured: bounds the number of calls that are under way."""

SMALL_MESSAGE_BYTES: Final = 8 * _KIB
"""Bytes of a message or an answer which is a part of CALL_BYTES."""

SENDING_COPIES: Final = 2
"""Memory that an answer takes until it is taken, in multiples of its bytes: Python's and gRPC's."""

COMING_COPIES: Final = 1.5
"""Memory that a message takes while it comes, in multiples of its bytes: gRPC's buffers, and at
the end for a moment Python's copy. 24 callers of 7.9 MiB exceeded a budget of 256 MiB by 31 %
without it; with it, 64 stayed 6 % below."""

MIN_SLOTS: Final = 4
"""Messages that are read at a time at least, before they reserve memory. Not measured: one caller
must not hold up all others."""

MAX_SLOTS: Final = 64
"""Messages that are read at a time at most, before they reserve memory. Not measured: beyond, the
event loop is what they wait for."""

SLOT_SECONDS: Final = 0.05
"""Seconds from which a message that is not there reserves memory of its own. Not measured: a small
one comes in the same packet as the header of its call."""

SLOT_PRESSED_SECONDS: Final = 0.01
"""The same while others wait to be read."""

SLOT_FULL_SECONDS: Final = 0.1
"""Seconds after which a message is refused that has no memory of its own while others wait to be
read. Not measured."""

CANCELLATION_SECONDS: Final = 0.001
"""How long after the end of a call's messages its cancellation may come. Of 100 cancelled streams,
half looked finished without a wait, and none after a millisecond."""

MAX_CALL_SECONDS: Final = 600.0
"""Seconds of a call whose caller has set no deadline. Not measured: far more than any evaluation
takes."""

MAX_SILENCE_SECONDS: Final = 3600.0
"""Seconds after which a stream of evaluations ends that neither side uses; the SDK opens it again.
Not measured."""

STREAM_SHARE: Final = 4
"""Open streams, each of which may send a message at any time, take at most one part in so many of
the budget. Not measured: as much remains for the messages of other calls."""

MIN_STREAMS: Final = 8
"""Streams that may be open at least, however small the budget is. Not measured."""

STREAM_RETRY_MS: Final = 1000
"""Milliseconds before a retry when too many streams are open. Not measured: they stay for long."""

SHED_SHARE: Final = 4
"""A younger call that waits is shed in place of an older one if it holds one part in so many of the
bytes that the older one waits for. Not measured."""

RECEIVE_SHARE: Final = 2
"""Messages that come take at most one part in so many of the budget. Not measured: an evaluation
takes about as much beside its message."""

RESIDENT_RETRY_MS: Final = 200
"""Milliseconds before a retry when the quota is taken by tensors in use. Not measured: a few
evaluations."""

MAX_RESIDENT_TENSORS: Final = 16_384
"""Resident tensors, however small: each takes about a kilobyte beside its elements (0011)."""

UPLOAD_OFF_LOOP_BYTES: Final = 64 * _KIB
"""Bytes of a part of an upload from which it is hashed off the event loop: SHA-256 takes about a
second for each GiB or two (0011)."""

PART_COPIES: Final = 2
"""Memory that a part of an upload takes, in multiples of its bytes: gRPC's and protobuf's."""

UPLOAD_FREE_PARTS: Final = 64
"""Parts of an upload that may have any size. Not measured: each part costs the same."""

UPLOAD_BYTES_PER_PART: Final = 1024
"""Bytes that the further parts must have on average. Not measured: each part costs the same."""

UPLOAD_RETRY_MS: Final = 200
"""Milliseconds before a retry when the system has no memory for an upload. Not measured."""

REGION_RETRY_MS: Final = 1000
"""Milliseconds before a retry when no memory is left for a region. Not measured: regions are freed
less often than evaluations end."""

MAX_REGIONS: Final = 256
"""Regions, however small. Not measured: each takes two descriptors."""

TOKEN_SECONDS: Final = 2.0
"""Seconds that a new region waits for its caller. Not measured: the caller has all it needs to
connect."""

FIRST_RELEASE_CHECK_SECONDS: Final = 0.005
"""Seconds before the first check whether an ended region is still mapped; then doubled (0020)."""

MAX_RELEASE_CHECK_SECONDS: Final = 0.25
"""Seconds between two such checks at most: the death of a caller is seen within a second (0020)."""

ALLOCATOR_KEPT_BYTES: Final = 1 << 30
"""Bytes below which freed blocks are kept for reuse: a loss of 4096 x 4096 in torch takes 73 ms
with glibc's defaults and 12 ms with kept blocks (0007, docs/performance.md)."""

ALLOCATOR_TOP_PAD_BYTES: Final = 64 * _MIB
"""Bytes that the heap grows by at a time. Chosen with the setting above (0007)."""

# metrics

METRICS_RUNS: Final = 20
"""Saved runs whose losses metrics show, the newest ones: each is a native histogram of up to some
thousand buckets and a few gauges for each candidate."""

METRICS_RUN_BYTES: Final = 8 * _MIB
"""The bytes of a saved run from which its losses are not shown: metrics keep what they show."""
