"""Tests of verify_chain: every manipulation is found, and the first broken entry is named."""

from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protos import registry_pb2 as pb
from registry.history.chain import FIRST_PREVIOUS_DIGEST, entry_digest, head_bytes, verify_chain

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
Entries = list[pb.HistoryEntry]


def signed_chain(length: int = 6) -> tuple[Entries, pb.SignedHead]:
    """A valid history of *length* entries with its signed head."""
    entries: Entries = []
    previous = FIRST_PREVIOUS_DIGEST
    for seq in range(1, length + 1):
        entry = pb.HistoryEntry(
            seq=seq, at_unix_ms=seq, actor="ann", action="deploy", reason="r", previous=previous
        )
        entry.digest = previous = entry_digest(entry)
        entries.append(entry)
    return entries, signed_head(length, previous)


def signed_head(seq: int, digest: bytes, key: Ed25519PrivateKey = KEY) -> pb.SignedHead:
    """A head of this entry, signed by *key*."""
    return pb.SignedHead(
        seq=seq,
        digest=digest,
        signature=key.sign(head_bytes(seq, digest)),
        public_key=key.public_key().public_bytes_raw(),
    )


def edit(entries: Entries) -> None:
    """Change the reason of the third entry."""
    entries[2].reason = "no reason"


def edit_and_hash(entries: Entries) -> None:
    """Change the third entry and its digest. Only the fourth entry shows it."""
    edit(entries)
    entries[2].digest = entry_digest(entries[2])


def edit_and_hash_last(entries: Entries) -> None:
    """Change the newest entry and its digest. Only the head shows it."""
    entries[-1].reason = "no reason"
    entries[-1].digest = entry_digest(entries[-1])


def delete(entries: Entries) -> None:
    """Delete the third entry."""
    del entries[2]


def delete_and_renumber(entries: Entries) -> None:
    """Delete the third entry and renumber the others."""
    del entries[2]
    for seq, entry in enumerate(entries, start=1):
        entry.seq = seq


def swap(entries: Entries) -> None:
    """Swap the third and the fourth entry."""
    entries[2], entries[3] = entries[3], entries[2]


def swap_numbers(entries: Entries) -> None:
    """Swap the third and the fourth entry and their numbers."""
    swap(entries)
    entries[2].seq, entries[3].seq = 3, 4


def double(entries: Entries) -> None:
    """Insert the third entry twice."""
    entries.insert(3, entries[2])


def truncate(entries: Entries) -> None:
    """Delete the two newest entries."""
    del entries[-2:]


def append(entries: Entries) -> None:
    """Append a chained entry that the head does not cover."""
    entry = pb.HistoryEntry(seq=7, actor="eve", previous=entries[-1].digest)
    entry.digest = entry_digest(entry)
    entries.append(entry)


@pytest.mark.parametrize(
    ("manipulate", "seq", "message"),
    [
        (edit, 3, "was edited"),
        (edit_and_hash, 3, "was replaced"),
        (edit_and_hash_last, 6, "was replaced"),
        (delete, 3, "is missing: entry 4 follows entry 2"),
        (delete_and_renumber, 3, "was edited"),
        (swap, 3, "is missing"),
        (swap_numbers, 3, "was edited"),
        (double, 3, "the order was changed"),
        (truncate, 5, "is missing: the signed head is entry 6"),
        (append, 7, "comes after the signed head"),
        (list.clear, 1, "is missing"),
    ],
)
def test_verify_chain_names_the_first_broken_entry(
    manipulate: Callable[[Entries], None], seq: int, message: str
) -> None:
    """Each kind of manipulation is tried."""
    entries, head = signed_chain()
    assert verify_chain(entries, head, PUBLIC) is None

    manipulate(entries)
    broken = verify_chain(entries, head, PUBLIC)

    assert broken is not None
    assert (broken.seq, message in broken.problem) == (seq, True), broken


def test_verify_chain_refuses_a_head_of_another_key_or_entry() -> None:
    """An attacker who can write to the database cannot sign."""
    entries, head = signed_chain()
    other_key = Ed25519PrivateKey.from_private_bytes(bytes(32))
    forged = signed_head(6, head.digest, other_key)
    lying = signed_head(6, head.digest, other_key)
    lying.public_key = PUBLIC
    renumbered = pb.SignedHead()
    renumbered.CopyFrom(head)
    renumbered.seq = 5

    for wrong in (forged, lying, renumbered, pb.SignedHead()):
        assert verify_chain(entries, wrong, PUBLIC) is not None


def test_verify_chain_checks_part_of_a_history() -> None:
    """The newest three entries are checked after a known third entry."""
    entries, head = signed_chain()

    known = (3, entries[2].digest)
    assert verify_chain(entries[3:], head, PUBLIC, after=known) is None
    assert verify_chain(entries[4:], head, PUBLIC, after=known) is not None


def test_verify_chain_accepts_an_empty_history() -> None:
    """There are no entries and no head."""
    assert verify_chain([], pb.SignedHead(), PUBLIC) is None
