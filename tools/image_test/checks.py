"""What operators rely on, checked in running containers."""

import re
import socket
import time
from collections.abc import Sequence

from tools.image_test.compose import IMAGE, MEMORY_LIMIT, SERVER, wait_for_health
from tools.image_test.engine import Engine
from tools.image_test.report import Finished, Report

MIB = 1024 * 1024


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
