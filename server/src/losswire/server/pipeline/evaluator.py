"""The pipeline that every evaluation takes, whichever service it came through.

decode -> resolve -> validate -> admit -> compute -> encode
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from typing import Final, TypeVar

from losswire.server import thresholds
from losswire.server.catalogue.registry import Registry
from losswire.server.catalogue.value_rules import Array
from losswire.server.compute.work import Work
from losswire.server.errors import OverLimitError
from losswire.server.memory.budget import Budget, Reservation
from losswire.server.memory.patience import Patience
from losswire.server.memory.regions.store import RegionStore
from losswire.server.memory.residents import TENANT, ResidentStore
from losswire.server.metrics.notes import note_evaluation, note_stage
from losswire.server.metrics.recorder import Recorder
from losswire.server.pipeline.admit import demand
from losswire.server.pipeline.chunked.call import ChunkedEvaluator
from losswire.server.pipeline.decode import NOTHING_DETACHED, Detached, decode
from losswire.server.pipeline.encode import Encoded
from losswire.server.pipeline.resolve import (
    ReferencedBytes,
    count_bytes,
    read_tensor,
    resolve,
    resolve_destinations,
)
from losswire.server.pipeline.validation_cache import ValidationCache
from losswire.server.pipeline.worker import Answer, ComputeWorker
from losswire.server.settings import Settings
from losswire.v1 import evaluation_pb2, tensor_pb2
from losswire.wire import TensorSpec

ResultT = TypeVar("ResultT")

OnEvaluated = Callable[[int, Work, Encoded], object]
"""Called with each finished evaluation: its position in the call, its work and its result."""

_NO_REFERENCES: Final = ReferencedBytes()


def _ignore(position: int, work: Work, result: Encoded) -> None:
    """Ignore a finished evaluation."""


class Evaluator:
    """Evaluates messages: returns their results, or raises or returns exceptions."""

    def __init__(
        self,
        registry: Registry,
        worker: ComputeWorker,
        settings: Settings,
        recorder: Recorder | None = None,
    ) -> None:
        """Create the stores of resident tensors and regions, within the settings' limits."""
        self.registry = registry
        self.worker = worker
        self.budget = Budget(settings.memory_budget_bytes)
        self.patience = Patience(self.budget)
        """With those who hold memory of the budget while they send, or take, slowly."""
        self.residents = ResidentStore(settings.resident_quota_bytes)
        self.regions = RegionStore(self.budget, settings.region_quota_bytes)
        self.chunked = ChunkedEvaluator(
            registry=registry,
            find_resident=self.find_resident,
            map_region=self.regions.map_region,
            run_checks=self.run_checks,
            worker=worker,
            budget=self.budget,
            patience=self.patience,
            settings=settings,
        )
        self.write_order = asyncio.Lock()
        """Held while an evaluation that writes into regions is decoded and checked, so that these
        are computed in the order in which they arrive: the late gradient of one that its caller
        gave up must not replace that of the next."""
        self._recorder = recorder
        self._observed = recorder is not None and recorder.observer is not None
        self._validation = ValidationCache()
        self._max_evaluations = settings.max_evaluations_per_call

    async def evaluate(
        self,
        evaluation: evaluation_pb2.Evaluation,
        deadline: float,
        on_evaluated: OnEvaluated = _ignore,
        detached: Detached = NOTHING_DETACHED,
        reservation: Reservation | None = None,
    ) -> Encoded:
        """Evaluate one batch by a deadline on the monotonic clock; raises its error.

        `detached` are the elements that were cut out of the message. `reservation` is the call's,
        which keeps the memory until the answer is sent; without it, nothing is held afterwards.
        """
        # Entered before it holds anything: no exception can leave memory reserved.
        with self.budget.join(reservation) as held:
            turn = self._write_turn_for([evaluation])
            async with turn:
                work = await self.check(evaluation, detached, held, deadline)
                submitted = self._submit([work], held, deadline)
            if submitted is None:
                submitted = await self._submit_later([work], held, deadline, turn)
            [answer] = await submitted
        if isinstance(answer, Exception):
            raise answer
        if self._observed:
            note_stage("queue", answer.message.queue_nanoseconds)
            note_stage("compute", answer.message.compute_nanoseconds)
        on_evaluated(0, work, answer)
        return answer

    async def evaluate_many(
        self,
        evaluations: Sequence[evaluation_pb2.Evaluation],
        deadline: float,
        on_evaluated: OnEvaluated = _ignore,
        reservation: Reservation | None = None,
    ) -> list[Encoded | Exception]:
        """Evaluate many batches as one job of the worker; a failed one becomes its exception.

        Raises OverLimitError for too many, and OverloadedError when there is no memory for all.
        """
        if len(evaluations) > self._max_evaluations:
            message = f"{len(evaluations)} evaluations in one call; at most {self._max_evaluations}"
            raise OverLimitError(message)
        with self.budget.join(reservation) as held:
            turn = self._write_turn_for(evaluations)
            async with turn:
                checked = await self._check_many(evaluations, held, deadline)
                works = [each for each in checked if isinstance(each, Work)]
                submitted = self._submit(works, held, deadline)
            if submitted is None:
                submitted = await self._submit_later(works, held, deadline, turn)
            computed = iter(await submitted)
        answers = [next(computed) if isinstance(each, Work) else each for each in checked]
        for position, (work, answer) in enumerate(zip(checked, answers, strict=True)):
            if isinstance(work, Work) and not isinstance(answer, Exception):
                on_evaluated(position, work, answer)
        return answers

    def _submit(
        self, works: Sequence[Work], held: Reservation, deadline: float
    ) -> Awaitable[list[Answer]] | None:
        """Submit some evaluations to the worker; None when there is no memory for them now."""
        if held.try_to(self._demand(works)):
            return self.worker.submit(works, deadline)
        return None

    async def _submit_later(
        self,
        works: Sequence[Work],
        held: Reservation,
        deadline: float,
        turn: AbstractAsyncContextManager[None],
    ) -> Awaitable[list[Answer]]:
        """Submit some evaluations once there is memory for them, for which nobody else waits.

        A caller who gives up meanwhile has nothing computed.
        """
        await held.grow_to(self._demand(works), deadline)
        async with turn:
            return self.worker.submit(works, deadline)

    def computes_now(self, peak_bytes: int, *, small: bool, writes_regions: bool) -> bool:
        """Return whether a checked evaluation can be computed on the event loop now."""
        if writes_regions and self.write_order.locked():
            return False
        # Nothing else runs until it is done: memory that is free now is free until then.
        return (
            self.worker.is_inline(small=small, writes_regions=writes_regions)
            and peak_bytes <= self.budget.free_bytes
        )

    def _write_turn_for(
        self, evaluations: Sequence[evaluation_pb2.Evaluation]
    ) -> AbstractAsyncContextManager[None]:
        """Return the turn that evaluations wait for, until they are submitted to the worker."""
        if any(each.gradient_destinations for each in evaluations):
            return self.write_order
        return nullcontext()

    async def check(
        self,
        evaluation: evaluation_pb2.Evaluation,
        detached: Detached = NOTHING_DETACHED,
        reservation: Reservation | None = None,
        deadline: float = math.inf,
    ) -> Work:
        """Decode, resolve and validate one evaluation; raises its error."""
        detached_bytes = sum(each.nbytes for each in detached.values())
        checks = partial(self._work_of, evaluation, detached)
        return await self.run_checks([evaluation], checks, reservation, deadline, detached_bytes)

    async def _check_many(
        self,
        evaluations: Sequence[evaluation_pb2.Evaluation],
        reservation: Reservation,
        deadline: float,
    ) -> list[Work | Exception]:
        """Decode, resolve and validate many evaluations."""
        return await self.run_checks(
            evaluations,
            lambda: [self._work_or_error(each) for each in evaluations],
            reservation,
            deadline,
        )

    async def run_checks(
        self,
        evaluations: Sequence[evaluation_pb2.Evaluation],
        checks: Callable[[], ResultT],
        reservation: Reservation | None,
        deadline: float,
        detached_bytes: int = 0,
    ) -> ResultT:
        """Run the checks of some evaluations, in another thread when they will take long.

        `detached_bytes` were cut out of the messages. Meanwhile the reservation holds the memory
        that checking resident tensors takes, and that of copies out of regions.
        """
        if self._recorder is not None:
            checks = self._recorder.timed("decode", checks)
        if self._observed and evaluations:
            note_evaluation(evaluations[0])
        referenced = [self._referenced_bytes(each) for each in evaluations]
        resident = sum([each.resident for each in referenced])
        copied = sum([each.copied for each in referenced])
        messages = sum([each.ByteSize() for each in evaluations])
        size = messages + detached_bytes + resident + copied
        # The size of a message bounds the copies of tensors that it holds.
        copies = thresholds.CHECKING_COPIES
        extra = resident * copies + copied * (1 + copies)
        with self.budget.join(reservation) as held:
            before, kind = held.held_bytes, held.kind
            try:
                if extra:
                    await held.grow_to(before + extra, deadline)
                if (
                    size < thresholds.OFF_LOOP_BYTES
                    and len(evaluations) < thresholds.OFF_LOOP_EVALUATIONS
                ):
                    return checks()
                return await asyncio.to_thread(checks)
            finally:
                if extra:
                    held.change_to(before, kind)

    def _work_or_error(self, evaluation: evaluation_pb2.Evaluation) -> Work | Exception:
        """Return the work of one evaluation of many, or its error."""
        try:
            work = self._work_of(evaluation)
            # An item that is too large by itself is refused by itself.
            self._demand([work])
        except Exception as error:  # noqa: BLE001 (the item's error is its answer)
            return error
        return work

    def _work_of(
        self, evaluation: evaluation_pb2.Evaluation, detached: Detached = NOTHING_DETACHED
    ) -> Work:
        """Decode, resolve and validate, on any thread."""
        record = self.registry.find(evaluation.loss)
        map_region = self.regions.map_region
        request = decode(evaluation, detached=detached)
        request = resolve(request, record, self.find_resident, map_region)
        work = self._validation.validate(request, record)
        return resolve_destinations(work, request, map_region)

    def _demand(self, works: Sequence[Work]) -> int:
        """Return the peak memory of some evaluations, in bytes; raises as `admit.demand` does."""
        return demand(self.budget, works, copied=self.worker.copies_inputs)

    def read_tensor(
        self, tensor: tensor_pb2.Tensor, where: str, detached: memoryview | None = None
    ) -> Array:
        """Return the array of a tensor that is no part of an evaluation, on any thread.

        Raises as `resolve.read_tensor` does.
        """
        map_region = self.regions.map_region
        return read_tensor(tensor, where, detached, self.find_resident, map_region)

    def find_resident(self, sha256: bytes) -> Array | None:
        """Return a resident tensor of the caller's; None when it is not stored."""
        return self.residents.lend((TENANT, sha256))

    def _resident_spec(self, sha256: bytes) -> TensorSpec | None:
        return self.residents.spec((TENANT, sha256))

    def _referenced_bytes(self, evaluation: evaluation_pb2.Evaluation) -> ReferencedBytes:
        """Count the bytes of the tensors that an evaluation refers to."""
        if self.residents.is_empty and not self.regions.held_bytes:
            return _NO_REFERENCES
        if evaluation.loss not in self.registry:
            return _NO_REFERENCES
        record = self.registry.find(evaluation.loss)
        return count_bytes(evaluation, record, self._resident_spec, self.regions.map_region)
