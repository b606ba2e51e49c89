"""An innocent caller in a process of its own, who measures what an attack costs others.

It runs apart so that the work of the attacker, in the test's process, is no part of what it sees.
"""

import json
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Final

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc

from losswire.client import Client, LosswireError
from losswire.v1 import evaluation_pb2, loss_service_pb2, loss_service_pb2_grpc
from losswire.wire import decode_tensor, encode_tensor
from tests.support.soak import percentile

_ROOT = Path(__file__).parents[2]
_SECONDS: Final = 20.0
"""The deadline of one call."""
_ANSWER_SECONDS: Final = 120.0
"""How long to wait for its report: for hangs only."""


@dataclass
class Report:
    """What it has seen."""

    seconds: list[float] = field(default_factory=list)
    """How long each call took that succeeded."""
    errors: dict[str, int] = field(default_factory=dict)
    """How often calls failed, by the name of the code."""
    wrong: int = 0
    """How many results were not right."""

    @property
    def p99_ms(self) -> float:
        """The 99th percentile of the latency."""
        return 1000 * percentile(self.seconds, 0.99)

    @property
    def worst_ms(self) -> float:
        """The longest call."""
        return 1000 * max(self.seconds, default=0.0)

    @property
    def failed(self) -> int:
        """How many calls failed or returned something wrong."""
        return sum(self.errors.values()) + self.wrong


class Witness:
    """A running one; made by `witness`."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def report(self) -> Report:
        """Return what it has seen since it started or since the last report."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("report\n")
        self._process.stdin.flush()
        return Report(**json.loads(self._process.stdout.readline()))


@contextmanager
def witness(address: str, kind: str = "health", interval: float = 0.01) -> Iterator[Witness]:
    """Run one that calls again and again, `interval` seconds apart, from when this returns.

    Its kind is `health`; `healthz`, the same of the HTTP door at the address; `evaluate`, a small
    evaluation with its gradient by a plain call; or `sdk`, the same by the SDK, which tries again.
    """
    command = [sys.executable, "-m", "tests.support.witness", address, kind, str(interval)]
    with subprocess.Popen(
        command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert line == "ready\n", f"the witness wrote {line!r}"
            yield Witness(process)
        finally:
            process.stdin.close()
            process.wait(timeout=_ANSWER_SECONDS)


def _health(address: str) -> Callable[[], bool]:
    """Return a call that says whether the server serves."""
    stub = health_pb2_grpc.HealthStub(grpc.insecure_channel(address))

    def call() -> bool:
        answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=_SECONDS)
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    return call


def _healthz(address: str) -> Callable[[], bool]:
    """Return a request that says whether the HTTP door answers; each has its own connection."""

    def call() -> bool:
        connection = HTTPConnection(address, timeout=_SECONDS)
        with closing(connection):
            connection.request("GET", "/healthz")
            return connection.getresponse().status == HTTPStatus.OK

    return call


def _arrays() -> tuple[np.ndarray, np.ndarray, float]:
    """Return an input, a target and their mean squared error."""
    generator = np.random.default_rng(7)
    one = generator.normal(size=(8, 16)).astype(np.float32)
    other = generator.normal(size=(8, 16)).astype(np.float32)
    return one, other, float(np.mean((one.astype(np.float64) - other) ** 2))


def _evaluate(address: str) -> Callable[[], bool]:
    """Return a plain call that says whether the result is right."""
    one, other, expected = _arrays()
    options = [("grpc.enable_retries", 0)]
    stub = loss_service_pb2_grpc.LossServiceStub(grpc.insecure_channel(address, options))
    request = loss_service_pb2.EvaluateRequest(
        evaluation=evaluation_pb2.Evaluation(
            loss="mse_loss",
            inputs={"input": encode_tensor(one), "target": encode_tensor(other)},
            gradients_for=["input"],
        )
    )

    def call() -> bool:
        result = stub.Evaluate(request, timeout=_SECONDS).result
        gradient = decode_tensor(result.gradients["input"])
        return _is_right(float(decode_tensor(result.loss)), gradient, one, other, expected)

    return call


def _sdk(address: str) -> Callable[[], bool]:
    """Return a call of the SDK that says whether the result is right."""
    one, other, expected = _arrays()
    client = Client(address, timeout=_SECONDS)

    def call() -> bool:
        inputs = {"input": one, "target": other}
        result = client.evaluate("mse_loss", inputs, gradients=["input"])
        gradient = result.gradients["input"]
        return _is_right(float(result.loss), gradient, one, other, expected)

    return call


def _is_right(
    loss: float, gradient: np.ndarray, one: np.ndarray, other: np.ndarray, expected: float
) -> bool:
    """Compare a result with numpy's."""
    wanted = 2 * (one - other) / one.size
    return abs(loss - expected) < 1e-5 and np.allclose(gradient, wanted, atol=1e-6)


_KINDS: Final = {"health": _health, "healthz": _healthz, "evaluate": _evaluate, "sdk": _sdk}


def _once(call: Callable[[], bool], report: Report) -> None:
    """Make one call and add it to the report."""
    start = time.perf_counter()
    try:
        right = call()
    except grpc.RpcError as error:
        name = error.code().name
    except (LosswireError, OSError, HTTPException) as error:
        name = type(error).__name__
    else:
        report.seconds.append(time.perf_counter() - start)
        report.wrong += not right
        return
    report.errors[name] = report.errors.get(name, 0) + 1


def _main(address: str, kind: str, interval: str) -> None:
    """Call until the input ends; a line of it asks for a report."""
    call, report = _KINDS[kind](address), Report()
    assert call(), "the first call is not right"
    print("ready", flush=True)  # noqa: T201 - it is how the test hears
    lines = selectors.DefaultSelector()
    lines.register(sys.stdin, selectors.EVENT_READ)
    while True:
        if lines.select(timeout=float(interval)):
            if not sys.stdin.readline():
                return
            print(json.dumps(vars(report)), flush=True)  # noqa: T201 - as above
            report = Report()
        _once(call, report)


if __name__ == "__main__":
    _main(*sys.argv[1:])
