"""The store itself: tenants, races, migrations, and databases that fail."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, event

from losswire.server.errors import (
    DamagedStoreError,
    FullStoreError,
    LosswireServerError,
    MissingRunError,
    OtherRunError,
)
from losswire.server.runs.address import StoreAddress, parse_store
from losswire.server.runs.content import row_of
from losswire.server.runs.schema import METADATA
from losswire.server.runs.store import Filters, Row, RunStore, StoreOpenError
from tests.support.runs import run

EVERYTHING = Filters(loss="", name="", labels={})
WRITERS = 8
ROUNDS = 10


def _together(count: int, work: Callable[[int], Any]) -> list[Any]:
    """Call a function in several threads at the same moment; returns results or exceptions."""
    barrier = threading.Barrier(count)

    def one(number: int) -> Any:  # noqa: ANN401 (any result)
        barrier.wait()
        try:
            return work(number)
        except LosswireServerError as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def _save(stores: Sequence[RunStore], rows: Sequence[Row], number: int) -> tuple[bytes, bool]:
    return stores[number].save("", rows[number])


def _ids(store: RunStore, tenant: str = "") -> Sequence[bytes]:
    return store.list(tenant, EVERYTHING, None, 1000, 1 << 30).listings


def test_tenants_see_their_own_runs(address: StoreAddress) -> None:
    """The same id can be two tenants' runs; lists, reads and deletions are of one tenant."""
    store = RunStore(address)
    for tenant in ("a", "b"):
        assert store.save(tenant, row_of(run("same", labels={"of": tenant}), tenant))[1]
    of_b = Filters(loss="", name="", labels={"of": "b"})
    assert store.list("a", of_b, None, 10, 1 << 20).listings == []
    assert len(store.list("b", of_b, None, 10, 1 << 20).listings) == 1
    assert len(_ids(store, "a")) == 1
    assert store.delete("a", "same")
    assert len(_ids(store, "b")) == 1
    with pytest.raises(MissingRunError):
        store.get("a", "same")
    store.close()


def test_eight_writers_of_one_run_keep_it_once(address: StoreAddress) -> None:
    """Each in a process of its own, as far as the database can tell; one says that it kept it."""
    stores = [RunStore(address) for _ in range(WRITERS)]
    for number in range(ROUNDS):
        row = row_of(run(f"run-{number}", labels={"a": "b"}), "")
        found = _together(WRITERS, partial(_save, stores, [row] * WRITERS))
        assert sorted(created for _, created in found) == [False] * (WRITERS - 1) + [True]
        assert {listing for listing, _ in found} == {row.listing}
    assert len(_ids(stores[0])) == ROUNDS
    for each in stores:
        each.close()


def test_of_eight_runs_with_one_id_one_is_kept(address: StoreAddress) -> None:
    """The others are told; what is kept is one of them, whole."""
    stores = [RunStore(address) for _ in range(WRITERS)]
    for number in range(ROUNDS):
        rows = [row_of(run(f"run-{number}", name=str(each)), "") for each in range(WRITERS)]
        found = _together(WRITERS, partial(_save, stores, rows))
        [winner] = [each for each, one in enumerate(found) if not isinstance(one, Exception)]
        assert {type(one) for each, one in enumerate(found) if each != winner} == {OtherRunError}
        assert stores[0].get("", f"run-{number}") == (rows[winner].listing, rows[winner].detail)
    for each in stores:
        each.close()


def test_eight_writers_of_other_runs_keep_all(address: StoreAddress) -> None:
    """None waits in vain, and none is lost."""
    stores = [RunStore(address) for _ in range(WRITERS)]

    def write(number: int) -> None:
        for each in range(ROUNDS):
            row = row_of(run(f"run-{number}-{each}", labels={"writer": str(number)}), "")
            assert stores[number].save("", row)[1]

    assert _together(WRITERS, write) == [None] * WRITERS
    assert len(_ids(stores[0])) == WRITERS * ROUNDS
    for number in range(WRITERS):
        own = Filters(loss="", name="", labels={"writer": str(number)})
        assert len(stores[0].list("", own, None, 1000, 1 << 30).listings) == ROUNDS
    for each in stores:
        each.close()


def test_many_servers_may_start_at_once(address: StoreAddress) -> None:
    """Each sets the empty database up, or finds it set up; none fails."""
    stores = [RunStore(address) for _ in range(WRITERS)]
    assert _together(WRITERS, lambda each: stores[each].open()) == [None] * WRITERS
    for each in stores:
        each.close()


def test_migrations_make_the_tables_of_the_schema(address: StoreAddress) -> None:
    """Nothing is left to migrate; run again, they change nothing."""
    for _ in range(2):
        store = RunStore(address)
        store.open()
        store.close()
    engine = sqlalchemy.create_engine(address.url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, METADATA) == []
        assert context.get_current_heads() == ("0001",)
    engine.dispose()


def test_a_newer_database_is_not_touched(address: StoreAddress) -> None:
    """A version that does not know a migration says so, and leaves the database alone."""
    store = RunStore(address)
    store.save("", row_of(run(), ""))
    store.close()
    engine = sqlalchemy.create_engine(address.url)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    old = RunStore(address)
    with pytest.raises(StoreOpenError, match="9999"):
        old.open()
    old.close()
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM runs").scalar() == 1
    engine.dispose()


def test_a_full_disk_is_said_and_nothing_is_half_kept(tmp_path: Path) -> None:
    """SQLite's own limit stands in for the disk; once there is room, the run is kept."""
    address = parse_store(str(tmp_path))
    assert address is not None
    store = RunStore(address)
    store.save("", row_of(run("small"), ""))
    store.close()

    def limit(connection: Any, _: object) -> None:  # noqa: ANN401 (the driver's)
        connection.execute("PRAGMA max_page_count = 40")

    large = run("large")
    large.summary.total.clusters.SetInParent()
    for number in range(50_000):
        large.summary.total.clusters.open.add(number=number * 7919, sums=[number / 7, 1.0])
    row = row_of(large, "")
    event.listen(Engine, "connect", limit)
    try:
        with pytest.raises(FullStoreError):
            store.save("", row)
        assert len(_ids(store)) == 1
        store.close()
    finally:
        event.remove(Engine, "connect", limit)
    assert store.save("", row)[1]
    store.close()


@pytest.mark.parametrize("where", ["header", "pages"])
def test_a_damaged_file_is_said(tmp_path: Path, where: str) -> None:
    """A file that is no database cannot be opened; one with damaged pages says so in its calls."""
    address = parse_store(str(tmp_path))
    assert address is not None
    store = RunStore(address)
    for number in range(50):
        store.save("", row_of(run(f"run-{number}", labels={"a": "b" * 1000}), ""))
    store.close()
    file = tmp_path / "runs.db"
    data = bytearray(file.read_bytes())
    begin = 0 if where == "header" else 8192
    data[begin : begin + 40_000] = b"\xa5" * 40_000
    file.write_bytes(data)
    if where == "header":
        with pytest.raises(StoreOpenError, match="not a database"):
            RunStore(address).open()
        return
    with pytest.raises(DamagedStoreError):
        _ids(store)
    store.close()
