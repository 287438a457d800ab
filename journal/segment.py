"""The format of a segment: its file name, its bytes, and how intact records are found.

    header   magic "TRNJRNL1", u32 kind, u32 zero                       16 bytes
    record   u32 length, u32 CRC32C of the payload, payload             8 + length bytes

All integers are little-endian (tests/vectors/journal_segment.json). A payload is never empty:
otherwise eight zero bytes, which a power cut can leave behind, would be an intact record.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import google_crc32c
import numpy as np

from journal.errors import RecordSizeError, SegmentError

MAGIC = b"TRNJRNL1"
HEADER = struct.Struct("<8sII")
FRAME_HEADER = struct.Struct("<II")
RECORD_BYTES_MAX = 16 << 20
"""A longer length is damage. The limit bounds what a flipped bit can make a reader load."""


class JournalKind(IntEnum):
    """The records of a journal: turnout.v1.ServedBatch or turnout.v1.OutcomeRecord."""

    SERVED = 1
    OUTCOMES = 2


SEGMENT_NAME_PATTERN = re.compile(r"(served|outcomes)-(\d{13,})-([0-9a-f]{16})-(\d{6,})\.trnj")


@dataclass(frozen=True, slots=True, order=True)
class SegmentName:
    """The name `<kind>-<unix ms>-<boot id>-<number>.trnj`. Names are ordered by age.

    number  counts the segments of one boot id.
    """

    unix_ms: int
    boot_id: int
    number: int
    kind: JournalKind

    def __str__(self) -> str:
        return (
            f"{self.kind.name.lower()}-{self.unix_ms:013d}-{self.boot_id:016x}-{self.number:06d}"
            ".trnj"
        )

    @staticmethod
    def parse(text: str) -> "SegmentName | None":
        """Return the parsed name of a file; None if it is no segment's name."""
        match = SEGMENT_NAME_PATTERN.fullmatch(text)
        if match is None:
            return None
        kind, unix_ms, boot_id, number = match.groups()
        return SegmentName(int(unix_ms), int(boot_id, 16), int(number), JournalKind[kind.upper()])


def list_segments(folder: Path, kind: JournalKind) -> list[SegmentName]:
    """Return the segments of *kind* in *folder*, oldest first; empty if there is no folder."""
    if not folder.is_dir():
        return []
    names = (SegmentName.parse(path.name) for path in folder.iterdir())
    return sorted(name for name in names if name is not None and name.kind == kind)


def end_request(folder: Path, name: SegmentName) -> Path:
    """Return the file whose presence asks the writer of a segment to end it within seconds.

    A process that needs a segment which is still being written makes the file, waits for the
    segment's lock, and removes the file.
    """
    return folder / f".{name}.end"


def segment_header(kind: JournalKind) -> bytes:
    """Return the 16 bytes with which a segment of *kind* begins."""
    return HEADER.pack(MAGIC, kind, 0)


def check_header(segment: str, head: bytes, kind: JournalKind) -> None:
    """Raise SegmentError unless *head* (16 bytes) opens a segment of *kind*."""
    if head != segment_header(kind):
        raise SegmentError(
            f"{segment} begins with {head[:16]!r}, not with {segment_header(kind)!r}; it is no "
            f"{kind.name.lower()} segment of this format. Move it out of the journal's folder"
        )


def check_payload(payload: bytes) -> None:
    """Raise RecordSizeError unless *payload* has 1 to RECORD_BYTES_MAX bytes."""
    if not 0 < len(payload) <= RECORD_BYTES_MAX:
        raise RecordSizeError(
            f"a record has {len(payload)} bytes; it must have 1 to {RECORD_BYTES_MAX}. "
            "Cut the batch"
        )


def frame_header(payload: bytes) -> bytes:
    """Return what stands before *payload* in its frame."""
    return FRAME_HEADER.pack(len(payload), google_crc32c.value(payload))


def frame_record(payload: bytes) -> bytes:
    """Return the frame of *payload*, which has 1 to RECORD_BYTES_MAX bytes."""
    return frame_header(payload) + payload


@dataclass(frozen=True, slots=True)
class JournalRecord:
    """An intact record. *end* is the offset after it."""

    payload: bytes
    end: int


def intact_records(content: bytes, offset: int) -> Iterator[JournalRecord]:
    """Yield the intact records of *content* from *offset* up to the first that is not intact."""
    while (record := _record_at(content, offset)) is not None:
        yield record
        offset = record.end


def _record_at(content: bytes, offset: int) -> JournalRecord | None:
    begin = offset + FRAME_HEADER.size
    if begin > len(content):
        return None
    length, crc = FRAME_HEADER.unpack_from(content, offset)
    end = begin + length
    if not 0 < length <= RECORD_BYTES_MAX or end > len(content):
        return None
    payload = content[begin:end]
    return JournalRecord(payload, end) if google_crc32c.value(payload) == crc else None


SEARCH_BYTES = 1 << 20


def find_next_record(content: bytes, offset: int) -> int | None:
    """Return where the first intact record after *offset* begins; None if there is none.

    That distinguishes damage in the middle, which intact records follow, from a torn tail. Every
    offset is tried. A CRC is computed only where the length fits and leads to another plausible
    length or to the end of *content*, so megabytes of noise cost milliseconds.
    """
    for begin in range(offset + 1, len(content) - FRAME_HEADER.size, SEARCH_BYTES):
        # 3 bytes more than SEARCH_BYTES, because a length may reach into the next stretch.
        octets = np.frombuffer(
            content, np.uint8, min(SEARCH_BYTES + 3, len(content) - begin), begin
        )
        octets = octets.astype(np.int64)
        lengths = octets[:-3] | octets[1:-2] << 8 | octets[2:-1] << 16 | octets[3:] << 24
        ends = begin + FRAME_HEADER.size + lengths + np.arange(len(lengths))
        for start in np.flatnonzero((lengths > 0) & (ends <= len(content))).tolist():
            if _may_start_record(content, int(ends[start])) and _record_at(content, begin + start):
                return int(begin + start)
    return None


def _may_start_record(content: bytes, offset: int) -> bool:
    """Whether *offset* is the end of *content*, or a possible length stands there."""
    if offset + FRAME_HEADER.size > len(content):
        return True
    length, _ = FRAME_HEADER.unpack_from(content, offset)
    return bool(0 < length <= RECORD_BYTES_MAX)
