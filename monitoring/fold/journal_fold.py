"""Turns what is new in a journal into batches of cells, each with the positions after it.

It holds no state that must survive: killed at any moment, it begins again from the positions that
the store has, and makes the same counts.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError

from journal.prediction_id import hash_model_name
from journal.segment import JournalKind
from journal.tail import DamageKind, JournalTail, TailDamage, TailPosition, TailSlice
from monitoring.cells.cell import cell_to_proto
from monitoring.cells.counting import CellCounter, check_served_batch
from monitoring.cells.decision_rows import SAMPLE_ALL, join_batches, sample_decisions
from monitoring.cells.segments import SegmentRules
from monitoring.cells.version_bins import VersionBins
from monitoring.errors import BadRecordError
from monitoring.fold.id_fields import IdFields
from protos import monitoring_pb2 as pb
from protos.journal_pb2 import OutcomeRecord, ServedBatch

SLICE_BYTES = 4 << 20
"""What is read of a journal at once, under the folder's lock."""
BATCH_ROWS = 500_000
DECISION_BYTES = 1 << 20
OUTCOMES = 2_000
"""A batch ends with the slice that reaches one of these, so that a message stays within bounds."""
SLICE_BYTES_SAMPLED = 1 << 20
"""What is read at once where decisions are sampled, which are as long as the records."""

TakeRecord = Callable[[bytes, "BatchContent"], None]
SLICE_BYTES_OUTCOMES = 1 << 18
VersionKey = tuple[str, str, int]
"""(model, label, digest8) of a version."""


class BatchContent:
    """Records of the next batch, parsed and not counted yet."""

    def __init__(self) -> None:
        self.served: list[ServedBatch] = []
        self.outcomes: list[pb.OutcomeEvent] = []
        self.positions: dict[str, TailPosition] = {}
        self.damages: list[TailDamage] = []
        self.backlog_bytes = 0
        self.rows = 0
        self.decision_bytes = 0.0
        """About so many bytes of the records are decisions."""
        self.newest_unix_ns = 0

    @property
    def versions(self) -> set[VersionKey]:
        """The versions whose bins are needed."""
        return {(item.model, item.version, item.version_digest) for item in self.served}

    def __bool__(self) -> bool:
        """Return whether there is anything to push."""
        return bool(self.positions or self.damages)


class JournalFold:
    """Reads one journal.

    folder      the journal's folder.
    name        of the journal.
    state       where the store says that it was left.
    id_fields   reads prediction ids.
    """

    def __init__(
        self,
        folder: Path,
        name: pb.JournalName,
        state: pb.ReaderState,
        id_fields: IdFields,
    ) -> None:
        self._name = name
        self._sequence = state.sequence
        self._id_fields = id_fields
        self._take_policies(state)
        positions = {
            item.segment: TailPosition(item.offset, item.check, item.complete)
            for item in state.positions
        }
        resumed = state.sequence > 0
        self._served = JournalTail(folder, JournalKind.SERVED, positions, resumed=resumed)
        self._outcomes = JournalTail(folder, JournalKind.OUTCOMES, positions, resumed=resumed)

    @property
    def read_offsets(self) -> dict[str, int]:
        """Segment -> bytes that are read and, after a push, stored. A complete one has all."""
        tails = (self._served, self._outcomes)
        return {
            segment: 2**62 if position.complete else position.offset
            for tail in tails
            for segment, position in tail.positions.items()
        }

    def read(self) -> BatchContent:
        """Read what is new, up to the bounds of a batch."""
        content = BatchContent()
        samples = self._sampled > 0 or any(self._sampled_by_model.values())
        slice_bytes = SLICE_BYTES_SAMPLED if samples else SLICE_BYTES
        more = True
        while more and not _is_full(content):
            part = self._served.read(slice_bytes)
            self._take(part, content, self._take_served)
            backlog = part.backlog_bytes
            more = bool(part.records)
            # Outcomes wait for the key, without which all of them would be orphans.
            if self._id_fields.ready:
                part = self._outcomes.read(SLICE_BYTES_OUTCOMES)
                self._take(part, content, self._take_outcome)
                backlog += part.backlog_bytes
                more = more or bool(part.records)
            content.backlog_bytes = backlog
        return content

    def batch_of(
        self, content: BatchContent, bins: Mapping[VersionKey, VersionBins]
    ) -> pb.CellBatch:
        """Return the counts of what was read, as the batch that follows the stored one.

        bins  of every version in `content.versions`.
        """
        # Rows of all versions, counted into cells.
        counter = CellCounter(
            lambda model, version, digest8: bins[model, version, digest8],
            self._id_fields.holdout_of,
            self._segments,
        )
        for served in content.served:
            counter.add(served, checked=True)
        # Rows of sampled keys, one block for each version and day.
        decisions: list[pb.DecisionBlock] = []
        sampled = [item for item in content.served if self._sample_of(item.model)]
        for joined in join_batches(sampled):
            holdout = self._id_fields.holdout_of(joined.prediction_ids)
            decisions += sample_decisions(joined, holdout, self._sample_of(joined.model))
        # The positions are stored with the counts, in one transaction.
        return pb.CellBatch(
            journal=self._name,
            sequence=self._sequence + 1,
            positions=[
                pb.SegmentPosition(
                    segment=segment,
                    offset=position.offset,
                    check=position.check,
                    complete=position.complete,
                    gone=position.gone,
                )
                for segment, position in sorted(content.positions.items())
            ],
            cells=[cell_to_proto(*cell) for cell in counter.take_cells().items()],
            damages=[
                pb.JournalDamage(
                    segment=damage.segment,
                    offset=damage.offset,
                    next_offset=damage.next_offset,
                    kind=damage.kind,
                )
                for damage in content.damages
            ],
            outcomes=content.outcomes,
            decisions=decisions,
            backlog_bytes=content.backlog_bytes,
            newest_unix_ns=content.newest_unix_ns,
        )

    def note_stored(self, state: pb.ReaderState) -> None:
        """Go on after the batch, which the store has, as *state* says."""
        self._sequence = state.sequence
        self._take_policies(state)

    def _take_policies(self, state: pb.ReaderState) -> None:
        """Count from now on as the applied policies say."""
        self._sampled = state.decisions_of_65536
        self._sampled_by_model: Mapping[str, int] = dict(state.decisions_by_model)
        self._segments = SegmentRules(state.segments)
        self._segmented = frozenset(map(hash_model_name, self._segments.models))

    def _take(self, part: TailSlice, content: BatchContent, take: TakeRecord) -> None:
        content.positions.update(part.positions)
        content.damages += part.damages
        for segment, end, payload in part.records:
            try:
                take(payload, content)
            except (DecodeError, BadRecordError):
                # Its frame is intact, so whatever wrote it was wrong; the rest goes on.
                begin = end - len(payload)
                content.damages.append(TailDamage(segment, begin, end, DamageKind.MALFORMED))

    def _take_served(self, payload: bytes, content: BatchContent) -> None:
        batch = ServedBatch.FromString(payload)
        _, rows = check_served_batch(batch)
        content.served.append(batch)
        content.rows += rows
        newest = int(np.frombuffer(batch.at_unix_ns, "<i8").max(initial=0))
        content.newest_unix_ns = max(content.newest_unix_ns, newest)
        content.decision_bytes += len(payload) * self._sample_of(batch.model) / SAMPLE_ALL

    def _sample_of(self, model: str) -> int:
        return self._sampled_by_model.get(model, self._sampled)

    def _take_outcome(self, payload: bytes, content: BatchContent) -> None:
        record = OutcomeRecord.FromString(payload)
        event = self._id_fields.event_of(record)
        # Monitoring finds the segments of the prediction by its id.
        if event.model_hash in self._segmented:
            event.prediction_id = record.prediction_id
        content.outcomes.append(event)


def _is_full(content: BatchContent) -> bool:
    return (
        content.rows >= BATCH_ROWS
        or len(content.outcomes) >= OUTCOMES
        or content.decision_bytes >= DECISION_BYTES
    )
