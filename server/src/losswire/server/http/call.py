"""One call: what a handler reads of a request, and what it holds until the answer is sent."""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import parse_qsl

from losswire.server.catalogue.record import LossRecord
from losswire.server.errors import (
    InvalidEvaluationError,
    MalformedMessageError,
    WrongMediaTypeError,
)
from losswire.server.event_loop import step_behind
from losswire.server.http import limits
from losswire.server.http.body import Body, check_size
from losswire.server.http.json_numbers import JsonText
from losswire.server.http.multipart import Part, read_parts
from losswire.server.http.services import Services
from losswire.server.http.threads import in_thread
from losswire.server.memory.budget import Kind, Reservation
from losswire.server.memory.residents import TENANT
from losswire.wire import TensorSpec, Violation

if TYPE_CHECKING:
    from losswire.server.identity.principal import Principal

ResultT = TypeVar("ResultT")

REQUEST: Final = "request"
"""The part of a form that holds the request's JSON, and the parameter of a query that does."""


class Call:
    """One request. Belongs to the event loop."""

    def __init__(
        self,
        services: Services,
        scope: Mapping[str, Any],
        body: Body,
        request_id: str,
        held: AsyncExitStack,
    ) -> None:
        """Read the header; `held` ends when the answer was sent.

        Raises InvalidEvaluationError for a deadline that is none.
        """
        self.services = services
        self.principal: Principal | None = None
        """Who calls; None: nobody asks."""
        self.reservation = body.reservation
        """The memory of the body, then of the evaluation, then of the answer until it is sent."""
        self.request_id = request_id
        self.method: str = scope["method"]
        self.path: Mapping[str, str] = scope.get("path_params", {})
        """The parameters in the path."""
        self.headers = body.headers
        """The header fields, in lower case; of a field that came twice, the last."""
        self.body = body
        """The body: its parts as they come."""
        self.deadline = _deadline(self.headers)
        """When the call has to be answered, on the monotonic clock."""
        self._query_string: bytes = scope["query_string"]
        self._held = held
        self._media_type, self._media_parameters = _media_type(self.headers.get("content-type", ""))

    @cached_property
    def query(self) -> Mapping[str, str]:
        """The parameters in the query; of one that came twice, the last."""
        return dict(self.query_items)

    @cached_property
    def query_items(self) -> list[tuple[str, str]]:
        """The parameters in the query, in order.

        Raises MalformedMessageError for too many.
        """
        try:
            return parse_qsl(
                self._query_string.decode("latin-1"),
                keep_blank_values=True,
                max_num_fields=limits.MAX_QUERY_FIELDS,
            )
        except ValueError:
            message = f"the query has more than {limits.MAX_QUERY_FIELDS} parameters"
            raise MalformedMessageError(message) from None

    @property
    def media_type(self) -> str:
        """The media type of the body, without parameters; empty when it was not sent."""
        return self._media_type

    def accepts(self, media_type: str) -> bool:
        """Return whether the caller asks for a media type by its name."""
        wanted = self.headers.get("accept", "").lower().split(",")
        return any(each.partition(";")[0].strip() == media_type for each in wanted)

    async def grow_by(self, size_bytes: int, kind: Kind = Kind.COMPUTE) -> None:
        """Reserve further memory of the budget until the answer is sent.

        Waits in line; raises as `Reservation.grow_to` does.
        """
        held = self.reservation
        await held.grow_to(held.held_bytes + size_bytes, self.deadline, kind)

    def keep(self, size_bytes: int, kind: Kind = Kind.COMPUTE) -> None:
        """Hold `size_bytes` beside those of every call, and release the others."""
        self.reservation.change_to(limits.HTTP_CALL_BYTES + size_bytes, kind)

    def part(self) -> Reservation:
        """Return a reservation beside the call's, which can grow, for a part with its own end."""
        reservation = self.services.evaluator.budget.reservation()
        reservation.age = self.reservation.age
        return reservation

    @asynccontextmanager
    async def hold_briefly(self, size_bytes: int) -> AsyncIterator[None]:
        """Reserve memory of the budget in a context; raises as `Reservation.grow_to` does."""
        with self.part() as reservation:
            await reservation.grow_to(size_bytes, self.deadline)
            yield

    async def close_later(self, generator: AsyncGenerator[Any]) -> None:
        """Close a generator when the answer was sent, or could not be."""
        await self._held.enter_async_context(aclosing(generator))

    async def read(self, limit: int, copies: int = 1) -> bytearray:
        """Read the whole body, held in the budget until the answer is sent.

        `copies`: what it soon becomes takes more. Raises as `Body.read` does.
        """
        return await self.body.read(limit, self.deadline, copies)

    async def json(
        self, use: Callable[[dict[str, Any]], ResultT], *, numbers: bool = False
    ) -> ResultT:
        """Return what a function makes of the body, a JSON object, as `parse` does."""
        copies = limits.HTTP_JSON_COPIES
        text = [await self.read(self.services.settings.max_message_bytes, copies)]
        size = len(text[0])
        reserved = (copies - 1) * size if size > limits.HTTP_FIRST_BYTES else 0
        return await self.parse(
            text.pop(), lambda found: use(as_object(found)), reserved, numbers=numbers
        )

    async def json_object(self) -> dict[str, Any]:
        """Read and parse the body as a JSON object; InvalidEvaluationError for anything else."""
        return await self.json(lambda found: found)

    async def parse(
        self,
        text: bytes | bytearray,
        use: Callable[[Any], ResultT],
        reserved_bytes: int = 0,
        *,
        numbers: bool = False,
    ) -> ResultT:
        """Return what a function makes of JSON, both off the event loop when the body is long.

        With `numbers` long arrays of numbers are `Numbers`. The budget holds what the values take
        from now on, of which some may be reserved already.
        """
        # A long text and its values are freed where they are used: that takes milliseconds, too.
        read = [await self.work(partial(JsonText, text, numbers=numbers))]
        del text
        parser = read[0].parser_bytes
        await self.grow_by(max(read[0].values_bytes + parser - reserved_bytes, 0))
        result = await self.work(lambda: use(read.pop().load()))
        self.reservation.change_to(self.reservation.held_bytes - parser, Kind.COMPUTE)
        return result

    async def work(self, function: Callable[[], ResultT]) -> ResultT:
        """Return what a function returns; off the event loop when the body is long."""
        if self.body.received_bytes < limits.HTTP_OFF_LOOP_BYTES:
            return function()
        step_behind()
        return await in_thread(function)

    async def parts(self) -> dict[str, Part]:
        """Read a multipart/form-data body: its parts by name, whose data is not copied.

        Raises WrongMediaTypeError for a body of another type, and MalformedMessageError.
        """
        boundary = self._media_parameters.get("boundary", "")
        if self._media_type != "multipart/form-data" or not boundary:
            raise WrongMediaTypeError(self._media_type, ["multipart/form-data; boundary=..."])
        data = await self.read(self.max_body_bytes)
        return await self.work(partial(read_parts, data, boundary))

    async def request_part(
        self,
        parts: Mapping[str, Part],
        use: Callable[[dict[str, Any]], ResultT],
        *,
        numbers: bool = False,
    ) -> ResultT:
        """Return what a function makes of the part of a form that holds the request, as `parse`.

        It is as large as a JSON body at most.
        """
        part = parts.get(REQUEST)
        if part is None:
            raise InvalidEvaluationError([Violation(REQUEST, "is missing: a part with the JSON")])
        check_size(len(part.data), self.services.settings.max_message_bytes)
        return await self.parse(
            bytes(part.data), lambda found: use(as_object(found, REQUEST)), numbers=numbers
        )

    def find_record(self, name: object) -> LossRecord | None:
        """Return the record of a loss; None when there is none of this name."""
        registry = self.services.evaluator.registry
        return registry.find(name) if isinstance(name, str) and name in registry else None

    def find_spec(self, sha256: bytes) -> TensorSpec | None:
        """Return the spec of one of the caller's resident tensors; None when it is not held."""
        return self.services.evaluator.residents.spec((TENANT, sha256))

    @property
    def max_body_bytes(self) -> int:
        """The most bytes of a body that is not JSON."""
        return max_body_bytes(self.services)


def max_body_bytes(services: Services) -> int:
    """Return the most bytes of a body that is not JSON: a share of the budget."""
    return services.settings.memory_budget_bytes // limits.HTTP_BODIES_IN_BUDGET


def as_object(content: object, field: str = "body") -> dict[str, Any]:
    """Return a JSON object; InvalidEvaluationError, with the field, for anything else."""
    if isinstance(content, dict):
        return content
    raise InvalidEvaluationError([Violation(field, "must be an object")])


def whole_number(text: str, most: int) -> int | None:
    """Return a number written in digits alone, from 0 to `most`; None for any other text."""
    # The length first: Python refuses to read thousands of digits.
    if not text.isascii() or not text.isdecimal() or len(text) > len(str(most)):
        return None
    number = int(text)
    return number if number <= most else None


def _media_type(text: str) -> tuple[str, dict[str, str]]:
    """Return a media type in lower case, and its parameters."""
    media_type, *parameters = text.split(";")
    pairs = [each.partition("=") for each in parameters]
    found = {name.strip().lower(): value.strip().strip('"') for name, _, value in pairs}
    return media_type.strip().lower(), found


def _deadline(headers: Mapping[str, str]) -> float:
    """Return a call's deadline on the monotonic clock; infinite when it has none."""
    text = headers.get("losswire-timeout-ms")
    if text is None:
        return float("inf")
    milliseconds = whole_number(text, limits.MAX_TIMEOUT_MILLISECONDS)
    if milliseconds is None:
        rule = "must be a whole number of milliseconds, 1 or more"
        raise InvalidEvaluationError([Violation("Losswire-Timeout-Ms", rule)])
    return time.monotonic() + milliseconds / 1000
