"""Messages of the contract as JSON: its field names, enums in short lower case, numbers as such.

Tensors are no part of it: `tensors.py` writes them.
"""

from collections.abc import Mapping
from typing import Any, Final

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from losswire.v1 import evaluation_pb2, loss_info_pb2, tensor_pb2
from losswire.wire import decode_option, is_repeated, json_number

_OPTION: Final = evaluation_pb2.OptionValue.DESCRIPTOR.full_name
_LIST: Final = loss_info_pb2.DataTypeList.DESCRIPTOR
_FLOATS: Final = (FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT)


def short_names(enum: EnumDescriptor) -> dict[int, str]:
    """Return the short names of an enum by number, such as `mean`; none for UNSPECIFIED."""
    zero = enum.values_by_number[0].name
    prefix = zero.removesuffix("UNSPECIFIED")
    return {
        each.number: each.name.removeprefix(prefix).lower() for each in enum.values if each.number
    }


def numbers(enum: EnumDescriptor) -> dict[str, int]:
    """Return the numbers of an enum by its short names."""
    return {name: each for each, name in short_names(enum).items()}


def to_json(message: Message) -> Any:  # noqa: ANN401 (whatever JSON can hold)
    """Return a message as JSON, with all fields; one that is optional and not set is left out."""
    if message.DESCRIPTOR.full_name == _OPTION:
        return option_json(message)
    return {
        field.name: _field(message, field)
        for field in message.DESCRIPTOR.fields
        if not field.has_presence or message.HasField(field.name)
    }


def option_json(message: Message) -> Any:  # noqa: ANN401 (a scalar)
    """Return the value of an option."""
    value = decode_option(message)  # type: ignore[arg-type]  # by its name an OptionValue
    return json_number(value) if isinstance(value, float) else value


def _field(message: Message, field: Any) -> Any:  # noqa: ANN401 (a descriptor, and JSON)
    value = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        inner = field.message_type.fields_by_name["value"]
        return {key: _value(value[key], inner) for key in sorted(value)}
    if is_repeated(field):
        return [_value(each, field) for each in value]
    return _value(value, field)


def _value(value: Any, field: Any) -> Any:  # noqa: ANN401 (as above)
    if isinstance(value, Message):
        inner = to_json(value)
        # A map of lists is written as such: the message around each list says nothing.
        return inner["data_types"] if value.DESCRIPTOR is _LIST else inner
    if field.enum_type is not None:
        return _names(field.enum_type).get(value, "")
    return json_number(value) if field.type in _FLOATS else value


_known_names: dict[str, Mapping[int, str]] = {}


def _names(enum: EnumDescriptor) -> Mapping[int, str]:
    """Return the short names of an enum, which are formed once."""
    return _known_names.setdefault(enum.full_name, short_names(enum))


def data_type_name(data_type: int) -> str:
    """Return the short name of a data type."""
    return _names(tensor_pb2.DataType.DESCRIPTOR).get(data_type, "")
