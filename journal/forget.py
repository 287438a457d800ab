"""Removes a person's calls and outcomes from the segments of journals.

A served call is removed with all its rows: an outcome names a call and the number of a row in it,
so no row can be taken out alone. The call's outcomes go first, so that a removal which is killed in
between finds the call again.

A segment is rewritten beside itself and renamed, so that it is always whole. Its other records stay
byte for byte. A segment that a worker is writing is rewritten once the worker has ended it.
"""

import fcntl
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from host.files import folder_lock, fsync_folder, replacing_file
from journal.moves import note_rewrite
from journal.person import Person, is_outcome_of, take_served
from journal.segment import (
    FRAME_HEADER,
    HEADER,
    JournalKind,
    SegmentName,
    check_header,
    end_request,
    find_next_record,
    frame_record,
    intact_records,
    list_segments,
    segment_header,
)

END_S_MAX = 10.0
"""How long a worker may take to end a segment. It looks once a second."""
END_CHECK_S = 0.05

Edit = Callable[[bytes], bytes | None]
"""Returns a record's payload without the person: the same object, a smaller one, or None."""


@dataclass(slots=True)
class ForgottenJournals:
    """What was removed from journals, or would be."""

    calls: int = 0
    rows: int = 0
    """The rows of these calls, other people's among them."""
    shadow_calls: int = 0
    """Records of shadows about such calls; one for each shadow that scored the call."""
    outcomes: int = 0
    segments: int = 0
    """Segments that were rewritten, or deleted because nothing was left."""
    unreadable_bytes: int = 0
    """Damaged or torn bytes. They cannot be searched for the person, so they are removed too."""
    unknown_records: int = 0
    """Served records with the id, whose contract is unknown. They stay."""
    still_written: int = 0
    """Segments with records of the person that a worker did not end in time. They stay."""
    prediction_ids: set[bytes] = field(default_factory=set)
    """The ids of the person's served calls, by which other stores find their outcomes."""


class _Segment(NamedTuple):
    folder: Path
    name: SegmentName

    @property
    def path(self) -> Path:
        return self.folder / str(self.name)


@dataclass(slots=True)
class _Content:
    """What a segment holds."""

    payloads: list[bytes] = field(default_factory=list)
    frames: list[bytes] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    """Offsets of the ends of the frames."""
    damaged: int = 0
    """Bytes between intact records that are none."""
    torn: int = 0
    """Bytes after the last intact record. While the segment is written, they are no damage."""


@dataclass(slots=True)
class _Removal:
    """One removal from all journals."""

    person: Person
    dry_run: bool
    end_s_max: float
    removed: ForgottenJournals = field(default_factory=ForgottenJournals)

    def has_calls(self, payload: bytes) -> bool:
        part = take_served(payload, self.person)
        self.removed.unknown_records += part.unknown
        return part.rest is not payload

    def note_calls(self, payload: bytes) -> None:
        self.removed.prediction_ids.update(take_served(payload, self.person).prediction_ids)

    def without_calls(self, payload: bytes) -> bytes | None:
        part = take_served(payload, self.person)
        if part.shadow:
            self.removed.shadow_calls += len(part.prediction_ids)
        else:
            self.removed.calls += len(part.prediction_ids)
            self.removed.rows += part.rows
        return part.rest

    def is_outcome(self, payload: bytes) -> bool:
        return is_outcome_of(payload, self.person, self.removed.prediction_ids)

    def without_outcome(self, payload: bytes) -> bytes | None:
        if not self.is_outcome(payload):
            return payload
        self.removed.outcomes += 1
        return None


def forget_in_journals(
    folders: Sequence[Path],
    person: Person,
    *,
    dry_run: bool = False,
    end_s_max: float = END_S_MAX,
) -> ForgottenJournals:
    """Remove the person's calls and outcomes from the journals in *folders*.

    It waits until no process reads these journals. Workers go on writing, and the new records
    are not searched. It may be repeated.

    folders    they exist. Outcomes are found by the calls of all of them.
    dry_run    counts only.
    end_s_max  how long a worker may take to end a segment.

    Raises SegmentError for a file that is no segment, OSError when the disk refuses.
    """
    removal = _Removal(person, dry_run, end_s_max)
    with ExitStack() as locks:
        for folder in folders:
            locks.enter_context(folder_lock(folder, shared=dry_run))
            if not dry_run:
                _delete_leftovers(folder)
        # Find the calls, and by their ids the outcomes.
        served = _affected(folders, JournalKind.SERVED, removal.has_calls, removal)
        for segment in served:
            for payload in _read(segment).payloads:
                removal.note_calls(payload)
        outcomes = _affected(folders, JournalKind.OUTCOMES, removal.is_outcome, removal)
        # Outcomes are found by their calls, so the calls go last.
        for segment in outcomes:
            _rewrite(segment, removal.without_outcome, removal)
        for segment in served:
            _rewrite(segment, removal.without_calls, removal)
    return removal.removed


def _delete_leftovers(folder: Path) -> None:
    """Delete what a killed removal left: segments that were not renamed, and requests to end."""
    for pattern in (".*.trnj.*.part", ".*.trnj.end"):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)


def _affected(
    folders: Sequence[Path], kind: JournalKind, is_of: Callable[[bytes], bool], removal: _Removal
) -> list[_Segment]:
    """Return the segments with a record of the person or with unreadable bytes.

    A worker that writes one of them is asked to end it. One that it does not end is left out.
    """
    affected = []
    for folder in folders:
        for name in list_segments(folder, kind):
            segment = _Segment(folder, name)
            content = _read(segment)
            # All records are looked at, because some are counted.
            found = any([is_of(payload) for payload in content.payloads])  # noqa: C419
            if not (found or content.damaged or content.torn):
                continue
            wanted = (found or content.damaged > 0) and not removal.dry_run
            ended = _is_ended(segment, removal.end_s_max if wanted else 0)
            if ended or (removal.dry_run and found):
                affected.append(segment)
            else:
                removal.removed.still_written += wanted
    return affected


def _read(segment: _Segment) -> _Content:
    content = segment.path.read_bytes()
    found = _Content()
    if len(content) < HEADER.size:
        return found  # a worker has created the file and not written its header so far
    check_header(str(segment.name), content[: HEADER.size], segment.name.kind)
    start: int | None = HEADER.size
    # Each turn reads up to the end or to damage, and goes on behind the damage.
    while start is not None:
        end = start
        for record in intact_records(content, start):
            found.payloads.append(record.payload)
            found.ends.append(record.end)
            found.frames.append(
                content[record.end - len(record.payload) - FRAME_HEADER.size : record.end]
            )
            end = record.end
        start = find_next_record(content, end) if end < len(content) else None
        found.damaged += 0 if start is None else start - end
        found.torn = 0 if start is not None else len(content) - end
    return found


def _is_ended(segment: _Segment, wait_s: float) -> bool:
    """Return whether no worker writes the segment. One that does is asked to end it in *wait_s*."""
    request = end_request(segment.folder, segment.name)
    file = os.open(segment.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        until_s = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= until_s:
                    return False
                request.touch()
                time.sleep(END_CHECK_S)
            else:
                return True
    finally:
        os.close(file)
        request.unlink(missing_ok=True)


def _rewrite(segment: _Segment, edit: Edit, removal: _Removal) -> None:
    """Write the segment without what *edit* takes out; delete it when no record is left.

    No process writes it any more, and a reader has the old file or the new file.
    """
    content = _read(segment)
    unreadable = content.damaged + content.torn
    kept, rests = [], []
    for payload, frame in zip(content.payloads, content.frames, strict=True):
        rest = edit(payload)
        rests.append(rest)
        if rest is not None:
            kept.append(frame if rest is payload else frame_record(rest))
    if kept == content.frames and not unreadable:
        return
    removal.removed.segments += 1
    removal.removed.unreadable_bytes += unreadable
    if removal.dry_run:
        return
    # A reader that has read a part of the segment finds its position again.
    note_rewrite(segment.path, content.payloads, content.ends, rests)
    if not kept:
        segment.path.unlink()
        fsync_folder(segment.folder)
        return
    # Retention counts age by the time of the last record.
    status = segment.path.stat()
    with replacing_file(segment.path) as beside:
        beside.touch(mode=0o600)
        beside.write_bytes(segment_header(segment.name.kind) + b"".join(kept))
        os.utime(beside, ns=(status.st_atime_ns, status.st_mtime_ns))
