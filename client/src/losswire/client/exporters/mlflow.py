"""Logs a summary or a comparison to a run of MLflow.

Needs `losswire[mlflow]`, which is mlflow-skinny; the whole mlflow does as well.
"""

import math
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from losswire.client.exporters._content import Content, Evaluated, content_of

try:
    import mlflow
    from mlflow.entities import Metric, RunTag
except ImportError as error:
    raise ImportError(
        "losswire.client.exporters.mlflow needs MLflow: pip install 'losswire[mlflow]'"
    ) from error

_LONGEST_TAG: Final = 5000
_MOST_METRICS: Final = 1000
"""How many metrics MLflow takes in one call."""


def log_summary(
    summary: Evaluated,
    *,
    run_id: str | None = None,
    client: "mlflow.MlflowClient | None" = None,
    prefix: str = "",
    step: int = 0,
    slices: int = 50,
    artifacts: str | None = "losswire",
    tags: Mapping[str, str] | None = None,
) -> str:
    """Log a `Summary` or a `Comparison`; returns the run's id.

    Metrics: `mean`, `standard_error`, `interval_low`, `interval_high` (of 95 %), `std`, `minimum`,
    `median`, `p90`, `p99`, `maximum`, `count`, `ignored_count`, `nan_count`, `infinite_count`, what
    the loss has besides (`perplexity`, `rmse`, `bits_per_dimension`), and for each slice of a
    table with at most `slices` of them `slices/COLUMN/LABEL/mean`, `.../standard_error` and
    `.../count`. Those of a comparison begin with the candidate's name, and with `a - b` for each
    pair. In names, characters that MLflow refuses become `_`. Metrics that are infinite, which
    MLflow would replace by the largest float64, are left out and named by the tag
    `losswire.infinite`.

    Artifacts, in the folder `artifacts` (None: none): `report.html`; `summary.json` with all slices
    and worst rows; `histogram.json` with the edges and weights of the buckets; `summary.binpb`,
    which `Summary.from_bytes` or `Comparison.from_bytes` reads.

    `run_id`: the run; None: the active one, or a new one, which stays active. `client`: an
    MlflowClient; None: one of the current tracking URI. `prefix` begins every metric's name,
    `step` is their step, `tags` are further tags.

    Raises TypeError for other objects, ValueError for a negative `slices`, and MLflow's own errors.

    Example:
        >>> import mlflow, tempfile
        >>> from losswire.client.exporters.mlflow import log_summary
        >>> batch = {"input": [1.0, 3.0], "target": [0.0, 0.0]}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     mlflow.set_tracking_uri(f"sqlite:///{folder}/runs.db")
        ...     experiment = mlflow.create_experiment("e", artifact_location=f"{folder}/artifacts")
        ...     with mlflow.start_run(experiment_id=experiment):
        ...         run_id = log_summary(client.summarize("mse_loss", [batch]))
        ...     mlflow.get_run(run_id).data.metrics["mean"]
        5.0
    """
    content = content_of(summary, prefix, slices)
    client = client or mlflow.MlflowClient()
    run_id = run_id or (mlflow.active_run() or mlflow.start_run()).info.run_id
    _log_numbers(client, run_id, content, step, tags or {})
    if artifacts is not None:
        with tempfile.TemporaryDirectory() as folder:
            for name, data in content.files().items():
                Path(folder, name).write_bytes(data)
            client.log_artifacts(run_id, folder, artifacts)
    return run_id


def _log_numbers(
    client: "mlflow.MlflowClient",
    run_id: str,
    content: Content,
    step: int,
    tags: Mapping[str, str],
) -> None:
    """Log metrics and tags."""
    now = int(time.time() * 1000)
    metrics = [
        Metric(name, value, now, step)
        for name, value in content.metrics.items()
        if not math.isinf(value)
    ]
    infinite = [name for name, value in content.metrics.items() if math.isinf(value)]
    texts = {**content.tags, **tags}
    if infinite:
        texts["losswire.infinite"] = ", ".join(infinite)
    client.log_batch(
        run_id, tags=[RunTag(name, text[:_LONGEST_TAG]) for name, text in texts.items()]
    )
    for start in range(0, len(metrics), _MOST_METRICS):
        client.log_batch(run_id, metrics=metrics[start : start + _MOST_METRICS])


__all__ = ["log_summary"]
