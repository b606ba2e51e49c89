"""The JSON schemas of the HTTP door; those of messages follow from the contract's descriptors."""

from collections.abc import Mapping
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from losswire.server.http.message_json import short_names
from losswire.server.http.route import Schema, ref
from losswire.server.http.tensors import ENCODINGS
from losswire.v1 import evaluation_pb2, loss_info_pb2, loss_service_pb2, tensor_pb2
from losswire.wire import MAX_RANK, NONFINITE, is_repeated

_NUMBER: Final = ref("Number")
_SCALARS: Final[Mapping[int, Schema]] = {
    FieldDescriptor.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.TYPE_DOUBLE: _NUMBER,
    FieldDescriptor.TYPE_INT32: {"type": "integer"},
    FieldDescriptor.TYPE_INT64: {"type": "integer"},
    FieldDescriptor.TYPE_STRING: {"type": "string"},
}


def names_of(enum: Any) -> Schema:  # noqa: ANN401 (an enum's descriptor)
    """Return the schema of an enum: its short names."""
    return {"type": "string", "enum": list(short_names(enum).values())}


def message_schema(described: Descriptor) -> dict[str, Any]:
    """Return the schema of a message as `to_json` writes it."""
    fields = described.fields
    return {
        "type": "object",
        "properties": {each.name: _field_schema(each) for each in fields},
        "required": [each.name for each in fields if not each.has_presence or _is_set(each)],
        "additionalProperties": False,
    }


def _is_set(field: FieldDescriptor) -> bool:
    """Return whether a submessage is always there: all but an option's default."""
    return field.message_type is not None and field.name != "default_value"


def _field_schema(field: Any) -> Schema:  # noqa: ANN401 (a descriptor)
    message = field.message_type
    if message is not None and message.GetOptions().map_entry:
        return {
            "type": "object",
            "additionalProperties": _value_schema(message.fields_by_name["value"]),
        }
    inner = _value_schema(field)
    return {"type": "array", "items": inner} if is_repeated(field) else inner


def _value_schema(field: Any) -> Schema:  # noqa: ANN401 (likewise)
    if field.message_type is not None:
        return _MESSAGES.get(field.message_type.name) or message_schema(field.message_type)
    return names_of(field.enum_type) if field.enum_type is not None else _SCALARS[field.type]


_DATA_TYPE: Final = ref("DataType")
_MESSAGES: Final[Mapping[str, Schema]] = {
    "OptionValue": ref("OptionValue"),
    "DataTypeList": {"type": "array", "items": _DATA_TYPE},
}
"""The messages that are not written field by field."""

_TENSORS: Final = {"type": "object", "additionalProperties": ref("Tensor")}
_ELEMENT: Final = {"anyOf": [{"type": "number"}, {"type": "boolean"}, {"enum": list(NONFINITE)}]}
_SHAPE: Final = {
    "type": "array",
    "maxItems": MAX_RANK,
    "items": {"type": "integer", "minimum": 0, "maximum": (1 << 31) - 1},
}
_BASE64: Final = {"type": "string", "contentEncoding": "base64"}


def _object(properties: Mapping[str, Schema], *required: str) -> Schema:
    """Return the schema of an object without further fields."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(required),
        "additionalProperties": False,
    }


def _all_of(properties: Mapping[str, Schema]) -> Schema:
    """Return the schema of an object whose fields are all there."""
    return _object(properties, *properties)


def _with(schema: Mapping[str, Any], **fields: Schema) -> Schema:
    """Return the schema of an object with further fields."""
    return {
        **schema,
        "properties": {**schema["properties"], **fields},
        "required": [*schema["required"], *fields],
    }


_RESULT: Final[Mapping[str, Schema]] = {
    "loss": ref("Tensor"),
    "data_type": _DATA_TYPE,
    "sum": _NUMBER,
    "mean_numerator": _NUMBER,
    "mean_denominator": _NUMBER,
    "count": {"type": "integer"},
    "gradients": _TENSORS,
    "factored_gradients": {
        "type": "object",
        "additionalProperties": _all_of(
            {"lse": ref("Tensor"), "scale": ref("Tensor"), "lse_tail": ref("Tensor")}
        ),
    },
    "queue_nanoseconds": {"type": "integer"},
    "compute_nanoseconds": {"type": "integer"},
    "receipt": ref("Receipt"),
}

SCHEMAS: Final[Mapping[str, Schema]] = {
    "DataType": names_of(tensor_pb2.DataType.DESCRIPTOR),
    "Number": {
        "description": "A number; those that JSON lacks are texts.",
        "anyOf": [{"type": "number"}, {"enum": list(NONFINITE)}],
    },
    "NestedLists": {
        "description": "A number, or lists of equal lengths down to numbers; at most 8 deep. All "
        "elements are numbers, or all are true and false.",
        "anyOf": [_ELEMENT, {"type": "array", "items": ref("NestedLists")}],
    },
    "Tensor": {
        "description": "Plain lists are int64 where all numbers are written as integers and the "
        "input accepts that, and float32 otherwise (float64 with compute_data_type float64).",
        "anyOf": [
            ref("NestedLists"),
            _all_of({"data_type": _DATA_TYPE, "values": ref("NestedLists")}),
            _all_of({"data_type": _DATA_TYPE, "shape": _SHAPE, "data": _BASE64}),
            _all_of({"resident": {"type": "string", "pattern": "^[0-9a-fA-F]{64}$"}}),
        ],
    },
    "OptionValue": {
        "description": "A number, true, false or a text, as the option's type is.",
        "anyOf": [_NUMBER, {"type": "boolean"}, {"type": "string"}],
    },
    "LossInfo": message_schema(loss_info_pb2.LossInfo.DESCRIPTOR),
    "LossList": _all_of({"losses": {"type": "array", "items": ref("LossInfo")}}),
    "ServerInfo": _with(
        message_schema(loss_service_pb2.GetServerInfoResponse.DESCRIPTOR),
        runs={"type": "boolean"},
        grpc=_all_of({"address": {"type": "string"}}),
        http=_all_of({"max_body_bytes": {"type": "integer"}}),
    ),
    "Receipt": message_schema(evaluation_pb2.Receipt.DESCRIPTOR),
    "EvaluateRequest": _object(
        {
            "loss": {"type": "string"},
            "inputs": _TENSORS,
            "options": {"type": "object", "additionalProperties": ref("OptionValue")},
            "reduction": names_of(evaluation_pb2.Reduction.DESCRIPTOR),
            "gradients_for": {"type": "array", "items": {"type": "string"}},
            "grad_output": ref("Tensor"),
            "sample_weight": ref("Tensor"),
            "normalizer": _NUMBER,
            "gradient_form": names_of(evaluation_pb2.GradientForm.DESCRIPTOR),
            "gradient_data_type": _DATA_TYPE,
            "compute_data_type": _DATA_TYPE,
            "engine": names_of(evaluation_pb2.Engine.DESCRIPTOR),
            "encoding": {"type": "string", "enum": list(ENCODINGS)},
        },
        "loss",
    ),
    "EvaluateResult": _all_of(_RESULT),
    "Resident": _all_of(
        {
            "resident": {"type": "string"},
            "data_type": _DATA_TYPE,
            "shape": _SHAPE,
            "size_bytes": {"type": "integer"},
            "existed": {"type": "boolean"},
        }
    ),
    "Problem": _object(
        {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "code": {"description": "The name of the gRPC status code.", "type": "string"},
            "reason": {"type": "string"},
            "violations": {
                "type": "array",
                "items": _all_of({"field": {"type": "string"}, "description": {"type": "string"}}),
            },
            "request_id": {"type": "string"},
            "retry_after_ms": {"type": "integer"},
        },
        *("type", "title", "status", "detail", "code", "reason", "violations", "request_id"),
    ),
}
"""Every schema of this module, by the name that `ref` takes."""
