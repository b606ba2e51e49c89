"""A storm of resets costs its caller, and nobody else."""

from tests.support.doors import Doors, open_doors
from tests.support.reset_storm import reset_storm
from tests.support.soak import record, tier
from tests.support.vitals import PeakMemory, vitals, wait_until
from tests.support.witness import witness

_MIB = 1 << 20
_CONNECTIONS = 20


def _reserved(doors: Doors) -> float:
    """Return the bytes that are reserved; none of them for residents, which are not used."""
    return doors.samples().of("losswire_reserved_bytes")


def test_a_storm_of_resets_costs_others_nothing() -> None:
    """Callers on connections of their own get right answers, and health is served."""
    resets, seconds = tier(short=6_000, soak=71_200), tier(short=1.0, soak=12.0)
    with open_doors("--memory-budget-mib", "256") as doors:
        reserved, descriptors = _reserved(doors), vitals(doors.pid).descriptors
        with (
            witness(doors.grpc, "health") as health,
            witness(doors.grpc, "evaluate") as plain,
            witness(doors.grpc, "sdk") as sdk,
            PeakMemory(doors.pid) as memory,
        ):
            storm = reset_storm(doors.grpc, _CONNECTIONS, resets, seconds)
            reports = {"health": health.report(), "plain": plain.report(), "sdk": sdk.report()}
        wait_until(lambda: vitals(doors.pid).descriptors <= descriptors)
        wait_until(lambda: _reserved(doors) <= reserved)
    record("resets", storm.resets)
    record("time of the storm", storm.seconds, unit="s")
    record("connections ended by the server", storm.closed)
    record("growth of memory", memory.growth_bytes / _MIB, unit="MiB")
    record("health, p99", reports["health"].p99_ms, unit="ms", required="<= 100")
    record("calls of the SDK that failed", reports["sdk"].failed, required="0")
    record("calls of the SDK, p99", reports["sdk"].p99_ms, unit="ms")
    # Some are refused in gRPC's core, as CANCELLED, which the SDK tries again.
    record("calls without the SDK that failed", reports["plain"].failed)
    record("calls without the SDK, p99", reports["plain"].p99_ms, unit="ms")
    for kind, report in reports.items():
        assert report.seconds, f"{kind}: no call was answered"
        assert report.wrong == 0, kind
    assert reports["sdk"].errors == {}
    assert reports["health"].errors == {}
