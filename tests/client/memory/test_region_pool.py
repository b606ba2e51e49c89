"""The pool of regions, step by step, without a server: what it asks for, and when it stops."""

import pytest

from losswire.client import LosswireError, ResourceExhaustedError, UnavailableError
from losswire.client._calls.operations import Operation, Step, Steps
from losswire.client._calls.session import open_session
from losswire.client._memory.mapping import SharedMemory
from losswire.client._memory.region_pool import ONE_PAGE, PoolLimits, RegionPool
from losswire.client._messages.catalogue import read_server_info
from losswire.v1 import loss_service_pb2, server_info_pb2

_MIB = 1 << 20
_NO_MEMORY = read_server_info(loss_service_pb2.GetServerInfoResponse())
_SHARING = read_server_info(
    loss_service_pb2.GetServerInfoResponse(
        # Any file that this process may read and write.
        transports=server_info_pb2.Transports(region_socket="/dev/null")
    )
)


def _pool(**changes: float) -> RegionPool:
    limits = {
        "max_regions": 2,
        "max_bytes": 64 * _MIB,
        "min_region_bytes": ONE_PAGE,
        "pause_seconds": 60.0,
        **changes,
    }
    session = open_session("127.0.0.1:1", 60.0, None, None)
    return RegionPool(session, PoolLimits(**limits))  # type: ignore[arg-type]


def _asked(steps: Steps[SharedMemory | None] | Steps[None]) -> Step | None:
    """Return the first step; None when there is none."""
    return next(steps, None)


def _fail(steps: Steps[SharedMemory | None] | Steps[None], error: LosswireError) -> None:
    """Let the steps end by an error of the server's."""
    with pytest.raises(StopIteration) as end:
        steps.throw(error)
    assert end.value.value is None


def _refuse(pool: RegionPool, nbytes: int, error: LosswireError) -> None:
    """Let a region be refused."""
    steps = pool.take(nbytes)
    assert isinstance(_asked(steps), Operation)
    steps.send(_SHARING)
    _fail(steps, error)


def test_a_server_without_memory_is_not_asked_again() -> None:
    """After one look, there is a pause."""
    pool = _pool()
    steps = pool.take(_MIB)
    assert isinstance(_asked(steps), Operation)
    with pytest.raises(StopIteration):
        steps.send(_NO_MEMORY)
    assert _asked(pool.take(_MIB)) is None
    assert not pool.can_add()


def test_after_a_pause_it_asks_again() -> None:
    """A failure is no reason to give up for ever."""
    pool = _pool(pause_seconds=0.0)
    _refuse(pool, _MIB, UnavailableError("no"))
    assert _asked(pool.take(_MIB)) is not None


def test_what_is_over_the_quota_is_not_asked_for_again() -> None:
    """Smaller ones are, until the server was started again."""
    pool = _pool()
    _refuse(pool, 8 * _MIB, ResourceExhaustedError("no", reason="OVER_LIMIT"))
    assert _asked(pool.take(8 * _MIB)) is None
    assert _asked(pool.take(_MIB)) is not None
    pool.forget_all(None)
    assert _asked(pool.take(8 * _MIB)) is not None


def test_one_page_over_the_quota_is_asked_for_after_a_pause() -> None:
    """Others may have given theirs back by then."""
    pool = _pool()
    _refuse(pool, 1, ResourceExhaustedError("no", reason="OVER_LIMIT"))
    assert not pool.can_add()
    patient = _pool(pause_seconds=0.0)
    _refuse(patient, 1, ResourceExhaustedError("no", reason="OVER_LIMIT"))
    assert patient.can_add()


def test_errors_of_adding_are_kept() -> None:
    """A call that cannot add a region goes on without it."""
    pool = _pool()
    steps = pool.add()
    step = _asked(steps)
    assert isinstance(step, Operation)
    assert not step.retry
    _fail(steps, UnavailableError("no"))
    assert not pool.can_add()


@pytest.mark.parametrize(
    ("changes", "nbytes"),
    [({"max_regions": 1}, _MIB), ({"max_bytes": 2 * _MIB}, _MIB + 1), ({"max_bytes": 1}, 1)],
)
def test_limits_hold_while_regions_are_made(changes: dict[str, float], nbytes: int) -> None:
    """A region that is being made counts, for as long as its steps are referred to."""
    pool = _pool(**changes)
    first = pool.take(nbytes)
    begun = _asked(first) is not None
    assert begun == (changes != {"max_bytes": 1})
    assert _asked(pool.take(nbytes)) is None
    del first
    assert (_asked(pool.take(nbytes)) is not None) == begun


def test_one_is_added_at_a_time() -> None:
    """While one is being made, calls do not wait for another."""
    pool = _pool()
    steps = pool.add()
    assert _asked(steps) is not None
    assert not pool.can_add()
    assert _asked(pool.add()) is None
    steps.close()
    del steps
    assert pool.can_add()


def test_a_closed_pool_asks_for_nothing() -> None:
    """A call that ends after its client makes no region."""
    pool = _pool()
    pool.close()
    assert _asked(pool.take(1)) is None
