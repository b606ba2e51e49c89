"""deploy/monitoring: a real Prometheus reads a real server, and every expression has numbers."""

import itertools
import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
import yaml

from losswire.client import Client, Comparison, LosswireError, Summary
from tests.docs.pages import read
from tests.support.doors import Doors, open_doors
from tests.support.prometheus import SECONDS, Prometheus, running_prometheus

ROOT = Path(__file__).resolve().parent.parent.parent
MONITORING = ROOT / "deploy/monitoring"
DASHBOARDS: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text("utf-8"))
    for path in sorted((MONITORING / "grafana/dashboards").glob("*.json"))
}
SOURCES: dict[str, str] = {
    each["uid"]: each["type"]
    for path in (MONITORING / "grafana/provisioning/datasources").glob("*.yml")
    for each in yaml.safe_load(path.read_text("utf-8"))["datasources"]
}
ALERTS: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((MONITORING / "alerts.yml").read_text("utf-8"))["groups"]
    for rule in group["rules"]
]
LOSS, RUN, PAIR = "cross_entropy", "nightly & more", "pair"
VARIABLES: Mapping[str, str] = {
    "$instance": ".*",
    "$__rate_interval": "30s",
    "$loss": LOSS,
    "$run": RUN,
    "$threshold": "1",
}
"""What Grafana would put in place of variables."""


def panels(name: str) -> Iterator[dict[str, Any]]:
    """Return the panels of a dashboard, without its headlines."""
    return (each for each in DASHBOARDS[name]["panels"] if each["type"] != "row")


def targets(kind: str) -> list[Any]:
    """Return the queries of all dashboards to a kind of source."""
    return [
        pytest.param(target, id=f"{panel['title']}-{target['refId']}")
        for name in DASHBOARDS
        for panel in panels(name)
        for target in panel["targets"]
        if target["datasource"]["type"] == kind
    ]


def filled(expression: str) -> str:
    """Put values in place of variables."""
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    assert "$" not in expression
    return expression


@dataclass(frozen=True)
class Watched:
    """A server, what was done to it, and the Prometheus that reads it."""

    prometheus: Prometheus
    doors: Doors
    newest: Summary
    pair: Comparison
    evaluations: int


def _summaries(client: Client) -> tuple[list[Summary], Comparison]:
    """Return two evaluations of one model, and a comparison of two."""
    random = np.random.default_rng(5)
    rows = {
        "a": random.normal(size=(500, 4)).astype(np.float32),
        "b": random.normal(size=(500, 4)).astype(np.float32),
        "target": random.integers(0, 4, 500),
        "country": random.choice(["DE", "FR", "JP"], 500),
    }
    summaries = [
        client.summarize(
            LOSS,
            [{"input": rows[name], "target": rows["target"], "country": rows["country"]}],
            slices=["country"],
            partition=name,
        )
        for name in "ab"
    ]
    pair = client.compare(
        LOSS, [rows], candidates={"small": {"input": "a"}, "large": {"input": "b"}}, partition="p"
    )
    return summaries, pair


def _work(doors: Doors, client: Client) -> int:
    """Let a server do something of everything; returns the evaluations."""
    inputs = {"input": np.zeros((4, 3), np.float32), "target": np.array([0, 1, 2, 0])}
    large = {"input": np.zeros((512, 512), np.float32), "target": np.zeros((512, 512), np.float32)}
    for _ in range(40):
        client.evaluate(LOSS, inputs, gradients=["input"])
    client.evaluate("mse_loss", large, gradients=["input"])
    with pytest.raises(LosswireError):
        client.evaluate("nothing", inputs)
    doors.get("/v1/losses")
    doors.ask("GET", "/v1/losses/nothing")
    return 42


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A server that works, read every second by the Prometheus of the shipped settings."""
    executable = shutil.which("prometheus")
    if executable is None:
        pytest.skip("needs Debian's prometheus")
    folder = tmp_path_factory.mktemp("monitoring")
    with open_doors("--store", str(folder / "store")) as doors, Client(doors.grpc) as client:
        summaries, pair = _summaries(client)
        for number, each in enumerate(summaries):
            ended = datetime.now(UTC) - timedelta(hours=2 - number)
            client.runs.save(each, name=RUN, labels={"model": "m"}, ended=ended)
        client.runs.save(pair, name=PAIR)
        shutil.copy(MONITORING / "alerts.yml", folder)
        text = (MONITORING / "prometheus.yml").read_text("utf-8")
        text = text.replace("server:9464", doors.metrics).replace("15s", "1s")
        settings = folder / "prometheus.yml"
        settings.write_text(text, "utf-8")
        evaluations = _work(doors, client)
        with running_prometheus(executable, settings) as prometheus:
            prometheus.wait(f"count_over_time(losswire_ready[{SECONDS}s]) >= 2")
            # Rates are of what happens between two looks.
            evaluations += _work(doors, client)
            seen = 'sum(grpc_server_call_duration_seconds_count{grpc_method=~".*/Evaluate"})'
            prometheus.wait(f"{seen} >= {evaluations}")
            yield Watched(prometheus, doors, summaries[-1], pair, evaluations)


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", "prometheus.yml"),
        ("check", "rules", "alerts.yml"),
        ("test", "rules", "alerts_test.yml"),
    ],
    ids=" ".join,
)
def test_promtool_accepts(arguments: tuple[str, ...]) -> None:
    """The settings, the rules, and what the rules' own tests expect."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("needs Debian's prometheus")
    ran = subprocess.run(
        [promtool, *arguments], cwd=MONITORING, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_every_alert_has_a_runbook() -> None:
    """A section of docs/monitoring.md under its name, to which the annotation leads."""
    titles = re.findall(r"^### (Losswire\w+)$", read("docs/monitoring.md"), re.MULTILINE)
    assert titles == [each["alert"] for each in ALERTS]
    for each in ALERTS:
        anchor = each["alert"].lower()
        assert each["annotations"]["runbook"] == f"docs/monitoring.md#{anchor}"
        assert each["labels"]["severity"] in ("page", "ticket")


def test_every_alert_is_tested() -> None:
    """Each one fires in alerts_test.yml, and is silent at a healthy server."""
    tests = yaml.safe_load((MONITORING / "alerts_test.yml").read_text("utf-8"))["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    names = {each["alert"] for each in ALERTS}
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == names
    assert {case["alertname"] for case in tests[0]["alert_rule_test"]} == names


def test_alerts_are_silent_and_run(watched: Watched) -> None:
    """Prometheus has evaluated each rule without an error, and none fires at this server."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        rules = watched.prometheus.rules()
        if all(each["health"] == "ok" for each in rules):
            break
        time.sleep(0.2)
    assert {each["name"]: each["health"] for each in rules} == {
        each["alert"]: "ok" for each in ALERTS
    }
    assert [each["name"] for each in rules if each["alerts"]] == []


@pytest.mark.parametrize("target", targets("prometheus"))
def test_expressions_find_something(watched: Watched, target: Mapping[str, str]) -> None:
    """Every expression of the dashboards gives series at a server that works."""
    assert watched.prometheus.query(filled(target["expr"]))


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("sum(losswire_ready)", 1),
        ("count(losswire_worker_info)", 1),
        ('sum(losswire_refusals_total{reason="UNKNOWN_LOSS"})', 4),
        ('sum(grpc_server_call_duration_seconds_count{grpc_status="NOT_FOUND"})', 2),
        ('sum(http_server_request_duration_seconds_count{http_route="/v1/losses"})', 2),
        ("count(losswire_reserved_bytes)", 5),
        ("count(losswire_run_loss)", 3),
    ],
)
def test_numbers_are_what_happened(watched: Watched, expression: str, expected: float) -> None:
    """As the callers counted."""
    assert watched.prometheus.number(expression) == expected


def test_evaluations_are_counted(watched: Watched) -> None:
    """Those over leases, too."""
    name = 'grpc_server_call_started_total{grpc_method="losswire.v1.LossService/Evaluate"}'
    assert watched.prometheus.number(name) == watched.evaluations
    assert watched.prometheus.number("losswire_lease_calls_total") > 0


def test_native_histograms_are_the_saved_sketches(watched: Watched) -> None:
    """Count, sum and quantiles of the newest run of a name, and of each candidate."""
    prometheus, newest = watched.prometheus, watched.newest
    series = f'losswire_run_loss{{run="{RUN}",loss="{LOSS}",candidate=""}}'
    assert prometheus.number(f"histogram_count({series})") == newest.weight_sum
    assert prometheus.number(f"histogram_sum({series})") == newest.sum
    for q in (0.1, 0.5, 0.9, 0.99):
        found = prometheus.number(f"histogram_quantile({q}, {series})")
        assert found == pytest.approx(newest.quantile(q), rel=2 * newest.accuracy)
    assert prometheus.number(f'losswire_run_loss_mean{{run="{RUN}"}}') == newest.mean
    assert prometheus.number(f'losswire_run_loss_rows{{run="{RUN}"}}') == newest.count
    for candidate, each in watched.pair.items():
        series = f'losswire_run_loss{{run="{PAIR}",candidate="{candidate}"}}'
        assert prometheus.number(f"histogram_count({series})") == each.weight_sum


@pytest.mark.parametrize("target", targets("yesoreyeram-infinity-datasource"))
def test_rows_have_the_columns_of_the_dashboards(
    watched: Watched, target: Mapping[str, Any]
) -> None:
    """Every URL gives rows, whose columns exist and are of the type that the panel expects."""
    now = int(time.time() * 1000)
    url = target["url"]
    for name, value in (
        ("${loss:percentencode}", LOSS),
        ("${run:percentencode}", quote(RUN)),
        ("${__from}", str(now - 7 * 86400 * 1000)),
        ("${__to}", str(now + 1000)),
    ):
        url = url.replace(name, value)
    assert "$" not in url
    rows = watched.doors.get(url)
    assert rows
    checks = {
        "string": lambda each: each is None or isinstance(each, str),
        "number": lambda each: each is None or isinstance(each, int | float),
        "timestamp": lambda each: datetime.fromisoformat(each).tzinfo is not None,
    }
    for row, column in itertools.product(rows, target["columns"]):
        assert checks[column["type"]](row[column["selector"]]), column


@pytest.mark.parametrize("name", DASHBOARDS)
def test_dashboards_fit_together(name: str) -> None:
    """Ids are unique, panels do not overlap, and each source is one of those provided."""
    dashboard = DASHBOARDS[name]
    ids = [each["id"] for each in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    cells: set[tuple[int, int]] = set()
    for each in dashboard["panels"]:
        place = each["gridPos"]
        own = set(
            itertools.product(
                range(place["x"], place["x"] + place["w"]),
                range(place["y"], place["y"] + place["h"]),
            )
        )
        assert not own & cells, each["title"]
        assert place["x"] + place["w"] <= 24, each["title"]
        cells |= own
    for panel in panels(name):
        assert panel["title"]
        assert panel["targets"], panel["title"]
        references = [each["refId"] for each in panel["targets"]]
        assert len(set(references)) == len(references)
        for source in (panel["datasource"], *(each["datasource"] for each in panel["targets"])):
            assert SOURCES[source["uid"]] == source["type"]
    variables = dashboard["templating"]["list"]
    assert all(SOURCES[each["datasource"]["uid"]] for each in variables if "datasource" in each)
    written = json.dumps([*panels(name)])
    used = set(re.findall(r"\$\{?(\w+)", written)) - {"__rate_interval", "__from", "__to"}
    assert used <= {each["name"] for each in variables}


def test_dashboards_are_two() -> None:
    """Their ids in Grafana are unique and never change: links lead to them."""
    assert {name: each["uid"] for name, each in DASHBOARDS.items()} == {
        "losses": "losswire-losses",
        "service": "losswire-service",
    }


def test_compose_provides_what_is_read() -> None:
    """Folders and addresses of the files are those of docker-compose.yml."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["services"]
    mounted = {
        source: inside
        for name in ("prometheus", "grafana")
        for source, inside, *_ in (each.split(":") for each in services[name]["volumes"])
        if source.startswith("./")
    }
    assert all((ROOT / source).exists() for source in mounted)
    provider = yaml.safe_load(
        (MONITORING / "grafana/provisioning/dashboards/losswire.yml").read_text("utf-8")
    )["providers"][0]
    assert provider["options"]["path"] == mounted["./deploy/monitoring/grafana/dashboards"]
    command = services["server"]["command"]
    settings = yaml.safe_load((MONITORING / "prometheus.yml").read_text("utf-8"))
    [target] = settings["scrape_configs"][0]["static_configs"][0]["targets"]
    assert f"--metrics=0.0.0.0:{target.removeprefix('server:')}" in command
    assert "--http=0.0.0.0:8080" in command
    assert "--enable-feature=native-histograms" in services["prometheus"]["command"]
