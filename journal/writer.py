"""Appends records from an event loop; a thread of its own writes, groups and syncs them.

What is promised: an appended record is either on disk in order or counted in `dropped`. A crash of
the program loses what the thread had not yet written (normally under a millisecond's worth), a
power cut at most `commit_ms_max` more; a record whose append_durably returned is never lost.
"""

import asyncio
import logging
import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Self

from journal.errors import JournalRefusedError
from journal.segment import JournalKind, check_payload, frame_record
from journal.tape import SegmentWriter, SyncFailedError

log = logging.getLogger(__name__)

SPACE_CHECK_S = 1.0
"""How often a disk that refused is asked again."""


class JournalAppender:
    """One kind's journal of one process. Segments lie in *folder*; a new one begins at each start.

    segment_bytes_max   a segment is closed before a record would make it longer
    commit_ms_max       a record is fdatasynced at most this long after it was written
    bytes_waiting_max   what may wait for the thread; beyond it records are dropped and counted
    clock_ns            Unix ns, for segment names
    boot_id             64 bits that name this start of the process; drawn when not given
    """

    def __init__(
        self,
        folder: Path,
        kind: JournalKind,
        *,
        segment_bytes_max: int = 64 << 20,
        commit_ms_max: int = 50,
        bytes_waiting_max: int = 32 << 20,
        clock_ns: Callable[[], int] = time.time_ns,
        boot_id: int | None = None,
    ) -> None:
        self._segment_writer = SegmentWriter(
            folder, kind, segment_bytes_max, clock_ns, boot_id or secrets.randbits(64)
        )
        self._commit_s = commit_ms_max / 1e3
        self._bytes_waiting_max = bytes_waiting_max
        self._changed = threading.Condition()
        self._waiting: list[tuple[bytes, Future[None] | None]] = []
        self._bytes_waiting = 0
        self._disk_refuses = False
        self._sync_failed = False
        self._closing = False
        self.dropped = 0
        """Records that were not kept, exactly: queue full, disk refused, or sync failed."""
        self.written = 0
        """Records on disk and synced."""
        self._unsynced: list[Future[None] | None] = []
        self._thread = threading.Thread(target=self._run, name=f"journal-{kind.name.lower()}")
        self._thread.daemon = True  # a hung disk must not keep the process from ending
        self._thread.start()

    @property
    def healthy(self) -> bool:
        """Whether the next record can be expected to be kept. For `required` policies."""
        return not (
            self._sync_failed
            or self._disk_refuses
            or self._bytes_waiting >= self._bytes_waiting_max
        )

    def append(self, payload: bytes) -> None:
        """Queue *payload* (1 byte to 16 MiB) and return at once; dropped and counted if it cannot.

        Raises RecordSizeError for an empty or oversized payload.
        """
        self._queue(payload, None)

    async def append_durably(self, payload: bytes) -> None:
        """Return when *payload* is on disk and synced; raise JournalRefusedError if it is not."""
        await asyncio.wrap_future(self.submit(payload))

    def submit(self, payload: bytes) -> Future[None]:
        """As append_durably, for callers without an event loop."""
        future: Future[None] = Future()
        future.set_running_or_notify_cancel()  # written once queued: too late to cancel
        self._queue(payload, future)
        return future

    def close(self) -> None:
        """Write and sync what waits, then end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _queue(self, payload: bytes, future: Future[None] | None) -> None:
        check_payload(payload)
        with self._changed:
            full = self._bytes_waiting + len(payload) > self._bytes_waiting_max
            if not (full or self._sync_failed or self._closing):
                self._bytes_waiting += len(payload)
                self._waiting.append((payload, future))
                if len(self._waiting) == 1:
                    self._changed.notify()
                return
            self.dropped += 1
            text = (
                f"{self._bytes_waiting} bytes wait for the disk, of {self._bytes_waiting_max}"
                if full
                else "the journal has stopped"
            )
        if future is not None:
            future.set_exception(JournalRefusedError(f"not kept: {text}; send it again later"))

    def _run(self) -> None:
        self._open_segment()
        sync_at = float("inf")
        while True:
            group = self._next_group(sync_at)
            if group is None:
                break
            if group:
                self._write(group)
                sync_at = min(sync_at, time.monotonic() + self._commit_s)
            durable = any(future is not None for future in self._unsynced)
            if self._unsynced and (durable or time.monotonic() >= sync_at):
                self._sync()
            if not self._unsynced:
                sync_at = float("inf")
            if self._disk_refuses and not group:
                self._check_space()
        self._sync()
        self._segment_writer.close()

    def _next_group(self, sync_at: float) -> list[tuple[bytes, Future[None] | None]] | None:
        """Wait for records, the sync or probe due, or the end (None)."""
        with self._changed:
            wait_s = min(
                sync_at - time.monotonic(), SPACE_CHECK_S if self._disk_refuses else float("inf")
            )
            if not self._waiting and not self._closing and wait_s > 0:
                self._changed.wait(None if wait_s == float("inf") else wait_s)
            group, self._waiting = self._waiting, []
            return group if group or not self._closing else None

    def _open_segment(self) -> None:
        try:
            for damage in self._segment_writer.recover():
                log.error("journal: %s", damage)
            self._segment_writer.roll()
        except OSError as error:
            self._note_disk_error(error)

    def _check_space(self) -> None:
        try:
            self._segment_writer.check_space()
        except OSError as error:
            self._note_disk_error(error)
        else:
            log.warning("journal: the disk takes records again; %d were dropped", self.dropped)
            self._disk_refuses = False

    def _note_disk_error(self, error: OSError) -> None:
        if not self._disk_refuses:
            log.error("journal: the disk refuses records, which are dropped: %s", error)
        self._disk_refuses = True

    def _write(self, group: list[tuple[bytes, Future[None] | None]]) -> None:
        """Write *group* in order; what the disk refuses is dropped and counted."""
        kept = 0
        try:
            if self._sync_failed:
                return
            kept = self._segment_writer.write_frames(
                [frame_record(payload) for payload, _ in group]
            )
            if self._segment_writer.write_error is not None:
                self._note_disk_error(self._segment_writer.write_error)
            elif kept == len(group):
                self._disk_refuses = False
        except SyncFailedError as error:  # the old segment's last sync, before a new one
            self._stop_after_failed_sync(error)
        finally:
            self._unsynced += [future for _, future in group[:kept]]
            self._drop([future for _, future in group[kept:]], "the disk refused it")
            with self._changed:
                self._bytes_waiting -= sum(len(payload) for payload, _ in group)

    def _sync(self) -> None:
        if not self._unsynced or self._sync_failed:
            return
        try:
            self._segment_writer.sync()
        except SyncFailedError as error:
            self._stop_after_failed_sync(error)
            return
        synced, self._unsynced = self._unsynced, []
        self.written += len(synced)
        for future in synced:
            if future is not None:
                future.set_result(None)

    def _stop_after_failed_sync(self, error: SyncFailedError) -> None:
        """Stop for good: after a failed sync the kernel may have thrown the pages away."""
        log.critical("journal: stopped, records since the last sync may be lost: %s", error)
        self._sync_failed = True
        lost, self._unsynced = self._unsynced, []
        self._drop(lost, "its sync failed")

    def _drop(self, futures: list[Future[None] | None], why: str) -> None:
        with self._changed:
            self.dropped += len(futures)
        for future in futures:
            if future is not None:
                future.set_exception(JournalRefusedError(f"not kept: {why}; send it again later"))
