"""Scans the top level of a protobuf message without parsing it. Pure.

A message of 4 MB can hold four million one-byte numbers, which take a third of a second to parse
under the GIL and 160 MB of memory. A scan of its top level reads a few bytes and tells the size of
each field.
"""

from collections.abc import Iterator

_WIDTH = {1: 8, 5: 4}
"""Bytes of a value of fixed width, by wire type."""


class ProtobufScanError(ValueError):
    """The bytes are no message, or one with more fields than the caller allows."""


def bytes_outside_field(message: bytes, field: int, fields_max: int) -> int:
    """Return how many bytes of *message* lie outside the contents of its length-delimited *field*.

    fields_max  top-level fields to read; each element of a repeated field counts.

    Raises ProtobufScanError for more fields, or when the bytes cannot be a message.
    """
    return len(message) - sum(_field_lengths(message, field, fields_max))


def longest_field(message: bytes, field: int, fields_max: int) -> int:
    """Return the size in bytes of the longest *field* of *message*, length-delimited; 0: none.

    fields_max and ProtobufScanError are as in bytes_outside_field.
    """
    return max(_field_lengths(message, field, fields_max), default=0)


def _field_lengths(message: bytes, field: int, fields_max: int) -> Iterator[int]:
    """Read the whole top level; yield the length of each element of *field*."""
    offset, end = 0, len(message)
    for _ in range(fields_max):
        if offset == end:
            return
        start = offset
        # A tag has the field's number and its wire type, which tells how long the value is.
        tag, offset = _varint(message, offset)
        kind = tag & 7
        length = 0
        if kind == 2:
            length, offset = _varint(message, offset)
            offset += length
        elif kind == 0:
            _, offset = _varint(message, offset)
        elif kind in _WIDTH:
            offset += _WIDTH[kind]
        else:
            raise ProtobufScanError(f"wire type {kind} at {start}")
        if offset > end:
            raise ProtobufScanError(f"a field at {start} ends at {offset}, behind the end at {end}")
        if kind == 2 and tag >> 3 == field:
            yield length
    if offset < end:
        raise ProtobufScanError(f"more than {fields_max} fields")


def _varint(message: bytes, offset: int) -> tuple[int, int]:
    """Return (value, offset behind it)."""
    value = shift = 0
    for index in range(offset, min(offset + 10, len(message))):
        octet = message[index]
        value |= (octet & 0x7F) << shift
        if octet < 0x80:
            return value, index + 1
        shift += 7
    raise ProtobufScanError(f"no number ends at {offset}")
