"""A server that leaks fails the check that an honest one passes."""

from pathlib import Path

import pytest

from tests.support.doors import open_doors
from tests.support.made_losses import leaking_loss
from tests.support.steadiness import Reading, check_steady
from tests.support.traffic import traffic
from tests.support.vitals import vitals


def test_a_build_that_leaks_is_found(tmp_path: Path) -> None:
    """One that keeps the input, a descriptor and a thread of each evaluation: all are named."""
    made = leaking_loss(tmp_path)
    with (
        open_doors(*made.arguments, environment=made.environment) as doors,
        traffic(doors.grpc, made.name) as callers,
    ):
        readings = []
        for number in range(1, 9):
            done = callers.run(30)
            assert (done.failed, done.wrong) == (0, 0), done.errors
            readings.append(Reading(30 * number, vitals(doors.pid)))
    # 16 KiB of each call are 1,600 MiB of 100,000.
    with pytest.raises(AssertionError, match=r"memory grows by .*; descriptors grow: .*; threads"):
        check_steady(readings[2:], 500.0)
