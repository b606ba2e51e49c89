"""The losses of saved runs: a native histogram of each, and gauges of its figures.

Names of runs and of candidates are the callers' own. They are labels here, so that the number of
runs is bounded, and of those with the same name and loss only the newest is shown.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from losswire.summaries.prometheus import GAUGE_HISTOGRAM, MetricFamily, fill_histogram
from losswire.v1.run_service_pb2 import Run
from losswire.v1.summary_pb2 import LossDistribution

_LABELS: Final = ("run", "loss", "candidate")
_NAME: Final = "losswire_run_loss"
_FIGURES: Final = {
    "mean": ("mean", "Mean loss of a saved run."),
    "standard_error": ("standard_error", "Standard error of that mean."),
    "rows": ("count", "Rows of a saved run that take part."),
}
"""The gauges by the end of their name: the field of RunFigures that they show, and a text."""


@dataclass(frozen=True, slots=True)
class RunLoss:
    """The losses of one candidate of a run."""

    run: Run
    candidate: str
    """Empty where a run has one only."""
    distribution: LossDistribution

    @property
    def labels(self) -> tuple[str, str, str]:
        """The values of the labels."""
        return self.run.name, self.run.loss, self.candidate


RunLosses = Sequence[RunLoss]


def losses_of(runs: Sequence[Run]) -> RunLosses:
    """Return the losses of whole runs, of which the newest are first."""
    found: dict[tuple[str, str, str], RunLoss] = {}
    for run in runs:
        names = list(run.summary.candidates) or [""]
        for name, distribution in zip(names, run.summary.total.distributions, strict=False):
            loss = RunLoss(run, name, distribution)
            found.setdefault(loss.labels, loss)
    return list(found.values())


def distributions(losses: RunLosses) -> Any:  # noqa: ANN401 (a message made at run time)
    """Return the family of the native histograms."""
    family = MetricFamily(
        name=_NAME, help="Loss of each row of a saved run, by weight.", type=GAUGE_HISTOGRAM
    )
    for each in losses:
        metric = family.metric.add()
        for key, value in sorted(zip(_LABELS, each.labels, strict=True)):
            metric.label.add(name=key, value=value)
        fill_histogram(metric.histogram, each.distribution)
    return family


def gauges(losses: RunLosses) -> Iterator[Metric]:
    """Return the families of the figures."""
    for end, (field, text) in _FIGURES.items():
        family = GaugeMetricFamily(f"{_NAME}_{end}", text, labels=_LABELS)
        for each in losses:
            for figures in each.run.figures:
                if figures.candidate == each.candidate:
                    family.add_metric(each.labels, getattr(figures, field))
        yield family
    saved = GaugeMetricFamily(
        "losswire_run_saved_timestamp_seconds", "When a run was saved.", labels=_LABELS
    )
    for each in losses:
        saved.add_metric(each.labels, each.run.saved.ToMicroseconds() / 1e6)
    yield saved
