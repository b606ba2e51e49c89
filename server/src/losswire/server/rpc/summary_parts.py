"""Reads the parts of a SummarizeLosses, without copies of the tensors of large ones."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from functools import partial
from typing import Final

from losswire.server import thresholds
from losswire.server.pipeline.decode import NOTHING_DETACHED, Detached
from losswire.server.rpc.parse import parse
from losswire.server.summaries.call import Part
from losswire.v1 import loss_service_pb2
from losswire.wire import DETACHED_FROM, delimited_tag, detach

_Request = loss_service_pb2.SummarizeLossesRequest
_HEADER: Final = delimited_tag(_Request.HEADER_FIELD_NUMBER)


async def summary_parts(requests: AsyncIterator[bytes]) -> AsyncGenerator[Part]:
    """Yield the parts of a call, each with the elements that were cut out of it.

    Raises as `read_part` does.
    """
    async for data in requests:
        yield await read_part(data)


async def read_part(data: bytes, elements: Detached = NOTHING_DETACHED) -> Part:
    """Read one part; `elements` are those that were cut out of it already.

    Raises MalformedMessageError and OverLimitError as `parse` does.
    """
    if not data.startswith(_HEADER):
        message, found = _read(data, thresholds.MAX_FIELDS)
    elif len(data) < thresholds.OFF_LOOP_BYTES:
        message, found = _read(data, thresholds.MAX_SUMMARY_FIELDS)
    else:
        # A summary to continue has very many fields.
        message, found = await asyncio.to_thread(_read, data, thresholds.MAX_SUMMARY_FIELDS)
    return message, {**found, **elements} if elements else found


def _read(data: bytes, max_fields: int) -> Part:
    """Read one part; the header's tensors are always cut out, because all batches share them."""
    if len(data) < DETACHED_FROM and not data.startswith(_HEADER):
        return parse(_Request, data, max_fields=max_fields), NOTHING_DETACHED
    reader = partial(detach, message_type=_Request)
    message, found = parse(_Request, data, reader, max_fields)
    return message, found
