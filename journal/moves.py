"""Where the records of a rewritten segment went, for readers that had read a part of it.

A removal (journal/forget.py) rewrites a segment, so the offset of a reader no longer fits. Beside
the segment lies a file `.<segment>.moves` that is written first. For each record of the earlier
content it has the offset of its end and a check of all frames up to it, and the same two of the new
content. A reader whose check does not fit the segment any more looks its position up there.
The check is a CRC32C over the frame headers (length and CRC32C of each payload), so it changes with
every payload. The file has no content of a record.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import google_crc32c

from host.files import replace_file
from journal.segment import FRAME_HEADER, HEADER, frame_record


class CheckedOffset(NamedTuple):
    """The end of a record, and the check of all frames up to it."""

    offset: int
    check: int


SEGMENT_START = CheckedOffset(HEADER.size, 0)
"""Before the first record."""


@dataclass(frozen=True, slots=True)
class SegmentRewrite:
    """One rewrite: the ends of the earlier records, growing, and the new end of each."""

    before: tuple[CheckedOffset, ...]
    after: tuple[CheckedOffset, ...]

    def moved(self, position: CheckedOffset) -> CheckedOffset | None:
        """Return where *position* is now; None: it is none of the earlier content."""
        if position.check == 0:
            return SEGMENT_START
        # Behind damage a position is not the end of a record, but lies after one.
        for before, after in zip(reversed(self.before), reversed(self.after), strict=True):
            if before.offset <= position.offset:
                return after if before.check == position.check else None
        return None

    @property
    def last(self) -> CheckedOffset:
        """The end of the new content."""
        return self.after[-1] if self.after else SEGMENT_START


def extend_check(check: int, payload: bytes) -> int:
    """Return the check after one more record with *payload*."""
    header = FRAME_HEADER.pack(len(payload), google_crc32c.value(payload))
    # 0 is the check of no record.
    return int(google_crc32c.extend(check, header)) or 1


def moves_file(segment: Path) -> Path:
    """Return the file with the moves of a segment."""
    return segment.with_name(f".{segment.name}.moves")


def read_moves(segment: Path) -> list[SegmentRewrite]:
    """Return the rewrites of a segment, oldest first; none if there is no readable file."""
    try:
        rewrites = json.loads(moves_file(segment).read_bytes())
        return [
            SegmentRewrite(
                tuple(CheckedOffset(*end) for end in rewrite["before"]),
                tuple(CheckedOffset(*end) for end in rewrite["after"]),
            )
            for rewrite in rewrites
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def note_rewrite(
    segment: Path,
    payloads: Sequence[bytes],
    ends: Sequence[int],
    rests: Sequence[bytes | None],
) -> None:
    """Write, before a segment is rewritten, where each of its records will be.

    payloads  of all its records, in order.
    ends      offsets of the ends of these records.
    rests     what is left of each payload; None: nothing.
    """
    # The ends of the records before and after, each with its check.
    before, after = [], []
    check, moved = 0, SEGMENT_START
    for payload, end, rest in zip(payloads, ends, rests, strict=True):
        check = extend_check(check, payload)
        before.append(CheckedOffset(end, check))
        if rest is not None:
            moved = CheckedOffset(
                moved.offset + len(frame_record(rest)), extend_check(moved.check, rest)
            )
        after.append(moved)
    # An earlier rewrite that was noted and not done, because it was killed, leads nowhere.
    earlier = read_moves(segment)
    while earlier and earlier[-1].last.check != check:
        earlier.pop()
    rewrites = [*earlier, SegmentRewrite(tuple(before), tuple(after))]
    content = [{"before": item.before, "after": item.after} for item in rewrites]
    replace_file(moves_file(segment), json.dumps(content))


def position_after_moves(segment: Path, position: CheckedOffset) -> CheckedOffset | None:
    """Return where *position* of an earlier content is now; None: the moves do not say."""
    found: CheckedOffset | None = None
    for rewrite in read_moves(segment):
        moved = rewrite.moved(found or position)
        if moved is not None:
            found = moved
    return found
