"""Deletes whole segments, oldest first, so that a journal keeps its bounds of age and size.

The supervisor of a gateway calls it once a minute, so no call waits for it. A segment that is being
written is locked by its writer, and the folder by each reader: neither loses anything. What a
reader has not read so far (journal/progress.py) stays beyond the bounds, while the disk has space.
"""

import contextlib
import fcntl
import math
import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from host.clock import DAY_S
from host.files import folder_lock, fsync_folder
from journal.moves import moves_file
from journal.progress import ReaderProgress, read_progress
from journal.segment import HEADER, JournalKind, SegmentName, list_segments

DISK_FREE_SHARE_MIN = 0.05
"""With a smaller share of the disk free, segments beyond the bounds are deleted unread."""
MOVES_DAYS = 60
"""How long the moves of a removed segment stay, for readers that were away."""
PACE_S_MIN = 60
"""A journal that began less than a minute ago counts as a minute old, so that its first records are
no pace."""


class Bounds(NamedTuple):
    """How much a journal keeps, served calls and outcomes together. 0 is no bound."""

    days_max: float = 0
    bytes_max: int = 0


@dataclass(frozen=True, slots=True)
class JournalUse:
    """What a journal takes after its old segments were deleted."""

    deleted: Mapping[tuple[str, str], int]
    """(kind, "age", "size" or "unread") -> segments deleted this time. Unread ones were beyond a
    bound and not read by every reader, and the disk was nearly full."""
    kind_bytes: Mapping[str, int]
    """kind -> bytes of its segments."""
    unread_bytes: int
    """Bytes of segments that are beyond a bound, and wait for a reader."""
    days_left: float
    """Days until the bound of bytes, or the end of the disk, is reached at the last day's pace. The
    days kept, where age deletes before that. Infinity when nothing is written or deleted."""


@dataclass(frozen=True, slots=True)
class _Segment:
    name: SegmentName
    size: int
    written_s: float
    """Unix time of its newest record."""


def delete_old_segments(folder: Path, bounds: Bounds, now_s: float) -> JournalUse:
    """Delete the segments in *folder* beyond *bounds*, oldest first.

    Nothing is deleted while a reader is in the folder; the next call does it.

    now_s  the present, Unix seconds.
    """
    deleted: Counter[tuple[str, str]] = Counter()
    kept, unread_bytes = _segments(folder), 0
    if kept:
        readers = read_progress(folder, now_s)
        with folder_lock(folder, wait=False) as held:
            if held:
                kept, unread_bytes = _delete(folder, kept, bounds, now_s, readers, deleted)
                _delete_old_moves(folder, now_s)
    kind_bytes = {kind.name.lower(): 0 for kind in JournalKind}
    for segment in kept:
        kind_bytes[_kind(segment)] += segment.size
    disk_free = shutil.disk_usage(folder).free if folder.is_dir() else 0
    days_left = _days_left(kept, bounds, now_s, disk_free)
    return JournalUse(deleted, kind_bytes, unread_bytes, days_left)


def _segments(folder: Path) -> list[_Segment]:
    """Return the segments of both kinds, oldest first."""
    found = []
    for name in sorted(name for kind in JournalKind for name in list_segments(folder, kind)):
        with contextlib.suppress(FileNotFoundError):  # the operator moved it away
            status = (folder / str(name)).stat()
            found.append(_Segment(name, status.st_size, status.st_mtime))
    return found


def _delete(
    folder: Path,
    segments: list[_Segment],
    bounds: Bounds,
    now_s: float,
    readers: Sequence[ReaderProgress],
    deleted: Counter[tuple[str, str]],
) -> tuple[list[_Segment], int]:
    """Delete what is beyond the bounds, and count it in *deleted*.

    Returns the rest, and how many bytes of it wait for a reader.
    """
    total, unread_bytes = sum(segment.size for segment in segments), 0
    disk = shutil.disk_usage(folder)
    free = disk.free
    kept = []
    for segment in segments:
        # Leave what is within the bounds.
        too_old = bounds.days_max and now_s - segment.written_s > bounds.days_max * DAY_S
        # A worker creates a file and locks it a moment later, still without a record.
        has_records = segment.size > HEADER.size
        too_much = bounds.bytes_max and total > bounds.bytes_max and has_records
        if not (too_old or too_much):
            kept.append(segment)
            continue
        # Leave what a reader has not read, unless the disk is nearly full.
        unread = _is_unread(segment, readers)
        if unread and free >= DISK_FREE_SHARE_MIN * disk.total:
            unread_bytes += segment.size
            kept.append(segment)
        elif _delete_unless_written(folder / str(segment.name)):
            cause = "unread" if unread else "age" if too_old else "size"
            deleted[_kind(segment), cause] += 1
            total -= segment.size
            free += segment.size
        else:
            kept.append(segment)
    if deleted:
        fsync_folder(folder)
    return kept, unread_bytes


def _is_unread(segment: _Segment, readers: Sequence[ReaderProgress]) -> bool:
    """Whether a reader has records of the segment to read."""
    if segment.size <= HEADER.size:
        return False
    return any(reader.offsets.get(str(segment.name), 0) < segment.size for reader in readers)


def _delete_old_moves(folder: Path, now_s: float) -> None:
    """Delete moves of segments that are gone, once every reader has seen that they are gone."""
    for path in folder.glob(".*.moves"):
        segment = path.with_name(path.name[1 : -len(".moves")])
        with contextlib.suppress(FileNotFoundError):
            if not segment.exists() and now_s - path.stat().st_mtime > MOVES_DAYS * DAY_S:
                path.unlink()


def _delete_unless_written(path: Path) -> bool:
    """Delete a segment; False if a worker is writing it, or is about to recover its tail."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
        moves_file(path).unlink(missing_ok=True)
    except BlockingIOError:
        return False
    finally:
        os.close(file)
    return True


def _days_left(segments: list[_Segment], bounds: Bounds, now_s: float, disk_free: int) -> float:
    """Return JournalUse.days_left."""
    # The pace: bytes a day, by the segments of the last day.
    recent = [segment for segment in segments if now_s - segment.written_s < DAY_S]
    began_s = min((segment.name.unix_ms / 1e3 for segment in recent), default=now_s)
    span_s = max(PACE_S_MIN, now_s - began_s)
    day_bytes = sum(segment.size for segment in recent) / span_s * DAY_S
    # The room: to the bound of bytes, or to the end of the disk where that comes first.
    total = sum(segment.size for segment in segments)
    room = min(bounds.bytes_max - total, disk_free) if bounds.bytes_max else disk_free
    reached = bounds.days_max and day_bytes * bounds.days_max <= total + room
    if reached:
        return bounds.days_max
    return max(0.0, room / day_bytes) if day_bytes else math.inf


def _kind(segment: _Segment) -> str:
    return segment.name.kind.name.lower()
