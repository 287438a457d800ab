"""Reads a journal in the order in which it was written, also while it is being written."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from host.files import folder_lock
from journal.errors import SegmentDamagedError
from journal.segment import (
    HEADER,
    JournalKind,
    SegmentName,
    check_header,
    find_next_record,
    intact_records,
    list_segments,
)


class JournalPosition(NamedTuple):
    """The end of one record: its segment, and the offset up to which that was read."""

    segment: str
    offset: int


class JournalReader:
    """Iterates over (payload, JournalPosition) of a folder's segments of one kind, oldest first.

    offsets  segment name -> offset read so far. With the `offsets` of an earlier reader, this one
             goes on after it. There is one offset for each segment, because several workers may
             write at the same time. They do not fit a segment that was rewritten meanwhile.

    An iteration ends at the last intact record. It leaves out a tail that is torn or still being
    written. Iterate again for newer records.

    Raises SegmentDamagedError at damage in the middle of a segment; the next iteration goes on
    after the damage. Raises SegmentError for a file that is no segment.
    """

    def __init__(
        self, folder: Path, kind: JournalKind, offsets: Mapping[str, int] | None = None
    ) -> None:
        self._folder = folder
        self._kind = kind
        self.offsets: dict[str, int] = dict(offsets or {})

    def __iter__(self) -> Iterator[tuple[bytes, JournalPosition]]:
        if not self._folder.is_dir():
            return
        with folder_lock(self._folder, shared=True):
            names = list_segments(self._folder, self._kind)
            newest = {name.boot_id: name.number for name in names}
            for name in names:
                yield from self._read(name, growing=name.number == newest[name.boot_id])

    def _read(self, name: SegmentName, *, growing: bool) -> Iterator[tuple[bytes, JournalPosition]]:
        segment = str(name)
        base = self.offsets.get(segment, 0)
        with (self._folder / segment).open("rb") as file:
            head = file.read(HEADER.size)
            if len(head) < HEADER.size:
                return  # the writer has created the file and not written its header so far
            check_header(segment, head, self._kind)
            base = max(base, HEADER.size)
            file.seek(base)
            content = file.read()
        offset = 0
        for record in intact_records(content, 0):
            offset = record.end
            self.offsets[segment] = base + offset
            yield record.payload, JournalPosition(segment, base + offset)
        if offset < len(content):
            self._raise_damage(segment, base, content, offset, growing=growing)

    def _raise_damage(
        self, segment: str, base: int, content: bytes, offset: int, *, growing: bool
    ) -> None:
        following = find_next_record(content, offset)
        if following is None and growing:
            return  # the tail is being written, or torn; the next writer cuts a torn tail
        self.offsets[segment] = base + (len(content) if following is None else following)
        raise SegmentDamagedError(
            segment, base + offset, None if following is None else base + following
        )
