"""deploy/systemd: the unit is one that systemd takes, and fits the server."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from losswire.server.configuration.sources import Found
from losswire.server.supervisor.thresholds import ENDING_SECONDS
from tests.support.process import assert_accepted

SYSTEMD = Path(__file__).resolve().parents[2] / "deploy/systemd"
UNIT = SYSTEMD / "losswire.service"
TOML = SYSTEMD / "losswire.toml"
INSTALLED = "/opt/losswire/bin/losswire-server"
MOST_EXPOSED = 20
"""A tenth of what `systemd-analyze security` gives at most for exposure: 2.0 of 10."""


def service() -> dict[str, list[str]]:
    """Return the values of each key of the unit's section Service."""
    text = UNIT.read_text("utf-8").partition("[Service]")[2].partition("[Install]")[0]
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE):
        found.setdefault(name, []).append(value)
    return found


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with the server of this environment, as verifying needs one that is there."""
    path = tmp_path / UNIT.name
    server = Path(sys.executable).with_name("losswire-server")
    path.write_text(UNIT.read_text("utf-8").replace(INSTALLED, str(server)), "utf-8")
    return path


@pytest.mark.parametrize(
    "arguments",
    [("verify",), ("security", "--offline=yes", f"--threshold={MOST_EXPOSED}")],
    ids=lambda arguments: arguments[0],
)
def test_systemd_accepts_the_unit(unit: Path, arguments: tuple[str, ...]) -> None:
    """It says nothing of it, and finds it hardened."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("needs systemd")
    ran = subprocess.run(
        [analyze, "--no-pager", *arguments, str(unit)], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert arguments[0] != "verify" or ran.stdout + ran.stderr == ""


def test_the_server_accepts_the_settings() -> None:
    """Those of the file that the unit names, as it starts the server."""
    [command] = service()["ExecStart"]
    assert command == f"{INSTALLED} serve --config /etc/losswire/losswire.toml"
    assert_accepted(TOML)


def test_the_server_is_not_killed_while_it_drains() -> None:
    """And not started again with settings that it refused."""
    found = Found({}, str(TOML)).configuration
    [seconds] = service()["TimeoutStopSec"]
    assert int(seconds) >= found.notice_seconds + found.drain_seconds + ENDING_SECONDS
    assert service()["RestartPreventExitStatus"] == ["2"]


def test_runs_are_kept_where_the_unit_may_write() -> None:
    """The state folder of systemd is that of the server's default."""
    [variables] = service()["Environment"]
    [folder] = service()["StateDirectory"]
    assert "XDG_STATE_HOME=/var/lib" in variables.split()
    assert folder == "losswire"
    assert "store" not in TOML.read_text("utf-8")


def test_the_group_of_secrets_is_made() -> None:
    """By systemd-sysusers, under the name that the unit has."""
    [group] = service()["SupplementaryGroups"]
    lines = (SYSTEMD / "losswire.sysusers.conf").read_text("utf-8").splitlines()
    assert f"g {group} -" in lines
