"""The self-test: one evaluation with a known answer, before the server accepts calls, and later.

The first one shows that the device computes, and triggers the work that torch does only once. The
later ones, the canary, show that the engine still computes, and computes right.
"""

import asyncio
import logging
import math
from typing import Final, Protocol

import numpy as np

from losswire.server import thresholds
from losswire.server.catalogue.value_rules import Array
from losswire.server.compute.dispatch import compute
from losswire.server.pipeline.decode import decode
from losswire.server.pipeline.evaluator import Evaluator
from losswire.server.pipeline.validate import validate
from losswire.server.pipeline.waiting import Probe
from losswire.v1 import evaluation_pb2
from losswire.wire import decode_tensor, encode_tensor

_log = logging.getLogger(__name__)

_LOSS: Final = math.log(1 + math.e)
_GRADIENT: Final = 0.5 / (1 + math.exp(-1))
_TOLERANCE: Final = 1e-6


class SelfTestError(Exception):
    """The device computes a wrong result."""


class Report(Protocol):
    """Receives what a canary finds."""

    def __call__(self, *, ready: bool, live: bool) -> object:
        """Store whether the engine computes right, and whether there is hope that it will."""


async def run_selftest(evaluator: Evaluator) -> None:
    """Check cross-entropy of [[2, 1], [1, 2]] with targets [1, 0]; SelfTestError if it is wrong."""
    encoded = await evaluator.evaluate(_evaluation(), math.inf)
    result = encoded.whole()
    _check(decode_tensor(result.loss), decode_tensor(result.gradients["input"]))


class Canary:
    """Evaluates the self-test on the engine's thread again and again."""

    def __init__(self, evaluator: Evaluator, hang_seconds: float, report: Report) -> None:
        """Report what is found; the engine hangs when it takes no evaluation for `hang_seconds`."""
        record = evaluator.registry.find("cross_entropy")
        self._work = validate(decode(_evaluation()), record)
        self._worker = evaluator.worker
        self._hang_seconds = hang_seconds
        self._report = report

    async def run(self) -> None:
        """Check the engine again and again, until this is cancelled."""
        failures = 0
        while True:
            pause = thresholds.FAILED_CANARY_SECONDS if failures else thresholds.CANARY_SECONDS
            await asyncio.sleep(min(pause, self._hang_seconds))
            trying = asyncio.ensure_future(self._try())
            await asyncio.wait([trying], timeout=self._hang_seconds)
            if not trying.done():
                _log.critical("the engine has taken nothing for %g s", self._hang_seconds)
                self._report(ready=False, live=False)
            failures = 0 if await trying else failures + 1
            self._report(ready=not failures, live=failures < thresholds.MAX_FAILED_CANARIES)

    async def _try(self) -> bool:
        """Return whether one evaluation gives what it should."""
        task = Probe(lambda _: compute(self._work, self._worker.device))
        try:
            outcome = await self._worker.run(task, math.inf, is_brief=True)
            _check(outcome.loss, outcome.gradients["input"])
        except Exception:  # noqa: BLE001 (whatever it is, the engine does not compute right)
            _log.exception("the canary evaluation failed")
            return False
        return True


def _evaluation() -> evaluation_pb2.Evaluation:
    return evaluation_pb2.Evaluation(
        loss="cross_entropy",
        inputs={
            "input": encode_tensor(np.array([[2, 1], [1, 2]], np.float32)),
            "target": encode_tensor(np.array([1, 0])),
        },
        gradients_for=["input"],
    )


def _check(loss: Array, gradient: Array) -> None:
    """Raise SelfTestError when a result is not that of the evaluation above."""
    expected = _GRADIENT * np.array([[1, -1], [-1, 1]])
    if abs(float(loss) - _LOSS) > _TOLERANCE or np.abs(gradient - expected).max() > _TOLERANCE:
        message = f"cross_entropy gave {loss} and {gradient.tolist()}"
        raise SelfTestError(message)
