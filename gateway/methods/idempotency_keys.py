"""An index of the idempotency keys in the outcome journal of this host.

It has the keys of this worker, of the host's other workers, and those from before a restart. The
journal is its only source, so both cannot differ: at the start the newest segments are read back,
later only what other workers have appended since. Its methods block; one thread at a time runs
them.
"""

import contextlib
import logging
import os
import threading
from collections.abc import Sequence
from pathlib import Path

from google.protobuf.message import DecodeError
from xxhash import xxh3_128_digest

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


class IdempotencyKeys:
    """The newest *keys_max* idempotency keys of one journal folder, 16 bytes each.

    writer_boot_id  boot id of this process's journal writer. Its own segments are not read:
                    this process adds their keys itself.
    """

    def __init__(self, folder: Path, writer_boot_id: int, keys_max: int) -> None:
        self._folder = folder
        self._writer_boot_id = writer_boot_id
        self._keys_max = keys_max
        self._keys: dict[bytes, SegmentName | None] = {}
        """Key digest -> the segment that it was read from; None once its record is synced."""
        self._read_offsets: dict[SegmentName, int] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, key: str) -> bool:
        return key_digest(key) in self._keys

    def add(self, key: str) -> None:
        """Add a key whose record this process has synced to disk."""
        with self._lock:
            self._remember(key_digest(key), None)

    def rebuild(self) -> None:
        """Read the newest segments until keys_max records are read; skip the older ones."""
        with self._lock:
            names = self._other_segments()
            segments: list[tuple[SegmentName, list[bytes]]] = []
            records_read = 0
            while names and records_read < self._keys_max:
                name = names.pop()
                keys, records = self._read_new_keys(name)
                segments.append((name, keys))
                records_read += records
            # The rest counts as read: `catch_up` reads only what is appended from now on.
            for name in names:
                self._read_offsets[name] = self._size(name)
            # Oldest first, so that the newest keys are dropped last.
            for name, keys in reversed(segments):
                for key in keys:
                    self._remember(key, name)

    def catch_up(self, keys: Sequence[str]) -> set[str]:
        """Read what other workers appended; return those of *keys* that are synced to disk.

        Another worker's record is synced here before its key is returned; OSError if that fails.
        """
        with self._lock:
            for name in self._other_segments():
                if self._size(name) > self._read_offsets.get(name, 0):
                    for digest in self._read_new_keys(name)[0]:
                        self._remember(digest, name)
            known = {key: key_digest(key) for key in keys if key_digest(key) in self._keys}
            unsynced = {self._keys[digest] for digest in known.values()} - {None}
            for segment in unsynced:
                if segment is not None:
                    self._sync(segment)
            for digest in known.values():
                self._keys[digest] = None
            return set(known)

    def _other_segments(self) -> list[SegmentName]:
        """Return the segments of all other writers, oldest first."""
        try:
            names = list_segments(self._folder, JournalKind.OUTCOMES)
        except OSError:  # an outcome kept twice is better than a lost one; the writer reports it
            return []
        return [name for name in names if name.boot_id != self._writer_boot_id]

    def _size(self, name: SegmentName) -> int:
        with contextlib.suppress(OSError):  # the journal has removed it meanwhile
            return (self._folder / str(name)).stat().st_size
        return 0

    def _read_new_keys(self, name: SegmentName) -> tuple[list[bytes], int]:
        """Read a segment on from where it was read to; return (key digests, number of records)."""
        offset = self._read_offsets.get(name, 0)
        try:
            with (self._folder / str(name)).open("rb") as file:
                file.seek(offset)
                content = file.read()
        except OSError:
            return [], 0
        start = 0
        if offset == 0:
            if content[: HEADER.size] != segment_header(JournalKind.OUTCOMES):
                return [], 0  # it is being created, or is foreign; the journal's reader reports it
            start = HEADER.size
        keys: list[bytes] = []
        records = 0
        resume: int | None = start
        # Each turn reads up to the end or to a damaged record, and goes on behind the damage.
        while resume is not None:
            start = resume
            for record in intact_records(content, start):
                start = record.end
                records += 1
                key = _key_of(record.payload)
                if key:
                    keys.append(key_digest(key))
            resume = find_next_record(content, start) if start < len(content) else None
        self._read_offsets[name] = offset + start
        return keys, records

    def _remember(self, key: bytes, segment: SegmentName | None) -> None:
        self._keys.pop(key, None)
        self._keys[key] = segment
        if len(self._keys) > self._keys_max:
            del self._keys[next(iter(self._keys))]

    def _sync(self, name: SegmentName) -> None:
        """Sync another worker's segment to disk, before this worker acknowledges a record in it."""
        try:
            file = os.open(self._folder / str(name), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            os.fdatasync(file)
        finally:
            os.close(file)


def key_digest(key: str) -> bytes:
    """Return the 16-byte hash that stands for *key*; 128 bits do not collide by chance."""
    return xxh3_128_digest(key.encode())


def _key_of(payload: bytes) -> str:
    try:
        return OutcomeRecord.FromString(payload).idempotency_key
    except DecodeError:
        log.warning("an outcome record of %d bytes does not parse; it is skipped", len(payload))
        return ""
