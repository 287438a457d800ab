"""Passes a version's files to a child process in one descriptor.

The child gets the bytes that its parent has, and not what the disk holds by then. Layout:
little-endian u64 length, that many bytes of JSON {name: size}, the files in that order.
"""

import json
import os
import struct
import tempfile
from collections.abc import Mapping

_LENGTH = struct.Struct("<Q")


def pack_files(files: Mapping[str, bytes]) -> int:
    """Return a descriptor of an anonymous file that holds *files*; the caller closes it."""
    names = json.dumps({name: len(content) for name, content in files.items()}).encode()
    with tempfile.TemporaryFile() as packed:
        for part in (_LENGTH.pack(len(names)), names, *files.values()):
            packed.write(part)
        packed.flush()
        return os.dup(packed.fileno())


def unpack_files(descriptor: int) -> dict[str, bytes]:
    """Return the files that pack_files wrote; *descriptor* stays open."""
    with os.fdopen(os.dup(descriptor), "rb") as packed:
        packed.seek(0)
        (length,) = _LENGTH.unpack(packed.read(_LENGTH.size))
        sizes: dict[str, int] = json.loads(packed.read(length))
        return {name: packed.read(size) for name, size in sizes.items()}
