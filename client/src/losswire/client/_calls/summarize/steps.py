"""A summary from its arguments to its message: the steps that both clients take."""

import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, TypeVar

import grpc

from losswire.client._calls.cancellation import Cancellation
from losswire.client._calls.description import describe_server
from losswire.client._calls.operations import (
    EachTarget,
    Steps,
    StreamedCall,
    put,
)
from losswire.client._calls.retry import Attempts
from losswire.client._calls.summarize.pieces import Cutting
from losswire.client._calls.summarize.request import SummaryRequest
from losswire.client._calls.summarize.ring import Lender, Memory, Ring
from losswire.client._calls.summarize.source import AsyncSource
from losswire.client._calls.summarize.transfer import Route, Transfer, rows_of
from losswire.client._calls.summarize.watcher import Watcher
from losswire.client._data.batch import Batch
from losswire.client._data.read import read_batches
from losswire.client._data.wanted import columns_wanted
from losswire.client._errors import LosswireError
from losswire.client._messages import thresholds
from losswire.client._messages.catalogue import LossInfo, ServerInfo
from losswire.client._messages.resident import StoredTensor, is_missing
from losswire.client._summaries.comparison import Comparison
from losswire.client._summaries.summary import Summary
from losswire.v1 import summary_pb2

_R = TypeVar("_R")
_S = TypeVar("_S", Summary, Comparison)


def summarize(
    lender: Lender,
    kind: type[_S],
    request: SummaryRequest,
    data: Any,
    resume_from: _S | None,
    *,
    on_report: Callable[[_S], object] | None,
) -> Steps[_S]:
    """Summarize a loss over all batches of some data, as a Summary or a Comparison.

    Through shared memory, where `lender` has some and batches are large. Raises as
    `Client.summarize` does.
    """
    if resume_from is not None and not isinstance(resume_from, kind):
        raise TypeError(
            f"resume_from: expected a {kind.__name__}, got {type(resume_from).__name__}"
        )
    report = None if on_report is None else lambda message: on_report(kind(message))
    earlier = None if resume_from is None else resume_from.message
    message, header = yield from _summarize(lender, request, data, earlier, report)
    found = kind(message)
    found.header = header
    return found


def _summarize(
    lender: Lender,
    request: SummaryRequest,
    data: Any,
    resume_from: summary_pb2.LossSummary | None,
    on_report: Callable[[summary_pb2.LossSummary], object] | None,
) -> Steps[tuple[summary_pb2.LossSummary, summary_pb2.SummaryHeader]]:
    session = lender.session
    server, losses = yield from describe_server(session)
    loss = losses.get(request.loss)
    covered = () if resume_from is None else resume_from.included
    # The server refuses a loss that it does not have before it gets any data.
    found = () if loss is None else _batches(request, loss, data, is_continued=bool(covered))
    batches = iter(found)
    stop = data.stop if isinstance(data, AsyncSource) else _do_nothing

    def read_first(*_: object) -> Batch | None:
        return next(batches, None)

    first: Batch | None = yield StreamedCall(_stoppable(read_first, stop))
    memory: Memory | None = None
    if session.local is None and first is not None and _is_worth_sharing(first):
        memory = yield from lender.lend(thresholds.SUMMARY_RING_BYTES)
    ring = None if memory is None else Ring(memory)
    cutting = _cutting(request, loss, server, ring, is_direct=session.local is not None)
    watcher = Watcher(
        request.progress,
        on_report,
        0 if resume_from is None else rows_of(resume_from),
        has_clusters=request.cluster is not None,
    )
    route = Route(
        make_header=request.header,
        loss=request.loss,
        partition=cutting.partition,
        can_cut=cutting.can_cut,
        max_message_bytes=server.limits.max_message_bytes,
    )
    pieces = cutting.pieces(batches if first is None else chain([first], batches), covered)
    transfer = Transfer(session, route, pieces, watcher, resume_from=resume_from, ring=ring)
    try:
        result = yield from _transferred(transfer, watcher, stop, request.residents)
    except BaseException:
        transfer.clear()
        if memory is not None:
            # The call may still be under way on the server.
            lender.take_back(memory, is_unused=False)
        raise
    if memory is not None:
        lender.take_back(memory, is_unused=transfer.is_sharing)
    return result, request.header_without_elements(first)


def _transferred(
    transfer: Transfer,
    watcher: Watcher,
    stop: Callable[[], None],
    tensors: Sequence[StoredTensor],
) -> Steps[summary_pb2.LossSummary]:
    """Run a transfer, and store the resident tensors that a server misses."""

    def run(*arguments: Any) -> summary_pb2.LossSummary:
        with watcher:
            return transfer.run(*arguments)

    call = StreamedCall(_stoppable(run, stop))
    for _ in range(thresholds.MAX_RESTORES):
        try:
            result: summary_pb2.LossSummary = yield call
        except LosswireError as error:
            if not (tensors and transfer.can_go_on and is_missing(error)):
                raise
        else:
            return result
        # The next call may reach another server: all must hold them.
        for tensor in tensors:
            yield EachTarget(put(tensor))
    result = yield call
    return result


def _is_worth_sharing(first: Batch) -> bool:
    """Return whether data is large enough for shared memory, by its first batch."""
    if first.total_rows is not None:
        return first.nbytes * first.total_rows / first.rows > thresholds.SUMMARY_RING_BYTES
    return first.nbytes > thresholds.STAGED_BYTES


def _stoppable(
    work: Callable[[Sequence[grpc.Channel], Attempts, Cancellation], _R], stop: Callable[[], None]
) -> Callable[[Sequence[grpc.Channel], Attempts, Cancellation], _R]:
    """Return work that also stops waiting for the caller's data when it is stopped."""

    def run(channels: Sequence[grpc.Channel], attempts: Attempts, cancellation: Cancellation) -> _R:
        cancellation.call_when_stopped(stop)
        try:
            return work(channels, attempts, cancellation)
        finally:
            # What comes next has all of the timeout.
            attempts.restart()

    return run


def _do_nothing() -> None:
    """Stop data that is read by this thread itself."""


def _batches(
    request: SummaryRequest, loss: LossInfo, data: Any, *, is_continued: bool
) -> Iterable[Batch]:
    wanted = columns_wanted(
        loss,
        shared=request.shared or (),
        columns=request.columns,
        candidates=request.candidate_columns,
        slices=request.slices,
        ids=request.ids,
        sample_weight=request.sample_weight,
        cluster=request.cluster,
        nulls=request.nulls,
    )
    found = read_batches(data, wanted)
    return found if request.partition is not None or not is_continued else _with_keys(found)


def _with_keys(batches: Iterable[Batch]) -> Iterator[Batch]:
    for batch in batches:
        if batch.partition is None:
            raise ValueError(
                "partition: resume_from needs the key of the rows, the same in each call for the "
                "same data: otherwise nothing says which rows are counted already"
            )
        yield batch


def _cutting(
    request: SummaryRequest,
    loss: LossInfo | None,
    server: ServerInfo,
    ring: Ring | None,
    *,
    is_direct: bool,
) -> Cutting:
    limits = server.limits
    preferred = limits.preferred_chunk_bytes or thresholds.MIN_CHUNK_BYTES
    if ring is not None:
        preferred = min(preferred, ring.piece_bytes)
    if is_direct:
        preferred = thresholds.SUMMARY_DIRECT_PIECE_BYTES
    return Cutting(
        # Two summaries of rows without a key cover other rows, as far as anybody knows. The key
        # is new for each call, so that a summary is never merged with itself.
        partition=uuid.uuid4().hex if request.partition is None else request.partition,
        can_cut=loss is not None and loss.separable,
        piece_bytes=min(preferred, limits.max_message_bytes),
    )
