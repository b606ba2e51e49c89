"""`python -m benchmarks.projection`: linear_cross_entropy beside plain torch, time and memory.

Each round computes the loss and the gradients of features and head once by each of the two, one
right after the other. The head is resident; features and gradients pass through shared memory. The
memory of both includes the gradients.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence

from benchmarks import machine
from benchmarks.floors.projection_here import arrays
from benchmarks.processes import Process, Server
from losswire.client import ArrayInput, Client

_MIB = 1 << 20
_TIMEOUT = 3600.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print one row of a table; return the exit status."""
    options = _parser().parse_args(arguments)
    sizes = [str(each) for each in (options.rows, options.features, options.classes)]
    floor = Process("benchmarks.floors", "projection_here", *sizes, options.dtype)
    limits = ("--memory-budget-mib", "4096", "--region-quota-mib", "1536", "--threads", "2")
    server = Server("losswire.server", "serve", "--listen", "127.0.0.1:0", *limits)
    ours: list[float] = []
    torchs: list[float] = []
    with floor, server, Client(server.address) as client:
        hidden, head, target = arrays(
            options.rows, options.features, options.classes, options.dtype
        )
        inputs: dict[str, ArrayInput] = {
            "input": hidden,
            "linear_weight": client.put(head, timeout=_TIMEOUT),
            "target": target,
        }
        floor.read_line()
        before = floor.resident_bytes, server.resident_bytes
        floor.reset_peak()
        server.reset_peak()
        for number in range(options.rounds):
            floor.write_line("run")
            answer = json.loads(floor.read_line())
            torchs.append(answer["seconds"])
            start = time.perf_counter()
            result = client.evaluate(
                "linear_cross_entropy",
                inputs,
                gradients=["input", "linear_weight"],
                timeout=_TIMEOUT,
            )
            ours.append(time.perf_counter() - start)
            sys.stderr.write(
                f"{number}: torch {torchs[-1]:.1f} s, loss {answer['loss']:.6f}; Losswire "
                f"{ours[-1]:.1f} s, loss {float(result.loss):.6f}; load {machine.load():.1f}\n"
            )
        growth = [
            (each.peak_bytes - start_bytes) // _MIB
            for each, start_bytes in zip((floor, server), before, strict=True)
        ]
    name = f"{options.rows:,} x {options.features:,} x {options.classes:,} {options.dtype}"
    cells = [*map(_spread, (torchs, ours)), *(f"{each:,}" for each in growth)]
    print(f"| {name} | {' | '.join(cells)} |")
    return 0


def _spread(seconds: list[float]) -> str:
    median, low, high = statistics.median(seconds), min(seconds), max(seconds)
    return f"{median:.1f} ({low:.1f} to {high:.1f})"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmarks.projection", description=__doc__)
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--features", type=int, default=4096)
    parser.add_argument("--classes", type=int, default=32_000)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--rounds", type=int, default=3)
    return parser


if __name__ == "__main__":
    sys.exit(main())
