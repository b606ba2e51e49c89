"""The JSON schemas of summaries, comparisons and runs."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from losswire.server.http.route import Schema, ref
from losswire.server.http.schemas import names_of
from losswire.summaries.figures.gate import FAILED, PASSED, UNDECIDED
from losswire.v1 import evaluation_pb2, summary_pb2

_TEXT: Final[Schema] = {"type": "string"}
_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
_NUMBER: Final = ref("Number")
_FLAG: Final[Schema] = {"type": "boolean"}
_INTERVAL: Final[Schema] = {"type": "array", "items": _NUMBER, "minItems": 2, "maxItems": 2}
_TEXTS: Final[Schema] = {"type": "array", "items": _TEXT}
_MAYBE_NUMBER: Final[Schema] = {"anyOf": [_NUMBER, {"type": "null"}]}
BASE64: Final[Schema] = {"type": "string", "contentEncoding": "base64"}
TIME: Final[Schema] = {"type": "string", "format": "date-time"}


def of(fields: Mapping[str, Schema], required: Sequence[str] | None = None) -> dict[str, Any]:
    """Return the schema of an object with some fields, of which all are there unless said."""
    return {
        "type": "object",
        "properties": dict(fields),
        "required": list(fields if required is None else required),
    }


def _list(schema: Schema) -> Schema:
    return {"type": "array", "items": schema}


def _by_name(schema: Schema) -> Schema:
    return {"type": "object", "additionalProperties": schema}


_HISTOGRAM: Final = {
    "description": "The buckets that are not empty, in ascending order; zeros have no width.",
    **of({"low": _list(_NUMBER), "high": _list(_NUMBER), "weight": _list(_NUMBER)}),
}
_ROW: Final = of(
    {
        "id": {"type": ["integer", "string", "null"]},
        "partition": _TEXT,
        "row": _COUNT,
        "value": _NUMBER,
        "values": _list(_NUMBER),
        "weight": _NUMBER,
        "labels": _by_name(_TEXT),
    }
)
_FIGURES: Final[Mapping[str, Schema]] = {
    "count": _COUNT,
    "ignored_count": _COUNT,
    "nan_count": _COUNT,
    "infinite_count": _COUNT,
    "weight_sum": _NUMBER,
    "mean": _NUMBER,
    "finite_mean": _NUMBER,
    "standard_error": _NUMBER,
    "std": _NUMBER,
    "minimum": _MAYBE_NUMBER,
    "maximum": _MAYBE_NUMBER,
    "sum": _NUMBER,
    "mean_numerator": _NUMBER,
    "mean_denominator": _NUMBER,
    "interval": _INTERVAL,
    "clustered": _FLAG,
    "small": _FLAG,
    "quantiles": _by_name(_NUMBER),
}
_SLICE: Final = {
    "description": "The figures of a slice, and how far it is from all rows. The label null stands "
    "for the rows of all slices without a name of their own; they have no lift.",
    **of(
        {
            "label": {"type": ["string", "null"]},
            **_FIGURES,
            "lift": _NUMBER,
            "lift_interval": _INTERVAL,
            "p_value": _NUMBER,
            "p_adjusted": _NUMBER,
            "verdict": _TEXT,
            "sentence": _TEXT,
        },
        ["label", *_FIGURES],
    ),
}
_CANDIDATE: Final[Mapping[str, Schema]] = {
    **_FIGURES,
    "slices": _by_name(_list(_SLICE)),
    "worst": _list(_ROW),
    "histogram": _HISTOGRAM,
    "sentence": _TEXT,
    "notes": _TEXTS,
}
_DIFFERENCE: Final[Mapping[str, Schema]] = {
    "first": _TEXT,
    "second": _TEXT,
    "count": _COUNT,
    "mean": _NUMBER,
    "standard_error": _NUMBER,
    "interval": _INTERVAL,
    "p_value": _NUMBER,
    "clustered": _FLAG,
    "small": _FLAG,
    "wins": _COUNT,
    "ties": _COUNT,
    "losses": _COUNT,
    "verdict": _TEXT,
}
_SLICE_DIFFERENCE: Final = of(
    {
        "label": {"type": ["string", "null"]},
        **_DIFFERENCE,
        "p_adjusted": _NUMBER,
        "sentence": _TEXT,
    },
    ["label", *(each for each in _DIFFERENCE if each != "verdict")],
)
_FACTS: Final[Mapping[str, Schema]] = {
    "loss": _TEXT,
    "options": _by_name(ref("OptionValue")),
    "rows": _COUNT,
    "accuracy": _NUMBER,
    "clustered": _FLAG,
    "included": _by_name(_list(_list(_COUNT))),
    "receipts": _list(_by_name(_TEXT)),
    "sentence": _TEXT,
    "notes": _TEXTS,
}

_MAYBE_TIME: Final[Schema] = {"type": ["string", "null"], "format": "date-time"}
_RUN: Final[Mapping[str, Schema]] = {
    "run_id": _TEXT,
    "name": _TEXT,
    "labels": _by_name(_TEXT),
    "started": _MAYBE_TIME,
    "ended": _MAYBE_TIME,
    "saved": TIME,
    "creator": _TEXT,
    "loss": _TEXT,
    "figures": _list(
        of(
            {
                "candidate": _TEXT,
                "count": _COUNT,
                "mean": _NUMBER,
                "standard_error": _NUMBER,
                "low": _NUMBER,
                "high": _NUMBER,
            }
        )
    ),
}

_CHECK: Final = of(
    {
        "where": _TEXT,
        "verdict": {"enum": [FAILED, PASSED, UNDECIDED]},
        "baseline_mean": _NUMBER,
        "candidate_mean": _NUMBER,
        "increase": _NUMBER,
        "interval": _INTERVAL,
        "p_value": _NUMBER,
        "small": _FLAG,
    }
)

_COLUMN: Final[Schema] = {"type": "string", "description": "The name of a column."}
_REQUEST: Final[Mapping[str, Schema]] = {
    "loss": _TEXT,
    "options": _by_name(ref("OptionValue")),
    "reduction": names_of(evaluation_pb2.Reduction.DESCRIPTOR),
    "engine": names_of(evaluation_pb2.Engine.DESCRIPTOR),
    "compute_data_type": ref("DataType"),
    "inputs": {
        "description": "The inputs that all rows share, such as class weights.",
        **_by_name(ref("Tensor")),
    },
    "columns": {
        "description": "The column of each input; without it, the one of the input's own name.",
        **_by_name(_TEXT),
    },
    "slices": {
        "description": "The columns whose values make slices; a list of columns for their cross.",
        **_list({"anyOf": [_TEXT, _TEXTS]}),
    },
    "sample_weight": _COLUMN,
    "clusters": _COLUMN,
    "ids": _COLUMN,
    "worst": {"type": "integer", "minimum": 0, "maximum": 1000, "default": 20},
    "relative_accuracy": {"type": "number", "minimum": 0.0014, "maximum": 0.5},
    "partition": _TEXT,
    "first_row": _COUNT,
    "max_slices": {"type": "integer", "minimum": 0, "maximum": 4096},
    "slice_overflow": names_of(summary_pb2.SliceOverflow.DESCRIPTOR),
    "cluster_order": names_of(summary_pb2.ClusterOrder.DESCRIPTOR),
    "max_open_clusters": {"type": "integer", "minimum": 0, "maximum": 1 << 20},
    "report_every_batches": _COUNT,
    "resume_from": BASE64,
}

SCHEMAS: Final[Mapping[str, Schema]] = {
    "SummaryRequest": {**of(_REQUEST, ["loss"]), "additionalProperties": False},
    "CompareRequest": {
        **of(
            {
                **_REQUEST,
                "candidates": {
                    "description": "The columns of each candidate's own inputs, by its name.",
                    **_by_name(_by_name(_TEXT)),
                },
            },
            ["loss", "candidates"],
        ),
        "additionalProperties": False,
    },
    "Summary": of({**_FACTS, **_CANDIDATE}),
    "Comparison": of(
        {
            **_FACTS,
            "candidate_names": _TEXTS,
            "candidates": _by_name(of(_CANDIDATE)),
            "differences": _list(
                of(
                    {
                        **_DIFFERENCE,
                        "slices": _by_name(_list(_SLICE_DIFFERENCE)),
                        "most_different": _list(_ROW),
                        "histogram": _HISTOGRAM,
                        "sentence": _TEXT,
                    }
                )
            ),
        }
    ),
    "SummaryAnswer": of(
        {
            "rows": _COUNT,
            "summary": {"anyOf": [ref("Summary"), ref("Comparison")]},
            "state": {"description": "The LossSummary, which can be merged.", **BASE64},
        },
        ["summary", "state"],
    ),
    "SummaryLine": {
        "description": "One line: how far it is, at the end the answer, or an error.",
        "anyOf": [
            of({"progress": of({"rows": _COUNT}, ["rows"])}),
            ref("SummaryAnswer"),
            of({"error": ref("Problem")}),
        ],
    },
    "MergeRequest": {**of({"states": _list(BASE64)}), "additionalProperties": False},
    "Run": of(_RUN),
    "WholeRun": of(
        {
            **_RUN,
            "summary": {"anyOf": [ref("Summary"), ref("Comparison")]},
            "state": BASE64,
            "header": {"description": "The request, without data.", "type": ["object", "null"]},
        }
    ),
    "SavedRun": of({**_RUN, "created": _FLAG}),
    "RunList": of({"runs": _list(ref("Run")), "next_page_token": _TEXT}),
    "SaveRunRequest": {
        **of(
            {
                "run_id": _TEXT,
                "name": _TEXT,
                "labels": _by_name(_TEXT),
                "started": TIME,
                "ended": TIME,
                "state": BASE64,
                "request": {"description": "The request of the summary.", "type": "object"},
            },
            ["state"],
        ),
        "additionalProperties": False,
    },
    "Deleted": of({"deleted": _FLAG}),
    "GateVerdict": of(
        {
            "passed": _FLAG,
            "baseline": _TEXT,
            "candidate": _TEXT,
            "paired": _FLAG,
            "max_increase": _NUMBER,
            "relative": _FLAG,
            "level": _NUMBER,
            "checks": _list(_CHECK),
            "notes": _TEXTS,
            "increase": _NUMBER,
            "interval": _INTERVAL,
            "slices": _list(_CHECK),
            "sentence": _TEXT,
            "lines": _TEXTS,
        }
    ),
    "QueryRows": _list(
        {"type": "object", "additionalProperties": {"type": ["number", "string", "null"]}}
    ),
}
