"""Many malformed messages: the server refuses each by the table and continues."""

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import grpc
import hypothesis
import pytest
from hypothesis import strategies

from losswire.server.errors import LosswireServerError
from losswire.server.pipeline.decode import decode
from losswire.server.rpc.parse import parse
from losswire.v1 import evaluation_pb2, loss_service_pb2, tensor_pb2
from tests.support.harness import UNLIMITED, Child
from tests.support.mutations import CORPUS, Mutator
from tests.support.regions import region
from tests.support.requests import GOLDEN, TIMEOUT, Stub, by_call, is_golden

MESSAGES = int(os.environ.get("LOSSWIRE_MALFORMED_MESSAGES", "20000"))
"""The number of corrupted evaluations; the seed is fixed."""

if TYPE_CHECKING:
    Call = grpc.UnaryUnaryMultiCallable[bytes, bytes]
    AsyncCall = grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
    Stream = grpc.StreamStreamMultiCallable[bytes, bytes]

_ALLOWED = {0, 3, 5, 8, 9, 12}
_IN_FLIGHT = 32
_GROWTH = 32 * 1024 * 1024
_SERVICE = "/losswire.v1.LossService/"


def _wrapped(*evaluations: bytes) -> bytes:
    """Write evaluations as the first field of a message, without parsing them."""
    return b"".join(b"\x0a" + _varint(len(each)) + each for each in evaluations)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes((*out, number))


class _Bombardment:
    """Sends corrupted evaluations through every method at once and counts the codes."""

    def __init__(self, address: str, seed: int, regions: Sequence[int]) -> None:
        self.address = address
        self.mutator = Mutator(seed, regions)
        self.codes: Counter[int] = Counter()
        self.decoded = 0
        self.left = 0

    def _draw(self, most: int) -> list[bytes]:
        """Draw the next few messages; one that does not parse spoils those it travels with."""
        share = 0.5 / most
        drawn = [self.mutator.message(share) for _ in range(min(most, self.left))]
        self.left -= len(drawn)
        self.decoded += sum(map(_decodes, drawn))
        return drawn

    async def run(self, messages: int) -> None:
        """Send this many messages."""
        self.left = messages
        async with grpc.aio.insecure_channel(self.address, UNLIMITED) as channel:
            self.call: AsyncCall = channel.unary_unary(_SERVICE + "Evaluate")
            self.many: AsyncCall = channel.unary_unary(_SERVICE + "EvaluateMany")
            with grpc.insecure_channel(self.address, UNLIMITED) as self.channel:
                async with asyncio.TaskGroup() as group:
                    for number in range(_IN_FLIGHT):
                        group.create_task(self._work(number))

    async def _work(self, number: int) -> None:
        """Send until nothing is left; see now and then whether the golden answer comes."""
        send = (self._send_one, self._send_one, self._send_many, self._send_stream)[number % 4]
        golden = _wrapped(GOLDEN.SerializeToString())
        while self.left > 0:
            for _ in range(25):
                await send()
            answer = await self.call(golden, timeout=TIMEOUT)
            assert is_golden(loss_service_pb2.EvaluateResponse.FromString(answer).result)

    async def _send_one(self) -> None:
        for each in self._draw(1):
            try:
                await self.call(_wrapped(each), timeout=TIMEOUT)
                self.codes[0] += 1
            except grpc.aio.AioRpcError as error:
                self.codes[error.code().value[0]] += 1

    async def _send_many(self) -> None:
        drawn = self._draw(4)
        try:
            data = await self.many(_wrapped(*drawn), timeout=TIMEOUT)
        except grpc.aio.AioRpcError as error:
            self.codes[error.code().value[0]] += len(drawn)
            return
        answer = loss_service_pb2.EvaluateManyResponse.FromString(data)
        assert len(answer.outcomes) == len(drawn)
        self.codes.update(each.error.code for each in answer.outcomes)

    async def _send_stream(self) -> None:
        # Not with grpc.aio: when the server ends a stream that is still being sent,
        # its client sometimes reports its own failed write instead of the status.
        drawn = self._draw(8)
        codes = await asyncio.to_thread(_stream, self.channel, drawn)
        self.codes.update(codes)


def _stream(channel: grpc.Channel, drawn: list[bytes]) -> list[int]:
    """Send messages as items of a stream; what ends it counts for the items left unanswered."""
    items = [b"\x12" + _varint(len(each)) + each for each in drawn]
    stream: Stream = channel.stream_stream(_SERVICE + "EvaluateStream")
    answers = stream(iter(items), timeout=TIMEOUT)
    codes: list[int] = []
    with contextlib.suppress(grpc.RpcError):
        for data in answers:
            answer = loss_service_pb2.EvaluateStreamResponse.FromString(data)
            codes.append(answer.outcome.error.code)
    end = int(answers.code().value[0])
    left = len(items) - len(codes)
    assert (end == 0) == (left == 0)
    return codes + [end] * left


def _decodes(data: bytes) -> bool:
    """Return whether the form of a message is valid; the server's answer is not checked here."""
    try:
        return not decode(parse(evaluation_pb2.Evaluation, data)).violations
    except LosswireServerError:
        return False


def test_the_corpus_is_valid(stub: Stub) -> None:
    """Every message that is corrupted below was valid before."""
    assert [by_call(stub, each).error.message for each in CORPUS] == [""] * len(CORPUS)


def test_varints_are_protobufs_own() -> None:
    """The hand-made wrapping of raw bytes is what protobuf writes."""
    for size in (0, 1, 127, 128, 300, 70_000):
        item = evaluation_pb2.Evaluation(loss="x" * size)
        request = loss_service_pb2.EvaluateRequest(evaluation=item)
        assert _wrapped(item.SerializeToString()) == request.SerializeToString()


@pytest.mark.timeout(300 + MESSAGES // 20)
def test_spoilt_messages_harm_nothing(child: Child) -> None:
    """No exit, only codes of the table, enough valid forms, and no growth of memory."""
    with child.channel() as channel, region(channel, 1 << 16) as held:
        bombardment = _Bombardment(child.address, 20260101, (held.region_id, held.region_id, 7))
        asyncio.run(bombardment.run(MESSAGES // 10))
        before = child.resident_bytes
        asyncio.run(bombardment.run(MESSAGES - MESSAGES // 10))
    assert child.alive
    assert bombardment.codes.total() == MESSAGES
    assert set(bombardment.codes) <= _ALLOWED
    assert bombardment.decoded >= 0.3 * MESSAGES
    assert bombardment.codes[0] >= 0.1 * MESSAGES
    assert child.resident_bytes - before <= _GROWTH


_numbers = strategies.integers(-(2**63), 2**63 - 1) | strategies.integers(-2, 5)
_enums = strategies.integers(-1, 12) | strategies.integers(-(2**31), 2**31 - 1)
_names = strategies.sampled_from(["input", "target", "weight", "dim", "beta"]) | strategies.text(
    strategies.characters(exclude_categories=["Cs"]), max_size=80
)
_places = strategies.builds(
    tensor_pb2.Region,
    region_id=strategies.integers(0, 2**64 - 1),
    offset=strategies.integers(0, 2**64 - 1),
)
_tensors = strategies.builds(
    tensor_pb2.Tensor,
    data_type=_enums,
    shape=strategies.lists(_numbers, max_size=10),
    data=strategies.none() | strategies.binary(max_size=64),
    region=strategies.none() | _places,
)
_options = strategies.one_of(
    strategies.builds(evaluation_pb2.OptionValue),
    strategies.builds(evaluation_pb2.OptionValue, double_value=strategies.floats()),
    strategies.builds(evaluation_pb2.OptionValue, int64_value=_numbers),
    strategies.builds(evaluation_pb2.OptionValue, bool_value=strategies.booleans()),
    strategies.builds(evaluation_pb2.OptionValue, string_value=_names),
)
_evaluations = strategies.builds(
    evaluation_pb2.Evaluation,
    loss=strategies.sampled_from([each.loss for each in CORPUS]) | _names,
    inputs=strategies.dictionaries(_names, _tensors, max_size=4),
    options=strategies.dictionaries(_names, _options, max_size=3),
    reduction=_enums,
    gradients_for=strategies.lists(_names, max_size=3),
    grad_output=strategies.none() | _tensors,
    sample_weight=strategies.none() | _tensors,
    normalizer=strategies.none() | strategies.floats(),
    gradient_form=_enums,
    gradient_destinations=strategies.dictionaries(_names, _places, max_size=2),
    gradient_data_type=_enums,
    compute_data_type=_enums,
    engine=_enums,
)


@hypothesis.settings(
    max_examples=max(MESSAGES // 100, 20), deadline=None, derandomize=True, database=None
)
@hypothesis.given(items=strategies.lists(_evaluations, max_size=12))
def test_well_formed_nonsense_is_refused_item_by_item(
    stub: Stub, items: list[evaluation_pb2.Evaluation]
) -> None:
    """EvaluateMany answers each item, with any fields, and the golden one exactly."""
    request = loss_service_pb2.EvaluateManyRequest(evaluations=[*items, GOLDEN])
    *outcomes, golden = stub.EvaluateMany(request, timeout=TIMEOUT).outcomes
    assert {each.error.code for each in outcomes} <= _ALLOWED
    assert len(outcomes) == len(items)
    assert is_golden(golden.result)


@pytest.fixture(scope="session")
def raw(child: Child) -> Iterator[grpc.Channel]:
    """A connection on which bytes are sent as they are."""
    with child.channel() as channel:
        yield channel


@hypothesis.settings(
    max_examples=max(MESSAGES // 100, 20), deadline=None, derandomize=True, database=None
)
@hypothesis.given(data=strategies.binary(max_size=200))
def test_bytes_that_are_no_message_are_refused(raw: grpc.Channel, data: bytes) -> None:
    """Random bytes are answered with a code of the table by every method."""
    for method in ("Evaluate", "EvaluateMany", "ListLosses", "GetServerInfo"):
        call: Call = raw.unary_unary(_SERVICE + method)
        answer = call.future(data, timeout=TIMEOUT)
        assert answer.code().value[0] in _ALLOWED
    stream: Stream = raw.stream_stream(_SERVICE + "EvaluateStream")
    answers = stream(iter([data]), timeout=TIMEOUT)
    with contextlib.suppress(grpc.RpcError):
        list(answers)
    assert answers.code().value[0] in _ALLOWED
