"""Honest callers who never stop: threads that evaluate through the SDK and check each result."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from losswire.client import Client, Evaluation, EvaluationResult
from tests.support.vitals import wait_until

_SHARES: Final = {"small": 85, "many": 5, "medium": 7, "chunked": 3}
"""Of a hundred calls."""


@dataclass
class Load:
    """What the callers have seen until now."""

    calls: int = 0
    wrong: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    stopping: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def check(self, least: int = 1) -> None:
        """Assert that there were calls, and that all of them were answered, and rightly."""
        with self.lock:
            assert (dict(self.errors), self.wrong) == ({}, 0), f"of {self.calls} calls"
            assert self.calls >= least


class _Batch:
    """Arrays for one loss, and what numpy says of them."""

    def __init__(self, generator: np.random.Generator, rows: int, columns: int) -> None:
        self.inputs = {
            name: generator.normal(size=(rows, columns)).astype(np.float32)
            for name in ("input", "target")
        }
        difference = self.inputs["input"].astype(np.float64) - self.inputs["target"]
        self._loss = float(np.mean(difference**2))
        self._gradient = 2 * difference[:64] / difference.size

    def is_right(self, result: object) -> bool:
        """Compare a result with numpy's."""
        return (
            isinstance(result, EvaluationResult)
            and abs(float(result.loss) - self._loss) < 1e-4 * max(1, self._loss)
            and np.allclose(result.gradients["input"][:64], self._gradient, atol=1e-6)
        )


class _Caller:
    """One thread's calls, of all sizes in turn."""

    def __init__(self, client: Client, seed: int) -> None:
        self._client = client
        generator = np.random.default_rng(seed)
        self._small = _Batch(generator, 32, 10)
        self._medium = _Batch(generator, 128, 4_700)
        self._large = _Batch(generator, 1024, 2_930)
        kinds = [kind for kind, share in _SHARES.items() for _ in range(share)]
        generator.shuffle(kinds)
        self._calls: list[Callable[[], bool]] = [getattr(self, kind) for kind in kinds]

    def call(self, number: int) -> bool:
        """Make one call; returns whether its result is right."""
        return self._calls[number % len(self._calls)]()

    def small(self) -> bool:
        """Evaluate a small batch."""
        return self._one(self._small)

    def medium(self) -> bool:
        """Evaluate 4.8 MB."""
        return self._one(self._medium)

    def chunked(self) -> bool:
        """Evaluate 24 MB, more than one message holds."""
        return self._one(self._large)

    def many(self) -> bool:
        """Evaluate five small batches in one call."""
        item = Evaluation("mse_loss", self._small.inputs, gradients=["input"])
        results: Sequence[object] = self._client.evaluate_many([item] * 5)
        return len(results) == 5 and all(map(self._small.is_right, results))

    def _one(self, batch: _Batch) -> bool:
        return batch.is_right(self._client.evaluate("mse_loss", batch.inputs, gradients=["input"]))


@contextmanager
def load(target: str, threads: int = 8, timeout: float = 60.0) -> Iterator[Load]:
    """Let threads call, from when the server is known to the end of this context."""
    seen = Load()
    with Client(target, timeout=timeout) as client:

        def work(seed: int) -> None:
            caller, number = _Caller(client, seed), 0
            while not seen.stopping.is_set():
                try:
                    is_right = caller.call(number)
                except Exception as error:  # noqa: BLE001 - whatever it is, a caller saw it
                    with seen.lock:
                        seen.errors[f"{type(error).__name__}: {error}"[:300]] += 1
                else:
                    with seen.lock:
                        seen.wrong += not is_right
                with seen.lock:
                    seen.calls += 1
                number += 1

        callers = [threading.Thread(target=work, args=(seed,)) for seed in range(threads)]
        for each in callers:
            each.start()
        try:
            # A client whose server has never answered gives up soon.
            wait_until(lambda: seen.calls >= threads)
            yield seen
        finally:
            seen.stopping.set()
            for each in callers:
                each.join()
