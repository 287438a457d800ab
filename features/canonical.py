"""One spelling for everything that is hashed."""

import hashlib
import json
from typing import Any


def canonical_json(value: Any) -> bytes:  # noqa: ANN401  any JSON value is what it takes
    """Return *value* as the one UTF-8 JSON text that is hashed: sorted keys, no blanks, no NaN.

    Floats are written as Python's shortest round-trip form; a float that is a whole number is
    written as an integer, so that 1 and 1.0 are one value in every language.
    Raises ValueError for NaN or infinity, which JSON cannot say.
    """
    return json.dumps(
        _with_integers(value),
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=False,
        allow_nan=False,
    ).encode()


def sha256_hex(content: bytes) -> str:
    """SHA-256 of *content*, 64 lower-case hex digits."""
    return hashlib.sha256(content).hexdigest()


def _with_integers(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, dict):
        return {str(key): _with_integers(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_with_integers(item) for item in value]
    return value
