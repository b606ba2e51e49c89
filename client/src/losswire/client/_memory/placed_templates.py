"""Requests of known forms whose arrays lie in the caller's regions."""

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import numpy as np

from losswire.client._calls.batch import Array, Batch
from losswire.client._calls.lease import Lease
from losswire.client._calls.operations import EVALUATE, Operation
from losswire.client._messages.response import EvaluationResult, OneAnswer, read_result
from losswire.client._messages.template import ALONE, Form, Payload, Template, is_plain, key_of

_MOST: Final = 256
"""How many are kept; each takes some hundred bytes."""

Where = Callable[[Array], tuple[int, int] | None]
"""Tells the region of an array and its offset there; None when it lies in none."""


class PlacedForms:
    """The requests that were composed so far. Any thread may use it."""

    def __init__(self, where: Where) -> None:
        """Take what knows the caller's regions."""
        self._where = where
        self._known: dict[Any, Template] = {}
        self._remembering = threading.Lock()

    def find(
        self, plain: Form | None, out: Mapping[str, Array] | None, leases: Sequence[Lease]
    ) -> Operation[EvaluationResult] | None:
        """Give the call of an evaluation of a form, if that and its places are known, else None."""
        form = self._placed(plain, out)
        try:
            template = None if form is None else self._known.get(form[0])
        except TypeError:  # something in it has no hash
            return None
        if form is None or template is None:
            return None
        request = template.fill(ALONE, form[1])
        return Operation(EVALUATE, request, partial(_read, out or {}), leases=leases)

    def remember(self, batch: Batch, request: bytes) -> None:
        """Keep the request of a valid evaluation that lies in the caller's regions."""
        evaluation = batch.evaluation
        form = self._placed(key_of(evaluation), batch.out)
        if form is None or not is_plain(evaluation, form[1]):
            return
        template = Template.of(evaluation, request)
        if not template.is_worth_keeping(form[1], request):
            return
        with self._remembering:
            if len(self._known) >= _MOST:
                del self._known[next(iter(self._known))]
            self._known[form[0]] = template

    def _placed(self, form: Form | None, out: Mapping[str, Array] | None) -> Form | None:
        """Give what a request follows from: the form, and where its arrays lie; None: unknown."""
        if form is None or type(out) not in (dict, type(None)):
            return None
        key, payloads = form
        places: list[Any] = []
        sent: list[Payload] = []
        for payload in payloads:
            place = None if isinstance(payload, bytes) else self._where(payload)
            places.append(place)
            if place is None:
                sent.append(payload)
        for name, array in (out or {}).items():
            if type(array) is not np.ndarray:
                return None
            place = self._where(array)
            if place is None:
                return None
            places += name, array.dtype, array.shape, array.flags.writeable, place
        return (key, tuple(places)), sent


def _read(out: Mapping[str, Array], answer: OneAnswer) -> EvaluationResult:
    return read_result(answer.message.result, "region", out, answer.detached)
