"""Option values, to and from Python scalars."""

import numpy as np

from losswire.v1 import evaluation_pb2

OptionScalar = bool | int | float | str
"""The Python types of an option's value."""


_FIELDS: dict[type, str] = {
    bool: "bool_value",
    int: "int64_value",
    float: "double_value",
    str: "string_value",
}


def encode_option(value: OptionScalar | np.generic) -> evaluation_pb2.OptionValue:
    """Convert a Python or numpy scalar to an `OptionValue`; TypeError for anything else."""
    scalar = value.item() if isinstance(value, np.generic) else value
    field = _FIELDS.get(type(scalar))
    if field is None:
        problem = f"an option is a bool, int, float or str, not {type(value).__name__}"
        raise TypeError(problem)
    message = evaluation_pb2.OptionValue()
    setattr(message, field, scalar)
    return message


def decode_option(message: evaluation_pb2.OptionValue) -> OptionScalar | None:
    """Read an `OptionValue`; None when nothing is set in it."""
    field = message.WhichOneof("value")
    value: OptionScalar | None = None if field is None else getattr(message, field)
    return value
