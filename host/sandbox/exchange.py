"""What a process and its sandboxed child send each other: JSON, and arrays and files as bytes.

Layout: little-endian u64 length, that many bytes of JSON, then the bytes of each array and of each
file, in the order of the JSON. Nothing here runs code of the sender: no pickle, no npz. The reader
takes nothing on trust, because a hostile model can write the child's message.
"""

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LENGTH = struct.Struct("<Q")
JSON_BYTES_MAX = 8 * 1024 * 1024
NUMBER_TYPES = ("<f4", "<f8", "<i8", "|b1")
TEXT_TYPE = "text"
"""An array of str objects: its bytes are JSON, a list of texts in the order of the array."""


class MalformedMessageError(ValueError):
    """The bytes are not a message of this form."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message.

    document  JSON values.
    arrays    name -> array of float32, float64, int64, bool or str objects, of any shape.
    files     name -> content.
    """

    document: dict[str, Any]
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)


def pack_message(message: Message) -> bytes:
    """Return the bytes of *message*."""
    arrays, parts = [], []
    for name, array in message.arrays.items():
        kind = TEXT_TYPE if array.dtype.kind in "OU" else array.dtype.newbyteorder("<").str
        part = (
            json.dumps([str(text) for text in array.ravel()]).encode()
            if kind == TEXT_TYPE
            else np.ascontiguousarray(array, dtype=kind).tobytes()
        )
        arrays.append([name, kind, list(array.shape), len(part)])
        parts.append(part)
    files = [[name, len(content)] for name, content in message.files.items()]
    document = {"document": message.document, "arrays": arrays, "files": files}
    head = json.dumps(document).encode()
    return b"".join([_LENGTH.pack(len(head)), head, *parts, *message.files.values()])


def unpack_message(data: bytes) -> Message:
    """Return the message that *data* is. Raises MalformedMessageError for anything else."""
    # The JSON comes first, with its length.
    view = memoryview(data)
    if len(view) < _LENGTH.size:
        raise MalformedMessageError("it is too short")
    (length,) = _LENGTH.unpack_from(view)
    if length > min(JSON_BYTES_MAX, len(view) - _LENGTH.size):
        raise MalformedMessageError(f"its JSON has {length} bytes")
    head = _json(bytes(view[_LENGTH.size : _LENGTH.size + length]))
    view = view[_LENGTH.size + length :]
    # Sizes are checked against what is there before anything is made of that size.
    arrays: dict[str, NDArray[Any]] = {}
    files: dict[str, bytes] = {}
    match head:
        case {"document": dict() as document, "arrays": list() as entries, "files": list() as more}:
            pass
        case _:
            raise MalformedMessageError("its JSON has other keys")
    for entry in entries:
        name, kind, shape, size = _array_entry(entry)
        arrays[name] = _array(kind, shape, _take(view, size))
        view = view[size:]
    for entry in more:
        match entry:
            case [str() as name, int() as size] if size >= 0:
                files[name] = bytes(_take(view, size))
                view = view[size:]
            case _:
                raise MalformedMessageError("it names a file without a size")
    if view:
        raise MalformedMessageError("it has bytes that belong to nothing")
    return Message(document, arrays, files)


def _array_entry(entry: object) -> tuple[str, str, list[int], int]:
    match entry:
        case [str() as name, str() as kind, list() as shape, int() as size]:
            dimensions = [item for item in shape if type(item) is int and item >= 0]
            if len(dimensions) == len(shape) <= 2 and kind in (*NUMBER_TYPES, TEXT_TYPE):
                return name, kind, dimensions, size
    raise MalformedMessageError("it describes an array wrongly")


def _take(view: memoryview, size: int) -> memoryview:
    if not 0 <= size <= len(view):
        raise MalformedMessageError("it ends too early")
    return view[:size]


def _array(kind: str, shape: list[int], content: memoryview) -> NDArray[Any]:
    count = math.prod(shape)
    if kind == TEXT_TYPE:
        texts = _json(bytes(content))
        if not (isinstance(texts, list) and len(texts) == count):
            raise MalformedMessageError("an array has another number of texts")
        if not all(isinstance(text, str) for text in texts):
            raise MalformedMessageError("an array of texts has something else")
        array = np.empty(count, dtype=object)
        array[:] = texts
        return array.reshape(shape)
    if count * np.dtype(kind).itemsize != len(content):
        raise MalformedMessageError("an array has another number of bytes")
    numbers = np.frombuffer(content, dtype=kind)
    if kind == "|b1" and (numbers.view(np.uint8) > 1).any():
        raise MalformedMessageError("an array of booleans has something else")
    return numbers.reshape(shape)


def _json(content: bytes) -> Any:  # noqa: ANN401  JSON values
    try:
        return json.loads(content, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise MalformedMessageError("its JSON cannot be read") from error


def _refuse_constant(name: str) -> float:
    raise ValueError(name)
