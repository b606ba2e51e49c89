"""Runs the services of docker-compose.yml."""

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import yaml
from tools.image_test.engine import ROOT, Engine
from tools.image_test.report import Report, StepError

SERVER = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["services"]["server"]
IMAGE: str = SERVER["image"]
MEMORY_LIMIT = int(SERVER["mem_limit"].removesuffix("g")) * 1024**3
START_SECONDS = 60


@contextmanager
def compose_up(engine: Engine, report: Report) -> Iterator[str]:
    """Start the server of docker-compose.yml and wait for its health; yield the container."""
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
