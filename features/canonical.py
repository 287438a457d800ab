"""The one JSON text of a value, from which all hashes are made."""

import hashlib
import json
from typing import Any


def canonical_json(value: Any) -> bytes:  # noqa: ANN401  any JSON value is accepted
    """Return *value* as canonical JSON in UTF-8: keys sorted, no blanks.

    A float is written in Python's shortest round-trip form. An integral float below 2**53 is
    written as an integer, so that 1 and 1.0 give one text in every language.
    Raises ValueError for NaN and infinity, which JSON cannot express.
    """
    return json.dumps(
        _with_integers(value),
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=False,
        allow_nan=False,
    ).encode()


def sha256_hex(content: bytes) -> str:
    """Return the SHA-256 of *content* as 64 lower-case hex digits."""
    return hashlib.sha256(content).hexdigest()


def _with_integers(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, dict):
        return {str(key): _with_integers(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_with_integers(item) for item in value]
    return value
