"""What Weights & Biases writes to its files while it is offline is what the summary says."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import wandb

from losswire.client.exporters.wandb import log_summary
from tests.support.evaluated import comparison, summary
from tests.support.wandb_files import config, history

pytestmark = pytest.mark.filterwarnings("ignore:::wandb")


@contextmanager
def _run(folder: Path) -> Iterator[wandb.Run]:
    """A run that sends nothing."""
    settings = wandb.Settings(
        silent=True, console="off", x_disable_stats=True, x_disable_meta=True, disable_git=True
    )
    with wandb.init(mode="offline", dir=str(folder), settings=settings) as run:
        yield run
    # The file is complete once the process that writes it has ended.
    wandb.teardown()


def test_metrics_histogram_and_report(tmp_path: Path) -> None:
    """Numbers bit for bit, buckets joined to at most 512, the page as it is."""
    evaluated = summary()
    with _run(tmp_path) as run:
        log_summary(evaluated, run=run, prefix="eval/")
    [step] = history(tmp_path)
    low, high = evaluated.interval()
    for name, value in (
        ("mean", evaluated.mean),
        ("interval_low", low),
        ("interval_high", high),
        ("std", evaluated.std),
        ("p90", evaluated.quantile(0.9)),
        ("count", 1995),
        ("perplexity", evaluated.perplexity),
        ("slices/country/FR/mean", evaluated.slices["country"]["FR"].mean),
        ("slices/country/FR/count", evaluated.slices["country"]["FR"].count),
    ):
        assert step[f"eval/{name}"] == value, name
    histogram = step["eval/distribution"]
    assert histogram["_type"] == "histogram"
    assert len(histogram["values"]) <= 512
    assert math.fsum(histogram["values"]) == evaluated.weight_sum
    between = evaluated.histogram(histogram["bins"]).weights.tolist()
    assert histogram["values"] == pytest.approx(between)
    report = step["eval/report"]
    assert report["_type"] == "html-file"
    [folder] = [each.parent for each in tmp_path.rglob("*.wandb")]
    written = (folder / "files" / report["path"]).read_text("utf-8")
    evaluated.report(tmp_path / "expected.html")
    assert written == (tmp_path / "expected.html").read_text("utf-8")


def test_the_config_says_what_was_evaluated(tmp_path: Path) -> None:
    """Loss, options and receipt."""
    with _run(tmp_path) as run:
        log_summary(summary(), run=run, report=False)
    found = config(tmp_path)["losswire"]
    assert found["loss"] == "cross_entropy"
    assert found["options"] == '{"label_smoothing": 0.1}'
    assert found["device"] == "cpu"
    assert "report" not in history(tmp_path)[0]


def test_a_comparison_in_the_current_run(tmp_path: Path) -> None:
    """Each candidate has its own numbers and histogram, each pair its difference."""
    evaluated = comparison()
    with _run(tmp_path):
        log_summary(evaluated, step=5)
    [step] = history(tmp_path)
    assert step["_step"] == 5
    assert step["large/mean"] == evaluated["large"].mean
    pair = evaluated.difference("small", "large")
    assert step["small - large/mean"] == pair.mean
    assert step["small - large/wins"] == pair.wins
    assert step["small/distribution"]["_type"] == "histogram"


def test_numbers_that_are_none(tmp_path: Path) -> None:
    """NaN arrives as NaN, and what is unknown is not there."""
    with _run(tmp_path) as run:
        log_summary(summary(nan=3), run=run)
    [step] = history(tmp_path)
    assert str(step["mean"]).lower() == "nan"
    assert "interval_low" not in step
    assert (step["nan_count"], step["infinite_count"]) == (3, 3)


def test_without_a_run_it_says_so() -> None:
    """Nothing is started unasked."""
    with pytest.raises(RuntimeError, match=r"run: there is none; call wandb\.init first"):
        log_summary(summary())
