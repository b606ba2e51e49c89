"""The lines of `losswire top`."""

import math
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

from losswire.client.cli._common import printable
from losswire.client.cli._live import Figures, Series
from losswire.client.cli._table import table

_BAR: Final = 24
"""The characters of a bar."""
_SHOWN_CALLS: Final = 12
_SHOWN_REFUSALS: Final = 5
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")
_STEP: Final = 1024
_DAY, _HOUR, _MINUTE = 86400, 3600, 60


def lines_of(found: Figures, address: str, restarts: int = 0) -> list[str]:
    """Return everything as lines, the most important first."""
    return [
        *_head(found, address, restarts),
        "",
        *_calls(found),
        "",
        *_memory(found.live),
        "",
        *_stages(found),
        "",
        *_refusals(found),
        "",
        *_workers(found.live),
    ]


def _head(found: Figures, address: str, restarts: int) -> Iterator[str]:
    live = found.live
    state = "READY" if live["ready"] else "NOT READY"
    again = f"   restarted {restarts} x" if restarts else ""
    name = f"losswire-server {printable(str(live['server_version']))}"
    yield f"{name}   {address}   {state}   up {span(live['uptime_seconds'])}{again}"
    queue = live["queue"]
    when = "last " + span(found.seconds) if found.seconds else "since the start"
    yield (
        f"calls {rate(found.per_second)}/s   failed {rate(found.failed_per_second)}/s   "
        f"waiting {queue['length']:,}, the oldest {milliseconds(queue['oldest_seconds'])}   "
        f"batch p50 {count(found.batch_p50)}, p99 {count(found.batch_p99)}   ({when})"
    )


def _calls(found: Figures) -> Iterator[str]:
    titles = ("method", "status", "calls/s", "p50", "p99", "total")
    rows = [_call(each) for each in found.calls[:_SHOWN_CALLS]]
    yield from table(titles, rows, indent="") if rows else ["no calls yet"]
    if len(found.calls) > _SHOWN_CALLS:
        yield f"and {len(found.calls) - _SHOWN_CALLS} more"


def _call(series: Series) -> tuple[str, ...]:
    return (
        printable(series.method.removeprefix("losswire.v1.")),
        printable(series.code),
        rate(series.per_second),
        milliseconds(series.p50),
        milliseconds(series.p99),
        f"{series.total:,}",
    )


def _memory(live: Any) -> Iterator[str]:
    held, quota = live["reserved_bytes"], live["quota_bytes"]
    rows = [
        ("budget", held["compute"] + held["regions"], live["budget_bytes"]),
        ("- compute", held["compute"], live["budget_bytes"]),
        ("- regions", held["regions"], quota["regions"]),
        ("residents", held["residents"], quota["residents"]),
    ]
    device = live["device"]
    name = f"memory of {printable(str(device['name']))}"
    rows.append((name, device["memory_reserved_bytes"], device["memory_bytes"]))
    width = max(len(name) for name, _, _ in rows)
    for name, used, limit in rows:
        yield f"{name:{width}}  {bar(used, limit)}  {size(used)} of {size(limit)}"


def _stages(found: Figures) -> Iterator[str]:
    rows = [
        (stage, rate(per_second), milliseconds(p50), milliseconds(p99))
        for stage, (per_second, p50, p99) in found.stages.items()
    ]
    return table(("stage", "a second", "p50", "p99"), rows, indent="")


def _refusals(found: Figures) -> Iterator[str]:
    if not found.refusals:
        yield "no refusals"
        return
    rows = [
        (reason, rate(per_second), f"{total:,}")
        for reason, (total, per_second) in sorted(
            found.refusals.items(), key=lambda each: (-each[1][1], -each[1][0])
        )
    ]
    yield from table(("refusals", "a second", "total"), rows, indent="")
    for each in found.live["recent_refusals"][:_SHOWN_REFUSALS]:
        method = str(each["method"]).removeprefix("losswire.v1.")
        yield printable(f"{clock(each['time'])} {method} {each['reason']}: {each['detail']}")


def _workers(live: Any) -> Iterator[str]:
    for each in live["workers"]:
        state = "ready" if each["ready"] else "not ready"
        yield printable(f"worker {each['id']}, {state}, since {each['started']}")


def bar(used: float, limit: float) -> str:
    """Draw a part of a whole, with its percentage."""
    part = min(max(used / limit, 0.0), 1.0) if limit else 0.0
    full = math.ceil(part * _BAR)
    return f"[{'#' * full}{'.' * (_BAR - full)}] {part:4.0%}"


def size(value: float) -> str:
    """Write bytes for people."""
    power = 0
    while value >= _STEP and power < len(_UNITS) - 1:
        value /= _STEP
        power += 1
    return f"{value:.0f} {_UNITS[power]}" if power == 0 else f"{value:.1f} {_UNITS[power]}"


def milliseconds(seconds: float) -> str:
    """Write a time with three digits; `-` where there is none."""
    return "-" if math.isnan(seconds) else f"{float(f'{seconds * 1e3:.3g}'):,g} ms"


def rate(value: float) -> str:
    """Write how many a second."""
    return f"{value:,.0f}" if value >= 100 or value == 0 else f"{value:.2g}"  # noqa: PLR2004 (three digits are enough)


def count(value: float) -> str:
    """Write a number of evaluations; `-` where there are none."""
    return "-" if math.isnan(value) else f"{value:.0f}"


def span(seconds: float) -> str:
    """Write a span of time with its two largest units."""
    whole = int(seconds)
    if whole >= _DAY:
        return f"{whole // _DAY} d {whole % _DAY // _HOUR} h"
    if whole >= _HOUR:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"
    if whole >= _MINUTE:
        return f"{whole // _MINUTE} min {whole % _MINUTE} s"
    return f"{seconds:.0f} s"


def clock(text: str) -> str:
    """Write a moment as a time of day here; the text itself when it is none."""
    try:
        return datetime.fromisoformat(text).astimezone().strftime("%H:%M:%S")
    except ValueError:
        return text
