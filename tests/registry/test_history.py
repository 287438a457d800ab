"""Whatever is done to the history is found, and the first broken entry is named."""

from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protos import registry_pb2 as pb
from registry.history import FIRST_PREVIOUS_DIGEST, entry_digest, head_bytes, verify_chain

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
Entries = list[pb.HistoryEntry]


def signed_chain(length: int = 6) -> tuple[Entries, pb.SignedHead]:
    """A sound history, signed."""
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
    """A head."""
    return pb.SignedHead(
        seq=seq,
        digest=digest,
        signature=key.sign(head_bytes(seq, digest)),
        public_key=key.public_key().public_bytes_raw(),
    )


def edit(entries: Entries) -> None:
    """Another reason for the third."""
    entries[2].reason = "no reason"


def edit_and_hash(entries: Entries) -> None:
    """The same, with a digest to match: only its successor knows."""
    edit(entries)
    entries[2].digest = entry_digest(entries[2])


def edit_and_hash_last(entries: Entries) -> None:
    """The newest: only the head knows."""
    entries[-1].reason = "no reason"
    entries[-1].digest = entry_digest(entries[-1])


def delete(entries: Entries) -> None:
    """The third is gone."""
    del entries[2]


def delete_and_renumber(entries: Entries) -> None:
    """The third is gone, and those after it moved up."""
    del entries[2]
    for seq, entry in enumerate(entries, start=1):
        entry.seq = seq


def swap(entries: Entries) -> None:
    """Third and fourth change places."""
    entries[2], entries[3] = entries[3], entries[2]


def swap_numbers(entries: Entries) -> None:
    """And take each other's numbers."""
    swap(entries)
    entries[2].seq, entries[3].seq = 3, 4


def double(entries: Entries) -> None:
    """The third stands twice."""
    entries.insert(3, entries[2])


def truncate(entries: Entries) -> None:
    """The newest two never happened."""
    del entries[-2:]


def append(entries: Entries) -> None:
    """One more, well linked, and not under the head."""
    entry = pb.HistoryEntry(seq=7, actor="eve", previous=entries[-1].digest)
    entry.digest = entry_digest(entry)
    entries.append(entry)


@pytest.mark.parametrize(
    ("harm", "seq", "words"),
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
        (append, 7, "stands after the signed head"),
        (list.clear, 1, "is missing"),
    ],
)
def test_harm_is_found_and_the_first_broken_entry_named(
    harm: Callable[[Entries], None], seq: int, words: str
) -> None:
    """Edited, replaced, deleted, renumbered, reordered, doubled, cut off, put in, emptied."""
    entries, head = signed_chain()
    assert verify_chain(entries, head, PUBLIC) is None

    harm(entries)
    broken = verify_chain(entries, head, PUBLIC)

    assert broken is not None
    assert (broken.seq, words in broken.problem) == (seq, True), broken


def test_a_head_by_another_key_or_over_another_entry_is_found() -> None:
    """Whoever can write the database cannot sign."""
    entries, head = signed_chain()
    stranger = Ed25519PrivateKey.from_private_bytes(bytes(32))
    forged = signed_head(6, head.digest, stranger)
    lying = signed_head(6, head.digest, stranger)
    lying.public_key = PUBLIC
    moved = pb.SignedHead()
    moved.CopyFrom(head)
    moved.seq = 5

    for wrong in (forged, lying, moved, pb.SignedHead()):
        assert verify_chain(entries, wrong, PUBLIC) is not None


def test_part_of_a_history_is_proved_from_an_entry_already_known() -> None:
    """The newest three, after a third one that was proved before."""
    entries, head = signed_chain()

    known = (3, entries[2].digest)
    assert verify_chain(entries[3:], head, PUBLIC, after=known) is None
    assert verify_chain(entries[4:], head, PUBLIC, after=known) is not None


def test_a_registry_in_which_nothing_happened_is_sound() -> None:
    """No entries, no head."""
    assert verify_chain([], pb.SignedHead(), PUBLIC) is None
