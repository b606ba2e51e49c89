"""The parts of a schedule: a server, arrays in shared memory, and the right results."""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from losswire.client import Client, LosswireError, Region, RetryPolicy
from tests.support.harness import Child
from tests.support.mapped import open_files

Array = npt.NDArray[np.float32]

ROWS, WIDTH = 300, 500
SMALL_ROWS = 20
LONG_ROWS = 124
FILL = np.float32(-7)
SECONDS = 60.0
GIVEN_BACK_SECONDS = 60.0
HANGS_AFTER_SECONDS = 200.0
_UNFETCHED_DESCRIPTORS = 3
EXPECTED = (LosswireError, RuntimeError, TimeoutError, KeyboardInterrupt, asyncio.CancelledError)
RETRY = RetryPolicy(initial_backoff=0.01, max_backoff=0.1)

KINDS = ("placed", "answered", "small", "long", "staged")
"""Gradient into the region; gradient in a long answer; small and sent; sent by a long request;
copied through the SDK's own memory."""

CLIENTS = ("blocking", "threads", "asyncio")

STATES = ("before sending", "sent in part", "computing", "answer on its way", "answered in part")

WAYS = (
    "nothing",
    "close",
    "with",
    "collect",
    "timeout",
    "cancel",
    "alarm",
    "interrupt",
    "fork and exit",
    "fork and close",
    "fork and leave with",
    "fork and evaluate",
    "fork and outlive the parent",
    "kill the client",
    "drain the server",
    "kill the server",
)
FORKS_IN_CALLS = os.environ.get("GRPC_ENABLE_FORK_SUPPORT") == "0"
"""Whether a process may fork while gRPC works for it, in another thread or for its asyncio: with
gRPC's own support of forks, its handlers end some of the children inside of `fork` ("Check failed:
next_worker->state == KICKED", or a segmentation fault)."""

NEW_CLIENTS = ("fork and outlive the parent", "kill the client")
"""Those in which a forked child makes a client of its own, which needs gRPC's support of forks."""

RARE = ("drain the server", "kill the server")
"""Those after which a server has to be started, which takes seconds."""


class Alarm(Exception):  # noqa: N818 - it is no error
    """Raised by a signal's handler."""


@dataclass
class Schedule:
    """One schedule."""

    number: int
    kind: str
    client: str
    state: str
    way: str
    delay: float
    problems: list[str] = field(default_factory=list)

    def check(self, right: object, problem: str) -> None:
        """Note a problem unless something is right."""
        if not right:
            self.problems.append(problem)


class Server:
    """The server process, and the regions it holds."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        self.listen = f"unix:{folder / 'grpc.sock'}"
        self.start()

    def start(self) -> None:
        """Start it, or start it again at the same address."""
        self._count += 1
        self.child = Child(
            self._folder / f"log{self._count}",
            "--memory-budget-mib=512",
            "--drain-seconds=2",
            listen=self.listen,
        )

    def end(self, number: int) -> None:
        """End it by a signal."""
        self.child.process.send_signal(signal.SIGCONT)
        self.child.process.send_signal(number)
        self.child.wait()

    @contextmanager
    def stopped(self, *, really: bool) -> Iterator[None]:
        """Keep it from running for a while."""
        if really:
            self.child.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            with suppress(ProcessLookupError):
                self.child.process.send_signal(signal.SIGCONT)

    @property
    def regions(self) -> int:
        """How many regions it holds that somebody fetched, as the system sees it.

        Those that a call of gRPC's made whose answer nobody heard stay for two seconds, and
        still have the descriptor that would be handed out: three in all.
        """
        found: Counter[int] = Counter()
        for each, target in open_files(self.child.process.pid):
            with suppress(OSError):
                if "losswire-region" in target:
                    found[each.stat().st_ino] += 1
        return sum(count < _UNFETCHED_DESCRIPTORS for count in found.values())


class Arrays:
    """The arrays of one schedule, and the right results."""

    def __init__(self, region: Region, kind: str, dice: np.random.Generator) -> None:
        rows = {"small": SMALL_ROWS, "long": LONG_ROWS}.get(kind, ROWS)
        self.kind = kind
        self.input = region.array((rows, WIDTH))
        self.target = region.array((rows, WIDTH))
        self.out = region.array((rows, WIDTH))
        self.input[...] = dice.standard_normal(self.input.shape, np.float32)
        self.target[...] = dice.standard_normal(self.input.shape, np.float32)
        self.out[...] = FILL
        self.before = self.input.copy(), self.target.copy()
        difference = self.before[0].astype(float) - self.before[1]
        self.loss = float(np.mean(difference**2))
        self.gradient = 2 * difference / difference.size

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of `evaluate`."""
        inputs: dict[str, Any] = {"input": self.input, "target": self.target}
        if self.kind in ("staged", "long"):
            inputs = {name: array.copy() for name, array in inputs.items()}
        if self.kind == "long":
            # One input is sent in the request, of some 250 KB, the other one is in the region.
            inputs["target"] = self.target
        out = {"input": self.out} if self.kind == "placed" else None
        return {"loss": "mse_loss", "inputs": inputs, "gradients": ["input"], "out": out}

    def check_result(self, schedule: Schedule, result: Any) -> None:  # noqa: ANN401 (any result)
        """Compare a result with the right one."""
        loss = float(result.loss)
        schedule.check(abs(loss - self.loss) < 1e-5 * self.loss, f"loss {loss}, not {self.loss}")
        near = np.allclose(result.gradients["input"], self.gradient, rtol=1e-5, atol=1e-9)
        schedule.check(near, "a wrong gradient")

    def check_contents(self, schedule: Schedule, when: str) -> None:
        """Compare the contents of the arrays with their earlier contents."""
        same = all(map(np.array_equal, (self.input, self.target), self.before))
        schedule.check(same, f"other contents {when}")
        # The server may be writing the gradient of a call that was given up.
        out = self.out.copy()
        asked = np.isclose(out, self.gradient, rtol=1e-5, atol=1e-9)
        schedule.check(np.all(asked | (out == FILL)), f"other contents of out {when}")


def make_client(server: Server) -> Client:
    """Make a client that blocks."""
    return Client(server.listen, timeout=SECONDS, retry=RETRY)


def warm(client: Client, arrays: Arrays, *, small: bool) -> None:
    """Make calls until small ones go over leases."""
    for _ in range(10 if small else 1):
        client.evaluate("mse_loss", {"input": arrays.input[:1], "target": arrays.target[:1]})
