"""The engines that the tests run for real; lists the Debian packages not installed yet.

Run by any Python: python3 tests/client/distributed/engines.py
"""

import importlib.util
import os
import shutil
import sys
from collections.abc import Mapping
from typing import Final

COMMANDS: Final[Mapping[str, Mapping[str, str]]] = {
    "ray": {},
    "pyspark": {"java": "default-jre-headless"},
}
"""The commands that each engine needs, and the Debian package of each."""


def missing(engine: str) -> str:
    """Return what an engine lacks here, as a reason to skip its tests; empty when it is ready."""
    if importlib.util.find_spec(engine) is None:
        return f"{engine} is not installed: make engines"
    commands = [name for name in COMMANDS[engine] if not shutil.which(name)]
    return f"{engine} needs {', '.join(commands)}" if commands else ""


def is_required() -> bool:
    """Return whether a missing engine fails its tests."""
    return os.environ.get("LOSSWIRE_REQUIRE_ENGINES", "0") not in ("", "0")


if __name__ == "__main__":
    packages = {
        package
        for commands in COMMANDS.values()
        for command, package in commands.items()
        if not shutil.which(command)
    }
    sys.stdout.write(" ".join(sorted(packages)))
