"""A server with losses from packages of their own."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.process import running_server

ROOT = Path(__file__).resolve().parents[3]
PLUGIN = ROOT / "examples" / "plugin"


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plugin, built and installed into a folder of its own."""
    target = tmp_path_factory.mktemp("plugin")
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--no-index")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", *options]
    subprocess.run([*command, "--target", target, PLUGIN], check=True)
    return target


@pytest.fixture(scope="session")
def plugins(installed: Path) -> Iterator[str]:
    """A server that serves the plugin, and a module of wrong losses; returns HOST:PORT."""
    environment = {"PYTHONPATH": f"{installed}:{Path(__file__).parent}"}
    modules = ("--losses", "losswire_focal", "--losses", "wrong_losses")
    with running_server(*modules, environment=environment) as address:
        yield address
