"""One evaluation from its arguments to its result: the steps that both clients take.

The fastest transport is tried first: a request from a known template, shared memory, chunks, and
one message, which is always possible.
"""

from collections.abc import Mapping
from functools import partial
from typing import Final

from losswire.client._calls.batch import Batch
from losswire.client._calls.description import describe_server
from losswire.client._calls.operations import (
    ChunkedCall,
    EachTarget,
    LocalStep,
    Steps,
    check_contents,
    put,
)
from losswire.client._calls.operations import evaluate as evaluate_one
from losswire.client._calls.plan import Progress
from losswire.client._calls.session import Session
from losswire.client._errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    LosswireError,
    NotFoundError,
    ResourceExhaustedError,
    UnimplementedError,
    is_over_limit,
)
from losswire.client._memory.placement import Placement
from losswire.client._memory.regions import Regions
from losswire.client._messages import thresholds
from losswire.client._messages.evaluation import Evaluation
from losswire.client._messages.fit import Fit
from losswire.client._messages.placed_array import Array, is_missing_region, mark_unsettled
from losswire.client._messages.resident import is_missing
from losswire.client._messages.response import EvaluationResult

_REFUSALS: Final = (
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    UnimplementedError,
)
"""The errors of a server that has not used any shared memory."""


def evaluate(
    regions: Regions,
    evaluation: Evaluation,
    timeout: float | None,
    out: Mapping[str, Array] | None,
    progress: Progress | None,
) -> Steps[EvaluationResult]:
    """Evaluate one batch; `timeout` is the whole call's, as the caller gave it.

    Raises as `Client.evaluate` does.
    """
    destinations = list(out.values()) if isinstance(out, Mapping) else []  # checked below
    if destinations:
        yield from regions.settle(destinations, timeout)
    if regions.want_lease(timeout):
        yield from regions.open_lease()
    result: EvaluationResult | None = None
    try:
        known = regions.known_call(evaluation, out)
        if known is not None:
            try:
                result = yield known
            except LosswireError as error:
                if not is_missing_region(error):
                    raise
        if result is None:
            result = yield from _evaluate_batch(regions, Batch(evaluation, out), progress)
    except BaseException as error:
        # A cancellation or a signal's exception closes these steps, which raises GeneratorExit.
        if destinations and not _is_answer(error):
            mark_unsettled(destinations)
        raise
    check_contents(evaluation, out)
    return result


def _is_answer(error: BaseException) -> bool:
    """Return whether an error says that the server has nothing more to write for the call."""
    if isinstance(error, LosswireError):
        return bool(error.request_id)
    return isinstance(error, Exception)  # of this side, before anything was sent


def _evaluate_batch(
    regions: Regions, batch: Batch, progress: Progress | None
) -> Steps[EvaluationResult]:
    """Evaluate a batch whose template is not known, by the fastest transport for its size."""
    result: EvaluationResult | None = None
    if regions.may_help(batch):
        try:
            result = yield from _through_regions(regions, batch, staged=progress is None)
        except ResourceExhaustedError as error:
            # The parts of a batch take less of the server's memory than all of it.
            if not (batch.is_large and is_over_limit(error)):
                raise
    if result is None and batch.is_large:
        result = yield from _in_chunks(regions.session, batch, progress)
    if result is None:
        try:
            result = yield from batch.steps(regions.leases)
        except ResourceExhaustedError as error:
            if not is_over_limit(error):
                raise
            result = yield from _in_chunks(regions.session, batch, progress, required=True)
            if result is None:
                raise
    return result


def _in_chunks(
    session: Session, batch: Batch, progress: Progress | None, *, required: bool = False
) -> Steps[EvaluationResult | None]:
    """Evaluate in chunks; None when one message is as good, or the server takes none.

    `required`: one message is not as good.
    """
    server, losses = yield from describe_server(session)
    plan = batch.plan(server, losses, required=required)
    if plan is None:
        return None
    call = ChunkedCall(plan, progress)
    try:
        result: EvaluationResult = yield call
    except LosswireError as error:
        if not (batch.residents and is_missing(error)):
            raise
        # The next try may reach another server: all must hold them.
        for tensor in batch.residents:
            yield EachTarget(put(tensor))
        result = yield call
    return batch.deliver(Fit(batch.evaluation, plan.rows).check(result))


def _through_regions(
    regions: Regions, batch: Batch, *, staged: bool
) -> Steps[EvaluationResult | None]:
    """Evaluate with as much in shared memory as possible; None when that is nothing.

    `staged` allows to copy other arrays through it.
    """
    staging = regions.staging
    for _ in range(thresholds.MAX_REGION_TRIES):
        placement = Placement(batch, regions.place)
        memory = None
        if staged and staging.is_enabled and placement.is_worth_staging and placement.staging_bytes:
            memory = yield from staging.take(placement.staging_bytes)
        is_unused = False
        try:
            if memory is not None:
                yield LocalStep(partial(placement.stage, memory))
            if placement.is_empty or placement.sent_bytes > thresholds.SURE_MESSAGE_BYTES:
                is_unused = True
                return None
            operation = placement.operation(regions.leases if memory is None else [memory.lease])
            result: EvaluationResult = yield from evaluate_one(batch.evaluation, operation)
            if memory is not None:
                result = yield LocalStep(partial(placement.collect, result, memory))
            else:
                regions.remember(batch, operation.request)
            is_unused = True
            return batch.deliver(result)
        except LosswireError as error:
            if not is_missing_region(error):
                is_unused = isinstance(error, _REFUSALS) or is_over_limit(error)
                raise
            regions.forget_all(memory)
        finally:
            placement.clear()
            if memory is not None and is_unused:
                staging.give_back(memory)
            elif memory is not None:
                # The call may still be under way on the server.
                staging.drop(memory)
    return None
