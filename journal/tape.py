"""Writes segments. Everything here blocks, and belongs to the thread of one JournalAppender."""

import fcntl
import os
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

from host.files import fsync_folder, make_private_folder
from journal.errors import SegmentDamagedError
from journal.segment import (
    FRAME_HEADER,
    HEADER,
    JournalKind,
    SegmentName,
    end_request,
    find_next_record,
    frame_header,
    intact_records,
    list_segments,
    segment_header,
)

NS_PER_MS = 1_000_000
SEGMENT_MS_MAX = 86_400_000
"""A day. A record can be deleted this much later than it would be in a segment of its own."""
SPACE_CHECK_BYTES = 64 << 10
PARTS_MAX = 1_024
"""The most parts of one write: IOV_MAX of Linux and macOS."""


class SyncFailedError(Exception):
    """fdatasync failed. It is not tried again, because a second one may succeed over lost pages."""


class SegmentWriter:
    """Creates segments, appends to the newest one, and cuts the torn tails of dead writers.

    A segment is locked (flock) while it is written. The kernel releases the lock when the writer
    ends, however it ends. So the tail of a segment that another worker writes is never cut.

    segment_bytes_max  a new segment begins before a record would make this one longer.
    clock_ns           returns Unix ns, for the names of segments.
    boot_id            64 bits that name this start of the process.
    segment_ms_max     a segment with records is ended when it is this old.
    """

    def __init__(
        self,
        folder: Path,
        kind: JournalKind,
        segment_bytes_max: int,
        clock_ns: Callable[[], int],
        boot_id: int,
        segment_ms_max: int = SEGMENT_MS_MAX,
    ) -> None:
        self._folder = folder
        self._kind = kind
        self._segment_bytes_max = segment_bytes_max
        self._segment_ms_max = segment_ms_max
        self._clock_ns = clock_ns
        self._boot_id = boot_id
        self._number = 0
        self._name: SegmentName | None = None
        """The newest segment; None before the first."""
        self._file: int | None = None
        self._size = 0
        self.write_error: OSError | None = None
        """Why the last write stored less than it was given; None: it stored everything."""

    def recover(self) -> list[SegmentDamagedError]:
        """Cut the torn tail of each boot's last segment. Return the damage that was found.

        Damage in the middle of a segment is left as it is, for `JournalReader` to report.
        """
        make_private_folder(self._folder)
        last = {name.boot_id: name for name in list_segments(self._folder, self._kind)}
        damages: list[SegmentDamagedError] = []
        for name in last.values():
            with suppress(FileNotFoundError):  # it was deleted meanwhile (journal.retention)
                damage = self._recover_segment(name)
                damages += [] if damage is None else [damage]
        return damages

    def _recover_segment(self, name: SegmentName) -> SegmentDamagedError | None:
        path = self._folder / str(name)
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return None  # another worker is writing it
            content = path.read_bytes()
            if len(content) < HEADER.size:
                return None  # its writer ended, or is, before the header: it has no record
            if content[: HEADER.size] != segment_header(self._kind):
                return SegmentDamagedError(str(name), 0, None)
            # Find the end of the last intact record, and cut what is after it if it is a torn tail.
            end = HEADER.size
            for record in intact_records(content, end):
                end = record.end
            following = find_next_record(content, end)
            if following is not None:
                return SegmentDamagedError(str(name), end, following)
            if end < len(content):
                os.ftruncate(file, end)
                os.fsync(file)
            return None
        finally:
            os.close(file)

    def roll(self) -> None:
        """Close the segment and begin a new one.

        Raises SyncFailedError if the old segment cannot be synced, and OSError if the new one
        cannot be created.
        """
        if self._file is not None:
            self.sync()
            os.close(self._file)
            self._file = None
        make_private_folder(self._folder)
        name = SegmentName(self._clock_ns() // NS_PER_MS, self._boot_id, self._number, self._kind)
        path = self._folder / str(name)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)  # waits for the recovery of another worker
            _write_all(file, [segment_header(self._kind)])
            os.fsync(file)
            fsync_folder(self._folder)
        except OSError:
            os.close(file)
            path.unlink(missing_ok=True)
            raise
        self._name, self._file, self._size = name, file, HEADER.size
        self._number += 1

    def roll_if_due(self) -> None:
        """Begin a new segment if this one has records and is old, or is asked to end.

        Old records can then be deleted, and records of a person be removed, although the process
        writes little and for long. Raises as `roll` does.
        """
        if self._file is None or self._name is None or self._size == HEADER.size:
            return
        age_ms = self._clock_ns() // NS_PER_MS - self._name.unix_ms
        if age_ms >= self._segment_ms_max or end_request(self._folder, self._name).exists():
            self.roll()

    def write_records(self, payloads: list[bytes]) -> int:
        """Append records in order and return how many are stored; `write_error` says why not all.

        Raises SyncFailedError if a full segment cannot be synced.
        """
        self.write_error = None
        stored = 0
        while stored < len(payloads) and self.write_error is None:
            try:
                stored += self._write_to_segment(payloads[stored:])
            except OSError as error:
                self.write_error = error
        return stored

    def _write_to_segment(self, payloads: list[bytes]) -> int:
        """Append the records that fit into one segment, and return how many are stored."""
        sizes = [FRAME_HEADER.size + len(payload) for payload in payloads]
        full = self._size + sizes[0] > self._segment_bytes_max and self._size > HEADER.size
        if self._file is None or full:
            self.roll()
        assert self._file is not None
        space = self._segment_bytes_max - self._size
        count, length = 1, sizes[0]
        while count < len(sizes) and length + sizes[count] <= space:
            length += sizes[count]
            count += 1
        # Payloads are written where they are, because a copy would hold the interpreter's lock.
        parts = [part for payload in payloads[:count] for part in (frame_header(payload), payload)]
        try:
            _write_all(self._file, parts)
        except OSError as error:
            self.write_error = error
            return self._cut_to_intact_records(sizes[:count])
        self._size += length
        return count

    def _cut_to_intact_records(self, sizes: list[int]) -> int:
        """Cut the file to its last intact record after a short write. Return how many remain.

        sizes  bytes of the frames that were to be written.
        """
        assert self._file is not None
        reached = os.fstat(self._file).st_size
        stored = 0
        while stored < len(sizes) and self._size + sizes[stored] <= reached:
            self._size += sizes[stored]
            stored += 1
        os.ftruncate(self._file, self._size)
        os.lseek(self._file, self._size, os.SEEK_SET)
        return stored

    def check_space(self) -> None:
        """Allocate some space on the disk and give it back. Raises OSError if the disk refuses."""
        if self._file is None:
            self.roll()
        assert self._file is not None
        try:
            os.posix_fallocate(self._file, self._size, SPACE_CHECK_BYTES)
        finally:
            os.ftruncate(self._file, self._size)

    def sync(self) -> None:
        """Sync what was written (fdatasync). Raises SyncFailedError if the disk does not."""
        if self._file is None:
            return
        try:
            os.fdatasync(self._file)
        except OSError as error:
            raise SyncFailedError(str(error)) from error

    def close(self) -> None:
        """Close the segment without syncing it."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _write_all(file: int, parts: Sequence[bytes]) -> None:
    views = deque(memoryview(part) for part in parts)
    while views:
        written = os.writev(file, list(islice(views, PARTS_MAX)))
        while views and written >= len(views[0]):
            written -= len(views.popleft())
        if written:
            views[0] = views[0][written:]
