"""An index of the reports with an idempotency key in the outcome journal of this host.

A key belongs to its caller, prediction and outcome name; together they are the report's scope. A
caller cannot use up another caller's keys. A record has all of it, so records of any age can be
read back: those from before callers had identities count as reports without one.

The index has the reports of this worker, of the host's other workers, and those from before a
restart. The journal is its only source, so both cannot differ: at the start the newest segments are
read back, later only what other workers have appended since. Its methods block; one thread at a
time runs them.
"""

import contextlib
import logging
import os
import struct
import threading
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from google.protobuf.message import DecodeError
from xxhash import xxh3_64_intdigest

from journal.segment import (
    HEADER,
    JournalKind,
    SegmentName,
    find_next_record,
    intact_records,
    list_segments,
    segment_header,
)
from protos.journal_pb2 import OutcomeRecord

log = logging.getLogger(__name__)

CONTENT = struct.Struct("<Idq")
"""Row, value and event time of a report."""


class ReportDigest(NamedTuple):
    """What is kept of a report with an idempotency key."""

    scope: bytes
    """16-byte hash of caller, prediction, outcome name and key."""
    content: int
    """64-bit hash of row, value and time. A repeated report has the same."""


class IdempotencyKeys:
    """The newest *keys_max* reports with a key in one journal folder, as digests.

    writer_boot_id  boot id of this process's journal writer. Its own segments are not read:
                    this process adds their keys itself.
    """

    def __init__(self, folder: Path, writer_boot_id: int, keys_max: int) -> None:
        self.folder = folder
        self._writer_boot_id = writer_boot_id
        self._keys_max = keys_max
        self._contents: dict[bytes, int] = {}
        """Scope -> content of the report."""
        self._unsynced: set[SegmentName] = set()
        """Segments of other workers with records that were read and perhaps not synced."""
        self._read_offsets: dict[SegmentName, int] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._contents)

    def content_of(self, scope: bytes) -> int | None:
        """Return the content of the report with this scope if it is surely on disk.

        None: no such report is known, or `catch_up` must sync it first.
        """
        return None if self._unsynced else self._contents.get(scope)

    def add(self, digest: ReportDigest) -> None:
        """Add a report whose record this process has synced to disk."""
        with self._lock:
            self._remember(digest)

    def rebuild(self) -> None:
        """Read the newest segments until keys_max records are read; skip the older ones."""
        with self._lock:
            names = self._other_segments()
            segments: list[tuple[SegmentName, list[ReportDigest]]] = []
            records_read = 0
            while names and records_read < self._keys_max:
                name = names.pop()
                digests, records = self._read_new_records(name)
                segments.append((name, digests))
                records_read += records
            # The rest counts as read: `catch_up` reads only what is appended from now on.
            for name in names:
                self._read_offsets[name] = self._size(name)
            # Oldest first, so that the newest keys are dropped last.
            for _, digests in reversed(segments):
                for digest in digests:
                    self._remember(digest)

    def catch_up(self, scopes: Sequence[bytes]) -> dict[bytes, int]:
        """Read what other workers appended; return scope -> content of those synced to disk.

        Other workers' records are synced here before one is returned; OSError if that fails.
        """
        with self._lock:
            for name in self._other_segments():
                if self._size(name) > self._read_offsets.get(name, 0):
                    for digest in self._read_new_records(name)[0]:
                        self._remember(digest)
            known = {scope: self._contents[scope] for scope in scopes if scope in self._contents}
            while known and self._unsynced:
                self._sync(next(iter(self._unsynced)))
            return known

    def _other_segments(self) -> list[SegmentName]:
        """Return the segments of all other writers, oldest first."""
        try:
            names = list_segments(self.folder, JournalKind.OUTCOMES)
        except OSError:  # an outcome kept twice is better than a lost one; the writer reports it
            return []
        return [name for name in names if name.boot_id != self._writer_boot_id]

    def _size(self, name: SegmentName) -> int:
        with contextlib.suppress(OSError):  # the journal has removed it meanwhile
            return (self.folder / str(name)).stat().st_size
        return 0

    def _read_new_records(self, name: SegmentName) -> tuple[list[ReportDigest], int]:
        """Read a segment on from where it was read to.

        Returns (digests of the records with a key, number of all records).
        """
        offset = self._read_offsets.get(name, 0)
        try:
            with (self.folder / str(name)).open("rb") as file:
                file.seek(offset)
                content = file.read()
        except OSError:
            return [], 0
        start = 0
        if offset == 0:
            if content[: HEADER.size] != segment_header(JournalKind.OUTCOMES):
                return [], 0  # it is being created, or is foreign; the journal's reader reports it
            start = HEADER.size
        digests: list[ReportDigest] = []
        records = 0
        resume: int | None = start
        # Each turn reads up to the end or to a damaged record, and goes on behind the damage.
        while resume is not None:
            start = resume
            for record in intact_records(content, start):
                start = record.end
                records += 1
                digest = _digest_of(record.payload)
                if digest is not None:
                    digests.append(digest)
            resume = find_next_record(content, start) if start < len(content) else None
        self._read_offsets[name] = offset + start
        if records:
            self._unsynced.add(name)
        return digests, records

    def _remember(self, digest: ReportDigest) -> None:
        # The first content counts, should two workers have kept two reports of one scope.
        content = self._contents.pop(digest.scope, digest.content)
        self._contents[digest.scope] = content
        if len(self._contents) > self._keys_max:
            del self._contents[next(iter(self._contents))]

    def _sync(self, name: SegmentName) -> None:
        """Sync another worker's segment to disk, before this worker acknowledges a record in it."""
        try:
            file = os.open(self.folder / str(name), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            self._unsynced.discard(name)
            return
        try:
            os.fdatasync(file)
        finally:
            os.close(file)
        self._unsynced.discard(name)


def report_digest(record: OutcomeRecord) -> ReportDigest | None:
    """Return the digest of a record; None if it has no idempotency key.

    blake2b, because a caller chooses the parts of the scope and must not find two that collide.
    """
    if not record.idempotency_key:
        return None
    # What the report is about: a prediction, or an entity of a model at a time.
    about = [record.prediction_id]
    if not record.prediction_id:
        about = [record.model.encode(), *(key.encode() for key in record.keys)]
        about.append(record.event_time_ms.to_bytes(8, "little", signed=True))
    parts = [record.caller.encode(), *about, record.name.encode(), record.idempotency_key.encode()]
    scope = b"".join([struct.pack("<I", len(part)) + part for part in parts])
    content = CONTENT.pack(record.row, record.value, record.event_time_ms)
    return ReportDigest(blake2b(scope, digest_size=16).digest(), xxh3_64_intdigest(content))


def _digest_of(payload: bytes) -> ReportDigest | None:
    try:
        return report_digest(OutcomeRecord.FromString(payload))
    except DecodeError:
        log.warning("an outcome record of %d bytes does not parse; it is skipped", len(payload))
        return None
