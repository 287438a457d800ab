"""The JSON that `--json` prints: of messages, and of numbers that JSON does not have."""

import json
import math
from collections.abc import Mapping
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message


def json_text(value: Any, *, indent: int | None = None, ascii_only: bool = False) -> str:  # noqa: ANN401
    """Return *value* as JSON that every parser reads.

    JSON has no numbers for infinity and NaN. They become the texts "Infinity", "-Infinity" and
    "NaN", as in protobuf's JSON mapping.
    """
    finite = _with_texts(value)
    return json.dumps(finite, indent=indent, ensure_ascii=ascii_only, allow_nan=False)


def _with_texts(value: Any) -> Any:  # noqa: ANN401  any JSON value
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {key: _with_texts(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_with_texts(item) for item in value]
    return value


def message_to_json(message: Message) -> dict[str, Any]:
    """Return every field of *message* under its proto name, also those that are not set.

    64-bit integers stay numbers, unlike in protobuf's own JSON. An enum becomes the name of its
    value, and bytes become hex digits.
    """
    return {
        field.name: _json_field(field, getattr(message, field.name))
        for field in message.DESCRIPTOR.fields
    }


def _json_field(field: FieldDescriptor, value: Any) -> Any:  # noqa: ANN401  any field value
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        inner = entry.fields_by_name["value"]
        return {str(key): _json_value(inner, value[key]) for key in sorted(value)}
    if field.is_repeated:
        return [_json_value(field, item) for item in value]
    return _json_value(field, value)


def _json_value(field: FieldDescriptor, value: Any) -> Any:  # noqa: ANN401
    if field.message_type is not None:
        return message_to_json(value)
    if field.enum_type is not None:
        enum_value = field.enum_type.values_by_number.get(value)
        return enum_value.name if enum_value else value
    if isinstance(value, bytes):
        return value.hex()
    return value
