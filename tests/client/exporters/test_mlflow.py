"""What MLflow's own client reads is what the summary says."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest

from losswire.client import Comparison, Summary
from losswire.client.exporters.mlflow import log_summary
from tests.support.evaluated import comparison, summary

# The tools' own warnings are theirs.
pytestmark = pytest.mark.filterwarnings(
    "ignore:::mlflow", "ignore:::sqlalchemy", "ignore:::alembic"
)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[mlflow.MlflowClient]:
    """A client of a store of these tests alone, which is also the current one."""
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/runs.db")
    try:
        yield mlflow.MlflowClient()
    finally:
        mlflow.set_tracking_uri(before)


@pytest.fixture
def run_id(client: mlflow.MlflowClient, tmp_path: Path) -> str:
    """A run."""
    experiment = client.create_experiment(str(tmp_path), artifact_location=f"{tmp_path}/artifacts")
    created: str = client.create_run(experiment).info.run_id
    return created


def test_metrics_are_those_of_the_summary(client: mlflow.MlflowClient, run_id: str) -> None:
    """Every figure and every slice, bit for bit."""
    evaluated = summary(cross=True)
    log_summary(evaluated, run_id=run_id, client=client, step=3)
    low, high = evaluated.interval()
    expected = {
        "mean": evaluated.mean,
        "standard_error": evaluated.standard_error,
        "interval_low": low,
        "interval_high": high,
        "std": evaluated.std,
        "minimum": evaluated.minimum,
        "median": evaluated.quantile(0.5),
        "p90": evaluated.quantile(0.9),
        "p99": evaluated.quantile(0.99),
        "maximum": evaluated.maximum,
        "count": 1995.0,
        "ignored_count": 5.0,
        "nan_count": 0.0,
        "infinite_count": 0.0,
        "perplexity": evaluated.perplexity,
        "bits_per_dimension": evaluated.bits_per_dimension,
    }
    for column, table in evaluated.slices.items():
        for label, each in table.items():
            start = f"slices/{column}/{label}".replace("\u00d7", " x ")
            expected[f"{start}/mean"] = each.mean
            expected[f"{start}/standard_error"] = each.standard_error
            expected[f"{start}/count"] = each.count
    assert client.get_run(run_id).data.metrics == expected
    assert client.get_metric_history(run_id, "mean")[0].step == 3


def test_a_comparison_has_each_candidate_and_each_pair(
    client: mlflow.MlflowClient, run_id: str
) -> None:
    """The names begin with the candidate, or with the pair."""
    evaluated = comparison(candidates=3)
    log_summary(evaluated, run_id=run_id, client=client)
    found = client.get_run(run_id).data.metrics
    for name in evaluated.candidates:
        assert found[f"{name}/mean"] == evaluated[name].mean
    pair = evaluated.difference("small", "tiny")
    assert found["small - tiny/mean"] == pair.mean
    assert found["small - tiny/p_value"] == pair.p_value
    assert found["small - tiny/wins"] == pair.wins
    assert found["small - tiny/slices/country/JP/mean"] == pair.slices["country"]["JP"].mean


def test_artifacts_hold_everything(
    client: mlflow.MlflowClient, run_id: str, tmp_path: Path
) -> None:
    """The report, all numbers, the buckets, and a state that can be read and merged."""
    evaluated = summary()
    log_summary(evaluated, run_id=run_id, client=client)
    folder = Path(client.download_artifacts(run_id, "losswire", str(tmp_path)))
    report = tmp_path / "expected.html"
    evaluated.report(report)
    assert (folder / "report.html").read_text("utf-8") == report.read_text("utf-8")
    assert json.loads((folder / "summary.json").read_text("utf-8")) == evaluated.to_dict()
    assert Summary.from_bytes((folder / "summary.binpb").read_bytes()) == evaluated
    histogram = json.loads((folder / "histogram.json").read_text("utf-8"))["distribution"]
    assert histogram["edges"] == evaluated.histogram().edges.tolist()
    assert histogram["weights"] == evaluated.histogram().weights.tolist()


def test_tags_say_what_was_evaluated(client: mlflow.MlflowClient, run_id: str) -> None:
    """Loss, options, rows and receipt, and the caller's own."""
    log_summary(summary(), run_id=run_id, client=client, artifacts=None, tags={"commit": "abc"})
    tags = client.get_run(run_id).data.tags
    assert tags["losswire.loss"] == "cross_entropy"
    assert json.loads(tags["losswire.options"]) == {"label_smoothing": 0.1}
    assert (tags["losswire.rows"], tags["losswire.device"]) == ("2000", "cpu")
    assert tags["commit"] == "abc"
    assert client.list_artifacts(run_id) == []


def test_numbers_that_are_none_are_not_falsified(client: mlflow.MlflowClient, run_id: str) -> None:
    """MLflow keeps NaN, and would make the largest float64 of an infinity."""
    infinite = comparison(nan=0).message
    for each in infinite.total.distributions:
        each.positive_infinity_count = 1
    log_summary(Comparison(infinite), run_id=run_id, client=client)
    run = client.get_run(run_id)
    assert "small/mean" not in run.data.metrics
    assert "small/mean" in run.data.tags["losswire.infinite"].split(", ")
    assert math.isnan(run.data.metrics["small - large/mean"])


def test_hostile_labels_become_names(client: mlflow.MlflowClient, run_id: str) -> None:
    """Labels that would be written alike stay apart, and none leaves its place."""
    labels = ("../a", "a?b", "a*b", "")
    evaluated = summary(countries=labels)
    log_summary(evaluated, run_id=run_id, client=client, artifacts=None)
    found = client.get_run(run_id).data.metrics
    means = {name: value for name, value in found.items() if name.endswith("/mean")}
    assert sorted(means) == [
        "slices/country/_/mean",
        "slices/country/_a/mean",
        "slices/country/a_b/mean",
        "slices/country/a_b_2/mean",
    ]
    assert sorted(means.values()) == sorted(
        each.mean for each in evaluated.slices["country"].values()
    )


def test_large_tables_are_left_to_the_artifacts(client: mlflow.MlflowClient, run_id: str) -> None:
    """A table with more slices than asked for gives no metrics."""
    log_summary(summary(), run_id=run_id, client=client, slices=3, artifacts=None, prefix="eval/")
    found = client.get_run(run_id).data.metrics
    assert "eval/mean" in found
    assert not [name for name in found if "slices/" in name]


def test_without_a_run_the_active_one_is_taken(client: mlflow.MlflowClient) -> None:
    """As MLflow's own functions do."""
    experiment = client.create_experiment("of the active run")
    with mlflow.start_run(experiment_id=experiment) as run:
        assert log_summary(summary(), artifacts=None) == run.info.run_id
    assert client.get_run(run.info.run_id).data.metrics["count"] == 1995.0


@pytest.mark.parametrize(
    ("argument", "fields", "kind", "text"),
    [
        ("no summary", {}, TypeError, "summary: expected a Summary or a Comparison, got str"),
        (None, {"slices": -1}, ValueError, "slices: expected a number of at least 0, got -1"),
    ],
)
def test_mistakes_are_named(
    argument: object, fields: dict[str, int], kind: type[Exception], text: str
) -> None:
    """Before anything is logged."""
    with pytest.raises(kind, match=text):
        log_summary(argument or summary(), **fields)  # type: ignore[arg-type]
