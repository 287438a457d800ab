"""The digests that chain history entries, and the check that finds a broken entry. No I/O."""

import hashlib
from collections.abc import Iterable
from json.encoder import encode_basestring as json_string
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from protos import registry_pb2 as pb
from registry.types import BrokenEntry

FIRST_PREVIOUS_DIGEST = bytes(32)
"""The previous digest in the first entry."""


class StoredEntry(NamedTuple):
    """The columns of an entry as the database has them. It may be used as a pb.HistoryEntry.

    An altered database may have values of other types in it.
    """

    seq: int
    at_unix_ms: int
    actor: str
    action: str
    object: str
    before: str
    after: str
    reason: str
    previous: bytes
    digest: bytes


HistoryRecord = pb.HistoryEntry | StoredEntry


def entries_of_columns(columns: pb.HistoryColumns) -> list[StoredEntry]:
    """Return the entries of a message that has them by column.

    The texts of those in `left_out` are empty. Columns of different lengths end with the shortest.
    """
    values = zip(*(getattr(columns, name)[:] for name in StoredEntry._fields), strict=False)
    return list(map(StoredEntry._make, values))


def stored_entry(entry: pb.HistoryEntry) -> StoredEntry:
    """Return the columns of an entry."""
    return StoredEntry(*(getattr(entry, name) for name in StoredEntry._fields))


def entry_digest(entry: HistoryRecord) -> bytes:
    """Return the SHA-256 over the canonical JSON of all fields except the digest.

    Examples are in tests/vectors/history.json.
    """
    # Audits hash millions. The columns of a tuple cost less than its attributes, and
    # `canonical_json` would give the same text in three times the time.
    columns = entry if isinstance(entry, StoredEntry) else stored_entry(entry)
    seq, at_unix_ms, actor, action, object_name, before, after, reason, previous, _ = columns
    text = (
        f'{{"action":{json_string(action)},"actor":{json_string(actor)},'
        f'"after":{json_string(after)},"at_unix_ms":{at_unix_ms},'
        f'"before":{json_string(before)},"object":{json_string(object_name)},'
        f'"previous":"{previous.hex()}","reason":{json_string(reason)},"seq":{seq}}}'
    )
    return hashlib.sha256(text.encode()).digest()


def head_bytes(seq: int, digest: bytes) -> bytes:
    """Return the signed bytes of a head: seq as 8 bytes, big-endian, then the entry's digest."""
    return seq.to_bytes(8, "big") + digest


def is_signed(head: pb.SignedHead) -> bool:
    """Return True if the head's signature is valid for the key that it names."""
    try:
        Ed25519PublicKey.from_public_bytes(head.public_key).verify(
            head.signature, head_bytes(head.seq, head.digest)
        )
    except (InvalidSignature, ValueError):
        return False
    return True


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
    chain = HistoryChain(*after)
    return chain.extend(entries) or chain.check_head(head, public_key)


class HistoryChain:
    """A chain of entries that is verified in parts, from its first entry or after a known one."""

    def __init__(self, seq: int = 0, digest: bytes = FIRST_PREVIOUS_DIGEST) -> None:
        self.seq = seq
        """Number of the newest entry that was verified."""
        self.digest = digest

    def extend(self, entries: Iterable[HistoryRecord]) -> BrokenEntry | None:
        """Verify the entries that follow; return the first broken one, or None."""
        seq, previous = self.seq, self.digest
        for entry in entries:
            try:
                digest = entry_digest(entry)
                if digest != entry.digest or entry.seq != seq + 1 or entry.previous != previous:
                    return _describe_break(entry, seq, previous)
            except (TypeError, AttributeError, UnicodeEncodeError):
                # Only an altered database has such values.
                return BrokenEntry(seq + 1, "was edited: a field has a value of another type")
            seq, previous = entry.seq, digest
            self.seq, self.digest = seq, digest
        return None

    def check_head(self, head: pb.SignedHead, public_key: bytes) -> BrokenEntry | None:
        """Return the broken entry that the head shows, or None if it is the newest, and signed."""
        return _check_head(head, self.seq, self.digest, public_key)


def _describe_break(entry: HistoryRecord, last: int, previous: bytes) -> BrokenEntry:
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
    return BrokenEntry(
        max(last, 1),
        f"was replaced: it has the SHA-256 {previous.hex()[:16]}, and entry {entry.seq} was "
        f"written after {entry.previous.hex()[:16]}",
    )


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
    if not is_signed(head):
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
