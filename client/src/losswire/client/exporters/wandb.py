"""Logs a summary or a comparison to a run of Weights & Biases; needs `losswire[wandb]`."""

from typing import TYPE_CHECKING, Any, Final

from losswire.client.exporters._content import Evaluated, content_of, histogram

try:
    import wandb
except ImportError as error:
    raise ImportError(
        "losswire.client.exporters.wandb needs Weights & Biases: pip install 'losswire[wandb]'"
    ) from error

if TYPE_CHECKING:
    from wandb import Run

_MOST_BUCKETS: Final = 512


def log_summary(
    summary: Evaluated,
    *,
    run: "Run | None" = None,
    prefix: str = "",
    step: int | None = None,
    slices: int = 50,
    report: bool = True,
) -> None:
    """Log a `Summary` or a `Comparison` in one step of a run.

    The numbers have the names that `losswire.client.exporters.mlflow.log_summary` lists. Besides,
    `distribution` is a histogram of at most 512 buckets, which Weights & Biases' own limit is:
    neighbours are joined until they are so few. `report` adds the page of `Summary.report` as
    `report`. What was evaluated and by what goes to the run's config under `losswire`.

    `run`: None: the current one. `prefix` begins every name. `step`: None: the run's next one.
    Tables with more than `slices` slices are left out; the report has them.

    Raises RuntimeError where there is no run, TypeError for other objects, ValueError for a
    negative `slices`.

    Example:
        >>> import tempfile, wandb
        >>> from losswire.client.exporters.wandb import log_summary
        >>> summary = client.summarize("mse_loss", [{"input": [1.0, 3.0], "target": [0.0, 0.0]}])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     settings = wandb.Settings(silent=True)
        ...     with wandb.init(mode="offline", dir=folder, settings=settings) as run:
        ...         log_summary(summary, run=run)
        ...         float(run.summary["mean"])
        5.0
    """
    content = content_of(summary, prefix, slices)
    run = run or wandb.run
    if run is None:
        raise RuntimeError("run: there is none; call wandb.init first, or pass one")
    values: dict[str, Any] = dict(content.metrics)
    for name, each in content.distributions.items():
        found = histogram(each, _MOST_BUCKETS)
        if len(found.weights):
            values[name] = wandb.Histogram(np_histogram=(found.weights, found.edges))
    if report:
        values[f"{prefix}report"] = wandb.Html(content.page, inject=False)
    facts = {key.removeprefix("losswire."): text for key, text in content.tags.items()}
    run.config.update({f"{prefix}losswire": facts}, allow_val_change=True)  # type: ignore[no-untyped-call]
    run.log(values, step=step)


__all__ = ["log_summary"]
