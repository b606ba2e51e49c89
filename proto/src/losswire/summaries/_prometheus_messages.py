"""The messages in which Prometheus scrapes: io.prometheus.client, as far as they are written.

No package has them for Python, and Prometheus scrapes native histograms in no other form.
"""

from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_PACKAGE: Final = "io.prometheus.client"
_Field = descriptor_pb2.FieldDescriptorProto
_KINDS: Final = {
    "string": _Field.TYPE_STRING,
    "double": _Field.TYPE_DOUBLE,
    "uint64": _Field.TYPE_UINT64,
    "uint32": _Field.TYPE_UINT32,
    "sint64": _Field.TYPE_SINT64,
    "sint32": _Field.TYPE_SINT32,
    "int64": _Field.TYPE_INT64,
}

_MESSAGES: Final = {
    "LabelPair": ("name 1 string", "value 2 string"),
    "Gauge": ("value 1 double",),
    "Counter": ("value 1 double",),
    "Bucket": ("cumulative_count 1 uint64", "upper_bound 2 double"),
    "BucketSpan": ("offset 1 sint32", "length 2 uint32"),
    "Histogram": (
        "sample_count 1 uint64",
        "sample_sum 2 double",
        "bucket 3 *Bucket",
        "sample_count_float 4 double",
        "schema 5 sint32",
        "zero_threshold 6 double",
        "zero_count_float 8 double",
        "negative_span 9 *BucketSpan",
        "negative_count 11 *double",
        "positive_span 12 *BucketSpan",
        "positive_count 14 *double",
    ),
    "Metric": (
        "label 1 *LabelPair",
        "gauge 2 Gauge",
        "counter 3 Counter",
        "timestamp_ms 6 int64",
        "histogram 7 Histogram",
    ),
    "MetricFamily": ("name 1 string", "help 2 string", "type 3 MetricType", "metric 4 *Metric"),
}
"""The fields of each message: name, number, type; with a star, repeated."""

COUNTER: Final = 0
GAUGE: Final = 1
HISTOGRAM: Final = 4
GAUGE_HISTOGRAM: Final = 5
_TYPES: Final = {
    "COUNTER": 0,
    "GAUGE": 1,
    "SUMMARY": 2,
    "UNTYPED": 3,
    "HISTOGRAM": 4,
    "GAUGE_HISTOGRAM": 5,
}


def _file() -> descriptor_pb2.FileDescriptorProto:
    """Return the description of all messages."""
    file = descriptor_pb2.FileDescriptorProto(
        name="losswire/prometheus.proto", package=_PACKAGE, syntax="proto2"
    )
    enum = file.enum_type.add(name="MetricType")
    for name, number in _TYPES.items():
        enum.value.add(name=name, number=number)
    for message, fields in _MESSAGES.items():
        described = file.message_type.add(name=message)
        for each in fields:
            title, position, kind = each.split()
            bare = kind.removeprefix("*")
            field = described.field.add(
                name=title,
                number=int(position),
                label=_Field.LABEL_REPEATED if kind != bare else _Field.LABEL_OPTIONAL,
            )
            if bare in _KINDS:
                field.type = _KINDS[bare]
            else:
                field.type = _Field.TYPE_ENUM if bare == "MetricType" else _Field.TYPE_MESSAGE
                field.type_name = f".{_PACKAGE}.{bare}"
    return file


# A pool of its own: another library may have the same messages.
_POOL: Final = descriptor_pool.DescriptorPool()
_POOL.Add(_file())


def _class(name: str) -> Any:  # noqa: ANN401 (a class made at run time)
    """Return the class of a message."""
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{_PACKAGE}.{name}"))


MetricFamily: Final = _class("MetricFamily")
