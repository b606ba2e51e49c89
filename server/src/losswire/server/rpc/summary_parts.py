"""Reads the parts of a SummarizeLosses, without copies of the tensors of large ones."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final

from losswire.server import thresholds
from losswire.server.pipeline.decode import NOTHING_DETACHED, Detached
from losswire.server.rpc.parse import grows_beyond, parse, without_tensors
from losswire.server.summaries.call import Part
from losswire.v1 import loss_service_pb2
from losswire.wire import DETACHED_FROM, delimited_tag

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
    if grows_beyond(_Request, data, thresholds.PARSED_AT_ONCE_BYTES):
        # A summary to continue has very many fields, and so have names of rows.
        message, found = await asyncio.to_thread(_read, data)
    else:
        message, found = _read(data)
    return message, {**found, **elements} if elements else found


def _read(data: bytes) -> Part:
    """Read one part; the header's tensors are always cut out, because all batches share them."""
    limit = thresholds.MAX_SUMMARY_PARSED_BYTES
    if len(data) < DETACHED_FROM and not data.startswith(_HEADER):
        return parse(_Request, data, max_parsed_bytes=limit), NOTHING_DETACHED
    message, found = parse(_Request, data, without_tensors(_Request), limit)
    return message, found
