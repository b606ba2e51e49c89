"""deploy/kubernetes: replicas follow the load by what the server counts, and settle."""

import math
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.manifests import KUBERNETES, of_base, resources_in
from tests.support.doors import open_doors

RULES = yaml.safe_load((KUBERNETES / "adapter-rules.yaml").read_text("utf-8"))["rules"]
SCRAPE_SECONDS = 15
START_SECONDS = 15
"""From the wish for a replica to its readiness: it loads torch, and is then ready for five."""


def series(rule: dict[str, Any]) -> str:
    """Return the name of the series that a rule is about."""
    return str(rule["seriesQuery"].partition("{")[0])


def query(rule: dict[str, Any]) -> str:
    """Return what prometheus-adapter asks for the pods of a namespace."""
    text = str(rule["metricsQuery"])
    for name, value in (
        ("Series", series(rule)),
        ("LabelMatchers", 'namespace="losswire",pod=~"a|b"'),
        ("GroupBy", "pod"),
    ):
        text = text.replace(f"<<.{name}>>", value)
    assert "<<" not in text
    return text


def scaled_object() -> Any:  # noqa: ANN401 (YAML)
    """Return the autoscaler of KEDA."""
    [found] = resources_in(KUBERNETES / "components/keda/scaledobject.yaml")
    return found["spec"]


def aims() -> dict[str, float]:
    """Return what the autoscaler aims at, by metric."""
    return {
        each["pods"]["metric"]["name"]: _quantity(each["pods"]["target"]["averageValue"])
        for each in of_base("HorizontalPodAutoscaler")["spec"]["metrics"]
    }


def _quantity(text: str) -> float:
    return float(text[:-1]) / 1000 if text.endswith("m") else float(text)


def test_metrics_are_those_of_the_server() -> None:
    """Both autoscalers and the rules name gauges that a server really has."""
    with open_doors() as doors:
        page = doors.page()[1].decode()
    for name in aims():
        assert f"# TYPE {name} gauge" in page
    assert [series(each) for each in RULES] == list(aims())


def test_both_autoscalers_say_the_same() -> None:
    """Aims, bounds, speeds and expressions."""
    other, own = scaled_object(), of_base("HorizontalPodAutoscaler")["spec"]
    assert other["minReplicaCount"] == own["minReplicas"]
    assert other["maxReplicaCount"] == own["maxReplicas"]
    assert other["advanced"]["horizontalPodAutoscalerConfig"]["behavior"] == own["behavior"]
    triggers = [each["metadata"] for each in other["triggers"]]
    assert [float(each["threshold"]) for each in triggers] == list(aims().values())
    for rule, trigger in zip(RULES, triggers, strict=True):
        expected = query(rule).replace(',pod=~"a|b"', "")
        assert trigger["query"] == f"sum({expected})"
    assert {each["metricType"] for each in other["triggers"]} == {"AverageValue"}


def test_rules_give_one_number_for_each_pod(tmp_path: Path) -> None:
    """Promtool: the average over workers and half a minute, and the 95th percentile of ages."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("needs Debian's prometheus")
    ratio, age = RULES

    def one(name: str, pod: str, worker: int, values: str) -> dict[str, str]:
        labels = f'namespace="losswire",pod="{pod}",worker="{worker}"'
        return {"series": f"{name}{{{labels}}}", "values": values}

    def expected(rule: dict[str, Any], **numbers: float) -> dict[str, Any]:
        samples = [{"labels": f'{{pod="{pod}"}}', "value": value} for pod, value in numbers.items()]
        return {"expr": query(rule), "eval_time": "5m", "exp_samples": samples}

    test = {
        "evaluation_interval": "15s",
        "tests": [
            {
                "interval": "15s",
                "input_series": [
                    one(series(ratio), "a", 0, "0x18 0.5 1 0"),
                    one(series(ratio), "a", 1, "1x20"),
                    one(series(ratio), "b", 0, "0.25x20"),
                    one(series(age), "a", 0, "0x20"),
                    one(series(age), "a", 1, "3x20"),
                    one(series(age), "b", 0, "0x20"),
                ],
                "promql_expr_test": [expected(ratio, a=0.75, b=0.25), expected(age, a=3, b=0)],
            }
        ],
    }
    file = tmp_path / "test.yml"
    file.write_text(yaml.safe_dump(test), "utf-8")
    ran = subprocess.run(
        [promtool, "test", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


class Simulated:
    """Replicas under the autoscaler's rules, as Kubernetes documents them, in steps of 15 s.

    The load is what all callers together would hold in memory, in budgets of one replica. A
    replica holds its share, and at most its budget.
    """

    def __init__(self) -> None:
        """Begin with the least replicas, without load."""
        spec = of_base("HorizontalPodAutoscaler")["spec"]
        self._least: int
        self._most: int
        self._aim = aims()["losswire_admitted_ratio"]
        self._least, self._most = spec["minReplicas"], spec["maxReplicas"]
        self._up, self._down = spec["behavior"]["scaleUp"], spec["behavior"]["scaleDown"]
        self.history = [self._least]
        """How many replicas were wished for, at each step."""
        self._wishes: list[int] = []
        self._ratios: list[float] = []

    def step(self, load: float) -> None:
        """Go on by 15 s."""
        wished = self.history[-1]
        # Those that are not ready yet take no share.
        ready = min(self.history[-1 - START_SECONDS // SCRAPE_SECONDS :])
        self._ratios.append(min(load / ready, 1))
        recent = self._ratios[-2:]
        # A replica that is not ready yet counts as one without load, where others ask for more.
        average = sum(recent) / len(recent) * ready / wished
        ratio = average / self._aim
        steady = abs(ratio - 1) <= 0.1
        self._wishes.append(wished if steady else math.ceil(wished * ratio - 1e-9))
        self.history.append(self._bounded(wished))

    def _bounded(self, now: int) -> int:
        up = min(self._wishes[-self._remembered(self._up) :])
        down = max(self._wishes[-self._remembered(self._down) :])
        if up > now:
            speeds: list[int] = [
                each["value"] if each["type"] == "Pods" else math.ceil(now * each["value"] / 100)
                for each in self._up["policies"]
            ]
            return min(up, now + max(speeds), self._most)
        if down < now:
            [policy] = self._down["policies"]
            speed: int = policy["value"]
            before = max(self.history[-policy["periodSeconds"] // SCRAPE_SECONDS :])
            return max(down, before - speed, self._least)
        return now

    @staticmethod
    def _remembered(rules: dict[str, Any]) -> int:
        """Return how many of the last wishes count."""
        return int(rules["stabilizationWindowSeconds"]) // SCRAPE_SECONDS + 1


def run(load: float, steps: int, simulated: Simulated) -> list[int]:
    """Return the replicas at each step under a constant load."""
    for _ in range(steps):
        simulated.step(load)
    return simulated.history[-steps:]


@pytest.mark.parametrize("load", [1.0, 1.8, 2.5, 3.0, 4.0, 4.5])
def test_replicas_settle_where_the_aim_is(load: float) -> None:
    """After a step up, and then after a step down: within a tenth of the aim, and for good."""
    simulated = Simulated()
    up = run(load, 120, simulated)
    [settled] = set(up[-40:])
    aim = aims()["losswire_admitted_ratio"]
    assert load / settled <= aim * 1.1 + 1e-9
    assert settled <= max(math.ceil(load / aim) + 1, 2)
    down = run(0.1, 240, simulated)
    assert set(down[-40:]) == {2}
    assert down == sorted(down, reverse=True)


def test_up_takes_a_minute_and_down_begins_after_five() -> None:
    """From two replicas to what four times their load needs, and back one a minute."""
    simulated = Simulated()
    up = run(4.5, 120, simulated)
    assert min(up[4:]) >= math.ceil(4.5 / 0.6)
    down = run(0.1, 240, simulated)
    assert set(down[:19]) == {8}
    assert all(before - after <= 1 for before, after in zip(down, down[4:], strict=False))


def test_a_short_peak_is_kept_for_five_minutes() -> None:
    """A load that comes and goes each minute makes the replicas of its peaks, not a wave."""
    simulated = Simulated()
    for _ in range(10):
        run(3.0, 4, simulated)
        run(0.5, 4, simulated)
    assert len(set(simulated.history[-40:])) == 1
