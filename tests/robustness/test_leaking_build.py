"""A server that leaks fails the check that an honest one passes."""

from pathlib import Path

import pytest

from tests.support.doors import open_doors
from tests.support.made_losses import LEAKS, leaking_loss
from tests.support.steadiness import Reading, check_steady
from tests.support.traffic import traffic
from tests.support.vitals import vitals

_REASONS = {"memory": "memory grows", "descriptors": "descriptors grow", "threads": "threads grow"}


@pytest.mark.parametrize("leak", LEAKS)
def test_a_build_that_leaks_is_found(tmp_path: Path, leak: str) -> None:
    """One that keeps the input, a descriptor or a thread of each evaluation does not pass."""
    made = leaking_loss(tmp_path, leak)
    with (
        open_doors(*made.arguments, environment=made.environment) as doors,
        traffic(doors.grpc, made.name) as callers,
    ):
        readings = []
        for number in range(1, 9):
            done = callers.run(60)
            assert (done.failed, done.wrong) == (0, 0), done.errors
            readings.append(Reading(60 * number, vitals(doors.pid)))
    with pytest.raises(AssertionError, match=_REASONS[leak]):
        # 16 KiB of each call are 1,600 MiB of 100,000.
        check_steady(readings[2:], 500.0)
