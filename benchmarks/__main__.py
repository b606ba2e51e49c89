"""The command line: `python -m benchmarks`."""

import argparse
import json
import signal
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.bars import verdicts
from benchmarks.cases import FULL, QUICK, Case, Scale, cases, memory_cases
from benchmarks.measure import Processes, measure, measure_memory, print_progress
from benchmarks.processes import ROOT
from benchmarks.report import markdown

_QUICK_ROUNDS = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the tables and write them; return the exit status."""
    options = _parser().parse_args(arguments)
    # So that a signal to this program ends its children, too.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    scale = QUICK if options.quick else FULL
    chosen = _chosen(cases(scale), options.only)
    memory = [] if options.no_memory else _chosen(memory_cases(scale), options.only)
    if not chosen and not memory:
        sys.stderr.write(f"no case is named {' or '.join(options.only)}; --list names them\n")
        return 2
    if options.list:
        print("\n".join(case.name for case in [*chosen, *memory]))
        return 0
    rounds = options.rounds or (_QUICK_ROUNDS if options.quick else _ROUNDS)
    results = _run(scale, chosen, memory, rounds)
    page = markdown(results)
    print(page)
    options.output.mkdir(parents=True, exist_ok=True)
    text = json.dumps(results, indent=1, ensure_ascii=False)
    (options.output / "latest.json").write_text(text + "\n", encoding="utf-8")
    (options.output / "latest.md").write_text(page + "\n", encoding="utf-8")
    broken = [
        name
        for part in ("cases", "memory")
        for name, each in results[part].items()
        if each["status"] == "failed"
    ]
    if broken:
        sys.stderr.write(f"failed: {', '.join(broken)}\n")
    return 1 if broken else 0


_ROUNDS = 5


def _run(scale: Scale, chosen: list[Case], memory: list[Case], rounds: int) -> dict[str, Any]:
    load = machine.load()
    if machine.is_busy(load):
        print_progress(
            f"WARNING: the machine is busy (load per core {load:.2f}): do not trust the figures"
        )
    started, clock = datetime.now(UTC), time.monotonic()
    neighbours = machine.Neighbours()
    with Processes(scale.server_options) as processes:
        figures = measure(processes, chosen, rounds)
    grown = measure_memory(memory, cases(scale)[0], scale.server_options)
    # All children have ended, so that their times are known.
    used_by_others = neighbours.share()
    found = {name: each.summary() for name, each in figures.items()}
    return {
        "format": 1,
        "started": started.isoformat(timespec="seconds"),
        "seconds": time.monotonic() - clock,
        "quick": scale is QUICK,
        "rounds": rounds,
        "machine": machine.describe(),
        "load_before": load,
        "used_by_others": used_by_others,
        # The load average includes programs that ended minutes ago; this is the real load.
        "busy": machine.disturbs(used_by_others),
        "sizes": {name: list(shape) for name, shape in scale.sizes.items()},
        "bars": verdicts(found, grown),
        "cases": found,
        "memory": grown,
    }


def _chosen(found: list[Case], patterns: list[str]) -> list[Case]:
    return [
        case for case in found if not patterns or any(fnmatchcase(case.name, p) for p in patterns)
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=(
            "Measure Losswire beside its floors: torch in the caller's process, raw gRPC echoes, "
            "and copying the bytes. Floors and service take turns in each round, each in processes "
            "of their own; every result is checked once. Prints tables and writes latest.md and "
            "latest.json. Takes a few minutes, and wants a machine that does nothing else."
        ),
    )
    add = parser.add_argument
    add("--rounds", type=_positive, metavar="N", help=f"default: {_ROUNDS}, or 2 with --quick")
    add("--quick", action="store_true", help="tiny sizes: shows that all works, and no times")
    add(
        "--only",
        nargs="+",
        default=[],
        metavar="NAME",
        help="only cases of these names, where * stands for anything: --only 'L tcp*' 'L echo*'",
    )
    add("--list", action="store_true", help="name the cases instead")
    add(
        "--no-memory",
        action="store_true",
        help="leave out how servers grow, with its call of 8 GB, which takes half a minute",
    )
    add(
        "--output",
        type=Path,
        default=ROOT / "benchmarks" / "results",
        metavar="DIR",
        help="where the results are written; default: %(default)s",
    )
    return parser


def _positive(text: str) -> int:
    """Read a whole number greater than 0."""
    if not text.isdecimal() or int(text) == 0:
        message = f"{text} is not a whole number greater than 0"
        raise argparse.ArgumentTypeError(message)
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
