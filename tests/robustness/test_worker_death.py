"""Workers that are killed, stopped or hang: others take their places, and no SDK call fails."""

import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from losswire.client import Client
from tests.support.harness import path_with
from tests.support.load import load
from tests.support.soak import record, tier
from tests.support.vitals import family, wait_until
from tests.support.workers import Workers

_BUDGET = ("--memory-budget-mib", "1024")

_HANGING = '''
import os
import time
from pathlib import Path

from torch import Tensor

from losswire.server.declare import Input, Terms, floats, layout, loss


@loss(
    layouts=(layout("any", input=floats("*S"), values="*S"),),
    inputs={"input": Input(meaning="Anything.")},
    source="tests",
)
def hanging(input: Tensor) -> Terms:
    """Hang, the first time."""
    hung = Path(os.environ["HUNG"])
    if not hung.exists():
        hung.touch()
        time.sleep(3600)
    return Terms(input)
'''


@pytest.mark.timeout(1800)
def test_kill_9_of_a_worker_fails_no_call(tmp_path: Path) -> None:
    """Eight threads call two workers, which are killed in turn; each has a successor soon."""
    kills = tier(short=2, soak=20)
    back = []
    with Workers(tmp_path / "log", *_BUDGET) as server:
        with load(server.address) as seen:
            for number in range(kills):
                server.wait_for_spare()
                time.sleep(1)
                back.append(server.strike(number % 2))
        seen.check()
    record("kills of a worker under load", kills)
    record("calls meanwhile", seen.calls)
    record("calls that failed", sum(seen.errors.values()), required="0")
    record("longest time until another serves", max(back), unit="s", required="<= 3")
    assert max(back) < 30


def test_a_stopped_worker_is_replaced(tmp_path: Path) -> None:
    """One that is stopped, and so answers nothing, is killed and replaced; no call fails."""
    with Workers(tmp_path / "log", *_BUDGET) as server:
        with load(server.address, threads=2) as seen:
            server.wait_for_spare()
            seconds = server.strike(0, signal.SIGSTOP)
        seen.check()
    record("a stopped worker is replaced", seconds, unit="s", required="<= 10")
    assert seconds < 50


def test_an_engine_that_hangs_is_replaced(tmp_path: Path) -> None:
    """The canary finds an evaluation that never ends; its caller is answered by the next worker."""
    (tmp_path / "hanging_loss.py").write_text(_HANGING)
    environment = {"PYTHONPATH": path_with(tmp_path), "HUNG": str(tmp_path / "hung")}
    arguments = ("--losses", "hanging_loss", "--hang-seconds", "2")
    with (
        Workers(tmp_path / "log", *arguments, count=1, environment=environment) as server,
        Client(server.address) as client,
    ):
        before = server.serving()
        result = client.evaluate("hanging", {"input": np.ones(8, np.float32)}, timeout=120)
        assert float(result.loss) == 1.0
        assert server.serving() != before


@pytest.mark.parametrize("kind", ["resident", "region"])
def test_what_a_dead_worker_held_is_healed(tmp_path: Path, kind: str) -> None:
    """A resident tensor is sent again, and the contents of a region another way: results stay."""
    generator = np.random.default_rng(3)
    arrays = {name: generator.normal(size=(512, 512)).astype("f4") for name in ("input", "target")}
    expected = float(np.mean((arrays["input"].astype("f8") - arrays["target"]) ** 2))
    with Workers(tmp_path / "log", *_BUDGET) as server, Client(server.address) as client:
        inputs: dict[str, Any] = dict(arrays)
        if kind == "resident":
            inputs["input"] = client.put(arrays["input"])
        else:
            region = client.region(4 << 20)
            for name, array in arrays.items():
                inputs[name] = region.array(array.shape, array.dtype)
                inputs[name][:] = array
        for place in (0, 1):
            server.wait_for_spare()
            server.strike(place)
            for _ in range(3):
                found = client.evaluate("mse_loss", inputs, timeout=60)
                assert abs(float(found.loss) - expected) < 1e-5


def test_workers_end_with_their_supervisor(tmp_path: Path) -> None:
    """When the supervisor is killed, its workers drain and end, and leave no process behind."""
    server = Workers(tmp_path / "log")
    server.wait_for_spare()
    processes = family(server.process.pid)[1:]
    assert len(processes) == 3
    server.process.kill()
    server.wait()
    wait_until(lambda: not any(Path(f"/proc/{each}").exists() for each in processes))
