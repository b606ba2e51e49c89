"""What TensorBoard's own reader finds is what the summary says."""

from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from losswire.client.exporters.tensorboard import log_summary
from tests.support.evaluated import comparison, summary

ALL = {"histograms": 0, "scalars": 0, "tensors": 0}
"""Read every event."""


def _read(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance=ALL).Reload()


@pytest.mark.parametrize("own", [True, False], ids=["folder", "torch's writer"])
def test_scalars_are_those_of_the_summary(tmp_path: Path, *, own: bool) -> None:
    """As float32, which TensorBoard has; through a folder and through torch's writer."""
    evaluated = summary()
    if own:
        log_summary(evaluated, tmp_path, step=4, prefix="eval/")
    else:
        with SummaryWriter(str(tmp_path)) as writer:
            log_summary(evaluated, writer, step=4, prefix="eval/")
    events = _read(tmp_path)
    found = {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]}
    for name, value in (
        ("mean", evaluated.mean),
        ("interval_low", evaluated.interval()[0]),
        ("p99", evaluated.quantile(0.99)),
        ("perplexity", evaluated.perplexity),
        ("count", 1995.0),
        ("slices/country/JP/mean", evaluated.slices["country"]["JP"].mean),
    ):
        [event] = found[f"eval/{name}"]
        assert (event.step, event.value) == (4, np.float32(value)), name
    assert len(found) == 16 + 3 * 4


def test_the_histogram_is_the_sketch(tmp_path: Path) -> None:
    """All buckets with their weights, as doubles."""
    evaluated = summary(weighted=True, below_zero=0.2)
    log_summary(evaluated, tmp_path)
    [event] = _read(tmp_path).Histograms("distribution")
    found, expected = event.histogram_value, evaluated.histogram()
    assert found.bucket_limit == expected.edges[1:].tolist()
    assert found.bucket == expected.weights.tolist()
    assert (found.min, found.max) == (evaluated.minimum, evaluated.maximum)
    assert (found.num, found.sum) == (evaluated.weight_sum, evaluated.sum)
    mean = evaluated.sum / evaluated.weight_sum
    count = evaluated.count
    variance = (found.sum_squares / found.num - mean**2) * count / (count - 1)
    assert variance == pytest.approx(evaluated.std**2, rel=1e-9)


def test_the_text_says_the_answer(tmp_path: Path) -> None:
    """A sentence, and what was evaluated."""
    evaluated = comparison()
    log_summary(evaluated, tmp_path)
    [event] = _read(tmp_path).Tensors("summary")
    text = event.tensor_proto.string_val[0].decode()
    assert evaluated.difference("small", "large").verdict in text
    assert "- losswire.loss: `cross_entropy`" in text


def test_candidates_are_kept_apart(tmp_path: Path) -> None:
    """Each has its own numbers and its own histogram."""
    evaluated = comparison(candidates=3)
    log_summary(evaluated, tmp_path)
    events = _read(tmp_path)
    assert events.Tags()["histograms"] == [f"{name}/distribution" for name in evaluated]
    for name, each in evaluated.items():
        [event] = events.Scalars(f"{name}/mean")
        assert event.value == np.float32(each.mean)


def test_no_rows_have_no_histogram(tmp_path: Path) -> None:
    """A summary of ignored rows is written all the same."""
    log_summary(summary(rows=5), tmp_path)
    events = _read(tmp_path)
    assert events.Tags()["histograms"] == []
    assert events.Scalars("count")[0].value == 0
