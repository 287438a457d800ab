"""Reads the calls that gateways have answered, and reported outcomes, from journals of a folder."""

from collections.abc import Iterator
from pathlib import Path

from journal.reader import JournalReader
from journal.segment import JournalKind
from protos.journal_pb2 import UNSEEN_SHADOW, OutcomeRecord, ServedBatch

SHADOW_ROLE = bytes([UNSEEN_SHADOW])


def journals_below(folder: Path) -> list[Path]:
    """Return the folders in *folder* and below it that may be journals."""
    return sorted({folder, *folder.rglob("journal")})


def is_shadow_record(batch: ServedBatch) -> bool:
    """Whether a shadow scored the calls of *batch*, and another version answered them."""
    return batch.role[:1] == SHADOW_ROLE


def read_served_batches(folder: Path) -> Iterator[ServedBatch]:
    """Yield what callers were answered, from every journal in *folder* and below it.

    Records of shadows are left out: their calls have a record of the version that answered.
    """
    for journal in journals_below(folder):
        for payload, _ in JournalReader(journal, JournalKind.SERVED):
            batch = ServedBatch.FromString(payload)
            if not is_shadow_record(batch):
                yield batch


def read_outcomes(folder: Path) -> Iterator[OutcomeRecord]:
    """Yield the reported outcomes of every journal in *folder* and below it."""
    for journal in journals_below(folder):
        for payload, _ in JournalReader(journal, JournalKind.OUTCOMES):
            yield OutcomeRecord.FromString(payload)
