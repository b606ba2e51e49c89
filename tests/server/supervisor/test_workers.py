"""A server of several workers, as its operator and its callers see it."""

import json
import os
import resource
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from losswire.client import Client
from losswire.server.cli import main
from tests.support.doors import Doors
from tests.support.harness import path_with
from tests.support.vitals import family, wait_until
from tests.support.workers import Workers

_CALLS = 20
_BUDGET = ("--memory-budget-mib", "512")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    """Two workers with all addresses."""
    log = tmp_path_factory.mktemp("server") / "log"
    store = str(log.parent / "runs")
    doors = ("--http", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--store", store)
    with Workers(log, *_BUDGET, *doors) as workers:
        yield workers


@pytest.fixture(scope="module")
def doors(server: Workers) -> Doors:
    """The addresses that the supervisor printed."""
    http, metrics = server.read_line(), server.read_line()
    return Doors(
        server.address,
        http.removeprefix("http on "),
        metrics.removeprefix("metrics on "),
        server.process.pid,
    )


def _evaluate(address: str) -> None:
    """Evaluate over a new connection."""
    with Client(address) as client:
        assert float(client.evaluate("mse_loss", {"input": [2.0], "target": [0.0]}).loss) == 4.0


def test_live_shows_all_workers(doors: Doors) -> None:
    """Whichever worker is asked, the counts are those of all of them together."""
    before = doors.get("/v1/live")
    assert len(before["workers"]) == 2
    assert len({each["id"] for each in before["workers"]}) == 2
    assert before["ready"] is True
    assert before["budget_bytes"] == 512 << 20
    for _ in range(_CALLS):
        _evaluate(doors.grpc)
    for _ in range(4):
        after: Any = doors.get("/v1/live")
        assert after["worker_id"] == before["worker_id"]
        assert after["calls_started"] - before["calls_started"] >= _CALLS


def test_metrics_name_the_workers(doors: Doors) -> None:
    """Each series has the label `worker`, and both workers are there."""
    samples = doors.samples()
    assert samples.labels("losswire_ready", "worker") == {"0", "1"}
    assert samples.of("losswire_ready") == 2
    assert samples.labels("process_resident_memory_bytes", "worker") == {"0", "1"}
    started = samples.of("grpc_server_call_started_total")
    _evaluate(doors.grpc)
    assert doors.samples().of("grpc_server_call_started_total") > started


def test_both_workers_are_reached(doors: Doors) -> None:
    """Connections are spread over the workers, whose ids differ."""
    found = set()

    def reached_both() -> bool:
        with Client(doors.grpc) as client:
            found.add(client.server_info().worker_id)
        return len(found) == 2

    wait_until(reached_both)


def test_a_run_that_one_worker_keeps_is_there_for_all(doors: Doors) -> None:
    """The store of runs is one, whichever worker is asked."""
    with Client(doors.grpc) as client:
        rows = {"input": [2.0, 1.0], "target": [0.0, 1.0]}
        summary = client.summarize("mse_loss", rows)
        run = client.runs.save(summary, name="shared")
    for _ in range(8):
        assert run.run_id in json.dumps(doors.get("/v1/runs"))


def test_a_hangup_changes_nothing(server: Workers) -> None:
    """SIGHUP, which a terminal sends when it closes, is not the end."""
    server.process.send_signal(signal.SIGHUP)
    _evaluate(server.address)
    assert server.alive


def test_the_second_interrupt_ends_all_at_once(tmp_path: Path) -> None:
    """SIGINT drains; another one kills the workers, with status 130."""
    with Workers(tmp_path / "log", "--notice-seconds", "600") as server:
        server.wait_for_spare()
        processes = family(server.process.pid)[1:]
        server.process.send_signal(signal.SIGINT)
        # The spare goes first: then the rest drains.
        wait_until(lambda: len(family(server.process.pid)) == 3)
        server.process.send_signal(signal.SIGINT)
        assert server.wait() == 130
    assert not any(Path(f"/proc/{each}").exists() for each in processes)


def _folder_of(process: int) -> Path:
    """Return the private folder of a process, which holds the file that it has locked."""
    open_files = [each.readlink() for each in Path(f"/proc/{process}/fd").iterdir()]
    [lock] = [each for each in open_files if each.name == "lock"]
    return lock.parent


def test_the_folder_of_a_supervisor_may_be_removed(tmp_path: Path) -> None:
    """What clears /tmp takes the folder of the workers: they are replaced all the same."""
    with Workers(tmp_path / "log", *_BUDGET) as server:
        server.wait_for_spare()
        folder = _folder_of(server.process.pid)
        shutil.rmtree(folder)
        for place in range(2):
            server.strike(place)
            _evaluate(server.address)
        assert folder.is_dir()
    assert not folder.exists()


def test_a_worker_is_replaced_once_a_process_can_be_started(tmp_path: Path) -> None:
    """A system that starts no process, here for lack of descriptors, ends no server."""
    with Workers(tmp_path / "log", *_BUDGET) as server:
        server.wait_for_spare()
        limits = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (0, limits[1]))
        server.strike(0)
        struck = server.serving()[1]
        os.kill(struck, signal.SIGKILL)
        wait_until(lambda: "no process can be started" in server.log.read_text("utf-8"))
        _evaluate(server.address)
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, limits)
        wait_until(lambda: server.serving()[1] != struck)
        server.wait_for_spare()
        assert "Traceback" not in server.log.read_text("utf-8")


def _workers_of(server: Workers) -> set[int]:
    """Return the worker processes, the spare among them, without those that have ended."""
    found = {*family(server.process.pid)} - {server.process.pid}
    return {each for each in found if (Path("/proc") / str(each) / "cmdline").read_bytes()}


def test_a_spare_that_ends_is_replaced(tmp_path: Path) -> None:
    """Otherwise the next worker that ends would be replaced by a process that has to load first."""
    with Workers(tmp_path / "log", *_BUDGET) as server:
        server.wait_for_spare()
        [spare] = _workers_of(server) - {*server.serving().values()}
        os.kill(spare, signal.SIGKILL)
        wait_until(lambda: bool(_workers_of(server) - {*server.serving().values(), spare}))
        server.wait_for_spare()
        server.strike(0)
        _evaluate(server.address)


_CHATTY = """
import os, sys, threading, time
from pathlib import Path

def write():
    mark = Path(os.environ["MARK"])
    while True:
        time.sleep(0.1)
        try:
            mark.rename(f"{mark}.taken")
        except OSError:
            continue
        os.write(int(sys.argv[1]), b"nonsense\\n")

if "supervisor" in sys.argv[0]:
    threading.Thread(target=write, daemon=True).start()
"""


def test_a_worker_that_writes_nonsense_is_replaced(tmp_path: Path) -> None:
    """It harms neither the supervisor nor the other worker."""
    (tmp_path / "chatty.py").write_text(_CHATTY)
    environment = {"PYTHONPATH": path_with(tmp_path), "MARK": str(tmp_path / "mark")}
    arguments = (*_BUDGET, "--losses", "chatty")
    with Workers(tmp_path / "log", *arguments, environment=environment) as server:
        server.wait_for_spare()
        before = server.serving()
        (tmp_path / "mark").touch()
        wait_until(lambda: any(each != before[place] for place, each in server.serving().items()))
        _evaluate(server.address)
        assert "Traceback" not in server.log.read_text("utf-8")


_SERVE = ("serve", "--device", "cpu", "--store", "none", "--workers", "2", "--listen")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("unix:/nowhere/socket",), "several workers cannot share a unix socket"),
        (("127.0.0.1:0", "--losses", "no_such_module"), "--losses no_such_module: No module"),
        (("0.0.0.0:0",), "can be reached from other machines"),
        (("127.0.0.1:0", "--http", "nonsense"), "--http nonsense: expected HOST:PORT"),
        (("127.0.0.1:\u00b2",), "expected HOST:PORT"),
        (("a..b:0", "--allow-insecure"), "a..b is no name of a host"),
        (("no-such-host.invalid:0", "--allow-insecure"), "there is no host of this name"),
        (("127.0.0.1:0", "--memory-budget-mib", "15"), "each would have 7.5 MiB"),
    ],
)
def test_what_cannot_be_served_is_told_in_one_line(
    capfd: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    """Exit status 2 and one readable line, also when a worker found out."""
    assert main([*_SERVE, *arguments]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    [line] = [each for each in err.splitlines() if each.startswith("losswire-server: ")]
    assert said in line


def test_the_port_of_another_server_is_refused(
    server: Workers, capfd: pytest.CaptureFixture[str]
) -> None:
    """A second supervisor at the same port would take the first one's callers."""
    assert main([*_SERVE, server.address]) == 2
    assert "another program does already" in capfd.readouterr().err
