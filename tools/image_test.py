"""Builds the image, runs docker-compose.yml with it, and checks what operators rely on.

Needs root and Linux, no container engine that runs already and no image registry: where none
answers, debootstrap makes the base image. Everything lives in a temporary directory and in mount
and network namespaces of its own, so other containers, ports and firewall rules are not touched.

`make image-test` runs it; WHEELS=DIR takes torch from a folder of wheels.
Exits with 0 when all is well, 1 when a check fails, 2 when a tool is missing.
"""

import argparse
import ctypes
import json
import os
import re
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
SERVER = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["services"]["server"]
IMAGE: str = SERVER["image"]
MEMORY_LIMIT = int(SERVER["mem_limit"].removesuffix("g")) * 1024**3
START_SECONDS = 60
HELPER_FOLDERS = ("/usr/lib/podman", "/usr/libexec/podman", "/usr/local/libexec/podman")
CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000
MIB = 1024 * 1024

# What each is for, and how to get it (on Debian and its kin).
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

# What the official slim images leave out, so that the replacement has the same contents.
SLIM = """\
path-exclude /usr/share/doc/*
path-include /usr/share/doc/*/copyright
path-exclude /usr/share/info/*
path-exclude /usr/share/lintian/*
path-exclude /usr/share/locale/*
path-exclude /usr/share/man/*
"""
SLIM_FOLDERS = ("info", "lintian", "locale", "man")


class MissingToolError(Exception):
    """A program that this test needs is not installed."""


class StepError(Exception):
    """A step failed, so that those after it make no sense."""


@dataclass(frozen=True)
class Finished:
    """A program that ended."""

    status: int
    output: str
    errors: str

    @property
    def text(self) -> str:
        """Everything it wrote, without blank lines at the ends."""
        return (self.output + self.errors).strip()


@dataclass
class Report:
    """Prints what was found, a line each, and remembers whether anything was wrong."""

    failures: list[str] = field(default_factory=list)

    def say(self, name: str, text: object) -> None:
        """Print a fact."""
        lines = str(text).splitlines() or [""]
        print(f"  {name:<23} {lines[0]}", flush=True)
        for line in lines[1:]:
            print(f"  {'':<23} {line}", flush=True)

    def check(self, name: str, text: object, *, good: bool) -> None:
        """Print a fact that may be wrong."""
        self.say(name, text if good else f"WRONG: {text}")
        if not good:
            self.failures.append(name)


def main() -> int:
    """Run the whole test; gives the exit status."""
    parser = argparse.ArgumentParser(description="Build and run the containers, and check them.")
    add = parser.add_argument
    add("--wheels", type=Path, metavar="DIR", help="a folder with the wheel of torch")
    add(
        "--ca",
        type=Path,
        default=os.environ.get("PIP_CERT"),
        metavar="FILE",
        help="certificates that pip trusts in the build; default: $PIP_CERT",
    )
    add(
        "--build-arg",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="passed to the build; may be repeated",
    )
    options = parser.parse_args()
    report = Report()
    try:
        # The name is short because the path of a container's control socket must be.
        with tempfile.TemporaryDirectory(prefix="lw-", ignore_cleanup_errors=True) as scratch:
            run_all(options, Path(scratch), report)
    except MissingToolError as error:
        print(f"image-test: {error}", file=sys.stderr)
        return 2
    except StepError as error:
        print(f"image-test: {error}", file=sys.stderr)
        return 1
    if report.failures:
        print(f"image-test: wrong: {', '.join(report.failures)}", file=sys.stderr)
        return 1
    print("image-test: everything is as it should be")
    return 0


def run_all(options: argparse.Namespace, scratch: Path, report: Report) -> None:
    """Prepare, build, run."""
    print("tools", flush=True)
    require_tools(report)
    unshare(CLONE_NEWNS)
    try:
        engine = prepare_engine(scratch, report)
        print("build", flush=True)
        provide_base(engine, scratch, report)
        build(engine, options, report)
        unshare(CLONE_NEWNET)
        engine.must("ip", "link", "set", "lo", "up")
        print("run", flush=True)
        # Starting is mostly work of one CPU, so its time means little on a busy machine.
        report.say("machine", f"{os.cpu_count()} CPUs, load average {os.getloadavg()[0]:.1f}")
        with compose_up(engine, report) as container:
            check_container(engine, container, report)
            check_smoke(engine, report)
            check_stop(engine, container, report)
        check_alone(engine, report)
    finally:
        unmount_below(scratch)


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
    """Give this process, and all that it starts from now on, namespaces of its own."""
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


def provide_base(engine: Engine, scratch: Path, report: Report) -> None:
    """Pull the Dockerfile's base image, or make it where no registry answers."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    found = re.search(r"^ARG BASE_IMAGE=(\S+:(\w+)-slim)$", text, re.MULTILINE)
    if found is None:
        raise StepError("the Dockerfile names no BASE_IMAGE such as debian:bookworm-slim")
    name, suite = found.groups()
    if engine.run("podman", "pull", "--quiet", name).status == 0:
        report.say("base image", f"{name}, from its registry")
        return
    started = time.monotonic()
    base = scratch / "base"
    mirror = "http://deb.debian.org/debian"
    engine.must(require("debootstrap"), "--variant=minbase", suite, str(base), mirror, timeout=900)
    (base / "etc/dpkg/dpkg.cfg.d/docker").write_text(SLIM, encoding="utf-8")
    (base / "etc/apt/sources.list").write_text(
        f"deb {mirror} {suite} main\n"
        f"deb {mirror} {suite}-updates main\n"
        f"deb {mirror}-security {suite}-security main\n",
        encoding="utf-8",
    )
    for folder in SLIM_FOLDERS:
        shutil.rmtree(base / "usr/share" / folder, ignore_errors=True)
    for path in (base / "usr/share/doc").rglob("*"):
        if path.name != "copyright" and not path.is_dir():
            path.unlink()
    for folder in ("var/cache/apt", "var/lib/apt/lists"):
        shutil.rmtree(base / folder)
        (base / folder).mkdir()
    archive = scratch / "base.tar"
    engine.must("tar", "--numeric-owner", "-C", str(base), "-cf", str(archive), ".")
    engine.must("podman", "import", "--change", "CMD=/bin/bash", str(archive), name)
    shutil.rmtree(base)
    archive.unlink()
    took = time.monotonic() - started
    report.say("base image", f"{name}: no registry answers, made with debootstrap in {took:.0f} s")


def build(engine: Engine, options: argparse.Namespace, report: Report) -> None:
    """Build the image as docker-compose.yml would."""
    command = ["buildah", "bud", "--isolation", "chroot", "--format", "docker", "--tag", IMAGE]
    if options.wheels:
        command += ["--build-context", f"wheels={options.wheels.resolve()}"]
    if options.ca:
        command += ["--secret", f"id=ca,src={options.ca}"]
    for argument in options.build_arg:
        command += ["--build-arg", argument]
    started = time.monotonic()
    engine.must(*command, str(ROOT), timeout=3600)
    report.say("built", f"{IMAGE} in {time.monotonic() - started:.0f} s")
    size = engine.must("podman", "image", "inspect", "--format", "{{.Size}}", IMAGE).output
    report.say("image size", f"{int(size) / 1e6:.0f} MB")
    for folder, megabytes in image_parts(engine):
        report.say("", f"{megabytes:>4.0f} MB {folder}")


def image_parts(engine: Engine) -> list[tuple[str, float]]:
    """Measure what the image consists of, largest first."""
    made = engine.must("buildah", "from", "--pull-never", IMAGE).output.strip()
    root = Path(engine.must("buildah", "mount", made).output.strip())
    packages = next(root.glob("opt/losswire/lib/python3*/site-packages"))
    everything, torch, ours = (folder_size(path) for path in (root, packages / "torch", packages))
    parts = {
        "torch": torch,
        "other Python packages": ours - torch,
        "Debian and its Python": everything - ours,
    }
    engine.must("buildah", "rm", made)
    return sorted(parts.items(), key=lambda part: -part[1])


def folder_size(folder: Path) -> float:
    """Add up the files below a folder, in MB."""
    paths = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return sum(path.stat().st_size for path in paths) / 1e6


@contextmanager
def compose_up(engine: Engine, report: Report) -> Iterator[str]:
    """Start the server of docker-compose.yml and wait for its health; gives the container."""
    try:
        up = engine.compose("up", "--detach", "--no-build", "server")
        wanted = ("--filter", "label=com.docker.compose.service=server")
        container = engine.must("podman", "ps", "--quiet", *wanted).output.strip()
        if not container:
            raise StepError(f"podman-compose started no server\n{up.text}")
        wait_for_health(engine, container, report, "start time")
        yield container
    finally:
        engine.compose("down", "--timeout", "5")
        engine.run("podman", "rm", "--all", "--force", "--time", "1")


def wait_for_health(engine: Engine, container: str, report: Report, name: str) -> None:
    """Ask the image's own health check until it succeeds; reports the time under this name."""
    give_up = time.monotonic() + START_SECONDS
    while engine.run("podman", "healthcheck", "run", container).status != 0:
        if time.monotonic() > give_up:
            logs = engine.run("podman", "logs", container).text
            raise StepError(f"the server is not healthy after {START_SECONDS} s\n{logs}")
    healthy = datetime.now(UTC)
    state = json.loads(
        engine.must("podman", "inspect", "--format", "{{json .State}}", container).output
    )
    start = moment(state["StartedAt"])
    logs = engine.must("podman", "logs", "--timestamps", container).output
    ready = [moment(line.split()[0]) for line in logs.splitlines() if "listening on" in line]
    since = " and ".join(
        f"{what} after {(when - start).total_seconds():.1f} s"
        for what, when in (("listening", ready[-1]), ("SERVING by `losswire ping`", healthy))
    )
    report.say(name, since)
    status = state.get("Health", state.get("Healthcheck", {})).get("Status")
    report.check("health", status, good=status == "healthy")


def moment(text: str) -> datetime:
    """Read a time stamp; podman writes more digits of a second than Python reads."""
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text))


def check_container(engine: Engine, container: str, report: Report) -> None:
    """Check what the running server may and may not do."""
    ping = engine.inside(container, "losswire", "ping")
    report.check("losswire ping", ping.text, good=ping.status == 0)

    def shell(script: str) -> Finished:
        return engine.inside(container, "sh", "-c", script)

    user = shell("id").text
    report.check("user", user, good=user.startswith("uid=10001") and "gid=10001" in user)
    status = shell("grep -E '^(CapBnd|NoNewPrivs)' /proc/1/status").text
    rights = " ".join(status.split())
    good = re.fullmatch(r"CapBnd: 0+ NoNewPrivs: 1", rights) is not None
    report.check("capabilities", rights, good=good)
    for path in ("/new", "/opt/losswire/new"):
        # As root, so that nothing but the read-only mount can be what refuses.
        write = engine.run("podman", "exec", "--user", "0", container, "touch", path)
        good = write.status != 0 and "Read-only file system" in write.text
        report.check(f"touch {path}", write.text or "succeeded", good=good)
    write = shell("touch /tmp/new && echo writable")
    report.check("touch in /tmp", write.text, good=write.text == "writable")
    found = shell("command -v gcc cc c++ ld strip pip pip3; true").text
    report.check("compilers, pip", found or "none", good=not found)
    loaded = shell("grep -o -m 1 librows.so /proc/1/maps").text
    report.check("native rows", loaded or "none", good=loaded == "librows.so")
    memory = shell(
        "cat /sys/fs/cgroup/memory.max || cat /sys/fs/cgroup/memory/memory.limit_in_bytes"
    ).output.strip()
    seen = f"{int(memory) // MIB} MiB" if memory.isdigit() else f"none seen ({memory})"
    report.check("memory limit", seen, good=memory == str(MEMORY_LIMIT))
    for published in SERVER["ports"]:
        host, port, _ = published.split(":")
        with socket.create_connection((host, int(port)), timeout=5):
            report.say("published", f"{host}:{port}, reachable")
    ports = engine.must("podman", "port", container).output
    everywhere = [line for line in ports.splitlines() if "-> 127.0.0.1:" not in line]
    report.check("open to others", ", ".join(everywhere) or "nothing", good=not everywhere)


def check_smoke(engine: Engine, report: Report) -> None:
    """Run the smoke job of docker-compose.yml."""
    smoke = engine.compose("run", "--rm", "-T", "smoke")
    report.check("smoke job", smoke.output.strip() or smoke.text, good=smoke.status == 0)


def check_stop(engine: Engine, container: str, report: Report) -> None:
    """Stop the server as an operator would, and start it again, now with its files in memory."""
    started = time.monotonic()
    engine.compose("stop", "server")
    took = time.monotonic() - started
    state = engine.must("podman", "inspect", "--format", "{{.State.ExitCode}}", container)
    code = state.output.strip()
    report.check("stopped by SIGTERM", f"exit status {code} after {took:.1f} s", good=code == "0")
    engine.must("podman", "start", container)
    wait_for_health(engine, container, report, "started again")


def check_alone(engine: Engine, report: Report) -> None:
    """Check the image without docker-compose.yml."""

    def run(entry: str, *arguments: str, options: Sequence[str] = ()) -> Finished:
        alone = ("podman", "run", "--rm", "--network", "none", *options, "--entrypoint", entry)
        return engine.run(*alone, IMAGE, *arguments)

    nobody = run("losswire", "ping")
    report.check("ping without a server", f"exit status {nobody.status}", good=nobody.status > 0)
    limit = ("--memory", "128m", "--memory-swap", "128m")
    greedy = run("python", "-c", "print(len(b'x' * 2**28))", options=limit)
    killed = 128 + 9
    report.check(
        "256 MiB in 128 MiB",
        f"exit status {greedy.status}{', killed' if greedy.status == killed else ''}",
        good=greedy.status == killed,
    )


def unmount_below(folder: Path) -> None:
    """Unmount what the engine left mounted, so that the folder can be removed."""
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text("utf-8").splitlines()]
    for point in sorted((m for m in mounts if m.startswith(f"{folder}/")), reverse=True):
        subprocess.run([require_system("umount"), "--lazy", point], check=False)


if __name__ == "__main__":
    sys.exit(main())
