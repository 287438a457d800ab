"""How much of a message is not bulk, found without parsing it. Pure.

A protobuf message of 4 MB can hold four million one-byte numbers: a third of a second to parse,
160 MB once parsed, all under the GIL. The top level tells which kind it is, for a few bytes read.
"""

from collections.abc import Iterator

_WIDTH = {1: 8, 5: 4}
"""Bytes of a fixed-width value, by wire type."""


class ProtobufScanError(ValueError):
    """The bytes are no message, or one of more fields than anybody needs."""


def bytes_outside_field(message: bytes, field: int, fields_max: int) -> int:
    """Return how many bytes of *message* lie outside the contents of its length-delimited *field*.

    fields_max  top-level fields (each element of a repeated one counts) that may be walked.

    Raises ProtobufScanError past that, or when the bytes cannot be a message.
    """
    return len(message) - sum(_field_lengths(message, field, fields_max))


def longest_field(message: bytes, field: int, fields_max: int) -> int:
    """Return the bytes of the longest contents of *message*'s length-delimited *field*; 0: none.

    As bytes_outside_field: walks *fields_max* top-level fields at most, raises ProtobufScanError
    past them.
    """
    return max(_field_lengths(message, field, fields_max), default=0)


def _field_lengths(message: bytes, field: int, fields_max: int) -> Iterator[int]:
    """Yield the length of each of *field*'s contents, while walking the whole top level."""
    offset, end = 0, len(message)
    for _ in range(fields_max):
        if offset == end:
            return
        start = offset
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
    for place in range(offset, min(offset + 10, len(message))):
        octet = message[place]
        value |= (octet & 0x7F) << shift
        if octet < 0x80:
            return value, place + 1
        shift += 7
    raise ProtobufScanError(f"no number ends at {offset}")
