"""The run: all processes at once, the cases one after another, round by round."""

import sys
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from math import ceil
from statistics import median
from typing import Any, Self

from benchmarks.cases import DRIVERS, SERVERS, Case
from benchmarks.processes import Driver, Server

_MIB = 1 << 20
_WARM_CALLS = 1
_SETTLING_CALLS = 4
"""Calls before the first round: the heap takes a few to settle."""


def print_progress(text: str) -> None:
    """Print the progress."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


class Processes:
    """The processes of a run, each started when it is first needed."""

    def __init__(self, server_options: Iterable[str]) -> None:
        """Store the options of the Losswire server that the table does not have."""
        self._server_options = tuple(server_options)
        self._stack = ExitStack()
        self._servers: dict[str, Server] = {}
        self._drivers: dict[str, Driver] = {}

    def start(self, cases: Iterable[Case]) -> None:
        """Start what some cases need; servers all at once, then their clients."""
        wanted = list(cases)
        for case in wanted:
            for name in self._servers_of(case):
                if name not in self._servers:
                    options = self._server_options if name.startswith("losswire") else ()
                    server = Server(*SERVERS[name], *options)
                    self._servers[name] = self._stack.enter_context(server)
        for case in wanted:
            key = self._driver_key(case)
            if key not in self._drivers:
                addresses = [self._servers[name].address for name in self._servers_of(case)]
                driver = Driver(*DRIVERS[case.driver], *addresses)
                self._drivers[key] = self._stack.enter_context(driver)

    def driver(self, case: Case) -> Driver:
        """Return the client process of a case."""
        return self._drivers[self._driver_key(case)]

    def server(self, case: Case) -> Server | None:
        """Return the server process of a case, where it has one."""
        return None if case.server is None else self._servers[case.server]

    def cpu_seconds(self, case: Case) -> float:
        """Return the CPU time that both have used."""
        server = self.server(case)
        return self.driver(case).cpu_seconds + (server.cpu_seconds if server else 0.0)

    @staticmethod
    def _servers_of(case: Case) -> list[str]:
        """Name the servers whose addresses its client takes."""
        if case.driver.startswith("echo"):
            kept = case.driver.removeprefix("echo")
            return [f"echo sync{kept}", f"echo aio{kept}"]
        return [] if case.server is None else [case.server]

    def _driver_key(self, case: Case) -> str:
        """Return a key that distinguishes clients of one program that call different servers."""
        return " ".join([case.driver, *self._servers_of(case)])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()


@dataclass(slots=True)
class Figures:
    """The measurements of one case."""

    case: Case
    status: str
    note: str
    calls: list[list[float]] = field(default_factory=list)
    """The seconds of each call, by round."""
    rates: list[float] = field(default_factory=list)
    """Evaluations a second, by round."""
    cpu_seconds: float = 0.0

    def summary(self) -> dict[str, Any]:
        """Return the entry of the results; times in seconds."""
        case = self.case
        found: dict[str, Any] = {
            "status": self.status,
            "note": self.note,
            "floor": case.floor,
            "rate": case.rate,
            "evaluations": case.spec.batch if case.spec.work == "many" else 1,
        }
        if self.status != "ok" or not self.calls:
            return found
        together = sorted(seconds for calls in self.calls for seconds in calls)
        rounds = [median(calls) for calls in self.calls]
        moved = case.bytes_moved * len(together)
        return found | {
            "p50": median(together),
            "p99": together[ceil(0.99 * len(together)) - 1],
            "p99s": [_p99(calls) for calls in self.calls],
            "calls": len(together),
            "rounds": rounds,
            "median": median(rounds),
            "low": min(rounds),
            "high": max(rounds),
            "rates": self.rates,
            "per_second": median(self.rates),
            "cpu_seconds_per_gb": self.cpu_seconds / (moved / 1e9),
        }


def _p99(calls: list[float]) -> float:
    return sorted(calls)[ceil(0.99 * len(calls)) - 1]


def measure(processes: Processes, cases: list[Case], rounds: int) -> dict[str, Figures]:
    """Check each case, then measure all of them in each round."""
    print_progress(f"starting the processes of {len(cases)} cases")
    processes.start(cases)
    figures = {case.name: _open(processes, case) for case in cases}
    for number in range(rounds):
        print_progress(f"round {number + 1} of {rounds}")
        # There and back, so that no case always comes after the same one.
        for case in cases if number % 2 == 0 else reversed(cases):
            if figures[case.name].status == "ok":
                _round(processes, figures[case.name])
    return figures


def _open(processes: Processes, case: Case) -> Figures:
    driver = processes.driver(case)
    answer = driver.open(case.name, case.spec)
    figures = Figures(case, answer["status"], answer["note"])
    print_progress(f"  {case.name}: {figures.status}, {figures.note}")
    if figures.status == "ok":
        driver.run(case.name, min(case.repeats, _SETTLING_CALLS))
    return figures


def _round(processes: Processes, figures: Figures) -> None:
    case = figures.case
    driver = processes.driver(case)
    driver.run(case.name, _WARM_CALLS)
    before = processes.cpu_seconds(case)
    answer = driver.run(case.name, case.repeats)
    if answer["status"] != "ok":
        figures.status, figures.note = answer["status"], answer["note"]
        print_progress(f"  {case.name}: {figures.status}, {figures.note}")
        return
    figures.cpu_seconds += processes.cpu_seconds(case) - before
    figures.calls.append(answer["calls"])
    evaluations = len(answer["calls"]) * case.spec.batch
    figures.rates.append(evaluations / answer["total"])


def measure_memory(
    cases: list[Case], baseline: Case, server_options: Iterable[str]
) -> dict[str, Mapping[str, Any]]:
    """Return how much each case makes a fresh server grow beyond its size after a small call."""
    found: dict[str, Mapping[str, Any]] = {}
    for case in cases:
        print_progress(f"memory: {case.name}")
        with Processes(server_options) as processes:
            processes.start([case])
            driver, server = processes.driver(case), processes.server(case)
            driver.open("baseline", baseline.spec)
            if server is None:
                continue
            before = server.resident_bytes
            server.reset_peak()
            answer = driver.open(case.name, case.spec)
            growth = (server.peak_bytes - before) / _MIB
            print_progress(
                f"  {answer['status']}, {answer['note']}; the server grew by {growth:.0f} MiB"
            )
            found[case.name] = {
                "status": answer["status"],
                "note": answer["note"],
                "bytes_moved": case.bytes_moved,
                **({"growth_mib": growth} if answer["status"] == "ok" else {}),
            }
    return found
