"""A PostgreSQL server for the tests: a cluster of its own, in a folder of its own.

Debian's package `postgresql` has the programs; the tests that need them are skipped where they are
missing, unless LOSSWIRE_REQUIRE_POSTGRESQL is set.
"""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import psycopg
import pytest

PASSWORD = "pass:word/%40"  # noqa: S105 (of a cluster that lives as long as the tests)
"""The password of the cluster, in which a URL has to quote characters."""

_QUOTED = "pass%3Aword%2F%2540"
_REQUIRED = os.environ.get("LOSSWIRE_REQUIRE_POSTGRESQL", "0") not in ("", "0")


def _programs() -> Path | None:
    """Return the folder of initdb; Debian keeps it out of PATH."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((each for each in folders if (each / "pg_ctl").exists()), None)


@dataclass
class Cluster:
    """A running server."""

    programs: Path
    data: Path
    port: int
    user: str | None
    """The user that runs it; None: the one of the tests."""
    _numbers: "count[int]"

    def url(self, database: str) -> str:
        """Return the URL of a database, with the password."""
        return f"postgresql+psycopg://losswire:{_QUOTED}@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """Create an empty database and return its name."""
        name = f"runs_{next(self._numbers)}"
        self.execute(f'CREATE DATABASE "{name}"')
        return name

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run one statement, and return its rows."""
        with psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user="losswire",
            password=PASSWORD,
            dbname=database,
            autocommit=True,
        ) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def start(self) -> None:
        """Start it and wait until it accepts connections."""
        options = f"-p {self.port} -k {self.data} -c listen_addresses=127.0.0.1 -c fsync=off"
        self.run(
            "pg_ctl", "-D", str(self.data), "-w", "-l", f"{self.data}/log", "-o", options, "start"
        )

    def stop(self) -> None:
        """End all connections and stop it."""
        self.run("pg_ctl", "-D", str(self.data), "-w", "-m", "immediate", "stop")

    def run(self, program: str, *arguments: str) -> None:
        """Run one of PostgreSQL's programs."""
        ran = subprocess.run(
            [self.programs / program, *arguments],
            user=self.user,
            cwd=self.data.parent,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        assert ran.returncode == 0, f"{program} ended with {ran.returncode}"


@contextlib.contextmanager
def running_cluster() -> Iterator[Cluster]:
    """Start a cluster; skips the test where there is no PostgreSQL."""
    programs = _programs()
    if programs is None:
        message = "PostgreSQL is not installed (Debian: apt-get install postgresql)"
        if _REQUIRED:
            pytest.fail(message)
        pytest.skip(message)
    # PostgreSQL refuses to run as root, and pytest's own folders are for root alone.
    user = _other_user() if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="losswire-postgres-") as folder:
        secret = Path(folder) / "password"
        secret.write_text(PASSWORD, encoding="utf-8")
        if user:
            for each in (Path(folder), secret):
                shutil.chown(each, user)
        cluster = Cluster(programs, Path(folder) / "data", _free_port(), user, count(1))
        cluster.run(
            "initdb",
            *("-D", str(cluster.data), "-U", "losswire", "-A", "scram-sha-256"),
            *(f"--pwfile={secret}", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"),
        )
        cluster.start()
        try:
            yield cluster
        finally:
            cluster.stop()


def _other_user() -> str:
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    pytest.fail("there is no user but root to run PostgreSQL")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
    return port
