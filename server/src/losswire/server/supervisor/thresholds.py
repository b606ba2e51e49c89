"""Times and counts of a supervisor and its workers, and what chose each."""

from typing import Final

BEAT_SECONDS: Final = 0.5
"""Seconds between two signs of life of a worker. Not measured: costs nothing."""

SILENT_BEATS: Final = 10
"""Signs of life that a worker may miss in a row: five seconds, in which a busy event loop is not
held, but one that hangs has cost its callers enough."""

STARTING_BEATS: Final = 240
"""The same before it serves: two minutes, because loading torch took 22 s on a machine with ten
times more work than processors."""

ENDED_BEATS: Final = 4
"""The same of a process that has closed its connection to the supervisor, which a process does only
when it ends: time for the interpreter to end, and less than a killed one may take to be replaced.
Not measured."""

LOADED_BEATS: Final = 40
"""The same of a process that has loaded everything, and was given a place: it has yet to make its
evaluator, on a GPU with a context, and to try it. Not measured: far more than that takes."""

LASTING_SECONDS: Final = 3.0
"""Seconds of serving after which the end of a worker is no failure to start. Not measured: long
enough for what fails at once, and less than lies between two accidents."""

REPLACE_SECONDS: Final = 0.1
"""Seconds before a worker is replaced that ended soon after its start; doubled each time, up to
13 s. Not measured: what fails at once will do so again."""

MAX_FAILED_STARTS: Final = 3
"""Tries to start the first worker. Not measured: a setting that is wrong is told at once."""

MAX_SPARE_PAUSE_SECONDS: Final = 60.0
"""The longest wait before a spare process that ended is replaced; it begins at one second, and is
doubled each time. Not measured: what ends again and again costs a start each time."""

START_AGAIN_SECONDS: Final = 1.0
"""Seconds until another try when the system could not start a process. Not measured: soon enough
for the other workers, which serve meanwhile, and rare enough for the log."""

ENDING_SECONDS: Final = 5.0
"""Seconds beyond the time to drain after which a worker is killed. Not measured."""
