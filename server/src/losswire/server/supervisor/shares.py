"""The share that each worker has of the CPUs and of the memory."""

from dataclasses import replace

from losswire.server.address import StartError
from losswire.server.settings import MIB, Place, Settings


def check_shares(settings: Settings, count: int) -> None:
    """Raise StartError when the share of each of some workers is less than one message."""
    share, least = settings.memory_budget_bytes // count, settings.max_message_bytes
    if share < least:
        message = (
            f"--workers {count}: each would have {share / MIB:.1f} MiB of --memory-budget-mib, "
            f"less than one message of {least / MIB:.1f} MiB"
        )
        raise StartError(message)


def share_of(settings: Settings, place: Place) -> Settings:
    """Return the settings of the worker at a place: its part of what all of them may take."""
    threads, more = divmod(settings.threads, place.count)
    socket = settings.region_socket
    return replace(
        settings,
        place=place,
        listen=place.listen,
        threads=max(1, threads + (place.index < more)),
        memory_budget_bytes=settings.memory_budget_bytes // place.count,
        resident_quota_bytes=settings.resident_quota_bytes // place.count,
        region_quota_bytes=settings.region_quota_bytes // place.count,
        region_socket=f"{socket}.{place.index}" if socket else "",
    )
