"""deploy/kubernetes: what is built is valid, and says the same as the server's own settings."""

from itertools import chain, combinations
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from losswire.server.configuration.sources import Found
from losswire.server.rpc.health import LIVE
from losswire.server.settings import Settings
from losswire.server.supervisor.thresholds import ENDING_SECONDS
from tests.deploy.manifests import (
    BASE,
    COMPONENTS,
    KUBERNETES,
    OVERLAYS,
    build,
    of_base,
    only,
    resources_in,
)
from tests.docs.pages import read
from tests.support.process import assert_accepted

TOML = BASE / "losswire.toml"
OLDEST = "1.27"
"""The oldest Kubernetes whose schema has all that is used; docs/operations.md names it."""
VERSIONS = (OLDEST, kubernetes_validate.latest_version())
CUSTOM = {"ScaledObject": "keda.sh/v1alpha1", "ServiceMonitor": "monitoring.coreos.com/v1"}
"""Kinds that others bring into a cluster, of which there is no schema here."""
BUILDS = [
    pytest.param(overlay, chosen, id="+".join((overlay, *chosen)))
    for overlay in OVERLAYS
    for chosen in chain.from_iterable(
        combinations(COMPONENTS, count) for count in range(len(COMPONENTS) + 1)
    )
]


def settings() -> Settings:
    """Return the settings of the ConfigMap, as the server reads them."""
    return Found({}, str(TOML)).configuration.settings()


def pod() -> Any:  # noqa: ANN401 (YAML)
    """Return the pod of the Deployment."""
    return of_base("Deployment")["spec"]["template"]["spec"]


def container() -> Any:  # noqa: ANN401 (YAML)
    """Return its only container."""
    [found] = pod()["containers"]
    return found


def ports() -> dict[str, int]:
    """Return the ports of the container by name."""
    return {each["name"]: each["containerPort"] for each in container()["ports"]}


def check(resource: dict[str, Any]) -> None:
    """Check a resource against the schemas, in which nothing unknown is allowed."""
    if CUSTOM.get(resource["kind"]) == resource["apiVersion"]:
        return
    for version in VERSIONS:
        kubernetes_validate.validate(resource, version, strict=True)


@pytest.mark.parametrize("path", sorted(BASE.glob("*.yaml")), ids=lambda path: path.stem)
def test_files_of_the_base_are_valid(path: Path) -> None:
    """Each by itself, without what kustomize adds, except selectors that it writes."""
    for resource in resources_in(path):
        if resource["kind"] == "Kustomization":
            continue
        if resource["kind"] == "Deployment":
            labels = {"app.kubernetes.io/name": "losswire"}
            resource["spec"]["selector"] = {"matchLabels": labels}
        check(resource)


@pytest.mark.parametrize(("overlay", "components"), BUILDS)
def test_everything_that_is_built_is_valid(
    tmp_path: Path, overlay: str, components: tuple[str, ...]
) -> None:
    """Every overlay with every choice of components, and exactly one autoscaler."""
    built = build(tmp_path, overlay, components)
    for resource in built:
        check(resource)
    kinds = [each["kind"] for each in built]
    assert ("HorizontalPodAutoscaler" in kinds) != ("ScaledObject" in kinds)
    assert ("ScaledObject" in kinds) == ("keda" in components)
    assert ("ServiceMonitor" in kinds) == ("monitoring" in components)
    assert {each["metadata"].get("namespace") for each in built if each["kind"] != "Namespace"} == {
        only(built, "Namespace")["metadata"]["name"]
    }


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_selectors_find_the_pods(tmp_path: Path, overlay: str) -> None:
    """The Service, the policies and the Deployment mean the pods that are made."""
    built = build(tmp_path, overlay, ["monitoring"])
    deployment = only(built, "Deployment")["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    service = only(built, "Service")
    assert deployment["selector"]["matchLabels"] == labels
    assert service["spec"]["selector"] == labels
    assert only(built, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels
    assert only(built, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"] == labels
    for each in deployment["template"]["spec"]["topologySpreadConstraints"]:
        assert each["labelSelector"]["matchLabels"] == labels
    wanted = only(built, "ServiceMonitor")["spec"]["selector"]["matchLabels"]
    assert wanted.items() <= service["metadata"]["labels"].items()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_settings_are_a_config_map(tmp_path: Path, overlay: str) -> None:
    """Which is mounted where the server reads it, under a name that changes with the settings."""
    built = build(tmp_path, overlay)
    config = only(built, "ConfigMap")
    assert config["data"] == {"losswire.toml": TOML.read_text("utf-8")}
    spec = only(built, "Deployment")["spec"]["template"]["spec"]
    [volume] = [each["configMap"] for each in spec["volumes"] if "configMap" in each]
    assert volume["name"] == config["metadata"]["name"] != "losswire"


@pytest.mark.parametrize(("overlay", "device"), [("cpu", "cpu"), ("gpu", "cuda")])
def test_overlays_choose_the_device(tmp_path: Path, overlay: str, device: str) -> None:
    """By a variable, which counts more than the file; one GPU for a replica that needs one."""
    spec = only(build(tmp_path, overlay), "Deployment")["spec"]["template"]["spec"]
    [server] = spec["containers"]
    assert server["env"] == [{"name": "LOSSWIRE_DEVICE", "value": device}]
    assert server["resources"]["limits"].get("nvidia.com/gpu") == (
        "1" if device == "cuda" else None
    )


def test_the_server_accepts_the_settings() -> None:
    """As its own command line says."""
    assert_accepted(TOML)


def test_ports_are_those_of_the_settings() -> None:
    """Of the container, the Service and the probes, at an address that others reach."""
    listens = {
        "grpc": settings().listen,
        "metrics": settings().metrics,
        "health": settings().health,
    }
    assert ports() == {name: int(text.rpartition(":")[2]) for name, text in listens.items()}
    assert {text.rpartition(":")[0] for text in listens.values()} == {"0.0.0.0"}  # noqa: S104
    served = {each["name"]: each for each in of_base("Service")["spec"]["ports"]}
    assert {name: each["port"] for name, each in served.items()} == {
        name: ports()[name] for name in ("grpc", "metrics")
    }
    assert {name: each["targetPort"] for name, each in served.items()} == {
        name: name for name in served
    }
    rules = of_base("NetworkPolicy")["spec"]["ingress"]
    assert [each["port"] for rule in rules for each in rule["ports"]] == ["grpc", "metrics"]


def test_probes_ask_what_the_server_answers() -> None:
    """By gRPC, at the port that needs neither TLS nor a token."""
    probes = {
        name: container()[f"{name}Probe"]["grpc"] for name in ("startup", "readiness", "liveness")
    }
    assert {each["port"] for each in probes.values()} == {ports()["health"]}
    assert probes["readiness"]["service"] == ""
    assert probes["liveness"]["service"] == probes["startup"]["service"] == LIVE


def test_a_replica_is_not_killed_while_it_drains() -> None:
    """The grace is longer than all that the server may take to end."""
    longest = settings().notice_seconds + settings().drain_seconds + ENDING_SECONDS
    assert pod()["terminationGracePeriodSeconds"] >= longest
    readiness = container()["readinessProbe"]
    assert settings().notice_seconds >= readiness["periodSeconds"]
    assert of_base("Deployment")["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_files_are_where_the_settings_look() -> None:
    """Each path of the settings is a key of a Secret that is mounted as a whole folder."""
    mounts = {each["name"]: each for each in container()["volumeMounts"]}
    assert [each for each in mounts.values() if "subPath" in each] == []
    secrets = {
        mounts[each["name"]]["mountPath"]: each["secret"]["secretName"]
        for each in pod()["volumes"]
        if "secret" in each
    }
    found = settings()
    assert {
        (secrets[str(Path(path).parent)], Path(path).name)
        for path in (found.tls_cert, found.tls_key, found.tokens)
    } == {("losswire-tls", "tls.crt"), ("losswire-tls", "tls.key"), ("losswire-tokens", "tokens")}
    config = mounts["config"]["mountPath"]
    assert container()["args"] == ["serve", "--config", f"{config}/{TOML.name}"]


def test_pods_are_as_restricted_as_their_namespace_demands() -> None:
    """The rules of Kubernetes' restricted pods, and a file system that nobody writes."""
    labels = of_base("Namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    security = pod()["securityContext"]
    assert security["runAsNonRoot"]
    assert security["runAsUser"] == security["runAsGroup"] == security["fsGroup"] == 10001
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container()["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not pod()["automountServiceAccountToken"]
    assert {key for each in pod()["volumes"] for key in each} - {"name"} == {
        *("configMap", "secret", "emptyDir")
    }


def test_callers_cannot_be_taken_for_settings() -> None:
    """Kubernetes makes no variables of services, and nothing is listened at without a token."""
    assert pod()["enableServiceLinks"] is False
    assert not settings().allow_insecure


def test_prometheus_reads_as_the_server_asks() -> None:
    """Over TLS, with a token, at the Service's port for metrics."""
    monitor = resources_in(KUBERNETES / "components/monitoring/servicemonitor.yaml")[0]
    [endpoint] = monitor["spec"]["endpoints"]
    assert endpoint["port"] in ports()
    assert (endpoint["scheme"], endpoint["path"]) == ("https", "/metrics")
    assert endpoint["tlsConfig"]["ca"]["secret"]["name"] == "losswire-tls"
    assert endpoint["authorization"]["type"] == "Bearer"


def test_the_page_says_what_is_needed() -> None:
    """docs/operations.md names the Secrets, the oldest Kubernetes and every part."""
    page = read("docs/operations.md")
    names = ["losswire-tls", "losswire-tokens", "losswire-metrics", f"Kubernetes {OLDEST}"]
    names += [f"overlays/{each}" for each in OVERLAYS]
    names += [f"components/{each}" for each in COMPONENTS]
    assert [each for each in names if each not in page] == []
