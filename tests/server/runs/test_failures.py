"""Servers whose store fails: killed in mid-save, without a database, without a folder."""

import contextlib
import random
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from losswire.v1 import loss_service_pb2, run_service_pb2
from tests.support.harness import Child
from tests.support.postgres import PASSWORD, Cluster
from tests.support.requests import GOLDEN, TIMEOUT, by_call, is_golden, item_status, trailing
from tests.support.requests import Stub as LossStub
from tests.support.runs import RunStub, code_of, get, reason_of, run, save

WRITERS = 8
RUNS = 40
KILLS = 3


def _large(run_id: str) -> run_service_pb2.Run:
    """Return a run whose parts are on many pages of a file."""
    message = run(run_id, labels={"key": "x" * 1024, "other": "y" * 1024})
    numbers = random.Random(run_id)  # noqa: S311 (not a secret)
    message.summary.total.clusters.SetInParent()
    for number in range(2_000):
        message.summary.total.clusters.open.add(number=number, sums=[numbers.random(), 1.0])
    return message


def _kept(stub: RunStub, run_id: str) -> run_service_pb2.Run | None:
    try:
        return get(stub, run_id)
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.NOT_FOUND:
            raise
        return None


def _save_until_killed(child: Child, batch: int, *, after: int) -> set[str]:
    """Save runs in several threads; kill the server once some are kept. Returns those kept."""
    kept: set[str] = set()
    enough = threading.Event()

    def write(stub: RunStub, number: int) -> None:
        run_id = f"run-{batch}-{number}"
        with contextlib.suppress(grpc.RpcError):
            assert save(stub, _large(run_id)).created
            kept.add(run_id)
            if len(kept) >= after:
                enough.set()

    with child.channel() as channel, ThreadPoolExecutor(WRITERS) as pool:
        stub = RunStub(channel)
        futures = [pool.submit(write, stub, number) for number in range(RUNS)]
        assert enough.wait(TIMEOUT)
        child.process.kill()
        for each in futures:
            each.result(TIMEOUT)
    assert after <= len(kept) < RUNS, "the server was not killed in mid-save"
    return kept


def test_a_kill_in_mid_save_loses_no_run_and_halves_none(store: str, tmp_path: Path) -> None:
    """What was acknowledged is kept; of the rest each is whole or absent, and saved on retry."""
    for batch in range(KILLS):
        killed = Child(tmp_path / "log", "--store", store)
        kept = _save_until_killed(killed, batch, after=3 + 5 * batch)
        killed.wait()
        with Child(tmp_path / "log", "--store", store) as child, child.channel() as channel:
            stub = RunStub(channel)
            for number in range(RUNS):
                run_id = f"run-{batch}-{number}"
                found, sent = _kept(stub, run_id), _large(run_id)
                assert found is not None or run_id not in kept
                assert found is None or found.summary == sent.summary
                assert save(stub, sent).created is (found is None)
            request = run_service_pb2.ListRunsRequest(page_size=1000)
            listed = [each.run_id for each in stub.ListRuns(request, timeout=TIMEOUT).runs]
            assert len(listed) == len(set(listed)) == RUNS * (batch + 1)


def test_two_servers_share_a_store(store: str, tmp_path: Path) -> None:
    """Started at once on an empty store; each sees what the other saved, in one order."""
    with ThreadPoolExecutor(2) as pool:
        children = list(
            pool.map(lambda each: Child(tmp_path / f"log{each}", "--store", store), range(2))
        )
    with contextlib.ExitStack() as stack:
        for each in children:
            stack.enter_context(each)
        stubs = [RunStub(stack.enter_context(each.channel())) for each in children]
        for number in range(10):
            save(stubs[number % 2], run(f"run-{number}"))
        assert not save(stubs[1], run("run-0")).created
        pages = [
            each.ListRuns(run_service_pb2.ListRunsRequest(page_size=6), timeout=TIMEOUT)
            for each in stubs
        ]
        rest = stubs[1].ListRuns(
            run_service_pb2.ListRunsRequest(page_token=pages[0].next_page_token), timeout=TIMEOUT
        )
        assert pages[0] == pages[1]
        found = [each.run_id for each in (*pages[0].runs, *rest.runs)]
        assert found == [f"run-{number}" for number in range(9, -1, -1)]


def test_a_database_that_goes_away_is_unavailable_until_it_is_back(
    cluster: Cluster, new_store: Callable[[str], str], tmp_path: Path
) -> None:
    """UNAVAILABLE with a hint when to come back; losses are served; no restart is needed."""
    store = new_store("postgresql")
    with Child(tmp_path / "log", "--store", store) as child, child.channel() as channel:
        stub = RunStub(channel)
        save(stub, run("before"))
        cluster.stop()
        try:
            for _ in range(6):  # more than there are connections
                with pytest.raises(grpc.RpcError) as refused:
                    save(stub, run("after"))
                assert code_of(refused) is grpc.StatusCode.UNAVAILABLE
                assert reason_of(refused) == "STORE_UNAVAILABLE"
                assert trailing(refused.value)["grpc-retry-pushback-ms"] == "1000"
            assert is_golden(by_call(LossStub(channel), GOLDEN).result)
        finally:
            cluster.start()
        assert save(stub, run("after")).created
        assert get(stub, "before").run_id == "before"
    log = (tmp_path / "log").read_text("utf-8")
    assert "the store of runs failed" in log
    assert PASSWORD not in log


def test_a_server_starts_without_its_database(
    cluster: Cluster, new_store: Callable[[str], str], tmp_path: Path
) -> None:
    """It warns, serves losses, and keeps runs as soon as the database is there."""
    store = new_store("postgresql")
    cluster.stop()
    try:
        child = Child(tmp_path / "log", "--store", store)
    finally:
        cluster.start()
    with child, child.channel() as channel:
        warnings = [each for each in child.entries() if each["level"] == "warning"]
        assert "runs are not kept yet" in warnings[0]["message"]
        request = run_service_pb2.SaveRunRequest(run=run())
        stub = RunStub(channel)
        for _ in range(50):
            with contextlib.suppress(grpc.RpcError):
                stub.SaveRun(request, timeout=TIMEOUT)
                break
            threading.Event().wait(0.1)
        assert get(stub, "run-1").run_id == "run-1"


def test_a_wrong_password_is_a_warning_without_it(cluster: Cluster, tmp_path: Path) -> None:
    """The log says that it was refused, and not what it was."""
    url = cluster.url("postgres").replace("pass%3A", "secret%3A")
    with Child(tmp_path / "log", "--store", url) as child:
        [warning] = [each for each in child.entries() if each["level"] == "warning"]
    assert "password authentication failed" in warning["message"]
    assert "secret:" not in (tmp_path / "log").read_text("utf-8")


def _file_in_the_way(folder: Path) -> None:
    folder.parent.mkdir()
    folder.write_text("not a folder")


def _no_database(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "runs.db").write_bytes(b"not a database, and longer than a header of SQLite" * 100)


def _folder_for_the_file(folder: Path) -> None:
    (folder / "runs.db").mkdir(parents=True)


@pytest.mark.parametrize("prepare", [_file_in_the_way, _no_database, _folder_for_the_file])
@pytest.mark.parametrize("explicit", [True, False])
def test_a_folder_that_cannot_be_used_is_a_warning(
    tmp_path: Path, prepare: Callable[[Path], None], *, explicit: bool
) -> None:
    """The server starts, serves losses, and says how to keep runs."""
    state = tmp_path / "state"
    prepare(state / "losswire")
    arguments = ["--store", str(state / "losswire")] if explicit else []
    environment = {"XDG_STATE_HOME": str(state)}
    with (
        Child(tmp_path / "log", *arguments, environment=environment, store=None) as child,
        child.channel() as channel,
    ):
        with pytest.raises(grpc.RpcError) as refused:
            save(RunStub(channel), run())
        assert code_of(refused) is grpc.StatusCode.UNIMPLEMENTED
        assert "serve --store FOLDER" in item_status(refused.value).message
        assert str(state) not in item_status(refused.value).message
        assert is_golden(by_call(LossStub(channel), GOLDEN).result)
        [warning] = [each for each in child.entries() if each["level"] == "warning"]
        assert warning["message"].startswith(f"no runs are kept, sqlite:///{state}/losswire/")


def test_runs_are_kept_in_the_state_folder_by_default(tmp_path: Path) -> None:
    """And found there by the next server; no other user of the machine can read them."""
    environment = {"XDG_STATE_HOME": str(tmp_path)}
    for created in (True, False):
        with (
            Child(tmp_path / "log", environment=environment, store=None) as child,
            child.channel() as channel,
        ):
            assert save(RunStub(channel), run()).created is created
    files = [tmp_path / "losswire", *(tmp_path / "losswire").iterdir()]
    assert [each.name for each in files if each.stat().st_mode & 0o077] == []


def test_without_a_store_every_method_is_unimplemented(tmp_path: Path) -> None:
    """`--store none` writes no file."""
    requests = {
        "SaveRun": run_service_pb2.SaveRunRequest(run=run()),
        "GetRun": run_service_pb2.GetRunRequest(run_id="a"),
        "ListRuns": run_service_pb2.ListRunsRequest(),
        "DeleteRun": run_service_pb2.DeleteRunRequest(run_id="a"),
    }
    environment = {"XDG_STATE_HOME": str(tmp_path / "state")}
    with (
        Child(tmp_path / "log", "--store", "none", environment=environment) as child,
        child.channel() as channel,
    ):
        for method, request in requests.items():
            with pytest.raises(grpc.RpcError) as refused:
                getattr(RunStub(channel), method)(request, timeout=TIMEOUT)
            assert code_of(refused) is grpc.StatusCode.UNIMPLEMENTED
            assert reason_of(refused) == "NOT_SERVED"
    assert not (tmp_path / "state").exists()


def test_losses_are_served_while_the_database_is_locked(tmp_path: Path) -> None:
    """A save waits in its thread, not on the event loop, and succeeds once the lock is free."""
    with (
        Child(tmp_path / "log", "--store", str(tmp_path)) as child,
        child.channel() as channel,
        contextlib.closing(sqlite3.connect(tmp_path / "runs.db", isolation_level=None)) as other,
    ):
        other.execute("BEGIN IMMEDIATE")
        request = run_service_pb2.SaveRunRequest(run=run())
        saving = RunStub(channel).SaveRun.future(request, timeout=TIMEOUT)
        for _ in range(20):
            assert is_golden(by_call(LossStub(channel), GOLDEN).result)
        listed = RunStub(channel).ListRuns(run_service_pb2.ListRunsRequest(), timeout=TIMEOUT)
        assert not saving.done()
        assert list(listed.runs) == []
        other.execute("COMMIT")
        assert saving.result(TIMEOUT).created


def test_too_many_calls_that_wait_are_refused(tmp_path: Path) -> None:
    """RESOURCE_EXHAUSTED with a hint; those that wait are served, and other services are."""
    with (
        Child(tmp_path / "log", "--store", str(tmp_path)) as child,
        child.channel() as channel,
        contextlib.closing(sqlite3.connect(tmp_path / "runs.db", isolation_level=None)) as other,
    ):
        other.execute("BEGIN IMMEDIATE")
        stub = RunStub(channel)
        calls: list[Any] = [
            stub.SaveRun.future(
                run_service_pb2.SaveRunRequest(run=run(f"run-{number}")), timeout=TIMEOUT
            )
            for number in range(100)
        ]
        info = loss_service_pb2.GetServerInfoRequest()
        LossStub(channel).GetServerInfo(info, timeout=TIMEOUT)
        other.execute("COMMIT")
        codes = [each.code() for each in calls]
        assert codes.count(grpc.StatusCode.OK) >= 68
        refused = [each for each in calls if each.code() is not grpc.StatusCode.OK]
        assert {each.code() for each in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert {trailing(each)["grpc-retry-pushback-ms"] for each in refused} == {"1000"}
