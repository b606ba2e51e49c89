"""Build hook: compiles the C++ library beside the Python sources, if there is a compiler.

Without one the server computes everything by torch. LOSSWIRE_REQUIRE_NATIVE=1 makes that an error,
for builds that are distributed.
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
_LIBRARY = Path("src/losswire/server/compute/native/librows.so")
# Not g++ and the like, which link a C++ runtime library that is not needed.
_COMPILERS = ("cc", "gcc", "clang")
# Without the last option it compiles for the processor of this machine.
_FROM_PYPI = (sys.executable, "-m", "ziglang", "c++", "-nostdlib++", "-mcpu=baseline")

_FLAGS = (
    "-std=c++17",
    "-O2",
    "-fPIC",
    "-shared",
    # Contraction rounds differently on processors with fused multiplication.
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fvisibility=hidden",
    "-fno-exceptions",
    "-fno-rtti",
    "-Wall",
    "-Wextra",
    "-Wno-psabi",
    "-s",
)


class CustomBuildHook(BuildHookInterface[Any]):
    """Builds a wheel for this platform with the library, or one for any platform without it."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile; called before a wheel or an editable install is assembled."""
        del version
        if not self._compile():
            return
        build_data["artifacts"].append(_LIBRARY.as_posix())
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{next(platform_tags())}"

    def _compile(self) -> bool:
        """Compile the library; returns whether it exists then."""
        library = Path(self.root, _LIBRARY)
        # Replaced, not overwritten: a running server keeps the old one.
        made = library.with_suffix(".new")
        problems = []
        for compiler in _compilers():
            problem = self._problem_of([*compiler, *_FLAGS, "-o", str(made), str(_SOURCE)])
            if not problem:
                made.replace(library)
                return True
            problems.append(problem)
        library.unlink(missing_ok=True)
        made.unlink(missing_ok=True)
        text = "\n".join(problems) or "there is no C++ compiler"
        if os.environ.get("LOSSWIRE_REQUIRE_NATIVE", "0") not in ("", "0"):
            raise SystemExit(text)
        self.app.display_warning(f"{text}\nEverything will be computed by torch.")
        return False

    def _problem_of(self, command: list[str]) -> str:
        """Run a command; returns its error, or an empty text."""
        try:
            done = subprocess.run(  # noqa: S603 (CXX names the compiler to run)
                command, check=False, cwd=self.root, capture_output=True, text=True
            )
        except OSError as error:
            return f"{command[0]}: {error.strerror}"
        return f"{shlex.join(command)} failed:\n{done.stderr}" if done.returncode else ""


def _compilers() -> list[list[str]]:
    """List the compilers to try: CXX, or else the system's and the one of PyPI."""
    if given := os.environ.get("CXX"):
        return [shlex.split(given)]
    found = [[path] for name in _COMPILERS if (path := shutil.which(name))]
    return [*found, [*_FROM_PYPI]] if importlib.util.find_spec("ziglang") else found
