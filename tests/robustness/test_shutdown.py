"""SIGTERM under load: no call of the SDK fails, with one replica as with two."""

import random
import time
from pathlib import Path

import pytest

from losswire.client import Client, Evaluation
from tests.support.harness import Child
from tests.support.load import load
from tests.support.soak import record, tier

_BUDGET = ("--memory-budget-mib", "1024")


def _restart(child: Child, log: Path) -> tuple[Child, float]:
    """End a server, and start another one at its address; returns it, and how long the end took."""
    began = time.monotonic()
    child.terminate()
    assert child.wait() == 0
    seconds = time.monotonic() - began
    return Child(log, *_BUDGET, listen=child.address), seconds


@pytest.mark.timeout(1800)
def test_one_of_two_replicas_ends(tmp_path: Path) -> None:
    """Eight threads call two servers, which are restarted in turn: no call fails."""
    rounds = tier(short=2, soak=60)
    replicas = [Child(tmp_path / f"log{number}", *_BUDGET) for number in range(2)]
    drains = []
    try:
        with load(",".join(each.address for each in replicas)) as seen:
            for number in range(rounds):
                time.sleep(random.uniform(0.7, 2))  # noqa: S311 - no secret
                which = number % 2
                replicas[which], seconds = _restart(replicas[which], tmp_path / f"again{number}")
                drains.append(seconds)
        seen.check()
    finally:
        for each in replicas:
            each.__exit__(None, None, None)
    record("SIGTERMs of one of two replicas under load", rounds)
    record("calls meanwhile", seen.calls)
    record("calls that failed", sum(seen.errors.values()), required="0")
    record("longest drain under load", max(drains), unit="s", required="<= 5")
    assert max(drains) < 30


@pytest.mark.timeout(1800)
def test_the_only_replica_is_restarted(tmp_path: Path) -> None:
    """Eight threads call one server, which ends and comes back at its port: no call fails."""
    rounds = tier(short=1, soak=20)
    child = Child(tmp_path / "log", *_BUDGET)
    try:
        with load(child.address, timeout=120) as seen:
            for number in range(rounds):
                time.sleep(random.uniform(0.7, 2))  # noqa: S311 - no secret
                child, _ = _restart(child, tmp_path / f"again{number}")
            time.sleep(1)
        seen.check()
    finally:
        child.__exit__(None, None, None)
    record("restarts of the only replica under load", rounds)
    record("calls that failed", sum(seen.errors.values()), required="0")
    assert not seen.errors


def test_a_server_that_nobody_calls_ends_at_once(tmp_path: Path) -> None:
    """An open stream and an idle lease do not delay the end, which comes long before the limit."""
    with Child(tmp_path / "log", "--drain-seconds", "60") as child, Client(child.address) as client:
        for _ in range(40):  # from some calls on, they go over a lease
            client.evaluate("mse_loss", {"input": [2.0], "target": [0.0]})
        with client.stream() as stream:
            first = stream.submit(Evaluation("mse_loss", {"input": [2.0], "target": [0.0]}))
            assert float(first.result().loss) == 4.0
            began = time.monotonic()
            child.terminate()
            assert child.wait() == 0
            seconds = time.monotonic() - began
    assert seconds < 30
    record("end with an idle stream and an idle lease", seconds, unit="s", required="<= 1")
