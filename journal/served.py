"""Reads the calls that gateways have answered, and reported outcomes, from journals of a folder."""

from collections.abc import Iterator
from pathlib import Path

from journal.reader import JournalReader
from journal.segment import JournalKind
from protos.journal_pb2 import OutcomeRecord, ServedBatch


def journals_below(folder: Path) -> list[Path]:
    """Return the folders in *folder* and below it that may be journals."""
    return sorted({folder, *folder.rglob("journal")})


def read_served_batches(folder: Path) -> Iterator[ServedBatch]:
    """Yield the served batches of every journal in *folder* and below it."""
    for journal in journals_below(folder):
        for payload, _ in JournalReader(journal, JournalKind.SERVED):
            yield ServedBatch.FromString(payload)


def read_outcomes(folder: Path) -> Iterator[OutcomeRecord]:
    """Yield the reported outcomes of every journal in *folder* and below it."""
    for journal in journals_below(folder):
        for payload, _ in JournalReader(journal, JournalKind.OUTCOMES):
            yield OutcomeRecord.FromString(payload)
