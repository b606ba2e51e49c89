"""What a run must be to be kept: its id, its name, its labels, its header."""

import re
from collections.abc import Iterator, Mapping
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from losswire.v1 import run_service_pb2, summary_pb2, tensor_pb2
from losswire.wire import Violation

MAX_ID_CHARACTERS: Final = 128
MAX_NAME_BYTES: Final = 256
MAX_LABELS: Final = 64
MAX_KEY_BYTES: Final = 128
MAX_VALUE_BYTES: Final = 1024
MAX_PAGE_SIZE: Final = 1000
DEFAULT_PAGE_SIZE: Final = 50

_RUN_ID: Final = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_ID_CHARACTERS - 1}}}")

_FIRST_SECOND, _LAST_SECOND = -62_135_596_800, 253_402_300_799
"""The years 1 to 9999, which a Timestamp covers."""


def check_id(run_id: str, field: str) -> Iterator[Violation]:
    """Check the id of a run."""
    if not _RUN_ID.fullmatch(run_id):
        yield Violation(
            field,
            f"expected 1 to {MAX_ID_CHARACTERS} letters, digits, `.`, `_` and `-`, the first a "
            f"letter or digit, got {run_id[:MAX_ID_CHARACTERS]!a}",
        )


def check_run(run: run_service_pb2.Run) -> Iterator[Violation]:
    """Check everything but the summary."""
    yield from check_id(run.run_id, "run.run_id")
    yield from _check_text(run.name, "run.name", MAX_NAME_BYTES)
    yield from check_labels(run.labels, "run.labels")
    times = {name: getattr(run, name) for name in ("started", "ended") if run.HasField(name)}
    wrong = [name for name, time in times.items() if not _is_valid(time)]
    for name in wrong:
        yield Violation(f"run.{name}", "it is not a time between the years 1 and 9999")
    if len(times) == 2 and not wrong and _order(run.ended) < _order(run.started):  # noqa: PLR2004 (both)
        yield Violation("run.ended", "it is before run.started")
    yield from _check_header(run.header)


def check_labels(labels: Mapping[str, str], field: str) -> Iterator[Violation]:
    """Check the labels of a run, or of a list."""
    if len(labels) > MAX_LABELS:
        yield Violation(field, f"there are {len(labels)}; at most {MAX_LABELS} are kept")
        return
    for key, value in sorted(labels.items()):
        path = f'{field}["{key[:MAX_KEY_BYTES]}"]'
        if not key:
            yield Violation(path, "a label has an empty key")
        yield from _check_text(key, f"{path} (its key)", MAX_KEY_BYTES)
        yield from _check_text(value, path, MAX_VALUE_BYTES)


def check_list(request: run_service_pb2.ListRunsRequest) -> Iterator[Violation]:
    """Check the filters of a list and the size of its pages."""
    yield from _check_text(request.loss, "loss", MAX_VALUE_BYTES)
    yield from _check_text(request.name, "name", MAX_NAME_BYTES)
    yield from check_labels(request.labels, "labels")
    if not 0 <= request.page_size <= MAX_PAGE_SIZE:
        yield Violation(
            "page_size", f"expected 0 to {MAX_PAGE_SIZE}, where 0 is {DEFAULT_PAGE_SIZE}"
        )


def _check_text(text: str, field: str, longest: int) -> Iterator[Violation]:
    size = len(text.encode())
    if size > longest:
        yield Violation(field, f"it has {size} bytes of UTF-8; at most {longest} are kept")
    elif "\0" in text:
        # PostgreSQL's texts cannot hold it.
        yield Violation(field, "it has the character U+0000")


def _is_valid(time: Timestamp) -> bool:
    return _FIRST_SECOND <= time.seconds <= _LAST_SECOND and 0 <= time.nanos < 10**9


def _order(time: Timestamp) -> tuple[int, int]:
    return time.seconds, time.nanos


def _check_header(header: summary_pb2.SummaryHeader) -> Iterator[Violation]:
    """Check that a header has no contents of data."""
    if header.HasField("resume_from"):
        yield Violation("run.header.resume_from", "a run has the header without it")
    yield from _check_tensors(header.evaluation.inputs, "run.header.evaluation.inputs")
    for index, each in enumerate(header.candidates):
        yield from _check_tensors(each.inputs, f"run.header.candidates[{index}].inputs")


def _check_tensors(inputs: Mapping[str, tensor_pb2.Tensor], field: str) -> Iterator[Violation]:
    for name, tensor in sorted(inputs.items()):
        if tensor.data:
            yield Violation(
                f'{field}["{name[:MAX_KEY_BYTES]}"].data', "a run has tensors without elements"
            )
