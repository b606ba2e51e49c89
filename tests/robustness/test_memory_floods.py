"""Many callers with large messages at once: memory stays within the budget, and work goes on."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.doors import Doors, open_doors
from tests.support.flood import Flooded
from tests.support.soak import record, tier
from tests.support.vitals import PeakMemory
from tests.support.witness import witness

_ROOT = Path(__file__).parents[2]
_MIB = 1 << 20
_BUDGET = 256 * _MIB
_CLIENTS = tier(short=24, soak=64)
_SECONDS = tier(short=3.0, soak=15.0)


@pytest.fixture
def doors() -> Iterator[Doors]:
    """A server with a small budget, which has computed nothing yet."""
    with open_doors("--memory-budget-mib", "256", "--region-quota-mib", "0") as found:
        yield found


def _flood(doors: Doors, clients: int, mebibytes: float, seconds: float) -> Flooded:
    """Evaluate from many threads of other processes for some seconds."""
    command = [sys.executable, "-m", "tests.support.flood", doors.grpc]
    command += [str(clients), str(mebibytes), str(seconds)]
    text = subprocess.run(command, cwd=_ROOT, check=True, capture_output=True, text=True).stdout
    return Flooded(**json.loads(text))


@pytest.mark.parametrize("mebibytes", [7.9, 48.0], ids=["in one message", "in parts"])
def test_a_flood_stays_within_the_budget(doors: Doors, mebibytes: float) -> None:
    """Of calls in one message and in parts: right results, memory in bounds, nobody given up."""
    alone = _flood(doors, 1, mebibytes, _SECONDS)
    began = time.monotonic()
    with witness(doors.grpc) as health, PeakMemory(doors.pid) as memory:
        flooded = _flood(doors, _CLIENTS, mebibytes, _SECONDS)
        seen = health.report()
    assert time.monotonic() - began < 20 * _SECONDS + 60
    assert not flooded.wrong
    assert not flooded.errors
    assert not seen.failed
    assert flooded.done
    share = memory.growth_bytes / _BUDGET
    name = f"a flood of {_CLIENTS} callers of {mebibytes:g} MiB"
    record(f"memory of {name} to the budget", share, required="<= 1.2")
    assert share < 1.3
    goodput = flooded.rate / alone.rate
    record(f"goodput of {name} to one caller", goodput, required=">= 0.8")
    record(f"health beside {name}, p99", seen.p99_ms, unit="ms", required="<= 100")
