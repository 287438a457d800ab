"""Writes rows to the online store: the newest offline row of each entity, or pushed rows.

A row never replaces a newer row, whichever process writes it: a Lua script in the store compares
the event times in the two rows. At equal event times the later write wins, so that a corrected row
can be written again. A row dated in the future is not written, and is replaced where it lies.
"""

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import redis
from numpy.typing import NDArray

from features.encode import encode_columns
from features.entity_ids import check_entity_id, join_ids
from features.errors import SourceError
from features.offline import OfflineStore
from features.pushed import PushedRow, pushed_columns
from features.rows import ViewRows
from features.staleness import CLOCK_SKEW_MS_MAX, is_forgotten, is_from_future, is_stale
from features.storage.newest_rows import LatestRows, NewestRows
from features.storage.queries import NewestPart
from features.views import View
from features.writes.materialise_record import (
    BegunMaterialise,
    Materialised,
    MaterialiseRecord,
)
from features.writes.row_pace import RowPace
from features.writes.row_scripts import key_life_ms, namespace_of, write_rows
from features.writes.stored_record import StoredRecord, note_pushed

BATCH_ROWS = 10_000
"""Rows in one pipeline of commands."""


@dataclass(frozen=True, slots=True)
class WriteSummary:
    """Numbers of rows after writing to the online store."""

    written: int
    older_than_stored: int
    """Rows that were not written because the store has a newer row."""
    from_future: int = 0
    """Offline rows that were left out, because their event or created time is in the future."""
    stale: int = 0
    """Rows among all that are older than the TTL already. They are read as defaults."""
    forgotten: int = 0
    """Rows among all that are older than two TTLs already. They are read as missing."""
    is_readable: bool = False
    """True if a gateway would use at least one of the view's rows, written now or before."""
    is_incremental: bool = False
    """Whether only rows were written that are new since the last materialise."""
    is_resumed: bool = False
    """Whether a materialise that had not ended was continued."""


@dataclass(frozen=True, slots=True)
class MaterialisePlan:
    """What `materialise` would send to the store."""

    rows: int
    bytes: int
    """Bytes of the keys and of the rows. The store needs about 60 more for each key."""
    is_incremental: bool
    is_resumed: bool


def materialise(
    store: OfflineStore,
    view: View,
    client: redis.Redis,
    *,
    full: bool = False,
    batch_rows: int = BATCH_ROWS,
    as_of_ms: int | None = None,
    pace: RowPace | None = None,
    progress: Callable[[int, int], None] = lambda _done, _rows: None,
) -> WriteSummary:
    """Write the newest offline row of each entity to the online store.

    Rows are written that were ingested, or became known, since the last materialise of the view
    into this store (features.materialise_record); without one, all rows. One that was killed is
    continued where it stopped. It may be repeated, and may run while rows are pushed. Rows that
    are dated more than an hour in the future (features.staleness) are left out: the newest row
    before them is written.

    client      a client of `store_client`, or of redis-py with the default that it returns bytes.
    full        writes all rows, whatever was written before.
    batch_rows  rows in one pipeline of commands.
    as_of_ms    takes only rows that were known at this instant, Unix ms; None: at the present.
    pace        bounds the rows of a second; several views may share one. None: no bound.
    progress    called with (rows done, rows in all) after each batch.

    Raises StoreChangedError when the store lost its rows meanwhile, and redis.RedisError when it
    refuses a command. Rows written before stay, and are valid.
    """
    # What is written depends on what the record says is there.
    now_ms, known_ms = _instants(as_of_ms)
    record = StoredRecord(client, view)
    runs = _runs(store, view, record.value, known_ms, min(known_ms, now_ms), full=full)
    # A run that had not ended comes first, then what is new since.
    writer = _Writer(store, view, client, record, now_ms, batch_rows, pace or RowPace(), progress)
    for run in runs:
        writer.write(run)
    # The summary counts the rows of this time; whether any can be read depends on all.
    return WriteSummary(
        writer.written,
        writer.done - writer.written,
        store.count_after(view, now_ms + CLOCK_SKEW_MS_MAX),
        writer.stale,
        writer.forgotten,
        is_readable=record.value.is_readable(now_ms),
        is_incremental=runs[0].since is not None,
        is_resumed=len(runs) > 1,
    )


def plan_materialise(
    store: OfflineStore, view: View, client: redis.Redis, *, full: bool = False
) -> MaterialisePlan:
    """Return what `materialise` would send now. Nothing is written, and GET alone is called.

    Raises redis.RedisError when the store refuses it.
    """
    now_ms, known_ms = _instants(None)
    record = StoredRecord(client, view).value
    runs = _runs(store, view, record, known_ms, now_ms, full=full)
    layout = ViewRows(view, namespace_of(client))
    rows = size = 0
    for run in runs:
        part = NewestPart(run.since, run.after_id)
        with store.open_newest(view, as_of_ms=run.rows.known_ms, part=part) as newest:
            rows += len(newest)
            bytes_each = len(layout.store_key(b"")) + layout.row_bytes
            size += newest.id_bytes() + len(newest) * bytes_each
    return MaterialisePlan(rows, size, runs[0].since is not None, len(runs) > 1)


def _instants(as_of_ms: int | None) -> tuple[int, int]:
    """Return the present, and the instant by which a row must be known, in Unix ms."""
    now_ms = time.time_ns() // 1_000_000
    future_ms = now_ms + CLOCK_SKEW_MS_MAX
    return now_ms, future_ms if as_of_ms is None else min(as_of_ms, future_ms)


def _runs(
    store: OfflineStore,
    view: View,
    record: MaterialiseRecord,
    known_ms: int,
    at_ms: int,
    *,
    full: bool,
) -> list[BegunMaterialise]:
    """Return what is to be written: the rest of a run that had not ended, and what is new since."""
    runs: list[BegunMaterialise] = []
    last, token = record.complete, secrets.token_hex(8)
    # A record of another history says nothing of these rows.
    begun = None if full else record.begun
    if begun and begun.rows.known_ms <= known_ms and _is_part_of(store, view, begun.rows):
        runs.append(replace(begun, token=token))
        last = begun.rows
    if full or (last is not None and not _is_part_of(store, view, last)):
        last = None
    ingests, digest = store.ingested(view)
    rows = Materialised(ingests, digest, known_ms, at_ms, newest_event_ms=None)
    since = None if last is None else (last.ingests, last.known_ms)
    return [*runs, BegunMaterialise(rows, since, "", token)]


def _is_part_of(store: OfflineStore, view: View, rows: Materialised) -> bool:
    """Whether *store* has the ingests of these rows, and in the same order."""
    return store.ingested(view, rows.ingests) == (rows.ingests, rows.digest)


def _parts(newest: NewestRows, batch_rows: int, pace: RowPace) -> Iterator[LatestRows]:
    """Yield all rows in parts that the pace allows."""
    for batch in newest.batches(batch_rows):
        start = 0
        while start < len(batch):
            end = start + pace.begin(len(batch) - start)
            yield batch[start:end]
            pace.end(end - start)
            start = end


@dataclass(slots=True)
class _Writer:
    """Writes the runs of one materialise, and counts their rows."""

    store: OfflineStore
    view: View
    client: redis.Redis
    record: StoredRecord
    now_ms: int
    batch_rows: int
    pace: RowPace
    progress: Callable[[int, int], None]
    done: int = 0
    written: int = 0
    stale: int = 0
    forgotten: int = 0

    def write(self, run: BegunMaterialise) -> None:
        """Write the rows of a run, and record each part of them, then the whole."""
        complete, rows, done_before = self.record.value.complete, run.rows, self.done
        # Rows that stay as they are count for the newest one as well.
        if complete is not None and run.since is not None and not run.after_id:
            rows = replace(rows, newest_event_ms=complete.newest_event_ms)
        self.record.save(complete, replace(run, rows=rows))
        # The offline rows are read as of the instant at which the run began.
        part = NewestPart(run.since, run.after_id)
        with self.store.open_newest(self.view, as_of_ms=rows.known_ms, part=part) as newest:
            for batch in _parts(newest, self.batch_rows, self.pace):
                self._write_batch(batch)
                # From here on these rows need not be written again.
                event_ms = max(rows.newest_event_ms or 0, int(batch.event_times_ms.max()))
                rows = replace(rows, newest_event_ms=event_ms)
                after_id = batch.ids[-1].decode()
                self.record.save(complete, replace(run, rows=rows, after_id=after_id))
                self.progress(self.done, done_before + len(newest))
        self.record.save(rows, None)

    def _write_batch(self, batch: LatestRows) -> None:
        layout = ViewRows(self.view, namespace_of(self.client))
        packed = layout.pack_joined(batch.ids, batch.event_times_ms, batch.values, batch.valid)
        keys = layout.store_keys(batch.ids)
        self.written += write_rows(self.client, keys, packed, key_life_ms(self.view))
        # Old rows are counted, because a gateway answers them with defaults.
        age_ms = self.now_ms - batch.event_times_ms
        is_old = is_forgotten(age_ms, self.view.ttl_ms)
        self.forgotten += int(is_old.sum())
        self.stale += int((is_stale(age_ms, self.view.ttl_ms) & ~is_old).sum())
        self.done += len(batch)


def push_rows(view: View, client: redis.Redis, rows: Sequence[PushedRow]) -> WriteSummary:
    """Write pushed rows to the online store, encoded and compared as `materialise` does.

    Give the same rows to `OfflineStore.append_pushed`; otherwise training sets lack them.
    Raises SourceError or EntityIdError for a row that does not fit the view, or is dated more than
    an hour in the future. Then no row is written.
    """
    columns = pushed_columns(view, rows)
    values, valid = encode_columns(view, columns)
    ids = [join_ids([check_entity_id(entity_id) for entity_id in row.ids]) for row in rows]
    layout = ViewRows(view, namespace_of(client))
    event_times: NDArray[np.int64] = columns["event_time_ms"]
    now_ms = time.time_ns() // 1_000_000
    if len(rows) and is_from_future(now_ms - int(event_times.max())):
        raise SourceError(
            f"a row of view {view.name!r} is dated {int(event_times.max())}, which is more than an "
            "hour in the future; an event time is Unix milliseconds in UTC. No row was written"
        )
    packed = layout.pack_joined(ids, event_times, values, valid)
    written = write_rows(client, layout.store_keys(ids), packed, key_life_ms(view))
    # The age of a view that is only pushed is that of its newest row.
    if len(rows):
        note_pushed(client, view, int(event_times.max()))
    return WriteSummary(written, len(rows) - written)
