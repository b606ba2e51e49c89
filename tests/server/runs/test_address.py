"""What `--store` means, and what of it is ever shown."""

import os
import pwd
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from losswire.server.runs.address import StoreSettingError, default_store, parse_store

_SERVE = (sys.executable, "-m", "losswire.server", "serve", "--listen", "127.0.0.1:0")
SECRET = "geheim"  # noqa: S105 (it must not be shown)


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"XDG_STATE_HOME": "/state", "HOME": "/home/a"}, "/state/losswire"),
        ({"XDG_STATE_HOME": "", "HOME": "/home/a"}, "/home/a/.local/state/losswire"),
        ({"XDG_STATE_HOME": "relative", "HOME": "/home/a"}, "/home/a/.local/state/losswire"),
        ({}, f"{pwd.getpwuid(os.getuid()).pw_dir}/.local/state/losswire"),
    ],
)
def test_the_default_is_the_state_folder(environment: Mapping[str, str], folder: str) -> None:
    """As the XDG Base Directory Specification says; without HOME, the user's own home counts."""
    assert default_store(environment) == folder


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/var/lib/losswire", "sqlite:////var/lib/losswire/runs.db"),
        ("sqlite:////var/lib/a.sqlite", "sqlite:////var/lib/a.sqlite"),
        (f"postgresql+psycopg://me:{SECRET}@db:5433/runs", "postgresql://db:5433/runs"),
        (f"postgresql://me@db/runs?password={SECRET}", "postgresql://db/runs"),
        ("postgresql:///runs?host=/var/run/postgresql", "postgresql:///runs"),
    ],
)
def test_an_address_is_shown_without_user_and_password(text: str, shown: str) -> None:
    """Logs name the place, and nothing that opens it."""
    address = parse_store(text)
    assert address is not None
    assert address.text == shown


def test_a_folder_is_taken_from_the_current_one() -> None:
    """A relative path means the same for the whole life of the server."""
    address = parse_store("state")
    assert address is not None
    assert address.file == Path.cwd() / "state" / "runs.db"


def test_none_keeps_nothing() -> None:
    """There is no address then."""
    assert parse_store("none") is None


WRONG = {
    "": "empty",
    " ": "empty",
    f"mysql://me:{SECRET}@db/runs": "no store of the kind mysql",
    f"postgresql+asyncpg://me:{SECRET}@db/runs": "no store of the kind postgresql+asyncpg",
    f"postgresql://me:{SECRET}@db:port/runs": "cannot be read",
    f"://{SECRET}": "cannot be read",
    f"postgresql://me:{SECRET}@db": "names no database",
    "sqlite://": "names no file",
    "sqlite:///:memory:": "names no file",
    "sqlite:////a?mode=ro": "neither host nor parameters",
    "sqlite://host/a": "neither host nor parameters",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_setting_that_cannot_work_is_refused(text: str) -> None:
    """With a text that says why, and never with the password."""
    with pytest.raises(StoreSettingError, match=re.escape(WRONG[text])) as refused:
        parse_store(text)
    assert SECRET not in str(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__ or refused.value.__context__ is None


def test_the_program_refuses_it_with_status_2(tmp_path: Path) -> None:
    """A line on standard error, no traceback and no password."""
    ran = subprocess.run(
        [*_SERVE, "--store", f"mysql://me:{SECRET}@db/runs"],
        env={**os.environ, "XDG_STATE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 2
    [line] = [each for each in ran.stderr.splitlines() if not each.startswith("{")]  # of the log
    assert line.startswith("losswire-server: --store: there is no store of the kind mysql")
    assert SECRET not in ran.stderr + ran.stdout
    assert list(tmp_path.iterdir()) == []


def test_psycopg_is_needed_for_postgresql_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra the text says what to install; SQLite works."""
    monkeypatch.setattr("losswire.server.runs.address.find_spec", lambda _: None)
    with pytest.raises(StoreSettingError, match=r"losswire-server\[postgresql\]"):
        parse_store("postgresql://db/runs")
    assert parse_store("/state") is not None
