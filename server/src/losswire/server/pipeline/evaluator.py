"""The straight line that every evaluation takes, whatever door it came in by.

decode -> validate -> admit -> batch -> compute -> encode
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

from losswire.server.catalogue.registry import Registry
from losswire.server.catalogue.value_rules import Array
from losswire.server.compute.work import Work
from losswire.server.errors import OverLimitError, item_status
from losswire.server.memory.regions.store import RegionStore
from losswire.server.memory.residents import TENANT, ResidentStore
from losswire.server.pipeline.admit import Admission
from losswire.server.pipeline.chunked.call import ChunkedDoor
from losswire.server.pipeline.decode import NOTHING_DETACHED, Detached, decode
from losswire.server.pipeline.encode import Encoded
from losswire.server.pipeline.resolve_regions import (
    copied_bytes_of,
    copy_checked_inputs,
    place_gradients,
)
from losswire.server.pipeline.validation_cache import ValidationCache
from losswire.server.pipeline.worker import ComputeWorker
from losswire.server.rpc.request_id import current_request_id
from losswire.server.settings import Settings
from losswire.v1 import evaluation_pb2

_OFF_LOOP_BYTES = 256 * 1024
"""From this size on, checking values takes long enough to leave the event loop for."""

_OFF_LOOP_EVALUATIONS = 32
"""From so many on, checking takes as long, however small they are."""

ResultT = TypeVar("ResultT")

OnEvaluated = Callable[[int, Work, Encoded], object]
"""Hears of an evaluation that was computed: its position in the call, and its result."""


def _forget(position: int, work: Work, result: Encoded) -> None:
    """Hear of an evaluation that nobody will know again."""


_CHECKING = 2
"""The memory that checking values takes for a moment, at most, in multiples of the tensor.
Of tensors that were sent, the size of a message bounds it."""


class Evaluator:
    """Evaluates what the doors bring in."""

    def __init__(self, registry: Registry, engine: ComputeWorker, settings: Settings) -> None:
        """Take the catalogue, the engine and the limits."""
        self.registry = registry
        self.engine = engine
        copied = engine.device.type != "cpu"
        self.admission = Admission(settings.memory_budget_bytes, copied=copied)
        self.residents = ResidentStore(settings.resident_quota_bytes)
        self.regions = RegionStore(self.admission, settings.region_quota_bytes)
        self.chunked = ChunkedDoor(
            registry=registry,
            find=self.find,
            map_region=self.regions.map_region,
            run_checks=self.run_checks,
            engine=engine,
            admission=self.admission,
            settings=settings,
        )
        self._forms = ValidationCache()
        self._most = settings.max_evaluations_per_call

    async def evaluate(
        self,
        evaluation: evaluation_pb2.Evaluation,
        deadline: float,
        on_evaluated: OnEvaluated = _forget,
    ) -> evaluation_pb2.EvaluationResult:
        """Evaluate one batch; raises whatever is wrong with it. `on_evaluated` is called then."""
        encoded = await self.encoded(evaluation, deadline, on_evaluated)
        return encoded.whole()

    async def encoded(
        self,
        evaluation: evaluation_pb2.Evaluation,
        deadline: float,
        on_evaluated: OnEvaluated = _forget,
        detached: Detached = NOTHING_DETACHED,
    ) -> Encoded:
        """Evaluate one batch, whose tensors' elements may stand beside it, as `evaluate` does."""
        work = await self._prepare(evaluation, detached)
        with self.admission.reserve([work]):
            [answer] = await self.engine.evaluate([work], deadline)
        if isinstance(answer, Exception):
            raise answer
        on_evaluated(0, work, answer)
        return answer

    async def outcome(
        self,
        evaluation: evaluation_pb2.Evaluation,
        deadline: float,
        on_evaluated: OnEvaluated = _forget,
    ) -> evaluation_pb2.EvaluationOutcome:
        """Evaluate one batch; what is wrong with it becomes its outcome."""
        try:
            return _outcome(await self.encoded(evaluation, deadline, on_evaluated))
        except Exception as error:  # noqa: BLE001 (the item's error is its answer)
            return _outcome(error)

    async def outcomes(
        self,
        evaluations: Sequence[evaluation_pb2.Evaluation],
        deadline: float,
        on_evaluated: OnEvaluated = _forget,
    ) -> list[evaluation_pb2.EvaluationOutcome]:
        """Evaluate many batches in one visit to the engine; each gets its own outcome."""
        if len(evaluations) > self._most:
            message = f"{len(evaluations)} evaluations in one call; at most {self._most}"
            raise OverLimitError(message)
        prepared = await self._prepare_all(evaluations)
        works = [each for each in prepared if isinstance(each, Work)]
        with self.admission.reserve(works):
            computed = iter(await self.engine.evaluate(works, deadline) if works else [])
        answers = [next(computed) if isinstance(each, Work) else each for each in prepared]
        for position, (work, answer) in enumerate(zip(prepared, answers, strict=True)):
            if isinstance(work, Work) and not isinstance(answer, Exception):
                on_evaluated(position, work, answer)
        return list(map(_outcome, answers))

    async def _prepare(
        self, evaluation: evaluation_pb2.Evaluation, detached: Detached = NOTHING_DETACHED
    ) -> Work:
        """Decode and validate."""
        beside = sum(each.nbytes for each in detached.values())
        return await self.run_checks(
            [evaluation], lambda: self._check(evaluation, detached), beside
        )

    async def _prepare_all(
        self, evaluations: Sequence[evaluation_pb2.Evaluation]
    ) -> list[Work | Exception]:
        """Decode and validate many."""
        return await self.run_checks(
            evaluations, lambda: [self._checked(each) for each in evaluations]
        )

    async def run_checks(
        self,
        evaluations: Sequence[evaluation_pb2.Evaluation],
        checks: Callable[[], ResultT],
        beside: int = 0,
    ) -> ResultT:
        """Judge some evaluations, off the event loop when there is much to look at.

        `beside` is how many bytes of them stand beside their messages.
        What checking resident tensors takes for a moment is held meanwhile, and what is copied
        out of regions to be checked.
        """
        resident = sum(map(self._resident_bytes, evaluations))
        copied = sum(map(self._copied_bytes, evaluations))
        size = beside + resident + copied + sum(each.ByteSize() for each in evaluations)
        with self.admission.hold(resident * _CHECKING + copied * (1 + _CHECKING)):
            if size < _OFF_LOOP_BYTES and len(evaluations) < _OFF_LOOP_EVALUATIONS:
                return checks()
            return await asyncio.to_thread(checks)

    def _checked(self, evaluation: evaluation_pb2.Evaluation) -> Work | Exception:
        try:
            work = self._check(evaluation)
            # An item that is too large by itself is refused by itself.
            self.admission.demand([work])
        except Exception as error:  # noqa: BLE001 (the item's error is its answer)
            return error
        return work

    def _check(
        self, evaluation: evaluation_pb2.Evaluation, detached: Detached = NOTHING_DETACHED
    ) -> Work:
        record = self.registry.find(evaluation.loss)
        request = decode(evaluation, self.find, (), self.regions.map_region, detached)
        work = self._forms.validate(copy_checked_inputs(request, record), record)
        return place_gradients(work, request, self.regions.map_region)

    def find(self, sha256: bytes) -> Array | None:
        """Give a resident tensor of the caller's; None when it is not stored."""
        return self.residents.lend((TENANT, sha256))

    def _copied_bytes(self, evaluation: evaluation_pb2.Evaluation) -> int:
        """Count the bytes that are copied out of regions to be checked."""
        if not self.regions.held_bytes or evaluation.loss not in self.registry:
            return 0
        return copied_bytes_of(
            evaluation, self.registry.find(evaluation.loss), self.regions.map_region
        )

    def _resident_bytes(self, evaluation: evaluation_pb2.Evaluation) -> int:
        """Count the bytes of the resident tensors that an evaluation names."""
        if self.residents.is_empty:
            return 0
        named = [each for each in evaluation.inputs.values() if each.HasField("resident")]
        named += [
            each
            for each in (evaluation.grad_output, evaluation.sample_weight)
            if each.HasField("resident")
        ]
        forms = (self.residents.form((TENANT, each.resident.sha256)) for each in named)
        return sum(form.size_bytes for form in forms if form is not None)


def _outcome(
    answer: Encoded | Exception,
) -> evaluation_pb2.EvaluationOutcome:
    if isinstance(answer, Exception):
        return evaluation_pb2.EvaluationOutcome(error=item_status(answer, current_request_id()))
    return evaluation_pb2.EvaluationOutcome(result=answer.whole())
