"""Uploads of resident tensors inside of the test's own process."""

import asyncio
import math
from collections.abc import AsyncIterator, Sequence

from losswire.server.memory import uploads
from losswire.server.memory.patience import Sender
from losswire.server.pipeline.evaluator import Evaluator
from losswire.server.settings import MIB
from losswire.v1 import tensor_service_pb2
from tests.support.resident import Part


async def arriving(sent: Sequence[Part], then: asyncio.Event | None) -> AsyncIterator[Part]:
    """Yield some parts and, if there is an event, wait for it before the end."""
    for part in sent:
        yield part
    if then:
        await then.wait()


async def receive_parts(
    evaluator: Evaluator,
    sent: Sequence[Part],
    then: asyncio.Event | None = None,
    part_bytes: int = MIB,
) -> tensor_service_pb2.PutTensorResponse:
    """Upload some parts to an evaluator's store, without gRPC."""
    with evaluator.budget.reservation() as reservation:
        sender = Sender(evaluator.patience, reservation)
        return await uploads.receive(
            arriving(sent, then), evaluator.residents, sender, math.inf, part_bytes
        )
