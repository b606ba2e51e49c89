"""Mixed traffic of honest callers from a process of its own, round by round.

Between two rounds nothing is under way, so that what the server then holds can be compared.
"""

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Final

import grpc
import numpy as np

from losswire.client import (
    Client,
    Evaluation,
    EvaluationResult,
    InvalidArgumentError,
    LosswireError,
)
from losswire.v1 import evaluation_pb2, loss_service_pb2, loss_service_pb2_grpc
from losswire.wire import decode_tensor, encode_tensor

_ROOT = Path(__file__).parents[2]
_SHARES: Final = {"many": 2, "plain": 7, "stream": 2, "medium": 2, "invalid": 2, "small": 84}
"""Of a hundred calls; beside them one in 2,000 is large. `plain` is without the SDK."""

_LARGE_EVERY: Final = 2_000


@dataclass(frozen=True)
class Round:
    """What happened in one round."""

    calls: int
    failed: int
    wrong: int
    errors: dict[str, int]


class Traffic:
    """The process; made by `traffic`."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.pid = process.pid

    def run(self, calls: int, threads: int = 3) -> Round:
        """Make so many calls and return what happened, when all have ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{calls} {threads}\n")
        self._process.stdin.flush()
        return Round(**json.loads(self._process.stdout.readline()))


@contextmanager
def traffic(address: str, loss: str = "mse_loss") -> Iterator[Traffic]:
    """Start callers of a server; with another loss than `mse_loss`, small calls of it alone."""
    command = [sys.executable, "-m", "tests.support.traffic", address, loss]
    with subprocess.Popen(
        command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        try:
            yield Traffic(process)
        finally:
            process.stdin.close()
            process.wait(timeout=120)


class _Batch:
    """Two arrays, and what numpy says of them."""

    def __init__(self, generator: np.random.Generator, *shape: int) -> None:
        self.inputs = {
            name: generator.normal(size=shape).astype(np.float32) for name in ("input", "target")
        }
        difference = self.inputs["input"].astype(np.float64) - self.inputs["target"]
        self._loss = float(np.mean(difference**2))
        self._gradient = 2 * difference / difference.size

    def is_right(self, loss: Any, gradient: Any) -> bool:  # noqa: ANN401 (arrays)
        """Compare a result with numpy's."""
        close = abs(float(loss) - self._loss) < 1e-4 * max(1, self._loss)
        return close and np.allclose(gradient, self._gradient, atol=1e-6)


class _Callers:
    """Makes calls of all kinds on some threads."""

    def __init__(self, address: str, loss: str) -> None:
        self._client = Client(address, timeout=60)
        self._stub = loss_service_pb2_grpc.LossServiceStub(grpc.insecure_channel(address))
        self._loss = loss
        self._pools: dict[int, ThreadPoolExecutor] = {}
        generator = np.random.default_rng(11)
        self._small = [_Batch(generator, 8 + number, 16) for number in range(4)]
        self._medium = _Batch(generator, 128, 640)
        self._large = _Batch(generator, 1024, 2048)
        self._kinds = [kind for kind, share in _SHARES.items() for _ in range(share)]
        generator.shuffle(self._kinds)

    def call(self, number: int) -> bool:
        """Make call number so-and-so; returns whether the result is right."""
        if self._loss != "mse_loss":
            inputs = {"input": np.ones(4096, np.float32)}
            return float(self._client.evaluate(self._loss, inputs).loss) == 1.0
        if number % _LARGE_EVERY == _LARGE_EVERY - 1:
            return self._evaluate(self._large)
        batch = self._small[number % len(self._small)]
        kind: Callable[[_Batch], bool] = getattr(self, f"{self._kinds[number % 99]}")
        return kind(batch)

    def small(self, batch: _Batch) -> bool:
        """Evaluate a small batch."""
        return self._evaluate(batch)

    def medium(self, _: _Batch) -> bool:
        """Evaluate 320 KiB."""
        return self._evaluate(self._medium)

    def _evaluate(self, batch: _Batch) -> bool:
        result = self._client.evaluate("mse_loss", batch.inputs, gradients=["input"])
        return batch.is_right(result.loss, result.gradients["input"])

    def many(self, batch: _Batch) -> bool:
        """Evaluate several in one call."""
        item = Evaluation("mse_loss", batch.inputs, gradients=["input"])
        results = self._client.evaluate_many([item] * 3)
        return len(results) == 3 and all(
            isinstance(each, EvaluationResult)
            and batch.is_right(each.loss, each.gradients["input"])
            for each in results
        )

    def stream(self, batch: _Batch) -> bool:
        """Open a stream for several."""
        item = Evaluation("mse_loss", batch.inputs, gradients=["input"])
        with self._client.stream() as stream:
            results = [each.result() for each in [stream.submit(item) for _ in range(3)]]
        return all(batch.is_right(each.loss, each.gradients["input"]) for each in results)

    def plain(self, batch: _Batch) -> bool:
        """Call without the SDK."""
        item = evaluation_pb2.Evaluation(
            loss="mse_loss",
            inputs={name: encode_tensor(array) for name, array in batch.inputs.items()},
            gradients_for=["input"],
        )
        request = loss_service_pb2.EvaluateRequest(evaluation=item)
        result = self._stub.Evaluate(request, timeout=60).result
        gradient = decode_tensor(result.gradients["input"])
        return batch.is_right(decode_tensor(result.loss), gradient)

    def invalid(self, batch: _Batch) -> bool:
        """Send what is refused."""
        try:
            self._client.evaluate("mse_loss", {"input": batch.inputs["input"]})
        except InvalidArgumentError:
            return True
        return False

    def round(self, calls: int, threads: int) -> Round:
        """Make so many calls on several threads."""
        numbers, lock = count(), threading.Lock()
        wrong, errors = 0, dict[str, int]()

        def work() -> None:
            nonlocal wrong
            while (number := next(numbers)) < calls:
                try:
                    right = self.call(number)
                except (LosswireError, grpc.RpcError) as error:
                    name = f"{type(error).__name__}: {error}"[:200]
                    with lock:
                        errors[name] = errors.get(name, 0) + 1
                else:
                    with lock:
                        wrong += not right

        # The same threads in each round: the memory that the C library keeps for a thread stays.
        pool = self._pools.setdefault(threads, ThreadPoolExecutor(threads))
        for each in [pool.submit(work) for _ in range(threads)]:
            each.result()
        return Round(calls, sum(errors.values()), wrong, errors)


def _main(address: str, loss: str) -> None:
    callers = _Callers(address, loss)
    for line in sys.stdin:
        done = callers.round(*map(int, line.split()))
        print(json.dumps(vars(done)), flush=True)  # noqa: T201 - the test reads it


if __name__ == "__main__":
    _main(*sys.argv[1:])
