"""What a second worker brings, where computing is the limit."""

from pathlib import Path
from statistics import median

import pytest

from tests.support.compute_caller import callers
from tests.support.soak import record, tier
from tests.support.workers import Workers


@pytest.mark.timeout(900)
def test_two_workers_compute_twice_as_much(tmp_path: Path) -> None:
    """Callers of `linear_cross_entropy`: one worker with one thread, then two, in turns."""
    seconds = tier(short=0.5, soak=8.0)
    rates: dict[int, list[float]] = {1: [], 2: []}
    for number in range(tier(short=1, soak=3)):
        for count, found in rates.items():
            log = tmp_path / f"log{number}{count}"
            threads = ("--threads", str(count), "--memory-budget-mib", "4096")
            with (
                Workers(log, *threads, count=count) as server,
                callers(server.address, tier(short=2, soak=16)) as all_of_them,
            ):
                server.wait_for_spare()
                found.append(all_of_them.rate(seconds))
    assert all(rate > 0 for found in rates.values() for rate in found)
    one, two = median(rates[1]), median(rates[2])
    record("16 callers, compute-bound: one worker", one, unit="calls/s")
    record("16 callers, compute-bound: two workers", two, unit="calls/s")
    record("two workers over one", two / one, required=">= 1.7")
