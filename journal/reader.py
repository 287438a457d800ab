"""Reads a journal in the order it was written, also while it is being written."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

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
    """Behind one record: what has been read of its segment."""

    segment: str
    offset: int


class JournalReader:
    """Iterates (payload, Position) over a folder's segments of one kind, oldest segment first.

    held   segment name -> offset read so far; give the mapping of an earlier reader to go on
           behind it. One offset a segment, because several workers may write side by side.

    An iteration ends at what has been written by now, a torn or growing tail left out; iterate
    again for what came since. Raises SegmentDamagedError at damage in the middle, once: the next
    iteration goes on behind it. Raises SegmentError for a foreign file.
    """

    def __init__(
        self, folder: Path, kind: JournalKind, offsets: Mapping[str, int] | None = None
    ) -> None:
        self._folder = folder
        self._kind = kind
        self.offsets: dict[str, int] = dict(offsets or {})

    def __iter__(self) -> Iterator[tuple[bytes, JournalPosition]]:
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
                return  # its writer was stopped, or is, between creating and opening it
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
            return  # being written now, or torn: the next writer cuts it
        self.offsets[segment] = base + (len(content) if following is None else following)
        raise SegmentDamagedError(
            segment, base + offset, None if following is None else base + following
        )
