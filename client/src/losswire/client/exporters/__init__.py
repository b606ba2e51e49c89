"""Summaries for the tools where people keep and watch their numbers.

Each module but that for Prometheus needs one package, an extra of the module's name:
`pip install losswire[mlflow]`.

| Module | Writes |
|---|---|
| `mlflow` | metrics, tags and artifacts of a run of MLflow |
| `wandb` | metrics, histogram and report of a run of Weights & Biases |
| `tensorboard` | scalars, histogram and text of TensorBoard |
| `prometheus` | a native histogram and gauges that Prometheus scrapes |
| `opentelemetry` | an exponential histogram of OpenTelemetry |

The buckets of a summary are those of the last two, so that nothing is lost there.
"""
