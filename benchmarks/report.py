"""The results as tables, in markdown."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

Row = Sequence[str]


def markdown(results: Mapping[str, Any]) -> str:
    """Write the results of a run."""
    return "\n".join(
        [
            *_machine(results),
            "",
            *_bars(results),
            "",
            *_cases(results, floor=False),
            "",
            *_cases(results, floor=True),
            "",
            *_memory(results),
        ]
    )


_ECHOES: Final = ("echo unary", "echo chunked")

_SUMMARY: Final[Mapping[str, tuple[str, str, str]]] = {
    "plain torch in the caller's own process": ("torch", "torch", "torch"),
    "the same, keeping large blocks of memory": ("torch kept", "torch kept", "torch kept"),
    "Losswire on the same machine": ("local", "in place", "in place"),
    "Losswire over TCP": ("unary", "tcp", "tcp"),
}
"""The cases of each line of the summary, by size."""


def summary(results: Mapping[str, Any]) -> str:
    """Return a summary of a whole run in a few lines."""
    medians = {
        name: each["median"] for name, each in results["cases"].items() if each["status"] == "ok"
    }
    sizes = "SML"
    lines: list[Row] = [
        (
            name,
            *(
                _milliseconds(medians[f"{size} {case}"])
                for size, case in zip(sizes, cases, strict=True)
            ),
        )
        for name, cases in _SUMMARY.items()
    ]
    fastest = [
        min(
            medians[name]
            for name in medians
            if name.startswith(tuple(f"{size} {each} " for each in _ECHOES))
        )
        for size in sizes
    ]
    lines.append(("a gRPC echo of the bytes, nothing computed", *map(_milliseconds, fastest)))
    return "\n".join(_table(("milliseconds", "32 x 10", "1024 x 1000", "4096 x 4096"), lines))


def _machine(results: Mapping[str, Any]) -> Iterator[str]:
    machine = results["machine"]
    yield (
        f"{machine['cores']} cores of {machine['cpu']}, {machine['memory_gib']} GiB, "
        f"{machine['system']}; Python {machine['python']}, torch {machine['torch']}, "
        f"grpcio {machine['grpcio']}, numpy {machine['numpy']}; Losswire "
        f"{machine['losswire-server']}. {results['rounds']} rounds on {results['started']}, "
        f"{results['seconds']:.0f} s."
    )
    load = (
        f"load average per core {results['load_before']:.2f} before the run, "
        f"{results['used_by_others']:.0%} of the CPUs used by others during it"
    )
    yield ""
    if results["busy"]:
        yield f"**The machine was busy: {load}. Do not trust these figures.**"
    else:
        yield f"The machine was idle: {load}."
    if results["quick"]:
        yield ""
        yield "**A quick run with tiny sizes: it shows that everything works, and no times.**"


def _bars(results: Mapping[str, Any]) -> Iterator[str]:
    rows = [
        (
            each["name"],
            _ratio(each),
            _span(each),
            f"{'≤' if each['at_most'] else '≥'} {each['bar']:g}",
            {True: "met", False: "**missed**", None: each["status"]}[each["met"]],
        )
        for each in results["bars"]
    ]
    return _table(("Ratio", "Measured", "In the rounds", "Bar", "Verdict"), rows)


def _ratio(bar: Mapping[str, Any]) -> str:
    return "" if bar["measured"] is None else f"{bar['measured']:.2f}"


def _span(bar: Mapping[str, Any]) -> str:
    if bar["measured"] is None or bar["low"] == bar["high"]:
        return ""
    return f"{bar['low']:.2f} to {bar['high']:.2f}"


def _cases(results: Mapping[str, Any], *, floor: bool) -> Iterator[str]:
    head = (
        "Floor, ms a call" if floor else "Losswire, ms a call",
        *("median", "rounds", "p99", "a second", "CPU s/GB", "result"),
    )
    chosen = {name: each for name, each in results["cases"].items() if each["floor"] == floor}
    return _table(head, [_case(name, each) for name, each in chosen.items()])


def _case(name: str, case: Mapping[str, Any]) -> Row:
    if case["status"] != "ok":
        return (name, "", "", "", "", "", f"{case['status']}: {case['note']}")
    return (
        name,
        _milliseconds(case["median"]),
        f"{_milliseconds(case['low'])} to {_milliseconds(case['high'])}",
        _milliseconds(case["p99"]),
        f"{case['per_second']:,.0f}" if case["per_second"] >= _FEW else f"{case['per_second']:.1f}",
        f"{case['cpu_seconds_per_gb']:.2f}",
        case["note"],
    )


_FEW = 100


def _milliseconds(seconds: float) -> str:
    """Write three digits."""
    value = seconds * 1000
    return f"{value:.3f}" if value < 1 else f"{value:#.3g}".rstrip(".")


def _memory(results: Mapping[str, Any]) -> Iterator[str]:
    rows = [
        (
            name,
            f"{each['bytes_moved'] / 1e6:,.0f}",
            f"{each['growth_mib']:.0f}" if "growth_mib" in each else each["status"],
        )
        for name, each in results["memory"].items()
    ]
    head = ("Memory of a fresh server", "MB moved, both ways", "growth at its peak, MiB")
    return _table(head, rows)


def _table(head: Row, rows: Sequence[Row]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(each.replace('|', '/') for each in row)} |"
