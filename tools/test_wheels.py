"""Tests the built wheels as users get them, because the editable install hides packaging mistakes.

1. Build sdists, and wheels from the sdists, and compare their contents with the source folders.
2. Install the client without torch, once with the pinned and once with the lowest declared
   versions of its dependencies, and let it talk to a server that runs from the wheels.
3. Run the test suite against the wheels, last, so that pytest's closing line ends the output.

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
from collections.abc import Iterator
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

IN_PARALLEL = ("--numprocesses=2", "--dist=loadfile")

IMPORT_FROM_WHEELS = """
import sys
import losswire, losswire.server
assert [*losswire.__path__] == sys.argv[1:], f"losswire comes from {[*losswire.__path__]}"
"""


def main() -> None:
    """Run all three steps in a temporary directory; the first failure ends it."""
    with tempfile.TemporaryDirectory(prefix="losswire-wheels-") as scratch:
        work = Path(scratch)
        wheels = build_wheels(work / "dist")
        everything = create_environment(work / "everything")
        install(everything, "--no-deps", *wheels.values())
        share_third_party_packages(everything)
        pip(everything, "check")
        run(everything, "-c", IMPORT_FROM_WHEELS, site_packages(everything) / "losswire", cwd=work)

        client_wheels = [wheels[folder] for folder in CLIENT_FOLDERS]
        pinned = create_environment(work / "client-pinned")
        install(pinned, "--constraint", ROOT / "constraints.txt", *client_wheels)
        lowest = create_environment(work / "client-lowest")
        install(lowest, *lowest_requirements(), *client_wheels)
        with running_server(everything, work) as target:
            for environment in (pinned, lowest):
                print(f"client without torch, {environment.name}", flush=True)
                run(environment, "-c", IMPORT_WITHOUT_TORCH, cwd=work)
                run(environment, STANDALONE, target, cwd=work)

        print("the test suite, against the wheels", flush=True)
        # Started elsewhere and without the caller's PYTHON* settings, so that only the wheels can
        # provide losswire.
        options = (f"--rootdir={ROOT}", f"--config-file={ROOT / 'pyproject.toml'}")
        run(everything, "-m", "pytest", "-q", *IN_PARALLEL, *options, ROOT / "tests", cwd=work)


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
    """Return the folder in which an environment's packages lie."""
    bases = {"base": str(environment), "platbase": str(environment)}
    return Path(sysconfig.get_path("purelib", vars=bases))


def share_third_party_packages(environment: Path) -> None:
    """Lend the running Python's packages to an environment, which spares it a second torch.

    A folder named by a .pth file is searched, but its own .pth files are not read: the editable
    installs, which are such files, stay invisible.
    """
    lent = sysconfig.get_path("purelib")
    (site_packages(environment) / "third_party.pth").write_text(f"{lent}\n")


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
    """Wait for a server's first line, `listening on HOST:PORT`; give the address."""
    if server.stdout is None or not select.select([server.stdout], [], [], SERVER_START_SECONDS)[0]:
        sys.exit(f"losswire-server said nothing within {SERVER_START_SECONDS} s")
    line = server.stdout.readline().decode()
    greeting = "listening on "
    if not line.startswith(greeting):
        sys.exit(f"losswire-server did not start: {line!r}")
    return line.removeprefix(greeting).strip()


def run(environment: Path, *arguments: object, cwd: Path) -> None:
    """Run an environment's Python in isolated mode; a failure ends this script likewise."""
    command = [str(environment / "bin" / "python"), "-I", *map(str, arguments)]
    status = subprocess.run(command, cwd=cwd, check=False).returncode
    if status:
        sys.exit(status)


if __name__ == "__main__":
    main()
