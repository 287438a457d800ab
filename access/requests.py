"""Parses requests to registry and rollout, and counts their fields before it does.

An empty item of a list has two bytes in a message and some hundred in memory, so a message within
MESSAGE_BYTES_MAX could take hundreds of megabytes. `check_fields` reads the tags and lengths of a
large message and makes no objects. It ends at the first list with too many items, so that its time
is bounded as well.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TypeVar

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message

from access.bounds import BoundError, check_request, items_max

Request = TypeVar("Request", bound=Message)

UNCOUNTED_BYTES_MAX = 2**17
"""A message up to this size is parsed at once: all its fields together take a few megabytes.
Most batches of windows are smaller, so they cost nothing more."""
FIELDS_MAX = 2**17
"""Fields of one message, with those of the items that have lists. 4,096 windows have 32 each."""
SMALL_ITEM_BYTES = 64
"""The fields of a smaller item are not counted: it has at most 31, and the count takes time."""
UNKNOWN_FIELDS_MAX = 1_000
"""Fields of one message that this program does not know, or that come twice."""

_TEXTS = (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)
_VARINT, _BYTES = 0, 2
_SIZES = (None, 8, None, 0, 0, 4, 2**32, 2**32)
"""Wire type -> bytes of its value; None: a number says so. The last two types do not exist, and no
message is as large."""


def parse_request(kind: type[Request], content: bytes) -> Request:
    """Return the request in *content*, all of whose bounds are kept.

    Raises BoundError, and DecodeError when *content* is no message of *kind*.
    """
    check_fields(kind, content)
    request = kind.FromString(content)
    check_request(request)
    return request


def check_fields(kind: type[Message], content: bytes) -> None:
    """Count the fields of a large message of *kind* that was not parsed yet.

    Raises BoundError for a list with too many items and for too many fields, and DecodeError for
    bytes that are no message.
    """
    if len(content) > UNCOUNTED_BYTES_MAX:
        known = _known_fields(kind.DESCRIPTOR)
        fields_max = min(FIELDS_MAX, _fields_max(known)) + UNKNOWN_FIELDS_MAX
        _Count(kind.DESCRIPTOR.name, content, fields_max).message(0, len(content), known, _Items())


@dataclass(frozen=True, slots=True)
class _KnownField:
    """A list of texts or messages, or a message in which there is such a list."""

    name: str
    items_max: int
    """0: the field is no list."""
    inner: "Mapping[int, _KnownField | None]"
    """The fields of the message in this field. Empty: nothing in it needs to be counted."""


_KnownFields = Mapping[int, _KnownField | None]
"""Number -> what is counted of the field; None: nothing but the field itself."""


@cache
def _known_fields(kind: Descriptor) -> _KnownFields:
    known: dict[int, _KnownField | None] = {}
    for item in kind.fields:
        inner: _KnownFields = {} if item.message_type is None else _known_fields(item.message_type)
        if not any(inner.values()):
            inner = {}
        counted = item.is_repeated and (item.message_type is not None or item.type in _TEXTS)
        known[item.number] = None
        if counted or inner:
            name = f"{kind.name}.{item.name}"
            known[item.number] = _KnownField(name, items_max(item) if counted else 0, inner)
    return known


def _fields_max(known: _KnownFields) -> int:
    """Return how many fields a message has when each list is full."""
    return sum(
        1 if item is None else max(1, item.items_max) * (1 + _fields_max(item.inner))
        for item in known.values()
    )


@dataclass(slots=True)
class _Items:
    """Items so far of the lists of one message, by the field's number.

    A message that comes twice in a field is merged, so its lists are counted together.
    """

    count: dict[int, int] = field(default_factory=dict)
    inner: "dict[int, _Items]" = field(default_factory=dict)

    def of_message(self, number: int) -> "_Items":
        """Return the items of the message in a field."""
        return self.inner.setdefault(number, _Items())


class _Count:
    """One pass over the tags of a message."""

    def __init__(self, kind: str, content: bytes, fields_max: int) -> None:
        self._kind = kind
        self._content = content
        self._fields_max = fields_max
        self._fields = 0

    def message(self, start: int, end: int, known: _KnownFields, items: _Items) -> None:
        """Count the fields between two positions, and those of the messages in them."""
        content, at = self._content, start
        while at < end:
            # The tag has the number and the type of the field. Most numbers have one byte.
            tag = content[at]
            at += 1
            if tag >= 0x80:
                tag, at = self._number(at - 1, end)
            number, wire_type = tag >> 3, tag & 7
            if not 0 < number < 2**29:
                raise DecodeError(f"the tag before byte {at} has no number of a field")
            self._fields += 1
            if self._fields > self._fields_max:
                raise BoundError(
                    f"{self._kind} has more than {self._fields_max} fields, which are the most"
                )
            # The value has a size. The fields of a group count as fields of the message.
            size = _SIZES[wire_type]
            if size is None:
                if at < end and content[at] < 0x80:
                    size, at = content[at], at + 1
                else:
                    size, at = self._number(at, end)
                if wire_type == _VARINT:
                    size = 0
            if size > end - at:
                raise DecodeError(f"the field at byte {at} is longer than its message")
            # Lists are counted, and so are the lists in messages.
            counted = known.get(number)
            if counted is not None:
                if counted.items_max:
                    count = items.count[number] = items.count.get(number, 0) + 1
                    if count > counted.items_max:
                        raise BoundError(
                            f"{counted.name} has more than {counted.items_max} items, which are "
                            "the most"
                        )
                if counted.items_max and size < SMALL_ITEM_BYTES:
                    at += size
                    continue
                if counted.inner and wire_type == _BYTES:
                    inner = _Items() if counted.items_max else items.of_message(number)
                    self.message(at, at + size, counted.inner, inner)
            at += size

    def _number(self, at: int, end: int) -> tuple[int, int]:
        """Return the number at a position, and the position behind it."""
        number = 0
        for shift, byte in enumerate(self._content[at : min(end, at + 10)]):
            number |= (byte & 0x7F) << 7 * shift
            if byte < 0x80:
                return number, at + shift + 1
        raise DecodeError(f"no number begins at byte {at}")
