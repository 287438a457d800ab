"""The segment being written, and the files around it. Blocking; one thread's alone."""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

from host.files import fsync_folder
from journal.errors import SegmentDamagedError
from journal.segment import (
    HEADER,
    JournalKind,
    SegmentName,
    find_next_record,
    intact_records,
    list_segments,
    segment_header,
)

SPACE_CHECK_BYTES = 64 << 10


class SyncFailedError(Exception):
    """fdatasync failed. It is not tried again: a second one may succeed over lost pages."""


class SegmentWriter:
    """Creates segments, appends to the newest, cuts torn tails of those whose writer is gone.

    A segment is locked (flock) while it is written: the kernel frees the lock when its writer
    dies, however it dies, and nobody cuts the tail of a living neighbour.
    """

    def __init__(
        self,
        folder: Path,
        kind: JournalKind,
        segment_bytes_max: int,
        clock_ns: Callable[[], int],
        boot_id: int,
    ) -> None:
        self._folder = folder
        self._kind = kind
        self._segment_bytes_max = segment_bytes_max
        self._clock_ns = clock_ns
        self._boot_id = boot_id
        self._number = 0
        self._file: int | None = None
        self._size = 0
        self.write_error: OSError | None = None
        """Why the last write kept less than it was given; None: it kept all."""

    def recover(self) -> list[SegmentDamagedError]:
        """Cut the torn tail of each earlier boot's last segment; return damage found and kept."""
        self._folder.mkdir(parents=True, exist_ok=True)
        last = {name.boot_id: name for name in list_segments(self._folder, self._kind)}
        found = (self._recover_segment(name) for name in last.values())
        return [damage for damage in found if damage is not None]

    def _recover_segment(self, name: SegmentName) -> SegmentDamagedError | None:
        path = self._folder / str(name)
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return None  # its writer lives
            content = path.read_bytes()
            if len(content) < HEADER.size:
                return None  # died, or is, between creating it and the header: it holds no record
            if content[: HEADER.size] != segment_header(self._kind):
                return SegmentDamagedError(str(name), 0, None)
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
        """Begin a new segment. OSError when it cannot be; SyncFailedError from the old one."""
        if self._file is not None:
            self.sync()
            os.close(self._file)
            self._file = None
        self._folder.mkdir(parents=True, exist_ok=True)
        name = SegmentName(self._clock_ns() // 1_000_000, self._boot_id, self._number, self._kind)
        path = self._folder / str(name)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)  # a neighbour's recovery may look at it just now
            _write_all(file, segment_header(self._kind))
            os.fsync(file)
            fsync_folder(self._folder)
        except OSError:
            os.close(file)
            path.unlink(missing_ok=True)
            raise
        self._file, self._size = file, HEADER.size
        self._number += 1

    def write_frames(self, frames: list[bytes]) -> int:
        """Append whole *frames* in order; return how many were kept, the refusal aside."""
        self.write_error = None
        kept = 0
        while kept < len(frames) and self.write_error is None:
            try:
                kept += self._write_to_segment(frames[kept:])
            except OSError as error:
                self.write_error = error
        return kept

    def _write_to_segment(self, frames: list[bytes]) -> int:
        """Append what fits this segment; sets refusal when the disk took only a part."""
        full = self._size + len(frames[0]) > self._segment_bytes_max and self._size > HEADER.size
        if self._file is None or full:
            self.roll()
        assert self._file is not None
        room = self._segment_bytes_max - self._size
        count, length = 1, len(frames[0])
        while count < len(frames) and length + len(frames[count]) <= room:
            length += len(frames[count])
            count += 1
        try:
            _write_all(self._file, b"".join(frames[:count]))
        except OSError as error:
            self.write_error = error
            return self._cut_to_intact_records(frames[:count])
        self._size += length
        return count

    def _cut_to_intact_records(self, frames: list[bytes]) -> int:
        """After a short write: cut back to the last whole record; return how many those are."""
        assert self._file is not None
        reached = os.fstat(self._file).st_size
        kept = 0
        while kept < len(frames) and self._size + len(frames[kept]) <= reached:
            self._size += len(frames[kept])
            kept += 1
        os.ftruncate(self._file, self._size)
        os.lseek(self._file, self._size, os.SEEK_SET)
        return kept

    def check_space(self) -> None:
        """Ask the disk for room and give it back; OSError when it still refuses."""
        if self._file is None:
            self.roll()
        assert self._file is not None
        try:
            os.posix_fallocate(self._file, self._size, SPACE_CHECK_BYTES)
        finally:
            os.ftruncate(self._file, self._size)

    def sync(self) -> None:
        """Sync what was written (fdatasync); SyncFailedError when the disk does not confirm it."""
        if self._file is None:
            return
        try:
            os.fdatasync(self._file)
        except OSError as error:
            raise SyncFailedError(str(error)) from error

    def close(self) -> None:
        """Close the segment; what was not synced stays unsynced."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _write_all(file: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(file, view) :]
