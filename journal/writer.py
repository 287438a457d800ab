"""Appends records to a journal without blocking. A thread writes, groups and syncs them.

Guarantees:

- An appended record is on disk in order, or it is counted in `dropped`.
- A crash of the program loses what the thread has not written, normally less than a millisecond of
  records. A power cut loses at most `commit_ms_max` more.
- A record is never lost once its `append_durably` has returned.
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
from journal.segment import RECORD_BYTES_MAX, JournalKind, check_payload
from journal.tape import SEGMENT_MS_MAX, SegmentWriter, SyncFailedError

log = logging.getLogger(__name__)

CHECK_S = 1.0
"""Seconds between two looks at the segment's end and, while the disk refuses records, at space."""


class JournalAppender:
    """The journal of one process and kind. A new segment in *folder* begins at each start.

    segment_bytes_max  a new segment begins before a record would make this one longer.
    segment_ms_max     a segment with records is ended when it is this old.
    commit_ms_max      a record is synced at most this long after it was written.
    bytes_waiting_max  bytes that may wait for the thread. Beyond it records are dropped.
    clock_ns           returns Unix ns, for the names of segments.
    boot_id            64 bits that name this start of the process; None: random ones.
    """

    def __init__(
        self,
        folder: Path,
        kind: JournalKind,
        *,
        segment_bytes_max: int = 64 << 20,
        segment_ms_max: int = SEGMENT_MS_MAX,
        commit_ms_max: int = 50,
        bytes_waiting_max: int = 32 << 20,
        clock_ns: Callable[[], int] = time.time_ns,
        boot_id: int | None = None,
    ) -> None:
        # Where the records go.
        self._segment_writer = SegmentWriter(
            folder,
            kind,
            segment_bytes_max,
            clock_ns,
            boot_id or secrets.randbits(64),
            segment_ms_max,
        )
        # What waits for the thread, and how the disk is.
        self._commit_s = commit_ms_max / 1e3
        self._bytes_waiting_max = bytes_waiting_max
        self._changed = threading.Condition()
        self._waiting: list[tuple[bytes, Future[None] | None]] = []
        self._bytes_waiting = 0
        self._disk_refuses = False
        self._stopped = False
        self._closing = False
        self.dropped = 0
        """Records that were not stored, exactly: queue full, disk refused, or sync failed."""
        self.dropped_optional = 0
        """Records that `append_optional` did not queue. They are not in `dropped`."""
        self.written = 0
        """Records that are on disk and synced."""
        self._unsynced: list[Future[None] | None] = []
        self._thread = threading.Thread(target=self._run, name=f"journal-{kind.name.lower()}")
        self._thread.daemon = True  # so that the process can end although its disk hangs
        self._thread.start()

    @property
    def healthy(self) -> bool:
        """Whether the next record will probably be stored. Models may require a healthy journal."""
        return not (
            self._stopped or self._disk_refuses or self._bytes_waiting >= self._bytes_waiting_max
        )

    def append(self, payload: bytes) -> None:
        """Queue *payload* (1 byte to 16 MiB) and return at once. A full queue drops it.

        Raises RecordSizeError for an empty or oversized payload.
        """
        self._queue(payload, None)

    def append_optional(self, payload: bytes) -> bool:
        """Queue *payload* if at most half of the queue is taken and the disk takes records.

        So these records are dropped before any other. Returns whether it was queued; if not, it is
        counted in `dropped_optional`. A larger payload than a record may be is not queued either.
        """
        fits = self._bytes_waiting + len(payload) <= self._bytes_waiting_max // 2
        if self.healthy and fits and len(payload) <= RECORD_BYTES_MAX:
            self._queue(payload, None)
            return True
        self.dropped_optional += 1
        return False

    async def append_durably(self, payload: bytes) -> None:
        """Return when *payload* is on disk and synced. Raises JournalRefusedError if it is not."""
        await asyncio.wrap_future(self.submit(payload))

    def submit(self, payload: bytes) -> Future[None]:
        """Return a future that ends as `append_durably` does, for callers without an event loop."""
        future: Future[None] = Future()
        future.set_running_or_notify_cancel()  # a queued record cannot be cancelled
        self._queue(payload, future)
        return future

    def close(self) -> None:
        """Write and sync the waiting records, then end the thread."""
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
            if not (full or self._stopped or self._closing):
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
        """Write groups until the appender is closed. This is the thread's function.

        An error that is not the disk's stops the journal: callers that wait get a refusal, and
        every record since then is dropped and counted.
        """
        try:
            self._write_groups()
        except Exception as error:
            log.critical("journal: stopped by an error of this program", exc_info=error)
            with self._changed:
                self._stopped = True
                waiting, self._waiting = self._waiting, []
                self._bytes_waiting = 0
            lost, self._unsynced = self._unsynced, []
            self._drop([*lost, *[future for _, future in waiting]], "the journal has stopped")

    def _write_groups(self) -> None:
        self._open_segment()
        sync_at = float("inf")
        check_at = time.monotonic() + CHECK_S
        while True:
            group = self._next_group(min(sync_at, check_at))
            if group is None:
                break
            if group:
                self._write(group)
                sync_at = min(sync_at, time.monotonic() + self._commit_s)
            # Sync at once if a caller waits for it, otherwise when the oldest record is due.
            durable = any(future is not None for future in self._unsynced)
            if self._unsynced and (durable or time.monotonic() >= sync_at):
                self._sync()
            if not self._unsynced:
                sync_at = float("inf")
            if self._disk_refuses and not group:
                self._check_space()
            if time.monotonic() >= check_at:
                self._roll_if_due()
                check_at = time.monotonic() + CHECK_S
        self._sync()
        self._segment_writer.close()

    def _next_group(self, until_s: float) -> list[tuple[bytes, Future[None] | None]] | None:
        """Wait for records, at most until a monotonic time. Return None at the end."""
        with self._changed:
            wait_s = until_s - time.monotonic()
            if not self._waiting and not self._closing and wait_s > 0:
                self._changed.wait(wait_s)
            group, self._waiting = self._waiting, []
            return group if group or not self._closing else None

    def _open_segment(self) -> None:
        try:
            for damage in self._segment_writer.recover():
                log.error("journal: %s", damage)
            self._segment_writer.roll()
        except OSError as error:
            self._note_disk_error(error)

    def _roll_if_due(self) -> None:
        if self._stopped:
            return
        try:
            self._segment_writer.roll_if_due()
        except SyncFailedError as error:
            self._stop_after_failed_sync(error)
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
        """Write *group* in order. Records that the disk refuses are dropped and counted."""
        stored = 0
        try:
            if self._stopped:
                return
            stored = self._segment_writer.write_records([payload for payload, _ in group])
            if self._segment_writer.write_error is not None:
                self._note_disk_error(self._segment_writer.write_error)
            elif stored == len(group):
                self._disk_refuses = False
        except SyncFailedError as error:  # from the last sync of a full segment
            self._stop_after_failed_sync(error)
        finally:
            self._unsynced += [future for _, future in group[:stored]]
            self._drop([future for _, future in group[stored:]], "the disk refused it")
            with self._changed:
                self._bytes_waiting -= sum(len(payload) for payload, _ in group)

    def _sync(self) -> None:
        if not self._unsynced or self._stopped:
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
        """Stop for ever: after a failed sync the kernel may have dropped the pages."""
        log.critical("journal: stopped, records since the last sync may be lost: %s", error)
        self._stopped = True
        lost, self._unsynced = self._unsynced, []
        self._drop(lost, "its sync failed")

    def _drop(self, futures: list[Future[None] | None], why: str) -> None:
        with self._changed:
            self.dropped += len(futures)
        for future in futures:
            if future is not None:
                future.set_exception(JournalRefusedError(f"not kept: {why}; send it again later"))
