"""The container engine, with its settings and namespaces in a scratch directory."""

import ctypes
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tools.image_test.report import Finished, MissingToolError, Report, StepError

ROOT = Path(__file__).resolve().parents[2]

HELPER_FOLDERS = ("/usr/lib/podman", "/usr/libexec/podman", "/usr/local/libexec/podman")
CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000

# The purpose of each, and how to install it on Debian and its derivatives.
TOOLS = {
    "podman": ("runs the containers", "apt-get install podman"),
    "podman-compose": ("reads docker-compose.yml", "make install"),
    "buildah": ("builds the image", "apt-get install buildah"),
    "crun": ("starts the processes of a container", "apt-get install crun"),
    "netavark": ("the network between the services", "apt-get install netavark"),
    "aardvark-dns": ("their names in that network", "apt-get install aardvark-dns"),
    "ip": ("the loopback device of the test's own network", "apt-get install iproute2"),
    "debootstrap": ("the base image, as no registry answers", "apt-get install debootstrap"),
}


@dataclass(frozen=True)
class Engine:
    """Starts programs with the settings that keep the engine inside of the scratch directory."""

    environment: Mapping[str, str]
    folder: Path
    """Where programs run: a container that runs out of memory leaves a mark there."""

    def run(self, *command: str, timeout: float = 120) -> Finished:
        """Run a program to its end."""
        try:
            done = subprocess.run(
                command,
                env=dict(self.environment),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Finished(-1, "", f"no end after {timeout:.0f} s")
        return Finished(done.returncode, done.stdout, done.stderr)

    def must(self, *command: str, timeout: float = 120) -> Finished:
        """Run a program that has to succeed.

        Raises:
            StepError: it did not; with the end of what it wrote.
        """
        done = self.run(*command, timeout=timeout)
        if done.status != 0:
            end = "\n".join(done.text.splitlines()[-30:])
            raise StepError(f"`{' '.join(command)}` gave {done.status}\n{end}")
        return done

    def compose(self, *command: str, timeout: float = 120) -> Finished:
        """Run podman-compose on docker-compose.yml."""
        file = ("--file", str(ROOT / "docker-compose.yml"))
        smoke = ("--profile", "smoke")
        return self.run(require("podman-compose"), *file, *smoke, *command, timeout=timeout)

    def inside(self, container: str, *command: str) -> Finished:
        """Run a program in a running container, as the user that the server has."""
        return self.run("podman", "exec", container, *command)


def require(name: str) -> str:
    """Find a program.

    Raises:
        MissingToolError: it is not installed; says what it is for and how to get it.
    """
    folders = (str(Path(sys.executable).parent), os.environ.get("PATH", ""), *HELPER_FOLDERS)
    found = shutil.which(name, path=os.pathsep.join(folders))
    if found is None:
        purpose, remedy = TOOLS[name]
        raise MissingToolError(f"{name} is missing ({purpose}); to get it: {remedy}")
    return found


def require_tools(report: Report) -> None:
    """Name everything that is missing at once; debootstrap is looked for when it is needed."""
    problems = [] if os.geteuid() == 0 else ["it needs root, for namespaces and for debootstrap"]
    for name in TOOLS:
        if name != "debootstrap":
            try:
                require(name)
            except MissingToolError as error:
                problems.append(str(error))
    if problems:
        raise MissingToolError("\n  ".join(["cannot run:", *problems]))
    for name in ("podman", "buildah", "crun"):
        version = subprocess.run([require(name), "--version"], capture_output=True, check=True)
        report.say(name, re.sub(rf"^{name} version ", "", version.stdout.decode().splitlines()[0]))


def unshare(flags: int) -> None:
    """Move this process, and all that it starts from now on, into new namespaces."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(flags) != 0:
        raise StepError(f"unshare: {os.strerror(ctypes.get_errno())}")
    if flags & CLONE_NEWNS:
        subprocess.run([require_system("mount"), "--make-rprivate", "/"], check=True)


def require_system(name: str) -> str:
    """Find a program that every Linux has."""
    return shutil.which(name) or f"/bin/{name}"


def prepare_engine(scratch: Path, report: Report) -> Engine:
    """Write the engine's settings; all its state goes into the scratch directory."""
    leave_hybrid_cgroups(report)
    for name in ("temporary", "home", "networks"):
        (scratch / name).mkdir()
    limits = [
        ulimit("nofile", resource.RLIMIT_NOFILE, 1024 * 1024),
        ulimit("nproc", resource.RLIMIT_NPROC, 32 * 1024),
    ]
    (scratch / "containers.conf").write_text(
        textwrap.dedent(f"""\
            [containers]
            default_ulimits = {json.dumps(limits)}
            log_driver = "k8s-file"
            [engine]
            cgroup_manager = "cgroupfs"
            events_logger = "file"
            lock_type = "file"
            runtime = "crun"
            tmp_dir = "{scratch}/temporary"
            [network]
            network_backend = "netavark"
            network_config_dir = "{scratch}/networks"
            """),
        encoding="utf-8",
    )
    engine = Engine(
        {
            **os.environ,
            "CONTAINERS_CONF": f"{scratch}/containers.conf",
            "CONTAINERS_STORAGE_CONF": f"{scratch}/storage.conf",
            # The test itself asks for the health; systemd's timers may not be there.
            "DISABLE_HC_SYSTEMD": "true",
            "HOME": f"{scratch}/home",
            "TMPDIR": f"{scratch}/temporary",
        },
        scratch,
    )
    drivers = (
        [os.environ["STORAGE_DRIVER"]] if "STORAGE_DRIVER" in os.environ else ["overlay", "vfs"]
    )
    for driver in drivers:
        (scratch / "storage.conf").write_text(
            textwrap.dedent(f"""\
                [storage]
                driver = "{driver}"
                graphroot = "{scratch}/{driver}"
                runroot = "{scratch}/run"
                """),
            encoding="utf-8",
        )
        tried = engine.run("podman", "info")
        if tried.status == 0:
            report.say("storage driver", driver)
            return engine
    raise StepError(f"podman cannot store images with {' or '.join(drivers)}: {tried.text}")


def ulimit(name: str, kind: int, wanted: int) -> str:
    """Write a limit of containers: podman would ask for more than a machine may grant."""
    hard = resource.getrlimit(kind)[1]
    most = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    return f"{name}={most}:{most}"


def leave_hybrid_cgroups(report: Report) -> None:
    """Hide the unified hierarchy where both are mounted: the runtime refuses such a mixture."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text("utf-8").splitlines()]
    unified = [mount[1] for mount in mounts if mount[2] == "cgroup2"]
    mixed = bool(unified) and any(mount[2] == "cgroup" for mount in mounts)
    if mixed:
        for point in unified:
            subprocess.run([require_system("umount"), point], check=True)
    kind = "2" if unified and not mixed else "1"
    report.say("cgroups", f"version {kind}{', of a hybrid mount' if mixed else ''}")


def unmount_below(folder: Path) -> None:
    """Unmount what the engine left mounted, so that the folder can be removed."""
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text("utf-8").splitlines()]
    for point in sorted((m for m in mounts if m.startswith(f"{folder}/")), reverse=True):
        subprocess.run([require_system("umount"), "--lazy", point], check=False)
