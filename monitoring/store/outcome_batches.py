"""Counts the reported outcomes of a batch: each once, over all hosts and for all time kept.

A row for each outcome says what was counted, so that the same report is a duplicate and another
value takes the place of the first. The rows of a batch are read and written together, and each cell
is changed once, because a statement costs more than the counting of a report.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select, update

from host.clock import HOUR_MS
from monitoring.cells.cell import CellCounts, CellKey
from monitoring.cells.outcome_columns import (
    CountedOutcome,
    OutcomeKind,
    delay_counts,
    event_counts,
    outcome_counts,
    outcome_key,
    refuse_outcome,
)
from monitoring.cells.version_bins import VersionBins
from monitoring.store.cell_rows import add_to_cells, digest_text
from monitoring.store.outcome_rows import find_version_bins
from monitoring.store.tables import HOUR, outcomes
from protos import monitoring_pb2 as pb

ReportKey = tuple[bytes, int, str]
"""Digest of the prediction id, row, and name of the outcome."""
SEPARATOR = ","
"""Between the segments of an outcome. Names of segmentations and parts have none."""
SELECTED_IDS = 500
"""Prediction ids that are looked for in one statement."""


def add_outcomes(connection: Connection, events: Iterable[pb.OutcomeEvent]) -> list[OutcomeKind]:
    """Count reports in the cells of their predictions, and return what became of each."""
    batch = _OutcomeBatch(connection, list(events))
    kinds = [batch.add(event) for event in batch.events]
    batch.save()
    return kinds


class _OutcomeBatch:
    """The reports of one batch, what is known of their outcomes, and what they change."""

    def __init__(self, connection: Connection, events: list[pb.OutcomeEvent]) -> None:
        self.events = events
        self._connection = connection
        self._bins: dict[tuple[int, int], VersionBins | None] = {}
        self._cells: dict[CellKey, CellCounts] = defaultdict(CellCounts)
        # The outcomes that were counted before.
        self._known: dict[ReportKey, dict[str, Any]] = {}
        ids = sorted({event.id_digest for event in events if event.id_digest})
        for start in range(0, len(ids), SELECTED_IDS):
            where = outcomes.c.id_digest.in_(ids[start : start + SELECTED_IDS])
            for row in connection.execute(select(outcomes).where(where)).mappings():
                self._known[row["id_digest"], row["row"], row["name"]] = dict(row)
        self._new: dict[ReportKey, dict[str, Any]] = {}
        self._changed: dict[ReportKey, dict[str, Any]] = {}

    def add(self, event: pb.OutcomeEvent) -> OutcomeKind:
        """Count one report, and return what became of it."""
        kind = refuse_outcome(event)
        bins = None
        if not event.forged and event.id_digest:
            bins = self._bins_of(event.version_digest, event.model_hash)
        if bins is None:
            # The cell of reports whose version is not known is that of the hour of the report.
            kind = kind or OutcomeKind.ORPHAN
            hour = event.received_unix_ms // HOUR_MS
            key = CellKey(event.model, "", 0, event.role, event.holdout, "", hour)
        else:
            key = outcome_key(event, bins.model, bins.version)
        counts, segments = CellCounts(), tuple(event.segments)
        if kind is None:
            assert bins is not None
            kind, segments = self._count_once(event, key, bins, counts)
        counts.add_cell(event_counts(event.name, kind))
        for segment in ("", *segments):
            self._cells[key._replace(segment=segment)].add_cell(counts)
        return kind

    def save(self) -> None:
        """Write the cells and the outcomes of all reports."""
        add_to_cells(self._connection, HOUR, self._cells.items())
        if self._new:
            self._connection.execute(insert(outcomes), list(self._new.values()))
        if self._changed:
            statement = (
                update(outcomes)
                .where(outcomes.c.id_digest == bindparam("of_id"))
                .where(outcomes.c.row == bindparam("of_row"))
                .where(outcomes.c.name == bindparam("of_name"))
            )
            changed = [
                {
                    "of_id": digest,
                    "of_row": row,
                    "of_name": name,
                    "value": known["value"],
                    "received_unix_ms": known["received_unix_ms"],
                }
                for (digest, row, name), known in self._changed.items()
            ]
            self._connection.execute(statement, changed)

    def _bins_of(self, digest8: int, model_hash: int) -> VersionBins | None:
        version = digest8, model_hash
        if version not in self._bins:
            self._bins[version] = find_version_bins(self._connection, digest8, model_hash)
        return self._bins[version]

    def _count_once(
        self, event: pb.OutcomeEvent, key: CellKey, bins: VersionBins, counts: CellCounts
    ) -> tuple[OutcomeKind, tuple[str, ...]]:
        """Add what the report changes to *counts*, and note it.

        Return what became of it, and the segments whose cells change: a correction changes those in
        which the outcome was counted first, whatever the policy says today.
        """
        report: ReportKey = (event.id_digest, event.row, event.name)
        known = self._known.get(report)
        # The first report of this prediction, row and name.
        if known is None:
            # The id carries the score of the first row only.
            score = event.score if event.HasField("score") and event.row == 0 else None
            self._known[report] = self._new[report] = _new_row(event, key, score)
            outcome = CountedOutcome(key, event.name, score, event.value)
            counts.add_cell(outcome_counts(outcome, bins))
            counts.add_cell(delay_counts(event))
            return OutcomeKind.COUNTED, tuple(event.segments)
        segments = tuple(filter(None, known["segment"].split(SEPARATOR)))
        # Another report of it: the same value again, or a correction.
        if known["value"] == event.value:
            return OutcomeKind.DUPLICATE, segments
        # The newest report counts, also when hosts push in another order than the reports came.
        if event.received_unix_ms >= known["received_unix_ms"]:
            before = CountedOutcome(key, event.name, known["score"], known["value"])
            counts.add_cell(outcome_counts(before, bins, sign=-1))
            after = CountedOutcome(key, event.name, known["score"], event.value)
            counts.add_cell(outcome_counts(after, bins))
            known |= {"value": event.value, "received_unix_ms": event.received_unix_ms}
            if report not in self._new:
                self._changed[report] = known
        return OutcomeKind.CORRECTED, segments


def _new_row(event: pb.OutcomeEvent, key: CellKey, score: float | None) -> dict[str, Any]:
    """Return the row of an outcome that is counted for the first time."""
    return {
        "id_digest": event.id_digest,
        "row": event.row,
        "name": event.name,
        "model": key.model,
        "version": key.version,
        "digest8": digest_text(key.digest8),
        "role": key.role,
        "holdout": key.holdout,
        "segment": SEPARATOR.join(event.segments),
        "predicted_unix_ms": event.predicted_unix_ms,
        "score": score,
        "value": event.value,
        "received_unix_ms": event.received_unix_ms,
        "key_hash": digest_text(event.key_hash),
    }
