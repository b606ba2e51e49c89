"""The toolchains of the examples in other languages; lists the Debian packages not installed yet.

Run by any Python: python3 tests/languages/toolchains.py
"""

import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Toolchain:
    """One language's example: what builds it, what runs it."""

    name: str
    """Its folder in examples/, and `make language-NAME` builds it."""
    run: tuple[str, ...]
    """The program and its first arguments, in that folder."""
    packages: Mapping[str, str]
    """The Debian package of each command that is needed."""
    headers: Mapping[str, str]
    """The Debian package of each file that is needed."""

    def missing(self) -> list[str]:
        """List the Debian packages that are not installed."""
        absent = [package for tool, package in self.packages.items() if not shutil.which(tool)]
        absent += [package for file, package in self.headers.items() if not Path(file).exists()]
        return sorted(set(absent))


_GO = "/usr/share/gocode/src/google.golang.org"

TOOLCHAINS = (
    Toolchain(
        name="node",
        run=("node", "dist/main.js"),
        packages={"make": "make", "node": "nodejs", "npm": "npm"},
        headers={},
    ),
    Toolchain(
        name="cpp",
        run=("build/losswire_example",),
        packages={
            "make": "make",
            "cmake": "cmake",
            "c++": "g++",
            "pkg-config": "pkg-config",
            "protoc": "protobuf-compiler",
            "grpc_cpp_plugin": "protobuf-compiler-grpc",
        },
        headers={
            "/usr/include/grpcpp/grpcpp.h": "libgrpc++-dev",
            "/usr/include/google/protobuf/message.h": "libprotobuf-dev",
        },
    ),
    Toolchain(
        name="go",
        run=("build/losswire-example",),
        packages={
            "make": "make",
            "go": "golang-go",
            "protoc": "protobuf-compiler",
            "protoc-gen-go": "protoc-gen-go",
            "protoc-gen-go-grpc": "protoc-gen-go-grpc",
        },
        headers={
            f"{_GO}/grpc": "golang-google-grpc-dev",
            f"{_GO}/protobuf": "golang-google-protobuf-dev",
        },
    ),
)


if __name__ == "__main__":
    sys.stdout.write(" ".join(sorted({name for each in TOOLCHAINS for name in each.missing()})))
