"""Builds the native rows beside the Python sources, where there is a C++ compiler.

Without one the server computes everything by torch. LOSSWIRE_REQUIRE_NATIVE=1 makes that an
error, for builds that others will use.
"""

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.tags import platform_tags

_SOURCE = Path("native/library.cc")
_LIBRARY = Path("src/losswire/server/native/rows.so")
_COMPILERS = ("cc", "gcc", "clang")

# Contraction would round where there is a fused multiplication and not elsewhere.
_FLAGS = (
    "-std=c++17 -O2 -fPIC -shared -ffp-contract=off -fno-math-errno -fvisibility=hidden "
    "-fno-exceptions -fno-rtti -Wall -Wextra -Werror -Wno-psabi -s"
).split()


class CustomBuildHook(BuildHookInterface[Any]):
    """Makes a wheel for this platform that holds the library, or else one for any."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile; called before a wheel or an editable install is put together."""
        del version
        if not self._compile():
            return
        build_data["artifacts"].append(str(_LIBRARY))
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{next(platform_tags())}"

    def _compile(self) -> bool:
        """Compile the library; tells whether it is there."""
        library = Path(self.root, _LIBRARY)
        library.unlink(missing_ok=True)
        compiler = _compiler()
        problem = "there is no C++ compiler"
        if compiler:
            command = [*compiler, *_FLAGS, "-o", str(library), str(_SOURCE), "-lm"]
            done = subprocess.run(command, cwd=self.root, capture_output=True, text=True)  # noqa: S603
            if done.returncode == 0:
                return True
            problem = f"{shlex.join(command)} failed:\n{done.stderr}"
        library.unlink(missing_ok=True)
        if os.environ.get("LOSSWIRE_REQUIRE_NATIVE", "0") != "0":
            raise SystemExit(problem)
        self.app.display_warning(f"{problem}\nEverything will be computed by torch.")
        return False


def _compiler() -> list[str]:
    """Find a compiler: what CXX says, the system's, or the one that PyPI has; none: empty."""
    if given := os.environ.get("CXX"):
        return shlex.split(given)
    for name in _COMPILERS:
        if found := shutil.which(name):
            return [found]
    if importlib.util.find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "c++", "-nostdlib++"]
    return []
