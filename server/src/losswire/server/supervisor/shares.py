"""The share that each worker has of the CPUs and of the memory."""

from dataclasses import replace

from losswire.server.settings import Place, Settings


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
