"""Follows a journal from stored positions on, also past rewritten, damaged and deleted segments.

`JournalReader` iterates over what is there. A tail is for a program that counts each record once
over years: its positions have a check of what was read, it says what is damaged or gone, and it
never opens a segment again that it has read to its end.
"""

import fcntl
import os
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from host.files import folder_lock
from journal.errors import SegmentError
from journal.moves import (
    SEGMENT_START,
    CheckedOffset,
    extend_check,
    moves_file,
    position_after_moves,
)
from journal.segment import (
    HEADER,
    JournalKind,
    SegmentName,
    check_header,
    find_next_record,
    intact_records,
    list_segments,
)

QUIET_S = 5.0
"""A segment without a writer is complete when nothing came for this long: a worker that has just
made it may not have locked it so far."""
SLACK_BYTES = 1 << 20
"""What is read beyond a slice, so that its last record is not cut."""
FORGET_BOOT_MS = 60 * 86_400_000
"""A boot whose newest segment is older than this and gone is forgotten."""


@dataclass(frozen=True, slots=True)
class TailPosition:
    """How far a segment was read."""

    offset: int = SEGMENT_START.offset
    check: int = SEGMENT_START.check
    """The check of all frames before the offset (journal.moves)."""
    complete: bool = False
    """The segment was ended and read to its end."""
    gone: bool = False
    """The segment is gone, and its position is needed no more."""


class DamageKind(StrEnum):
    """Why records are lost."""

    DAMAGED = "damaged"
    """Bytes between intact records, or at the end, that are no record."""
    DELETED = "deleted"
    """The segment is gone, and was not read to its end."""
    NEVER_SEEN = "never seen"
    """A segment with this number must have been there."""
    CHANGED = "changed"
    """The content before the position is not what was read, and no move explains it."""
    FOREIGN = "foreign"
    """A file with the name of a segment is none."""
    MALFORMED = "malformed"
    """An intact record has a content that cannot be counted."""


@dataclass(frozen=True, slots=True)
class TailDamage:
    """Bytes from *offset* up to *next_offset* of a segment whose records are lost."""

    segment: str
    offset: int
    next_offset: int
    kind: DamageKind


@dataclass(slots=True)
class TailSlice:
    """Records that follow the positions of before, and the positions after them."""

    records: list[tuple[str, int, bytes]] = field(default_factory=list)
    """(segment, offset of the record's end, payload), by segment and in order."""
    positions: dict[str, TailPosition] = field(default_factory=dict)
    """Segment -> its position, of those that have changed."""
    damages: list[TailDamage] = field(default_factory=list)
    backlog_bytes: int = 0
    """Bytes that were not read."""


@dataclass(slots=True)
class _Seen:
    """What this process knows of a segment that is not complete."""

    inode: int
    size: int
    since_s: float
    """When it had this size first, by the monotonic clock."""


class JournalTail:
    """Reads the segments of one kind in a folder.

    positions    segment -> where an earlier tail stood, as it was stored. A segment that is not in
                 it is read from its beginning.
    resumed      whether an earlier tail has read this journal. If not, segments that were deleted
                 before are none of its business.
    monotonic_s  clock for QUIET_S.
    """

    def __init__(
        self,
        folder: Path,
        kind: JournalKind,
        positions: Mapping[str, TailPosition],
        *,
        resumed: bool = True,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._kind = kind
        self._monotonic_s = monotonic_s
        self._resumed = resumed
        self.positions: dict[str, TailPosition] = dict(positions)
        """What was read so far, by segment."""
        self._seen: dict[str, _Seen] = {}
        self._never_seen: set[str] = set()

    def read(self, bytes_max: int) -> TailSlice:
        """Return up to about *bytes_max* bytes of new records, and at least one if there is one.

        It holds the folder's shared lock meanwhile, so nothing is rewritten or deleted under it.
        """
        found = TailSlice()
        if not self._folder.is_dir():
            return found
        with folder_lock(self._folder, shared=True):
            names = list_segments(self._folder, self._kind)
            self._note_missing(names, found)
            newest = {name.boot_id: name.number for name in names}
            left = bytes_max
            for name in names:
                position = self.positions.get(str(name), TailPosition())
                if not position.complete:
                    growing = name.number == newest[name.boot_id]
                    left -= self._read_segment(name, position, growing, left, found)
        self.positions.update(found.positions)
        for segment, position in found.positions.items():
            if position.gone:
                del self.positions[segment]
        self._resumed = True
        return found

    # One segment

    def _read_segment(
        self, name: SegmentName, position: TailPosition, growing: bool, left: int, found: TailSlice
    ) -> int:
        """Read one segment into *found*, and return how much of *left* is used up.

        growing  its writer may go on, because it has begun no later segment.
        left     about how many bytes may be read; 0 or less: none.
        """
        segment = str(name)
        with (self._folder / segment).open("rb") as file:
            status = os.fstat(file.fileno())
            # The file may be empty so far, or be no segment at all.
            head = file.read(HEADER.size)
            if len(head) < HEADER.size:
                return 0
            try:
                check_header(segment, head, self._kind)
            except SegmentError:
                self._give_up(segment, position, status.st_size, DamageKind.FOREIGN, found)
                return 0
            # A file that this process sees for the first time may have been rewritten before.
            seen = self._seen.get(segment)
            if seen is None or seen.inode != status.st_ino:
                fitting = self._fitting(segment, position, file.read())
                if fitting is None:
                    self._give_up(segment, position, status.st_size, DamageKind.CHANGED, found)
                    return 0
                position = TailPosition(*fitting)
                seen = self._seen[segment] = _Seen(status.st_ino, -1, 0.0)
            if seen.size != status.st_size:
                seen.size, seen.since_s = status.st_size, self._monotonic_s()
            if left <= 0:
                found.backlog_bytes += status.st_size - position.offset
                return 0
            # Take records as far as the slice has room. What is no record in a part of the rest
            # may be cut or damaged; all of the rest tells.
            file.seek(position.offset)
            content = file.read(left + SLACK_BYTES)
            cut = position.offset + len(content) < status.st_size
            if cut and next(intact_records(content, 0), None) is None:
                content, cut = content + file.read(), False
            rest = status.st_size - position.offset - len(content) if cut else 0
            now, remaining = self._take_records(
                segment, position, content, growing or cut, left, found
            )
            remaining = status.st_size - now.offset if rest else remaining
            quiet = self._monotonic_s() - seen.since_s >= QUIET_S
            if remaining == 0 and (not growing or (quiet and _has_no_writer(file.fileno()))):
                now = TailPosition(now.offset, now.check, complete=True)
                self._seen.pop(segment)
        found.backlog_bytes += remaining
        if now != self.positions.get(segment):
            found.positions[segment] = now
        # Segments are read one after the other, so a full slice ends with this one.
        return left if remaining else now.offset - position.offset

    def _take_records(
        self,
        segment: str,
        position: TailPosition,
        content: bytes,
        growing: bool,
        left: int,
        found: TailSlice,
    ) -> tuple[TailPosition, int]:
        """Add the records of *content*, which begins at *position* and ends with the segment.

        Returns the position after them, and the number of bytes that a later slice will read.
        """
        base, offset, check = position.offset, 0, position.check
        while offset < len(content):
            # Intact records, up to the room of the slice, which always has one.
            for record in intact_records(content, offset):
                if offset and record.end > left:
                    return TailPosition(base + offset, check), len(content) - offset
                offset, check = record.end, extend_check(check, record.payload)
                found.records.append((segment, base + offset, record.payload))
            # What follows is damage, or a tail that is torn or still being written.
            following = find_next_record(content, offset) if offset < len(content) else None
            if following is None and (growing or offset == len(content)):
                break
            end = len(content) if following is None else following
            found.damages.append(TailDamage(segment, base + offset, base + end, DamageKind.DAMAGED))
            offset = end
        return TailPosition(base + offset, check), 0

    def _fitting(
        self, segment: str, position: TailPosition, content: bytes
    ) -> CheckedOffset | None:
        """Return where *position* is in the segment as it is now; None if that is not known.

        content  the segment behind its header.
        """
        stored = CheckedOffset(position.offset, position.check)
        if stored.check == SEGMENT_START.check:
            return SEGMENT_START  # no record was read
        if _fits(content, stored):
            return stored
        moved = position_after_moves(self._folder / segment, stored)
        return moved if moved is not None and _fits(content, moved) else None

    def _give_up(
        self, segment: str, position: TailPosition, size: int, kind: DamageKind, found: TailSlice
    ) -> None:
        """Count the rest of a segment as damage, and never read it again."""
        found.damages.append(TailDamage(segment, position.offset, size, kind))
        found.positions[segment] = TailPosition(size, position.check, complete=True)
        self._seen.pop(segment, None)

    # Segments that are not there

    def _note_missing(self, names: list[SegmentName], found: TailSlice) -> None:
        """Count segments that are gone and were not read, and drop positions that need not stay."""
        present = {str(name) for name in names}
        known: defaultdict[int, list[SegmentName]] = defaultdict(list)
        for segment in self.positions:
            name = SegmentName.parse(segment)
            if name is not None and name.kind == self._kind:
                known[name.boot_id].append(name)
        # The newest known number of a boot stays, because it says which numbers follow.
        now_ms = time.time_ns() // 1_000_000
        for of_boot in known.values():
            newest = max(name.number for name in of_boot)
            for name in of_boot:
                if str(name) not in present:
                    old = name.unix_ms < now_ms - FORGET_BOOT_MS
                    self._note_gone(name, name.number < newest or old, found)
        # A boot numbers its segments from 0 without gaps.
        there: defaultdict[int, set[int]] = defaultdict(set)
        for name in names:
            there[name.boot_id].add(name.number)
        for boot, numbers in there.items():
            expected = max((name.number for name in known[boot]), default=-1) + 1
            if expected or self._resumed:
                for number in set(range(expected, max(numbers))) - numbers:
                    self._note_never_seen(boot, number, found)

    def _note_gone(self, name: SegmentName, dispensable: bool, found: TailSlice) -> None:
        """Note that a known segment is gone. Its position is dropped if it is *dispensable*."""
        segment = str(name)
        position = self.positions[segment]
        if not position.complete:
            # A removal that left no record deletes the segment, and its moves stay.
            seen = self._seen.pop(segment, None)
            if not moves_file(self._folder / segment).exists():
                size = max(position.offset, seen.size if seen else 0)
                found.damages.append(TailDamage(segment, position.offset, size, DamageKind.DELETED))
        if dispensable or not position.complete:
            found.positions[segment] = TailPosition(
                position.offset, position.check, complete=True, gone=dispensable
            )

    def _note_never_seen(self, boot_id: int, number: int, found: TailSlice) -> None:
        """Count a segment that must have been there, unless a removal left no record in it."""
        pattern = f".{self._kind.name.lower()}-*-{boot_id:016x}-{number:06d}.trnj.moves"
        lost = str(SegmentName(0, boot_id, number, self._kind))
        if lost not in self._never_seen and next(self._folder.glob(pattern), None) is None:
            found.damages.append(TailDamage(lost, 0, 0, DamageKind.NEVER_SEEN))
        self._never_seen.add(lost)


def _fits(content: bytes, position: CheckedOffset) -> bool:
    """Whether the frames of *content*, a segment without header, have the check at the offset."""
    offset, check = 0, 0
    end = position.offset - HEADER.size
    while offset < end:
        for record in intact_records(content, offset):
            if record.end > end:
                return False
            offset, check = record.end, extend_check(check, record.payload)
            if offset == end:
                break
        if offset < end:
            following = find_next_record(content, offset)
            offset = min(end, len(content)) if following is None else following
            if offset >= len(content) and end > len(content):
                return False
    return offset == end and check == position.check


def _has_no_writer(descriptor: int) -> bool:
    """Whether no process writes the segment, which its writer would have locked."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return True
