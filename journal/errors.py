"""What can go wrong with a journal; whose fault is in the type."""


class RecordSizeError(ValueError):
    """A payload is empty or larger than a record may be: its writer's mistake."""


class SegmentError(ValueError):
    """A file does not begin like a segment of the kind its name says."""


class SegmentDamagedError(Exception):
    """Bytes in the middle of a segment are not what was written: the disk's fault.

    next_offset  where the next whole record begins; None when none follows in this segment.
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
    """The record was not kept: the queue is full or the disk refuses. Nothing was promised."""
