"""Runs as JSON, and the header of a run as the request that it was made of."""

from typing import Any, Final

from losswire.server.http.message_json import option_json, short_names
from losswire.summaries.statistics import Estimate
from losswire.v1 import evaluation_pb2, run_service_pb2, summary_pb2, tensor_pb2
from losswire.wire import dtype_name, json_number, json_values

_NAMES: Final = {
    "reduction": short_names(evaluation_pb2.Reduction.DESCRIPTOR),
    "engine": short_names(evaluation_pb2.Engine.DESCRIPTOR),
}
_HEADER_NAMES: Final = {
    "slice_overflow": short_names(summary_pb2.SliceOverflow.DESCRIPTOR),
    "cluster_order": short_names(summary_pb2.ClusterOrder.DESCRIPTOR),
}
_PLAIN: Final = (
    "worst",
    "partition",
    "first_row",
    "max_slices",
    "max_open_clusters",
    "report_every_batches",
)


def run_json(run: run_service_pb2.Run) -> dict[str, Any]:
    """Return a run as a list shows it."""
    return {
        "run_id": run.run_id,
        "name": run.name,
        "labels": dict(sorted(run.labels.items())),
        "started": time_of(run, "started"),
        "ended": time_of(run, "ended"),
        "saved": time_of(run, "saved"),
        "creator": run.creator,
        "loss": run.loss,
        "figures": json_values([figures_row(each) for each in run.figures]),
    }


def figures_row(found: run_service_pb2.RunFigures) -> dict[str, Any]:
    """Return what a list shows of one candidate, with the 95 % interval; numbers may be NaN."""
    low, high = Estimate(found.mean, found.standard_error, 0).interval()
    return {
        "candidate": found.candidate,
        "count": found.count,
        "mean": found.mean,
        "standard_error": found.standard_error,
        "low": low,
        "high": high,
    }


def time_of(run: run_service_pb2.Run, name: str) -> str | None:
    """Return a time of a run as RFC 3339 has it; None where there is none."""
    if not run.HasField(name):  # type: ignore[arg-type]  # one of three names
        return None
    time: str = getattr(run, name).ToJsonString()
    return time


def header_json(header: summary_pb2.SummaryHeader) -> dict[str, Any]:
    """Return a header in the form of a request; of tensors, data type and shape."""
    evaluation = header.evaluation
    found: dict[str, Any] = {
        "loss": evaluation.loss,
        "options": {name: option_json(each) for name, each in sorted(evaluation.options.items())},
        "inputs": _specs(evaluation.inputs),
        "candidates": {each.name: _specs(each.inputs) for each in header.candidates},
        "slices": [list(each.columns) for each in header.tables],
    }
    for name, names in _NAMES.items():
        if (value := getattr(evaluation, name)) in names:
            found[name] = names[value]
    if evaluation.compute_data_type:
        found["compute_data_type"] = dtype_name(evaluation.compute_data_type)
    for name, names in _HEADER_NAMES.items():
        if (value := getattr(header, name)) in names:
            found[name] = names[value]
    if header.HasField("relative_accuracy"):
        found["relative_accuracy"] = json_number(header.relative_accuracy)
    return found | {name: getattr(header, name) for name in _PLAIN if getattr(header, name)}


def _specs(inputs: Any) -> dict[str, Any]:  # noqa: ANN401 (a map of protobuf)
    tensors: dict[str, tensor_pb2.Tensor] = dict(sorted(inputs.items()))
    return {
        name: {"data_type": dtype_name(each.data_type), "shape": list(each.shape)}
        for name, each in tensors.items()
    }
