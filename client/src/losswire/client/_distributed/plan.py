"""What each part of an evaluation does: the arguments of `Client.summarize` or `compare`."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Self, Unpack

import numpy as np

from losswire.client._calls.summarize.request import (
    Candidates,
    RowFields,
    SummaryRequest,
    request_of,
)
from losswire.client._client import Client
from losswire.client._summaries.comparison import Comparison
from losswire.client._summaries.summary import Summary
from losswire.wire import OptionScalar

_FIELDS: Final = tuple(RowFields.__annotations__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What each part of an evaluation does. It can be pickled; make one by `Plan.of`.

    Example:
        >>> plan = Plan.of("mse_loss", target=address, worst=0)
        >>> batch = {"input": [1.0, 3.0], "target": [0.0, 0.0]}
        >>> states = [summarize_partition(batch, plan, partition=key) for key in ("a", "b")]
        >>> Summary.from_bytes(merge(states)).mean
        5.0
    """

    request: SummaryRequest
    """The loss, its options, and all that is said about rows."""
    target: str
    """Where to evaluate, as in `Client`."""
    timeout: float | None
    """The seconds without progress, as in `Client.summarize`."""

    @classmethod
    def of(
        cls,
        loss: str,
        options: Mapping[str, OptionScalar] | None = None,
        *,
        candidates: Candidates | None = None,
        target: str = "local:",
        timeout: float | None = None,
        **fields: Unpack[RowFields],
    ) -> Self:
        """Return the plan of `Client.summarize`, or with `candidates` of `Client.compare`.

        The arguments are theirs; `target` is that of `Client`, by default the process that has the
        part. Raises TypeError and ValueError for what cannot be right, and for resident tensors,
        which belong to one client.

        Example:
            >>> Plan.of("cross_entropy", {"label_smoothing": 0.1}, slices=["country"]).target
            'local:'
        """
        request = request_of(loss, options, fields, candidates or {})
        if request.residents:
            raise TypeError(
                "shared: a resident tensor belongs to one client; a plan needs the array itself"
            )
        return cls(request=request, target=target, timeout=timeout)

    @property
    def kind(self) -> type[Summary] | type[Comparison]:
        """The class of the result."""
        return Comparison if self.request.candidates else Summary

    def run(self, batches: Any, partition: str | None) -> Summary | Comparison:
        """Evaluate some data; raises as `Client.summarize` does."""
        request = self.request
        arguments: Any = {name: getattr(request, name) for name in _FIELDS}
        arguments |= {"partition": partition, "timeout": self.timeout}
        client = _client(self.target, os.getpid())
        if request.candidates:
            return client.compare(
                request.loss, batches, request.options, candidates=request.candidates, **arguments
            )
        return client.summarize(request.loss, batches, request.options, **arguments)

    def digest(self) -> str:
        """Return a text that is the same for plans with the same results."""
        content = {
            each.name: getattr(self.request, each.name) for each in dataclasses.fields(self.request)
        }
        text = json.dumps(content, default=_described, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:24]


@lru_cache(maxsize=4)
def _client(target: str, process: int) -> Client:
    """Return the client of a target in this process: the next part finds it connected."""
    del process  # a forked child needs one of its own
    return Client(target)


def _described(value: Any) -> Any:
    """Return what JSON can write in place of a value that it cannot: arrays, dtypes, mappings."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (np.dtype, type)):
        return str(np.dtype(value))
    array = np.ascontiguousarray(value)
    return [str(array.dtype), array.shape, hashlib.sha256(array.tobytes()).hexdigest()]
