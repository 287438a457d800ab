"""The receipt of a removal: what was removed where, by whom and when, and a name for nobody."""

import hashlib
import json
import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from host.files import create_file_once
from turnout.errors import OperatorError

RECEIPT_FORMAT = 1
RECEIPT_KEY = "receipts.key"
"""File in the state folder: 32 bytes that only this system has, made at the first removal. The keys
of the registry do not serve: who removes rows is not given them, and gateways have no use for it.
"""


def read_receipt_key(path: Path) -> bytes:
    """Return the 32 bytes of the key of receipts, which are made if the file is absent.

    Raises OperatorError for another file.
    """
    create_file_once(path, secrets.token_bytes(32))
    key = path.read_bytes()
    if len(key) != 32:
        raise OperatorError(f"{path} is no key of receipts: it has {len(key)} bytes, not 32")
    return key


def make_receipt(
    key: bytes,
    actor: str,
    named: Mapping[str, str],
    removed: Mapping[str, Mapping[str, int]],
    left: Sequence[str],
    *,
    dry_run: bool,
) -> dict[str, Any]:
    """Return the receipt as JSON values. It has the names of entities and no id.

    named    entity -> id.
    removed  where -> what -> number.
    left     what could not be searched, one sentence each.
    """
    return {
        "receipt": RECEIPT_FORMAT,
        "at_unix_ms": time.time_ns() // 1_000_000,
        "actor": actor,
        "entities": sorted(named),
        "subject": subject_digest(key, named),
        "dry_run": dry_run,
        "removed": {where: dict(counts) for where, counts in removed.items()},
        "left": list(left),
    }


def subject_digest(key: bytes, named: Mapping[str, str]) -> str:
    """Return what all receipts of one person have in common: 64 hex digits.

    Ids can be counted through, as phone numbers can. Without the key nobody finds one that fits.
    """
    content = json.dumps(sorted(named.items()), ensure_ascii=False).encode()
    return hashlib.blake2b(content, key=key, digest_size=32).hexdigest()
