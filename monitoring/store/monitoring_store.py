"""The store of monitoring: what readers push, what gateways say they scored, and what is read.

Exactly once: a push stores its cells, outcomes, damages and positions in one transaction. A kill
leaves all of it or nothing, and the reader goes on from the positions that are there.
"""

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, insert, select, update

from journal.prediction_id import hash_model_name
from journal.tail import TailPosition
from monitoring.cells.cell import cell_from_proto
from monitoring.cells.version_bins import VersionBins
from monitoring.errors import SequenceError
from monitoring.store import (
    call_minutes,
    cell_rows,
    outcome_rows,
    waiting_outcomes,
    window_counts,
)
from monitoring.store.cell_rows import Retention, StoredCell, add_to_cells
from monitoring.store.database import MonitoringDatabase
from monitoring.store.outcome_batches import add_outcomes
from monitoring.store.reader_rows import (
    IMPORTS,
    FoundDamage,
    damages_found,
    is_journal,
    reader_status,
    save_damages,
    save_positions,
)
from monitoring.store.served_versions import ServedVersion, first_day, served_versions
from monitoring.store.tables import (
    HOUR,
    positions,
    readers,
)
from monitoring.store.waiting_outcomes import (
    OutcomeBacklog,
    WaitingOutcome,
    keep_waiting,
    must_wait,
)
from monitoring.store.window_counts import Coverage, WindowBatchRows
from protos import monitoring_pb2 as pb

log = logging.getLogger(__name__)

OnBatch = Callable[[Connection, pb.CellBatch], None]
"""Stores the decisions of a batch, in its transaction."""


@dataclass(frozen=True, slots=True)
class ReaderPositions:
    """Where a journal's reader goes on."""

    sequence: int
    """Number of the last stored batch; 0: none."""
    positions: dict[str, TailPosition] = field(default_factory=dict)


class MonitoringStore:
    """Cells, readers, outcomes and windows in one database.

    now_ms    clock, Unix milliseconds.
    on_batch  is called in the transaction of each batch that is stored.
    on_stored  is called once for each batch, after it was stored.
    """

    def __init__(
        self,
        database: MonitoringDatabase,
        now_ms: Callable[[], int],
        on_batch: OnBatch | None = None,
        on_stored: Callable[[pb.CellBatch], None] | None = None,
    ) -> None:
        self._database = database
        self._now_ms = now_ms
        self._on_batch = on_batch
        self._on_stored = on_stored

    @property
    def kind(self) -> str:
        """The database: sqlite or postgresql."""
        return self._database.kind

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    # Readers

    def open_reader(self, name: pb.JournalName) -> ReaderPositions:
        """Return from where the reader of a journal goes on."""
        with self._database.read_transaction() as connection:
            sequence = connection.execute(
                select(readers.c.sequence).where(is_journal(readers, name))
            ).scalar_one_or_none()
            rows = connection.execute(select(positions).where(is_journal(positions, name)))
            return ReaderPositions(
                sequence or 0,
                {row.segment: TailPosition(row.offset, row.check, row.complete) for row in rows},
            )

    def push(self, batch: pb.CellBatch) -> int:
        """Store a batch with its positions, and return its sequence number.

        The batch that was stored last is recognised, and changes nothing. Raises SequenceError for
        another number and for another batch of the same number, BadCellError for bad counts.
        """
        # Check the counts first: what cannot be added is refused before anything is written.
        counted = [cell_from_proto(cell) for cell in batch.cells]
        digest = hashlib.blake2b(
            batch.SerializeToString(deterministic=True), digest_size=16
        ).digest()
        with self._database.write_transaction() as connection:
            # Is it the batch that follows?
            where = is_journal(readers, batch.journal)
            known = connection.execute(select(readers).where(where)).first()
            sequence = 0 if known is None else known.sequence
            if known is not None and (sequence, known.batch_digest) == (batch.sequence, digest):
                return int(sequence)
            if batch.sequence != sequence + 1:
                raise SequenceError(
                    f"batch {batch.sequence} of {batch.journal.gateway!r} does not follow the "
                    f"stored batch {sequence}; open the reader again, and count from there"
                )
            # All of it, or nothing.
            add_to_cells(connection, HOUR, counted)
            waiting = [event for event in batch.outcomes if must_wait(event)]
            keep_waiting(connection, waiting)
            add_outcomes(connection, (item for item in batch.outcomes if not must_wait(item)))
            save_damages(connection, batch, self._now_ms())
            if self._on_batch is not None:
                self._on_batch(connection, batch)
            save_positions(connection, batch)
            values = {
                "sequence": batch.sequence,
                "batch_digest": digest,
                "pushed_unix_ms": self._now_ms(),
                "backlog_bytes": batch.backlog_bytes,
                "newest_unix_ns": batch.newest_unix_ns or (known.newest_unix_ns if known else 0),
            }
            if known is None:
                name = {"gateway": batch.journal.gateway, "journal": batch.journal.journal}
                connection.execute(insert(readers).values(**name, **values))
            else:
                connection.execute(update(readers).where(where).values(**values))
        if self._on_stored is not None:
            self._on_stored(batch)
        return int(batch.sequence)

    def reader_statuses(self) -> list[pb.ReaderStatus]:
        """Return every journal that was pushed, with its newest damages. Imports are none."""
        with self._database.read_transaction() as connection:
            order = (readers.c.gateway, readers.c.journal)
            found = select(readers).where(readers.c.gateway != IMPORTS)
            rows = connection.execute(found.order_by(*order)).all()
            return [reader_status(connection, row) for row in rows]

    def damages_found(self, since_unix_s: int, until_unix_s: int) -> list[FoundDamage]:
        """Return the damages of journals that were found in [since_unix_s, until_unix_s)."""
        with self._database.read_transaction() as connection:
            return damages_found(connection, since_unix_s * 1_000, until_unix_s * 1_000)

    def version_digests(self, model: str) -> dict[str, int]:
        """Return version label -> the first 8 bytes of its id, of the saved versions of a model."""
        with self._database.read_transaction() as connection:
            return outcome_rows.version_digests(connection, model)

    def due_models(self, now_ms: int, looked_at: int) -> dict[str, int]:
        """Return model -> its outcomes whose predictions are to be looked for, longest due first.

        Only the *looked_at* outcomes that are the longest due are counted.
        """
        with self._database.read_transaction() as connection:
            return waiting_outcomes.due_models(connection, now_ms, looked_at)

    def due_outcomes(self, model: str, now_ms: int, limit: int) -> list[WaitingOutcome]:
        """Return outcomes of a model whose predictions are to be looked for now."""
        with self._database.read_transaction() as connection:
            return waiting_outcomes.due_outcomes(connection, model, now_ms, limit)

    def outcome_backlogs(self) -> dict[str, OutcomeBacklog]:
        """Return model -> its outcomes without a prediction id that wait for their predictions."""
        with self._database.read_transaction() as connection:
            return waiting_outcomes.outcome_backlogs(connection)

    def settle_outcomes(
        self,
        events: Iterable[pb.OutcomeEvent],
        settled: Sequence[int],
        put_off: Sequence[int],
        due_unix_ms: int,
    ) -> None:
        """Count *events* in place of the waiting outcomes with the ids *settled*, all or none.

        The predictions of those with the ids *put_off* are looked for again at *due_unix_ms*.
        """
        with self._database.write_transaction() as connection:
            add_outcomes(connection, events)
            waiting_outcomes.delete_waiting(connection, settled)
            waiting_outcomes.put_off(connection, put_off, due_unix_ms)

    def forget_outcomes(
        self,
        key_hashes: Mapping[str, Collection[int]],
        id_digests: Collection[bytes],
        outside_key_hash: int | None = None,
        positions: Mapping[str, Collection[frozenset[tuple[int, str]]]] | None = None,
        *,
        dry_run: bool,
    ) -> int:
        """Delete the outcomes of a person and return how many there are; *dry_run* counts only.

        positions  model -> (position, id) pairs of the person in its rows, for waiting outcomes.
        """
        with self._database.write_transaction() as connection:
            counted = outcome_rows.delete_outcomes(
                connection, key_hashes, id_digests, outside_key_hash, dry_run=dry_run
            )
            waiting = waiting_outcomes.delete_of_person(
                connection, positions or {}, dry_run=dry_run
            )
            return counted + waiting

    def overwrite_deleted(self) -> bool:
        """Take deleted rows out of the files of the database; False: a reader keeps some of them.

        They go with the next checkpoint then.
        """
        return self._database.overwrite_deleted()

    # Versions and figures

    def save_version(self, bins: VersionBins) -> None:
        """Note the bins of a version. Only then its outcomes are no orphans."""
        with self._database.write_transaction() as connection:
            outcome_rows.save_version(connection, bins, hash_model_name(bins.model))

    def find_version(self, model: str, digest8: int) -> VersionBins | None:
        """Return the bins of a version; None: it was not saved."""
        with self._database.read_transaction() as connection:
            return outcome_rows.find_version_bins(connection, digest8, hash_model_name(model))

    def read_cells(
        self,
        since_hour: int,
        until_hour: int,
        *,
        model: str | None = None,
        version: str | None = None,
        role: int | None = None,
        segment: str | None = "",
    ) -> list[StoredCell]:
        """Return the cells of all grains that begin in [since_hour, until_hour), oldest first.

        segment  "": the cells of all rows; None: those of every segment, whose rows overlap.
        """
        with self._database.read_transaction() as connection:
            return cell_rows.read_cells(
                connection,
                since_hour,
                until_hour,
                model=model,
                version=version,
                role=role,
                segment=segment,
            )

    def served_versions(self, first_day: int, last_day: int) -> list[ServedVersion]:
        """Return the versions that scored rows in [first_day, last_day], Unix days."""
        with self._database.read_transaction() as connection:
            return served_versions(connection, first_day, last_day)

    def first_day(self) -> int | None:
        """Return the Unix day of the oldest count; None: nothing was counted."""
        with self._database.read_transaction() as connection:
            return first_day(connection)

    # Windows and coverage

    def add_windows(self, batches: Sequence[WindowBatchRows]) -> None:
        """Add what batches of windows say; a batch that was added before changes nothing."""
        with self._database.write_transaction() as connection:
            window_counts.add_windows(connection, batches, self._now_ms())

    def add_call_minutes(self, minutes: Mapping[str, Iterable[int]]) -> None:
        """Note the Unix minutes in which models were called; a minute may come again."""
        with self._database.write_transaction() as connection:
            call_minutes.add_minutes(connection, minutes)

    def call_minutes(self, model: str, hours: Iterable[int]) -> dict[int, int]:
        """Return Unix hour -> bits of its minutes with a call, of those of *hours* that had one."""
        with self._database.read_transaction() as connection:
            return call_minutes.read_minutes(connection, model, hours)

    def coverage(self, since_hour: int, until_hour: int) -> list[Coverage]:
        """Return the coverage of every version that was scored in [since_hour, until_hour)."""
        with self._database.read_transaction() as connection:
            return window_counts.read_coverage(connection, since_hour, until_hour)

    def rows_by_model(self, since_hour: int, until_hour: int) -> dict[str, int]:
        """Return model -> rows that were scored in [since_hour, until_hour).

        By windows; where none came, by what was counted from journals.
        """
        rows: Counter[str] = Counter()
        for item in self.coverage(since_hour, until_hour):
            rows[item.model] += max(item.rows, item.window_rows)
        return dict(rows)

    def lost_window_batches(self, since_hour: int, until_hour: int) -> int:
        """Return how many batches of windows were lost in [since_hour, until_hour)."""
        with self._database.read_transaction() as connection:
            return window_counts.lost_batches(connection, since_hour, until_hour)

    # Retention

    def roll_up(self, now_hour: int, retention: Retention) -> int:
        """Roll up all that is due and delete what is expired; return the cells rolled up.

        One transaction for each model and day or week, so that pushes come in between.
        """
        number = 0
        while True:
            with self._database.write_transaction() as connection:
                due = cell_rows.next_roll_up(connection, now_hour, retention)
                if due is None:
                    cell_rows.delete_expired(connection, now_hour, retention)
                    window_counts.delete_old_sources(connection, self._now_ms())
                    call_minutes.delete_old_minutes(connection, now_hour)
                    return number
                number += cell_rows.roll_up(connection, *due)
