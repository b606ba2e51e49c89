"""Limits of the HTTP door, and sizes from which another way is faster, as in `thresholds`."""

from typing import Final

_KIB: Final = 1 << 10
_MIB: Final = 1 << 20

MAX_JSON_DEPTH: Final = 32
"""Nested arrays and objects of a JSON body. Not measured: a tensor has 8 axes at most."""

HTTP_OFF_LOOP_BYTES: Final = 32 * _KIB
"""Bytes of a JSON body from which it is parsed in another thread. Not measured: a MiB takes a few
milliseconds, so that others wait a fraction of one."""

JSON_PARSER_COPIES: Final = 13
"""Memory that parsing JSON takes besides the values, in multiples of the text. Measured: orjson
takes 12 (41 MB for 3.4 MB of numbers), and depth is counted in a copy."""

JSON_NUMBERS_APART: Final = 64
"""Elements from which an array of numbers in JSON is read by itself. Not measured: what takes its
place is shorter than so many numbers."""

MAX_JSON_ARRAYS: Final = 256
"""Arrays of one JSON text that are read by themselves. Not measured: an evaluation has 66 tensors
at most."""

HTTP_JSON_COPIES: Final = 6
"""Memory of a JSON body while it comes, in multiples of its bytes. Numbers that are read by
themselves, and their tensors, take one to four: no more is needed then. What orjson parses takes
some twenty: in a budget of 256 MiB two of 8 MiB come at a time, and one of them can be parsed
beside the other. Measured with 64 callers of such bodies: 6.8 calls a second; with three or four
copies more came, waited for each other's memory in vain, and 0.44 were answered. Of bodies of
numbers it is 37 with six and 39 with three."""

HTTP_CALLS_IN_A_ROUND: Final = 4
"""Requests with a body that begin in one round of the event loop, of about 1 ms each: what others
do takes a few rounds."""

HTTP_ACCEPTED_IN_A_ROUND: Final = 16
"""Connections that begin in one round of the event loop. Not measured: each takes 0.1 ms."""

HTTP_DROPPED_IN_A_ROUND: Final = 64
"""Connections that are dropped unserved in one round of the event loop, for their callers are gone.
Measured: each takes 0.015 ms."""

HTTP_LISTEN: Final = 1024
"""Connections that the system accepts ahead of the server. Not measured: a burst of all callers
that there may be."""

HTTP_LIST_NUMBER_BYTES: Final = 64
"""Memory that a number of an answer with nested lists takes. Measured: 62 for one of 25 characters
in a row of its own, whatever its data type; the text is there twice at a time, and grows."""

HTTP_NUMBERS_WRITTEN: Final = 1 << 12
"""Numbers of an answer that become text in one step. Measured: 0.2 ms; orjson sets aside 260 bytes
for each of them."""

HTTP_NUMBERS_AT_A_TIME: Final = 1 << 15
"""Numbers of a list that become an array in one step. Measured: 2 ms."""

HTTP_SWITCH_SECONDS: Final = 0.001
"""Seconds after which a thread of Python gives way to the event loop. Measured: beside 16 callers
with 1.2 million numbers each, a health check takes 3.6 ms (median) and 67 (p99); 24 and 130 with
Python's own 0.005."""

HTTP_BASE64_COPIES: Final = 4
"""Memory that an answer in base64 takes, in multiples of its tensors. Not measured: two texts of
4/3 each."""

HTTP_BODIES_IN_BUDGET: Final = 4
"""Largest bodies that fit into the memory budget, which holds the evaluation too. Not measured."""

HTTP_CALL_BYTES: Final = 48 * _KIB
"""Bytes that a call takes beside its body and its answer: a header, and what comes of the body
before there is memory for it."""

HTTP_FIRST_BYTES: Final = 16 * _KIB
"""Bytes of a body from which it waits for memory, and of one read before. Not measured: most
requests are shorter, and as many callers as there may be take 48 MiB."""

HTTP_BODY_STEP_BYTES: Final = _MIB
"""Bytes of a body of unknown length for which memory is reserved at a time. Not measured: few
steps, and little for one who sends no more."""

HTTP_ROWS_WEIGHT: Final = 64
"""How many times slower than other bodies rows may come, up to NDJSON_BLOCK_BYTES: whoever computes
them sends 16 KiB a second, or 128 while others wait for memory. Not measured."""

HTTP_DISCARD_BYTES: Final = 256 * _MIB
"""Bytes of a refused body that are dropped at most. Not measured: half a second."""

HTTP_DISCARD_SECONDS: Final = 2.0
"""Seconds in which the rest of a refused body is received, so that its caller sees the answer. Not
measured: 1 GiB on one machine."""

HTTP_HEADER_BYTES: Final = 16 * _KIB
"""Bytes of the header of an HTTP request. Not measured: gRPC's limit for metadata."""

HTTP_HEADER_SECONDS: Final = 10.0
"""Seconds in which the header of an HTTP request arrives. Not measured: one packet or two."""

HTTP_KEEP_ALIVE_SECONDS: Final = 75
"""Seconds that an idle connection stays open. Not measured: longer than the 60 of usual proxies,
which would otherwise send a request into a connection that is about to end."""

HTTP_CLOSE_SECONDS: Final = 1
"""Seconds in which connections end at last, when their requests have ended. Not measured."""

HTTP_MAX_CONNECTIONS: Final = 1024
"""HTTP connections at a time. Not measured: bounds descriptors; gRPC has as many."""

HTTP_GROWTH_PART: Final = 4
"""The part of what has arrived that is reserved besides. Measured: 30 bodies of 4.6 MB at once took
half more than their bytes, buffers of connections included."""

HTTP_SEND_BYTES: Final = 256 * _KIB
"""Bytes of an answer that are written at a time. Not measured: a few times the socket's buffer."""

HTTP_FRAGMENT_BYTES: Final = 16
"""Bytes of a fragment of a chunked body on average, at least: a short row of JSON. Each takes about
20 us on the event loop, whatever it holds, so that a MiB of fragments of one byte would stop it for
seconds."""

HTTP_CHUNKED_RECEIVE_BYTES: Final = 64 * _KIB
"""Bytes that are taken from a connection before others have their turn, while they may be such
fragments: 3,000 of the smallest, measured 80 ms on a busy machine."""

HTTP_RECEIVE_BYTES: Final = 256 * _KIB
"""The same of a body of a known length: 134 MB took 0.6 s, with 64 KiB 1.4 s."""

HTTP_FREE_FRAGMENTS: Final = 256
"""Fragments of a body that may have any size. Not measured: a writer's small first steps."""

MAX_PARTS: Final = 256
"""Parts of a multipart body. Not measured: an evaluation has 66 tensors at most."""

MAX_PART_HEADER_BYTES: Final = 4 * _KIB
"""Bytes of the header of one part. Not measured: a name and a file's name."""

NDJSON_BLOCK_BYTES: Final = _MIB
"""Bytes of JSON lines that become one batch. Not measured: thousands of rows, and a message's
size."""

ARROW_REPEATED_COPIES: Final = 256
"""How many times the bytes of an Arrow stream its dictionaries may be read again, once with each
record batch. Not measured: copying so many takes a few times as long as parsing JSON."""

ARROW_REPEATED_BYTES: Final = 64 * _MIB
"""Bytes of dictionaries that are read again in any case. Not measured: hundredths of a second."""

SUMMARY_JSON_COPIES: Final = 40
"""Memory that a state takes as JSON, in multiples of its bytes. Not measured: a bucket has about 11
bytes in the state, and three Python floats and their text as JSON."""

QUERY_PAGE: Final = 200
"""Runs of one page that a query reads. Not measured: a query reads many."""

MAX_QUERY_PAGES: Final = 50
"""Pages that one query reads: the newest 10,000 runs. Not measured."""

MAX_QUERY_ROWS: Final = 100_000
"""Rows of one query. Not measured: more than a panel of Grafana draws."""

MAX_QUERY_LABELS: Final = 256
"""Different labels of the runs of one query, each of which is a column of every row. Not measured:
four times those of one run."""

QUERY_LABEL_BYTES: Final = 256
"""Memory of a label in one row of a query and its text. Not measured: a name of 64 characters."""

QUERY_ROW_BYTES: Final = 2 * _KIB
"""Memory of one row of a query and its text. Not measured: 16 columns and the labels."""

MAX_QUERY_FIELDS: Final = 128
"""Parameters of one query. Not measured: a run has 64 labels at most."""

MAX_TIMEOUT_MILLISECONDS: Final = 10**12 - 1
"""The longest time until a deadline: 31 years. Not measured."""

SIBLING_SECONDS: Final = 1.0
"""Seconds in which another worker answers for itself. Not measured: it has a millisecond's work,
and whoever asks shall not wait for one that hangs."""
