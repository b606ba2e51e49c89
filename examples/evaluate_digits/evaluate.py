"""Compares two models of the digits, writes a report, keeps the run and asks the gate.

Reads predictions.parquet, which train.py writes. Runs a server beside it for as long as it takes,
which keeps its runs in the folder `runs`. The exit status is the gate's: 1 if the candidate is
worse than it may be.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from losswire.client import Client

FOLDER = Path(__file__).parent
ALLOWED_INCREASE = 0.02


@contextmanager
def running_server() -> Iterator[str]:
    """Run a server on a free port for as long as the block lasts; yields its HOST:PORT."""
    command = [sys.executable, "-m", "losswire.server", "serve", "--listen", "127.0.0.1:0"]
    command += ["--store", str(FOLDER / "runs"), "--log-level", "warning"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:  # noqa: S603 (fixed arguments)
        try:
            line = server.stdout.readline() if server.stdout else ""
            yield line.strip().rpartition(" ")[2]
        finally:
            server.terminate()


def main() -> int:
    """Compare, report, keep, and return the gate's exit status."""
    predictions = FOLDER / "predictions.parquet"
    if not predictions.exists():
        sys.exit(f"{predictions} is missing: run train.py first")
    with running_server() as address, Client(address) as client:
        comparison = client.compare(
            "cross_entropy",
            predictions,
            columns={"target": "class"},
            candidates={
                "small": {"input": "logits_small"},
                "large": {"input": "logits_large"},
            },
            slices=["class"],
            ids="id",
        )
        difference = comparison.difference("large", "small")
        print(difference.verdict)
        print(f"\n{'class':8}{'small':>8}{'large':>8}  difference (95 % interval)")
        for label, each in difference.slices["class"].items():
            means = [comparison[name].slices["class"][label].mean for name in ("small", "large")]
            low, high = each.interval(0.95)
            print(
                f"{label:8}{means[0]:8.3f}{means[1]:8.3f}"
                f"{each.mean:10.3f} ({low:.3f} to {high:.3f})"
            )
        print("\ndigits that differ most:", [row.id for row in difference.worst[:5]])
        comparison.report(FOLDER / "report.html")
        run = client.runs.save(comparison, name="digits", labels={"data": "uci-digits"})
        print(f"report in report.html, run {run.run_id} kept\n")
        gate = [sys.executable, "-m", "losswire.client.cli", "gate", "--server", address]
        gate += ["--comparison", run.run_id, "--baseline", "small", "--candidate", "large"]
        gate += ["--max-increase", str(ALLOWED_INCREASE), "--slice", "class"]
        return subprocess.run(gate, check=False).returncode  # noqa: S603 (fixed arguments)


if __name__ == "__main__":
    sys.exit(main())
