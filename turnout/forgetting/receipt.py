"""The receipt of a removal: what was removed where, by whom and when, and no name of a person."""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from turnout.errors import OperatorError

RECEIPT_FORMAT = 1
DOMAIN = b"turnout receipts of removed rows"


def receipt_key(prediction_id_key: bytes) -> bytes:
    """Return the 32 bytes with which receipts name a person, derived from the registry's own key.

    The key of prediction ids fits: it is secret, of one system, and never changes.
    Raises OperatorError when it is empty, because the caller's roles do not see it.
    """
    if not prediction_id_key:
        raise OperatorError(
            "the registry shows the key of receipts to operators only, and nothing was removed; "
            "use the token of one (--token-file)"
        )
    return hashlib.blake2s(DOMAIN, key=prediction_id_key).digest()


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


def receipt_text(receipt: Mapping[str, Any]) -> str:
    """Return the receipt as it is written to a file, and printed with --json."""
    return json.dumps(receipt, indent=1, ensure_ascii=False) + "\n"


def receipt_digest(receipt: Mapping[str, Any]) -> str:
    """Return the SHA-256 (hex) of the receipt's file, which the history has."""
    return hashlib.sha256(receipt_text(receipt).encode()).hexdigest()


def subject_digest(key: bytes, named: Mapping[str, str]) -> str:
    """Return what all receipts of one person have in common: 64 hex digits.

    All ids can be tried, as all phone numbers can. Without the key no trial shows which id fits.
    """
    content = json.dumps(sorted(named.items()), ensure_ascii=False).encode()
    return hashlib.blake2b(content, key=key, digest_size=32).hexdigest()
