"""The targets of the figures: ratios within one run, each with its limit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from benchmarks.cases import HUGE

Results = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A ratio and its limit."""

    name: str
    case: str
    """The case whose time is compared."""
    floors: tuple[str, ...]
    """The cases that it is compared with; of several, the best."""
    limit: float
    rate: bool = False
    """Whether evaluations a second are compared, of which more is better; else times."""
    p99: bool = False
    """Whether the p99 of each round is compared; else the median."""


def _echoes(what: str, *policies: str) -> tuple[str, ...]:
    return tuple(f"{what} {server}{kept}" for kept in policies for server in ("sync", "aio"))


_ANY: Final = ("", " kept")
_KEPT: Final = (" kept",)
_DEFAULT: Final = ("",)
_CHUNKED_M, _CHUNKED_L = (
    (*_echoes(f"{size} echo chunked", *_KEPT), *_echoes(f"{size} echo chunked asyncio", *_KEPT))
    for size in "ML"
)

BARS: Final = (
    Bar(
        name="S unary / raw unary echo",
        case="S unary",
        floors=_echoes("S echo unary", *_ANY),
        limit=1.5,
    ),
    *(
        Bar(
            name=f"S on a long-lived stream ({how}) / raw unary echo",
            case=case,
            floors=_echoes("S echo unary", *_ANY),
            limit=1.0,
        )
        for how, case in (
            ("blocking, one after another", "S stream"),
            ("asyncio, one after another", "S stream asyncio"),
            ("blocking, pipelined", "S stream pipelined"),
        )
    ),
    Bar(
        name="S throughput, 16 callers / raw echo likewise",
        case="S throughput",
        floors=_echoes("S echo throughput", *_ANY),
        limit=0.6,
        rate=True,
    ),
    Bar(
        name="p99 of S unary beside two callers of L / p99 of S unary alone",
        case="S beside L",
        floors=("S unary",),
        limit=4.0,
        p99=True,
    ),
    Bar(
        name="the same / p99 of S unary beside four busy processes that do not call",
        case="S beside L",
        floors=("S beside busy processes",),
        limit=1.5,
        p99=True,
    ),
    Bar(
        name="S EvaluateMany losses a second / S unary losses a second",
        case="S many",
        floors=("S unary",),
        limit=8.0,
        rate=True,
    ),
    Bar(
        name="S on the same machine, without gRPC / raw unary echo",
        case="S local",
        floors=_echoes("S echo unary", *_ANY),
        limit=0.3,
    ),
    Bar(
        name="M region in place / in-process torch",
        case="M in place",
        floors=("M torch", "M torch kept"),
        limit=2.0,
    ),
    Bar(
        name="M over TCP / the faster raw echo, kept blocks",
        case="M tcp",
        floors=(*_echoes("M echo unary", *_KEPT), *_CHUNKED_M),
        limit=1.5,
    ),
    Bar(
        name="L region in place / in-process torch, default blocks",
        case="L in place",
        floors=("L torch",),
        limit=0.22,
    ),
    Bar(
        name="L region in place / in-process torch, kept blocks",
        case="L in place",
        floors=("L torch kept",),
        limit=0.85,
    ),
    Bar(
        name="L chunked over TCP / raw unary echo, default blocks",
        case="L tcp",
        floors=_echoes("L echo unary", *_DEFAULT),
        limit=0.40,
    ),
    Bar(
        name="L chunked over TCP / raw unary echo, kept blocks",
        case="L tcp",
        floors=_echoes("L echo unary", *_KEPT),
        limit=0.70,
    ),
    Bar(
        name="L chunked over TCP / raw chunked echo, kept blocks",
        case="L tcp",
        floors=_CHUNKED_L,
        limit=1.5,
    ),
    Bar(
        name="L factored, rebuilt into out= / L dense into out=, both over TCP",
        case="L tcp factored",
        floors=("L tcp out",),
        limit=0.75,
    ),
    Bar(
        name="L bf16 / L float32, both over TCP",
        case="L tcp bf16",
        floors=("L tcp",),
        limit=0.7,
    ),
    Bar(
        name="compute-bound loss, 16 callers: two workers / one worker",
        case="compute bound 2 workers",
        floors=("compute bound 1 worker",),
        limit=1.7,
        rate=True,
    ),
)

MEMORY_NAME: Final = "server memory growth during a chunked call of 8 GB of logits, MiB"
MEMORY_LIMIT_MIB: Final = 96.0


def verdicts(results: Results, memory: Results) -> list[dict[str, Any]]:
    """Return a row for each bar, measured or not."""
    return [*(_judge(bar, results) for bar in BARS), _judge_memory(memory.get(HUGE, {}))]


def _judge(bar: Bar, results: Results) -> dict[str, Any]:
    row: dict[str, Any] = {"name": bar.name, "bar": bar.limit, "at_most": not bar.rate}
    row |= {"measured": None, "low": None, "high": None, "met": None, "floor": None}
    wanted = [bar.case, *bar.floors]
    statuses = [results.get(name, {}).get("status", "not measured") for name in wanted]
    if any(each != "ok" for each in statuses):
        status = next(each for each in statuses if each != "ok")
        return {**row, "status": status}
    best = min(bar.floors, key=lambda name: median(_per_round(results[name], bar)))
    ours, theirs = _per_round(results[bar.case], bar), _per_round(results[best], bar)
    measured = _ratio(median(ours), median(theirs), bar)
    spread = [_ratio(a, b, bar) for a, b in zip(ours, theirs, strict=True)]
    met = measured >= bar.limit if bar.rate else measured <= bar.limit
    found = {"measured": measured, "low": min(spread), "high": max(spread), "met": met}
    return {**row, **found, "floor": best, "status": "ok"}


def _per_round(result: Mapping[str, Any], bar: Bar) -> Sequence[float]:
    """Return seconds for each round: of a call, or where rates are compared, of an evaluation."""
    if bar.p99:
        return [float(each) for each in result["p99s"]]
    if not bar.rate:
        return [float(each) for each in result["rounds"]]
    if result["rate"]:
        return [1 / each for each in result["rates"]]
    return [each / result["evaluations"] for each in result["rounds"]]


def _ratio(ours: float, theirs: float, bar: Bar) -> float:
    return theirs / ours if bar.rate else ours / theirs


def _judge_memory(found: Mapping[str, Any]) -> dict[str, Any]:
    growth = found.get("growth_mib")
    return {
        "name": MEMORY_NAME,
        "bar": MEMORY_LIMIT_MIB,
        "at_most": True,
        "measured": growth,
        "low": growth,
        "high": growth,
        "met": None if growth is None else growth <= MEMORY_LIMIT_MIB,
        "floor": None,
        "status": found.get("status", "not measured"),
    }
