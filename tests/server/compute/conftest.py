"""Fixtures of the tests of compute."""

from collections.abc import Sequence

import pytest

from losswire.server.compute.stacking.stacks import stacks
from losswire.server.compute.work import Work
from losswire.server.pipeline import worker


@pytest.fixture
def stacked_as_on_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a worker without a GPU stack the evaluations that wait, as it does for a GPU."""

    def as_on_gpu(works: Sequence[Work | None], device_type: str) -> list[list[int]]:
        del device_type
        return stacks(works, "cuda")

    monkeypatch.setattr(worker, "stacks", as_on_gpu)
