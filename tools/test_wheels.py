"""Tests what packaging can break, which an editable install hides.

1. Build sdists, and wheels from the sdists, and compare their contents with the source folders.
2. Install all wheels: imports come from them, the native library is there and computes, the
   console scripts run.
3. Install the client without torch, once with the pinned and once with the lowest declared
   versions of its dependencies, and let it call a server that runs from the wheels.
4. Run those tests against the wheels that start installed programs, use the package metadata or
   cross from client to server; `make test` runs the whole suite on the editable install.

Run it by the Python of `.venv`, as `make test` does.
"""

import select
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
import venv
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("proto", "client", "server")
CLIENT_FOLDERS = ("proto", "client")
STANDALONE = ROOT / "tests" / "standalone" / "client_without_torch.py"
SERVER_START_SECONDS = 60

IMPORT_WITHOUT_TORCH = """
import importlib.util, sys
import losswire.client, losswire.v1, losswire.wire
assert importlib.util.find_spec("torch") is None, "torch can be imported here"
assert "torch" not in sys.modules, "torch was imported"
"""

FROM_WHEELS = (
    "tests/client/cli/test_process.py",
    "tests/client/test_real_server.py",
    "tests/conformance",
    "tests/deploy",
    "tests/server/plugins",
)
"""Console scripts, both clients, the conformance vectors, the containers' commands, plugins."""

IN_PARALLEL = ("--numprocesses=2", "--dist=loadfile")

LIBRARY = ROOT / "server/src/losswire/server/compute/native/librows.so"

COMPUTE_BY_LIBRARY = """
import sys
from losswire.server.compute.native import binding
assert binding.AVAILABLE == (sys.argv[1] == "True"), "the wheel and the checkout differ"
"""

CONSOLE_SCRIPTS = ("losswire", "losswire-server")

IMPORT_FROM_WHEELS = """
import sys
import losswire, losswire.server
assert [*losswire.__path__] == sys.argv[1:], f"losswire comes from {[*losswire.__path__]}"
"""


def main() -> None:
    """Run all steps in a temporary directory; the first failure ends the script."""
    with tempfile.TemporaryDirectory(prefix="losswire-wheels-") as scratch:
        work = Path(scratch)
        wheels = build_wheels(work / "dist")
        everything = create_environment(work / "everything")
        install(everything, "--no-deps", *wheels.values())
        share_third_party_packages(everything)
        check_installation(everything, work)
        with running_server(everything, work) as target:
            for environment in client_environments(work, wheels):
                print(f"client without torch, {environment.name}", flush=True)
                run(environment, "-c", IMPORT_WITHOUT_TORCH, cwd=work)
                run(environment, STANDALONE, target, cwd=work, quiet=True)

        print("tests against the wheels", flush=True)
        # Started elsewhere and without the caller's PYTHON* settings, so that only the wheels can
        # provide losswire.
        options = (f"--rootdir={ROOT}", f"--config-file={ROOT / 'pyproject.toml'}")
        tests = (ROOT / each for each in FROM_WHEELS)
        run(everything, "-m", "pytest", "-q", *IN_PARALLEL, *options, *tests, cwd=work)


def check_installation(everything: Path, work: Path) -> None:
    """Check that the wheels provide the modules, the native library and the console scripts."""
    pip(everything, "check")
    run(everything, "-c", IMPORT_FROM_WHEELS, site_packages(everything) / "losswire", cwd=work)
    run(everything, "-c", COMPUTE_BY_LIBRARY, LIBRARY.exists(), cwd=work)
    for script in CONSOLE_SCRIPTS:
        command = [str(everything / "bin" / script), "--version"]
        if status := subprocess.run(command, cwd=work, check=False).returncode:
            sys.exit(status)


def client_environments(work: Path, wheels: Mapping[str, Path]) -> Iterator[Path]:
    """Install the client, with the pinned and with the lowest versions of its dependencies."""
    client_wheels = [wheels[folder] for folder in CLIENT_FOLDERS]
    pinned = create_environment(work / "client-pinned")
    install(pinned, "--constraint", ROOT / "constraints.txt", *client_wheels)
    yield pinned
    lowest = create_environment(work / "client-lowest")
    install(lowest, *lowest_requirements(), *client_wheels)
    yield lowest


def build_wheels(dist: Path) -> dict[str, Path]:
    """Build every distribution into `dist`; return the wheels by folder."""
    wheels = {}
    for folder in FOLDERS:
        out = dist / folder
        command = ("-m", "build", "--quiet", "--no-isolation", "--outdir", out, ROOT / folder)
        build = subprocess.run(
            [sys.executable, *command], check=False, capture_output=True, text=True
        )
        if build.returncode:
            sys.exit(build.stdout + build.stderr)
        (wheels[folder],) = out.glob("*.whl")
        check_contents(wheels[folder], ROOT / folder)
    return wheels


def check_contents(wheel: Path, folder: Path) -> None:
    """Compare a wheel's files with its source folder, both ways, and look for the licence."""
    source = folder / "src"
    expected = {
        path.relative_to(source).as_posix()
        for path in source.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    metadata = {name for name in names if ".dist-info/" in name}
    if names - metadata != expected:
        sys.exit(f"{wheel.name} differs from {source}: {sorted((names - metadata) ^ expected)}")
    if not any(name.endswith("/licenses/LICENSE") for name in metadata):
        sys.exit(f"{wheel.name} holds no LICENSE")


def create_environment(path: Path) -> Path:
    """Create an empty virtual environment; pip works on it from outside."""
    venv.create(path, symlinks=True)
    return path


def install(environment: Path, *arguments: object) -> None:
    """Install into an environment."""
    pip(environment, "install", "--quiet", *arguments)


def pip(environment: Path, *arguments: object) -> None:
    """Run the pip of the running Python on an environment; a failure ends this script likewise."""
    options = ("--disable-pip-version-check", "--python", environment / "bin" / "python")
    command = [sys.executable, "-m", "pip", *map(str, options), *map(str, arguments)]
    status = subprocess.run(command, check=False).returncode
    if status:
        sys.exit(status)


def site_packages(environment: Path) -> Path:
    """Return the folder of an environment's packages."""
    bases = {"base": str(environment), "platbase": str(environment)}
    return Path(sysconfig.get_path("purelib", vars=bases))


def share_third_party_packages(environment: Path) -> None:
    """Add the running Python's packages to an environment, which saves a second torch.

    A folder named by a .pth file is searched, but its own .pth files are not read: the editable
    installs, which are such files, stay invisible.
    """
    shared = sysconfig.get_path("purelib")
    (site_packages(environment) / "third_party.pth").write_text(f"{shared}\n")


def lowest_requirements() -> list[str]:
    """Return every requirement of the client's distributions at its lowest declared version."""
    lowest = set()
    for folder in CLIENT_FOLDERS:
        project = tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"]
        for requirement in map(Requirement, project["dependencies"]):
            if canonicalize_name(requirement.name) == "losswire-proto":
                continue
            (floor,) = (part.version for part in requirement.specifier if part.operator == ">=")
            lowest.add(f"{requirement.name}=={floor}")
    return sorted(lowest)


@contextmanager
def running_server(environment: Path, work: Path) -> Iterator[str]:
    """Run a server on a free port until the block ends; yield its host:port."""
    options = ("--listen", "127.0.0.1:0", "--log-level", "warning")
    command = (environment / "bin" / "losswire-server", "serve", *options)
    with subprocess.Popen(command, cwd=work, stdout=subprocess.PIPE) as server:
        try:
            yield read_address(server)
        finally:
            server.terminate()


def read_address(server: subprocess.Popen[bytes]) -> str:
    """Wait for a server's first line, `listening on HOST:PORT`; return the address."""
    if server.stdout is None or not select.select([server.stdout], [], [], SERVER_START_SECONDS)[0]:
        sys.exit(f"losswire-server said nothing within {SERVER_START_SECONDS} s")
    line = server.stdout.readline().decode()
    greeting = "listening on "
    if not line.startswith(greeting):
        sys.exit(f"losswire-server did not start: {line!r}")
    return line.removeprefix(greeting).strip()


def run(environment: Path, *arguments: object, cwd: Path, quiet: bool = False) -> None:
    """Run an environment's Python in isolated mode; a failure ends this script likewise.

    So does, when it has to be quiet, whatever it writes to its standard error.
    """
    command = [str(environment / "bin" / "python"), "-I", *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, check=False, stderr=subprocess.PIPE if quiet else None)
    if done.returncode or done.stderr:
        sys.stderr.buffer.write(done.stderr or b"")
        sys.exit(done.returncode or 1)


if __name__ == "__main__":
    main()
