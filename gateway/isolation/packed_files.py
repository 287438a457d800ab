"""A version's files in one descriptor: a child gets the very bytes that were proved."""

import json
import os
import struct
import tempfile
from collections.abc import Mapping

_LENGTH = struct.Struct("<Q")


def pack_files(files: Mapping[str, bytes]) -> int:
    """Return a descriptor of an anonymous file that holds *files*; the caller closes it."""
    names = json.dumps({name: len(content) for name, content in files.items()}).encode()
    with tempfile.TemporaryFile() as parcel:
        for part in (_LENGTH.pack(len(names)), names, *files.values()):
            parcel.write(part)
        parcel.flush()
        return os.dup(parcel.fileno())


def unpack_files(descriptor: int) -> dict[str, bytes]:
    """Return the files that `pack` put there."""
    with os.fdopen(os.dup(descriptor), "rb") as parcel:
        parcel.seek(0)
        (length,) = _LENGTH.unpack(parcel.read(_LENGTH.size))
        sizes: dict[str, int] = json.loads(parcel.read(length))
        return {name: parcel.read(size) for name, size in sizes.items()}
