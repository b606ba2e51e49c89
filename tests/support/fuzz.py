"""Fuzzes one decoder: `python -m tests.support.fuzz DECODER SECONDS`, guided by coverage.

Each takes any bytes and may refuse them by the errors of its contract only. Where two ways lead to
one message, both must say the same. Prints how many inputs were tried; fails at a defect.
"""

import random
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from google.protobuf.message import DecodeError

from losswire.server import thresholds
from tests.support.mutations import CORPUS, Mutator

# It is built for few systems and versions of Python.
atheris: Any = import_module("atheris") if find_spec("atheris") else None

with atheris.instrument_imports(["losswire"]) if atheris else nullcontext():
    from losswire.server.errors import LosswireServerError
    from losswire.server.losses import builtin_registry
    from losswire.server.pipeline.decode import decode
    from losswire.server.prepared.envelope import (
        many_evaluations,
        one_evaluation,
        streamed_evaluation,
    )
    from losswire.server.rpc.parse import from_bytes, parse, without_tensors
    from losswire.server.rpc.parsed_size import parsed_size, parsed_size_in_python
    from losswire.server.summaries.header import make_plan
    from losswire.summaries import MergeError, TooManyError, merge
    from losswire.v1 import evaluation_pb2, loss_service_pb2, summary_pb2
    from losswire.wire import ROWS, Template, attach, find_payloads
_One = loss_service_pb2.EvaluateRequest
_Many = loss_service_pb2.EvaluateManyRequest
_Item = loss_service_pb2.EvaluateStreamRequest
_Part = loss_service_pb2.SummarizeLossesRequest
_REGISTRY: Final = builtin_registry()


def fuzz_evaluation(data: bytes) -> None:
    """Parse and decode an evaluation."""
    with suppress(LosswireServerError):
        decode(parse(evaluation_pb2.Evaluation, data))


def fuzz_sizes(data: bytes) -> None:
    """Estimate the size of a message, natively and in Python."""
    for kind in (_Many, _Part, _Item):
        for limit in (0, 500, 100_000):
            described = kind.DESCRIPTOR
            found = parsed_size(described, data, limit)
            assert found == parsed_size_in_python(described, data, limit, 0, len(data))


def fuzz_pieces(data: bytes) -> None:
    """Parse messages whole and in pieces."""
    for kind in (_Many, _Part):
        try:
            whole = kind.FromString(data)
        except DecodeError:
            whole = None
        try:
            merged = from_bytes(kind, data * _REPEATED)
        except DecodeError:
            merged = None
        if whole is not None and merged is not None:
            assert merged == kind.FromString(data * _REPEATED)


_REPEATED: Final = 8
"""How often a message is repeated, so that it is large: merged with itself."""


def fuzz_detached(data: bytes) -> None:
    """Take tensors out of a message and put them in again."""
    try:
        whole = _One.FromString(data)
    except DecodeError:
        whole = None
    try:
        bare, elements = without_tensors(_One)(data)
    except DecodeError as refused:
        error = str(refused)
    else:
        error = ""
    if error:
        # What protobuf would take is refused in a large entry of a map, which SMALL makes of most.
        assert whole is None or "an entry of a map is large" in error
    elif whole is not None:
        joined = b"".join(attach(bare, elements)) if elements else bare.SerializeToString()
        assert _One.FromString(joined) == whole


def fuzz_envelopes(data: bytes) -> None:
    """Find evaluations in messages without protobuf, which has to agree."""
    one, (number, item) = one_evaluation(data), streamed_evaluation(data)
    many, end = many_evaluations(data, 0, 4096)
    if one is not None:
        with suppress(DecodeError):
            parsed = evaluation_pb2.Evaluation.FromString(one.message)
            assert _One.FromString(data).evaluation == parsed
    if item is not None:
        with suppress(DecodeError):
            request = _Item.FromString(data)
            assert request.id == number
            assert request.evaluation == evaluation_pb2.Evaluation.FromString(item.message)
    if many and end == len(data):
        with suppress(DecodeError):
            found = [evaluation_pb2.Evaluation.FromString(each.message) for each in many]
            assert list(_Many.FromString(data).evaluations) == found


def fuzz_rows(data: bytes) -> None:
    """Read the rows of a chunked call without protobuf, which has to agree."""
    kind = loss_service_pb2.EvaluateChunkedRequest
    with suppress(DecodeError):
        found = ROWS.decode(data)
        rows = found if isinstance(found, memoryview) else found.rows
        assert kind.FromString(data).rows == bytes(rows)


def fuzz_templates(data: bytes) -> None:
    """Make a template of a message, which the message itself has to match."""
    with suppress(DecodeError, ValueError):
        evaluation_pb2.Evaluation.FromString(data)
        payloads = find_payloads(data, evaluation_pb2.Evaluation)
        template = Template(data, [each.span for each in payloads])
        assert template.matches(b"xx" + data, 2)
        values = [data[each.start : each.stop] for each in payloads]
        assert template.fill(b"", values).endswith(data)


def fuzz_headers(data: bytes) -> None:
    """Plan a summary, with one to continue."""
    with suppress(LosswireServerError):
        header = parse(summary_pb2.SummaryHeader, data)
        make_plan(header, {}, _REGISTRY)


def fuzz_states(data: bytes) -> None:
    """Read a summary that is to be continued."""
    with suppress(DecodeError, MergeError, TooManyError):
        merge([summary_pb2.LossSummary.FromString(data)])


DECODERS: Final[Mapping[str, Callable[[bytes], None]]] = {
    name.removeprefix("fuzz_"): each
    for name, each in tuple(globals().items())
    if name.startswith("fuzz_")
}


def seeds() -> list[bytes]:
    """Return valid messages to begin with."""
    items = [each.SerializeToString() for each in CORPUS]
    found = list(items)
    found += [_One(evaluation=each).SerializeToString() for each in CORPUS]
    found += [_Item(id=7, evaluation=each).SerializeToString() for each in CORPUS]
    found.append(_Many(evaluations=CORPUS).SerializeToString())
    header = summary_pb2.SummaryHeader(evaluation=CORPUS[0], worst=3, partition="a")
    state = header.resume_from
    state.loss, state.scale = "cross_entropy", 5
    distribution = state.total.distributions.add(count=2, sum=3.0, weight_sum=2.0)
    distribution.sketch.positive_indices.extend([1, 2])
    distribution.sketch.positive_weights.extend([1.0, 1.0])
    distribution.worst.add(name="x", row=1).labels["a"] = "b"
    batch = summary_pb2.SummaryBatch(inputs=CORPUS[0].inputs, report=True)
    batch.ids.labels.extend(["a", "b"])
    found += [each.SerializeToString() for each in (header, state, _Part(header=header))]
    found.append(_Part(batch=batch).SerializeToString())
    found.append(loss_service_pb2.EvaluateChunkedRequest(rows=b"1234").SerializeToString())
    return found


def at_random(decoder: Callable[[bytes], None], seconds: float, most: int = sys.maxsize) -> int:
    """Spoil valid messages without looking at coverage; returns how many were tried."""
    draw, valid, tried = random.Random(20261130), seeds(), 0  # noqa: S311 (not for secrets)
    mutator, end = Mutator(20261130), time.monotonic() + seconds
    while tried < most and time.monotonic() < end:
        data = bytearray(draw.choice(valid) if draw.random() < _RAW else mutator.message(0.5))
        for _ in range(draw.randrange(4)):
            place = draw.randrange(len(data) + 1)
            data[place : place + draw.randrange(3)] = draw.randbytes(draw.randrange(3))
        decoder(bytes(data))
        tried += 1
    return tried


_RAW: Final = 0.7


def _guided(decoder: Callable[[bytes], None], seconds: float) -> None:
    """Spoil messages by what they reach; ends the process, and fails at a defect."""
    with tempfile.TemporaryDirectory() as folder:
        for number, data in enumerate(seeds()):
            Path(folder, str(number)).write_bytes(data)
        options = [f"-max_total_time={seconds:g}", "-max_len=4096", "-timeout=10"]
        options += [f"-artifact_prefix={tempfile.gettempdir()}/", folder]
        atheris.Setup([sys.argv[0], *options], decoder)
        atheris.Fuzz()


SMALL: Final = {"MEASURED_FROM_BYTES": 16, "PARSED_AT_ONCE_BYTES": 300}
"""The thresholds with which small messages count as large ones."""


def main() -> None:
    """Fuzz the decoder of the command line for as many seconds as that says."""
    decoder, seconds = DECODERS[sys.argv[1]], float(sys.argv[2])
    for name, value in SMALL.items():
        setattr(thresholds, name, value)
    if atheris is not None:
        _guided(decoder, seconds)
    else:
        print(f"{at_random(decoder, seconds)} inputs")  # noqa: T201 (a command line prints)


if __name__ == "__main__":
    main()
