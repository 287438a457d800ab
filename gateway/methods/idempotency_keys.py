"""Idempotency keys already on disk: this worker's, its neighbours', and those before a restart.

The journal is the index's only source, so there is nothing to keep in step: at start the newest
segments are read back, later only what neighbours appended since. Blocking; one thread at a time.
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

    writer_boot_id  of this process's writer: what it writes is added, not read back.
    """

    def __init__(self, folder: Path, writer_boot_id: int, keys_max: int) -> None:
        self._folder = folder
        self._writer_boot_id = writer_boot_id
        self._keys_max = keys_max
        self._keys: dict[bytes, SegmentName | None] = {}
        """Key -> the segment it was read from; None: this process synced it itself."""
        self._read_offsets: dict[SegmentName, int] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, key: str) -> bool:
        return key_digest(key) in self._keys

    def add(self, key: str) -> None:
        """Remember a key whose record this process has synced."""
        with self._lock:
            self._remember(key_digest(key), None)

    def rebuild(self) -> None:
        """Read the newest segments until *keys_max* records were seen; older ones are let be."""
        with self._lock:
            names = self._other_segments()
            chosen: list[tuple[SegmentName, list[bytes]]] = []
            seen = 0
            while names and seen < self._keys_max:
                name = names.pop()
                keys, records = self._read_new_keys(name)
                chosen.append((name, keys))
                seen += records
            for name in names:
                self._read_offsets[name] = self._size(name)
            for name, keys in reversed(chosen):
                for key in keys:
                    self._remember(key, name)

    def catch_up(self, keys: Sequence[str]) -> set[str]:
        """Read what neighbours appended since; return those of *wanted* that are synced on disk."""
        with self._lock:
            for name in self._other_segments():
                if self._size(name) > self._read_offsets.get(name, 0):
                    for found in self._read_new_keys(name)[0]:
                        self._remember(found, name)
            known = {key: key_digest(key) for key in keys if key_digest(key) in self._keys}
            unsure = {self._keys[found] for found in known.values()} - {None}
            for segment in unsure:
                if segment is not None:
                    self._sync(segment)
            for found in known.values():
                self._keys[found] = None
            return set(known)

    def _other_segments(self) -> list[SegmentName]:
        """Segments of everybody else, oldest first."""
        try:
            names = list_segments(self._folder, JournalKind.OUTCOMES)
        except OSError:  # kept twice beats lost: the writer says what is wrong with the folder
            return []
        return [name for name in names if name.boot_id != self._writer_boot_id]

    def _size(self, name: SegmentName) -> int:
        with contextlib.suppress(OSError):  # retired meanwhile
            return (self._folder / str(name)).stat().st_size
        return 0

    def _read_new_keys(self, name: SegmentName) -> tuple[list[bytes], int]:
        """Keys of the records behind what was read of a segment, and how many records."""
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
                return [], 0  # being made, or foreign: the journal's own reader complains
            start = HEADER.size
        keys: list[bytes] = []
        records = 0
        resume: int | None = start
        while resume is not None:  # behind damage in the middle, if there is any
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
        """Make a neighbour's records survive a power cut before we vouch for one of them."""
        try:
            file = os.open(self._folder / str(name), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            os.fdatasync(file)
        finally:
            os.close(file)


def key_digest(key: str) -> bytes:
    """16 bytes in a key's place: 128 bits, so that two keys never meet by chance."""
    return xxh3_128_digest(key.encode())


def _key_of(payload: bytes) -> str:
    try:
        return OutcomeRecord.FromString(payload).idempotency_key
    except DecodeError:
        log.warning("an outcome's record of %d bytes does not parse; it is left out", len(payload))
        return ""
