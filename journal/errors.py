"""The errors of journals."""


class RecordSizeError(ValueError):
    """A payload is empty, or larger than a record may be."""


class SegmentError(ValueError):
    """A file does not begin as a segment of the kind in its name."""


class SegmentDamagedError(Exception):
    """Bytes in the middle of a segment are not what was written.

    next_offset  where the next intact record begins; None if none follows in this segment.
    """

    def __init__(self, segment: str, offset: int, next_offset: int | None) -> None:
        end = "the end of the segment" if next_offset is None else f"offset {next_offset}"
        super().__init__(
            f"segment {segment} is damaged from offset {offset} to {end}; its records are lost "
            "unless a copy of the file exists. Iterate again to read what follows"
        )
        self.segment = segment
        self.offset = offset
        self.next_offset = next_offset


class JournalRefusedError(Exception):
    """A record is not on disk, because the queue was full or the disk refused it."""
