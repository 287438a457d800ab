"""The digests that chain history entries, and the check that finds a broken entry. No I/O."""

import hashlib
from collections.abc import Iterable

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from features.canonical import canonical_json
from protos import registry_pb2 as pb
from registry.types import BrokenEntry

FIRST_PREVIOUS_DIGEST = bytes(32)
"""The previous digest in the first entry."""


def entry_digest(entry: pb.HistoryEntry) -> bytes:
    """Return the SHA-256 over the canonical JSON of all fields except the digest.

    Examples are in tests/vectors/history.json.
    """
    return hashlib.sha256(
        canonical_json(
            {
                "seq": entry.seq,
                "at_unix_ms": entry.at_unix_ms,
                "actor": entry.actor,
                "action": entry.action,
                "object": entry.object,
                "before": entry.before,
                "after": entry.after,
                "reason": entry.reason,
                "previous": entry.previous.hex(),
            }
        )
    ).digest()


def head_bytes(seq: int, digest: bytes) -> bytes:
    """Return the signed bytes of a head: seq as 8 bytes, big-endian, then the entry's digest."""
    return seq.to_bytes(8, "big") + digest


def verify_chain(
    entries: Iterable[pb.HistoryEntry],
    head: pb.SignedHead,
    public_key: bytes,
    *,
    after: tuple[int, bytes] = (0, FIRST_PREVIOUS_DIGEST),
) -> BrokenEntry | None:
    """Return the first broken entry, or None when every entry is as it was written.

    entries     the entries in order, from the one after *after* to the newest.
    public_key  the registry's Ed25519 key, 32 bytes. It must come from a place that the operator
                of the registry cannot write to.
    after       (seq, digest) of an entry that is known to be good.

    The check finds entries that were edited, deleted, inserted, reordered, or cut off at the end.
    It cannot find that the whole registry was replaced by an older copy. To find that, compare the
    head with one that was noted before.
    """
    last, previous = after
    for entry in entries:
        broken = _check_entry(entry, last, previous)
        if broken is not None:
            return broken
        last, previous = entry.seq, entry.digest
    return _check_head(head, last, previous, public_key)


def _check_entry(entry: pb.HistoryEntry, last: int, previous: bytes) -> BrokenEntry | None:
    if entry.seq > last + 1:
        return BrokenEntry(last + 1, f"is missing: entry {entry.seq} follows entry {last}")
    if entry.seq <= last:
        return BrokenEntry(entry.seq, f"comes after entry {last}: the order was changed")
    if entry_digest(entry) != entry.digest:
        return BrokenEntry(
            entry.seq,
            f"was edited: its contents have the SHA-256 {entry_digest(entry).hex()[:16]}, and it "
            f"was written as {entry.digest.hex()[:16]}",
        )
    if entry.previous != previous:
        return BrokenEntry(
            max(last, 1),
            f"was replaced: it has the SHA-256 {previous.hex()[:16]}, and entry {entry.seq} was "
            f"written after {entry.previous.hex()[:16]}",
        )
    return None


def _check_head(
    head: pb.SignedHead, last: int, digest: bytes, public_key: bytes
) -> BrokenEntry | None:
    # A new registry has no entries and no head.
    if last == 0 and head.seq == 0 and not head.signature:
        return None
    # The head must be signed by the registry.
    if head.public_key != public_key:
        return BrokenEntry(
            head.seq,
            f"is the head, signed by key {head.public_key.hex()[:16]}; the registry's key is "
            f"{public_key.hex()[:16]}",
        )
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(
            head.signature, head_bytes(head.seq, head.digest)
        )
    except (InvalidSignature, ValueError):
        return BrokenEntry(head.seq, "is the head, and its signature is not valid")
    # The head must be the newest entry.
    if head.seq > last:
        return BrokenEntry(last + 1, f"is missing: the signed head is entry {head.seq}")
    if head.seq < last:
        return BrokenEntry(head.seq + 1, f"comes after the signed head, entry {head.seq}")
    if head.digest != digest:
        return BrokenEntry(
            last,
            f"was replaced: it has the SHA-256 {digest.hex()[:16]}, and the signed head says "
            f"{head.digest.hex()[:16]}",
        )
    return None
