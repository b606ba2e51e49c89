"""The encodings that client and server share: tensors, options, and the header of leases.

Needs numpy, never torch.
"""

from losswire.wire._bytes import new_bytes
from losswire.wire._cache import BoundedCache
from losswire.wire._dtypes import BY_NAME, DATA_TYPES, WireType, dtype_name, wire_type_of
from losswire.wire._fields import (
    LENGTH_DELIMITED,
    delimited_tag,
    fields,
    is_repeated,
    read_delimited,
    submessages,
)
from losswire.wire._floats import exact_floats
from losswire.wire._hints import LARGE_MESSAGE
from losswire.wire._identity import ID_BYTES, begin_identity
from losswire.wire._json import NONFINITE, json_number, json_values
from losswire.wire._lease import LEASE_HEADER
from losswire.wire._options import OptionScalar, decode_option, encode_option
from losswire.wire._payloads import (
    DETACHED_FROM,
    Payload,
    attach,
    detach,
    find_payloads,
)
from losswire.wire._rows import GRADIENT_ROWS, ROWS, Packing, bytes_of
from losswire.wire._template import Template, Value
from losswire.wire._tensor import (
    MAX_AXIS,
    MAX_RANK,
    MalformedTensorError,
    TensorSpec,
    Violation,
    decode_tensor,
    encode_spec,
    encode_tensor,
    read_elements,
    read_spec,
)
from losswire.wire._varint import SIZE_BYTES, read_varint, varint

__all__ = [
    "BY_NAME",
    "DATA_TYPES",
    "DETACHED_FROM",
    "GRADIENT_ROWS",
    "ID_BYTES",
    "LARGE_MESSAGE",
    "LEASE_HEADER",
    "LENGTH_DELIMITED",
    "MAX_AXIS",
    "MAX_RANK",
    "NONFINITE",
    "ROWS",
    "SIZE_BYTES",
    "BoundedCache",
    "MalformedTensorError",
    "OptionScalar",
    "Packing",
    "Payload",
    "Template",
    "TensorSpec",
    "Value",
    "Violation",
    "WireType",
    "attach",
    "begin_identity",
    "bytes_of",
    "decode_option",
    "decode_tensor",
    "delimited_tag",
    "detach",
    "dtype_name",
    "encode_option",
    "encode_spec",
    "encode_tensor",
    "exact_floats",
    "fields",
    "find_payloads",
    "is_repeated",
    "json_number",
    "json_values",
    "new_bytes",
    "read_delimited",
    "read_elements",
    "read_spec",
    "read_varint",
    "submessages",
    "varint",
    "wire_type_of",
]
