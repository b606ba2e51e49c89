"""Evaluations that are refused."""

import numpy as np

from losswire.v1 import evaluation_pb2, tensor_pb2
from tests.conformance.cases.given import CLASSES, LOGITS, SHORT, TARGETS, Failure, f32, i64, one


def _no_data_type(evaluation: evaluation_pb2.Evaluation) -> None:
    evaluation.inputs["input"].data_type = tensor_pb2.DATA_TYPE_UNSPECIFIED


def _short_of_data(evaluation: evaluation_pb2.Evaluation) -> None:
    tensor = evaluation.inputs["input"]
    tensor.data = tensor.data[:-1]


def _invalid(*fields: str) -> Failure:
    return Failure(code=3, reason="INVALID_EVALUATION", fields=fields)


ERRORS = (
    one(
        "error_unknown_loss",
        "There is no such loss.",
        loss="cross_entrpy",
        inputs={},
        failure=Failure(code=5, reason="UNKNOWN_LOSS", fields=("loss",)),
    ),
    one(
        "error_class_out_of_range",
        "A class that does not exist: never an index into memory.",
        loss="cross_entropy",
        inputs={"input": f32(LOGITS), "target": i64([0, 1, 3, -1])},
        failure=_invalid('inputs["target"]'),
    ),
    one(
        "error_shape",
        "The batch axes differ.",
        loss="cross_entropy",
        inputs={"input": f32(LOGITS), "target": i64([0, 1, 2])},
        failure=_invalid('inputs["target"].shape'),
    ),
    one(
        "error_no_silent_broadcast",
        "Where torch would broadcast with a warning, the request is refused.",
        loss="mse_loss",
        inputs={"input": f32(SHORT), "target": f32(TARGETS[:1])},
        failure=_invalid('inputs["target"].shape'),
    ),
    one(
        "error_data_type",
        "int32 classes, which torch does not take.",
        loss="cross_entropy",
        inputs={"input": f32(LOGITS), "target": np.array(CLASSES, np.int32)},
        failure=_invalid('inputs["target"].data_type'),
    ),
    one(
        "error_data_type_missing",
        "A tensor that does not say what its bytes are.",
        loss="sigmoid",
        inputs={"input": f32(LOGITS)},
        spoil=_no_data_type,
        failure=_invalid('inputs["input"].data_type'),
    ),
    one(
        "error_byte_count",
        "One byte is missing.",
        loss="sigmoid",
        inputs={"input": f32(LOGITS)},
        spoil=_short_of_data,
        failure=_invalid('inputs["input"].data'),
    ),
    one(
        "error_probability_out_of_range",
        "A probability above 1.",
        loss="binary_cross_entropy",
        inputs={"input": f32([0.5, 1.5]), "target": f32([0.0, 1.0])},
        failure=_invalid('inputs["input"]'),
    ),
    one(
        "error_everything_at_once",
        "All violations are reported together.",
        loss="cross_entropy",
        inputs={"input": f32(LOGITS), "target": i64(CLASSES), "targets": i64(CLASSES)},
        options={"label_smoothing": 1.5, "smoothing": 0.1, "ignore_index": 0.5},
        reduction="batchmean",
        gradients_for=("target",),
        failure=_invalid(
            'inputs["targets"]',
            'options["label_smoothing"]',
            'options["smoothing"]',
            'options["ignore_index"]',
            "reduction",
            "gradients_for[0]",
        ),
    ),
    one(
        "error_grad_output_missing",
        "The gradient of an unreduced loss is not defined without a grad_output.",
        loss="mse_loss",
        inputs={"input": f32(SHORT), "target": f32(TARGETS)},
        reduction="none",
        gradients_for=("input",),
        failure=_invalid("grad_output"),
    ),
    one(
        "error_normalizer",
        "A denominator of 0, for a sum.",
        loss="mse_loss",
        inputs={"input": f32(SHORT), "target": f32(TARGETS)},
        reduction="sum",
        normalizer=0.0,
        failure=_invalid("normalizer"),
    ),
)
