"""A tail reads each record once: over restarts, rewrites, damage and deleted segments."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal.forget import forget_in_journals
from journal.moves import CheckedOffset, moves_file, note_rewrite, position_after_moves
from journal.retention import Bounds, delete_old_segments
from journal.segment import HEADER, JournalKind, list_segments
from journal.tail import DamageKind, JournalTail, TailPosition, TailSlice
from journal.tape import SegmentWriter
from protos.journal_pb2 import ServedBatch
from tests.journal.test_forget import PERSON, served
from tests.property_examples import examples

KIND = JournalKind.SERVED


class Writer:
    """Writes segments of one boot; the clock makes their names grow."""

    def __init__(self, folder: Path, boot: int = 1, bytes_max: int = 1 << 20) -> None:
        self._tape = SegmentWriter(folder, KIND, bytes_max, lambda: 10**18, boot)
        self._tape.roll()

    def write(self, *payloads: bytes) -> None:
        """Append records."""
        self._tape.write_records(list(payloads))
        self._tape.sync()

    def roll(self) -> None:
        """Begin the next segment."""
        self._tape.roll()

    def close(self) -> None:
        """End the writer, which gives up its lock."""
        self._tape.close()


def read_all(
    folder: Path, positions: Mapping[str, TailPosition] | None = None, bytes_max: int = 1 << 20
) -> tuple[list[bytes], JournalTail, list[TailSlice]]:
    """Read with a new tail until nothing is left."""
    tail = JournalTail(folder, KIND, positions or {}, resumed=positions is not None)
    slices = [tail.read(bytes_max)]
    while slices[-1].records:
        slices.append(tail.read(bytes_max))
    return [payload for part in slices for _, _, payload in part.records], tail, slices


def ids_of_record(payload: bytes) -> bytes:
    """Return the prediction ids of a served batch."""
    return ServedBatch.FromString(payload).prediction_ids


def damages(slices: list[TailSlice]) -> list[tuple[DamageKind, int, int]]:
    """Return what was lost."""
    return [(item.kind, item.offset, item.next_offset) for part in slices for item in part.damages]


@examples(40)
@given(
    sizes=st.lists(st.integers(1, 400), min_size=1, max_size=30),
    bytes_max=st.integers(1, 900),
    restarts=st.integers(0, 3),
    slack=st.integers(0, 500),
)
def test_tail_gives_each_record_once(
    tmp_path_factory: pytest.TempPathFactory,
    sizes: list[int],
    bytes_max: int,
    restarts: int,
    slack: int,
) -> None:
    """Whatever the size of slices and segments, and wherever it is started again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("journal.tail.SLACK_BYTES", slack)
        _check_each_record_once(tmp_path_factory, sizes, bytes_max, restarts)


def _check_each_record_once(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], bytes_max: int, restarts: int
) -> None:
    folder = tmp_path_factory.mktemp("journal")
    writer = Writer(folder, bytes_max=1_000)
    payloads = [bytes([number % 251]) * size for number, size in enumerate(sizes)]
    writer.write(*payloads)
    # Read slice by slice. Some slices are read by a tail that starts from the positions.
    tail = JournalTail(folder, KIND, {}, resumed=False)
    found: list[bytes] = []
    while part := tail.read(bytes_max).records:
        found += [payload for _, _, payload in part]
        if restarts:
            restarts -= 1
            tail = JournalTail(folder, KIND, tail.positions)
    assert found == payloads
    assert tail.read(bytes_max).backlog_bytes == 0
    writer.close()


def test_ended_segments_are_complete_and_not_opened_again(tmp_path: Path) -> None:
    """The newest of a boot is complete when it has no writer and was quiet for a while."""
    writer, now = Writer(tmp_path), [0.0]
    writer.write(b"a")
    writer.roll()
    writer.write(b"b")
    tail = JournalTail(tmp_path, KIND, {}, resumed=False, monotonic_s=lambda: now[0])
    tail.read(1 << 20)
    first, second = (str(name) for name in list_segments(tmp_path, KIND))
    assert [tail.positions[name].complete for name in (first, second)] == [True, False]
    # With a writer it is never complete, however quiet.
    now[0] = 100.0
    tail.read(1 << 20)
    assert not tail.positions[second].complete
    writer.close()
    tail.read(1 << 20)
    assert tail.positions[second].complete
    # A complete segment is not read again, also when it is rewritten.
    (tmp_path / first).write_bytes(b"something else")
    assert tail.read(1 << 20).records == []


def test_damage_is_named_and_read_over(tmp_path: Path) -> None:
    """A flipped bit loses its record only; a torn tail waits for its writer."""
    writer = Writer(tmp_path)
    writer.write(b"a" * 10, b"b" * 10, b"c" * 10)
    (name,) = list_segments(tmp_path, KIND)
    path = tmp_path / str(name)
    content = bytearray(path.read_bytes())
    content[HEADER.size + 18 + 9] ^= 1
    path.write_bytes(bytes(content) + b"\x05\0\0\0torn")
    records, tail, slices = read_all(tmp_path)
    assert records == [b"a" * 10, b"c" * 10]
    assert damages(slices) == [(DamageKind.DAMAGED, HEADER.size + 18, HEADER.size + 36)]
    # A restart reads neither again, and takes no damage for a change of the segment.
    again, _, slices = read_all(tmp_path, tail.positions)
    assert (again, damages(slices)) == ([], [])
    # When the segment is ended, bytes behind its last record are damage.
    path.write_bytes(bytes(content) + b"\x05\0\0\0torn")
    writer.roll()
    again, tail, slices = read_all(tmp_path, tail.positions)
    end = HEADER.size + 54
    assert (again, damages(slices)) == ([], [(DamageKind.DAMAGED, end, end + 8)])
    writer.close()


@pytest.mark.parametrize("read_records", range(6))
@pytest.mark.parametrize("removals", [1, 2])
def test_rewritten_segment_neither_loses_nor_doubles_records(
    tmp_path: Path, read_records: int, removals: int
) -> None:
    """A removal takes records out before and behind the position, and shrinks others."""
    payloads = [
        served((1, "B")),
        served((2, "A")),
        served((3, "B"), (4, "A")),
        served((5, "A"), (6, "B")),
        served((7, "C")),
    ]
    writer = Writer(tmp_path)
    writer.write(*payloads)
    writer.close()
    # Read some records, one a slice.
    tail = JournalTail(tmp_path, KIND, {}, resumed=False)
    before = [payload for _ in range(read_records) for _, _, payload in tail.read(1).records]
    assert before == payloads[:read_records]
    # Remove customer A, and with a second removal customer C.
    assert forget_in_journals([tmp_path], PERSON, end_s_max=0).calls == 3
    if removals == 2:
        other = replace(PERSON, ids={"customer": "C"}, key_hashes={"churn": frozenset({33})})
        assert forget_in_journals([tmp_path], other, end_s_max=0).calls == 1
    after, _, slices = read_all(tmp_path, tail.positions)
    assert damages(slices) == []
    # What was behind the position is read, as it is now.
    remaining = [
        served((1, "B")),
        None,
        served((3, "B")),
        served((6, "B")),
        served((7, "C")) if removals == 1 else None,
    ]
    left = [payload for payload in remaining[read_records:] if payload is not None]
    assert list(map(ids_of_record, after)) == list(map(ids_of_record, left))


def test_removal_that_deletes_a_segment_is_no_damage(tmp_path: Path) -> None:
    """Nothing that should be counted is lost: all of its records were to be removed."""
    for boot, customer in ((1, "A"), (2, "B")):
        writer = Writer(tmp_path, boot)
        writer.write(served((boot, customer)))
        writer.close()
    tail = JournalTail(tmp_path, KIND, {}, resumed=False)
    tail.read(1)
    forget_in_journals([tmp_path], PERSON, end_s_max=0)
    records, _, slices = read_all(tmp_path, tail.positions)
    assert (records, damages(slices)) == ([served((2, "B"))], [])


def test_killed_removal_that_noted_moves_only_is_no_change(tmp_path: Path) -> None:
    """The moves say what would have been; the check says that it was not."""
    payloads = [b"a", b"b", b"c"]
    writer = Writer(tmp_path)
    writer.write(*payloads)
    writer.close()
    (name,) = list_segments(tmp_path, KIND)
    ends = [HEADER.size + 9 * (number + 1) for number in range(3)]
    note_rewrite(tmp_path / str(name), payloads, ends, [None, b"b", b"c"])
    tail = JournalTail(tmp_path, KIND, {}, resumed=False)
    tail.read(1)
    records, _, slices = read_all(tmp_path, tail.positions)
    assert (records, damages(slices)) == ([b"b", b"c"], [])
    # A second removal that is done drops the first, which was not.
    note_rewrite(tmp_path / str(name), payloads, ends, [b"a", None, b"c"])
    stored = tail.positions[str(name)]
    moved = position_after_moves(tmp_path / str(name), CheckedOffset(stored.offset, stored.check))
    assert moved == (stored.offset, stored.check)


def test_deleted_and_never_seen_segments_are_named(tmp_path: Path) -> None:
    """Retention may delete what was not read; the bytes that were known are counted."""
    writer = Writer(tmp_path)
    for letter in b"abcd":
        writer.write(bytes([letter]))
        writer.roll()
    names = [str(name) for name in list_segments(tmp_path, KIND)]
    tail = JournalTail(tmp_path, KIND, {}, resumed=False)
    tail.read(1)
    # The first is complete, the second and third are deleted before they were read.
    for name in names[:3]:
        (tmp_path / name).unlink()
    records, again, slices = read_all(tmp_path, tail.positions)
    assert records == [b"d"]
    lost = [(item.kind, item.segment[-11:-5]) for part in slices for item in part.damages]
    assert sorted(lost) == [(DamageKind.NEVER_SEEN, "000001"), (DamageKind.NEVER_SEEN, "000002")]
    # The positions of what is gone are dropped, and nothing is counted twice.
    assert names[0] not in again.positions
    _, _, slices = read_all(tmp_path, again.positions)
    assert damages(slices) == []
    writer.close()


def test_segment_deleted_while_it_was_read_is_counted(tmp_path: Path) -> None:
    """The part behind the position is lost, as far as this process knows it."""
    writer = Writer(tmp_path)
    writer.write(b"a", b"b")
    writer.close()
    (name,) = list_segments(tmp_path, KIND)
    tail = JournalTail(tmp_path, KIND, {}, resumed=False)
    tail.read(1)
    os.utime(tmp_path / str(name), (0, 0))
    assert delete_old_segments(tmp_path, Bounds(days_max=1), 1e9).deleted
    (damage,) = tail.read(1).damages
    assert (damage.kind, damage.offset, damage.next_offset) == (DamageKind.DELETED, 25, 34)
    assert tail.read(1).damages == []


def test_changed_and_foreign_files_are_damage(tmp_path: Path) -> None:
    """A copy of another content under the same name is not taken for what follows."""
    writer = Writer(tmp_path)
    writer.write(b"a" * 9)
    writer.close()
    (name,) = list_segments(tmp_path, KIND)
    tail = JournalTail(tmp_path, KIND, {}, resumed=False)
    tail.read(1)
    changed = Writer(tmp_path / "other")
    changed.write(b"x" * 4, b"y" * 20)
    changed.close()
    (other,) = list_segments(tmp_path / "other", KIND)
    (tmp_path / "other" / str(other)).replace(tmp_path / str(name))
    foreign = str(name).replace("0001-", "0002-")
    (tmp_path / foreign).write_bytes(b"not a segment at all")
    records, _, slices = read_all(tmp_path, tail.positions)
    assert records == []
    kinds = {kind for kind, _, _ in damages(slices)}
    assert kinds == {DamageKind.CHANGED, DamageKind.FOREIGN}


def test_old_moves_of_gone_segments_are_deleted(tmp_path: Path) -> None:
    """They stay for two months, for a reader that was away."""
    writer = Writer(tmp_path)
    writer.write(served((1, "A")))
    writer.roll()
    writer.write(served((2, "B")))
    (gone, _) = list_segments(tmp_path, KIND)
    assert forget_in_journals([tmp_path], PERSON, end_s_max=0).calls == 1
    moves = moves_file(tmp_path / str(gone))
    now_s = moves.stat().st_mtime
    delete_old_segments(tmp_path, Bounds(), now_s + 59 * 86_400)
    assert moves.exists()
    delete_old_segments(tmp_path, Bounds(), now_s + 61 * 86_400)
    assert not moves.exists()
    writer.close()
