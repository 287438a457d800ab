"""The log of pushed rows: an SQLite database in the folder of a view's edition.

A push is acknowledged when its rows are on the disk, and a Parquet file for each push would soon be
a million files. So pushed rows are first logged here, and `features.storage.settle` makes an ingest
of many of them: before anything reads the view, and from time to time. The tables:

    events       ids of pushed events that were seen, as hashes, so that a row that is sent twice is
                 stored once
    logged       rows that are in no ingest yet, numbered in the order in which they came
    undelivered  of each entity the newest row that the online store has not confirmed
    settling     the ingest that is being made of logged rows
    counters     the last number, and the last created time

SQLite lets one process write at a time. Numbers therefore have one order, offline and online: the
online store is written within such a transaction too (`deliver`).
"""

import sqlite3
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from enum import Enum
from hashlib import blake2b
from pathlib import Path
from typing import Any

from xxhash import xxh3_64_digest

from features.staleness import CLOCK_SKEW_MS_MAX
from host.files import fsync_folder

FOLDER = "pushed"
FILE = "rows.sqlite"

BUSY_S = 30.0
"""A process waits this long for the transaction of another one."""

EVENT_IDS_DAYS = 7
"""A row that is sent again within this time is known by its event id."""

EXPIRED_EVENTS_AT_ONCE = 50_000

VARIABLES_MAX = 500
"""Values in one statement."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    event BLOB PRIMARY KEY, content BLOB NOT NULL, seen_ms INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS events_by_time ON events (seen_ms);
CREATE TABLE IF NOT EXISTS logged (
    number INTEGER PRIMARY KEY, entity_id BLOB NOT NULL, created_ms INTEGER NOT NULL,
    row BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS undelivered (
    entity_id BLOB PRIMARY KEY, event_ms INTEGER NOT NULL, number INTEGER NOT NULL,
    row BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS settling (digest TEXT NOT NULL, number INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class RowToLog:
    """One encoded row of an edition."""

    event_id: str
    entity_id: bytes
    """The joined id, UTF-8."""
    event_time_ms: int
    packed: bytes
    """The bytes of the row, as `ViewRows.pack` makes them."""
    is_deliverable: bool = True
    """False for a row that is too old to be read online."""


class LogOutcome(Enum):
    """What became of a row in the log."""

    NEW = "new"
    """It was stored, and it is the newest undelivered row of its entity."""
    SUPERSEDED = "superseded"
    """It was stored, and is not to be delivered: a newer row is, or it is too old."""
    DUPLICATE = "duplicate"
    """Its event id was seen with the same row. Nothing was stored."""
    CONFLICT = "conflict"
    """Its event id was seen with another row. Nothing was stored."""


@dataclass(frozen=True, slots=True)
class LoggedRow:
    """A row in the log."""

    number: int
    entity_id: bytes
    instant_ms: int
    """When a logged row became known; for an undelivered row its event time. Unix ms."""
    packed: bytes


class PushedLog:
    """The log of one edition. Several processes of one host may use it at once; threads may not.

    folder  the folder of the edition, in the offline store. It is made if it is absent.

    All methods raise sqlite3.Error when the disk refuses, or another process holds the log too
    long. What was begun is then undone.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / FOLDER / FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(
            path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
        )
        # A transaction is on the disk when it ends, and what is deleted is overwritten.
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "secure_delete = ON"):
            self._connection.execute(f"PRAGMA {pragma}").fetchall()
        # Another process may be making the same tables; `counters` is the last of them.
        if not self._has_tables():
            self._connection.executescript(_SCHEMA)
            for parent in (path.parent, folder, folder.parent):
                fsync_folder(parent)

    def _has_tables(self) -> bool:
        sql = "SELECT count(*) FROM sqlite_master WHERE name = 'counters'"
        return bool(self._connection.execute(sql).fetchone()[0])

    def close(self) -> None:
        """Close the database."""
        self._connection.close()

    def append(self, rows: Sequence[RowToLog], now_ms: int) -> list[tuple[LogOutcome, int]]:
        """Store the rows whose event ids are new, durably.

        now_ms  when they became known, Unix ms. A clock that was set back by less than an hour does
                not change the order of rows with equal event times.

        Returns for each row what became of it, and its number; 0 for one that was not stored.
        """
        with self._transaction() as connection:
            last = self._counter("number")
            created_ms = self._counter("created_ms")
            if not now_ms <= created_ms <= now_ms + CLOCK_SKEW_MS_MAX:
                created_ms = now_ms
            # The id decides whether a row is new, and its bytes whether the id was used well.
            outcomes = self._note_events(rows, now_ms)
            numbers = [0] * len(rows)
            new = [index for index, outcome in enumerate(outcomes) if outcome is LogOutcome.NEW]
            for number, index in enumerate(new, start=last + 1):
                numbers[index] = number
            connection.executemany(
                "INSERT INTO logged VALUES (?, ?, ?, ?)",
                [
                    (numbers[index], rows[index].entity_id, created_ms, rows[index].packed)
                    for index in new
                ],
            )
            # Of each entity the newest row is delivered; among equal events the one that came last.
            connection.executemany(
                "INSERT INTO undelivered VALUES (?, ?, ?, ?) ON CONFLICT (entity_id) DO UPDATE SET "
                "event_ms = excluded.event_ms, number = excluded.number, row = excluded.row "
                "WHERE excluded.event_ms >= undelivered.event_ms",
                [
                    (row.entity_id, row.event_time_ms, numbers[index], row.packed)
                    for index in new
                    if (row := rows[index]).is_deliverable
                ],
            )
            # Rows that come later get larger numbers.
            if new:
                self._set_counter("number", last + len(new))
                self._set_counter("created_ms", created_ms)
            newest = {
                row.number for row in self._undelivered({rows[index].entity_id for index in new})
            }
        for index in new:
            if numbers[index] not in newest:
                outcomes[index] = LogOutcome.SUPERSEDED
        return list(zip(outcomes, numbers, strict=True))

    def deliver(
        self,
        entity_ids: Collection[bytes] | None,
        write_online: Callable[[Sequence[LoggedRow]], Sequence[int]],
        rows_max: int = 10_000,
    ) -> dict[int, bool]:
        """Write undelivered rows online, and forget that they were undelivered.

        entity_ids    the entities whose rows are written. None: of all entities.
        write_online  writes rows and returns 1 for each that the online store took, and 0 where it
                      has a newer one. While it runs no other process logs or delivers rows, so rows
                      of equal event times come online in the order of their numbers.
        rows_max      most rows, if *entity_ids* is None.

        Returns the number of each row -> whether the store took it. What *write_online* raises is
        passed on; the rows stay undelivered then.
        """
        # A crash that loses this transaction writes the same rows again, so it need not be fsynced.
        self._connection.execute("PRAGMA synchronous = NORMAL")
        try:
            with self._transaction() as connection:
                rows = (
                    self._undelivered(entity_ids)
                    if entity_ids is not None
                    else [
                        LoggedRow(number, entity_id, event_ms, packed)
                        for entity_id, event_ms, number, packed in connection.execute(
                            "SELECT * FROM undelivered LIMIT ?", (rows_max,)
                        )
                    ]
                )
                if not rows:
                    return {}
                # What raises here leaves the rows undelivered.
                taken = write_online(rows)
                connection.executemany(
                    "DELETE FROM undelivered WHERE entity_id = ?",
                    [(row.entity_id,) for row in rows],
                )
        finally:
            self._connection.execute("PRAGMA synchronous = FULL")
        return {row.number: bool(one) for row, one in zip(rows, taken, strict=True)}

    def count_logged(self) -> int:
        """Return the number of rows that are in no ingest yet."""
        return int(self._connection.execute("SELECT count(*) FROM logged").fetchone()[0])

    def oldest_logged_ms(self) -> int | None:
        """Return when the oldest row that is in no ingest became known, Unix ms; None: no row."""
        found = self._connection.execute(
            "SELECT created_ms FROM logged ORDER BY number LIMIT 1"
        ).fetchone()
        return None if found is None else int(found[0])

    def logged_rows(self, rows_max: int) -> list[LoggedRow]:
        """Return the oldest rows that are in no ingest, in the order of their numbers."""
        rows = self._connection.execute("SELECT * FROM logged ORDER BY number LIMIT ?", (rows_max,))
        return [LoggedRow(*row) for row in rows]

    def begin_settling(self, digest: str, number: int) -> None:
        """Note, before an ingest appears, that it has the rows up to *number*."""
        with self._transaction() as connection:
            connection.execute("INSERT INTO settling VALUES (?, ?)", (digest, number))

    def end_settling(self, published: Callable[[str], bool]) -> None:
        """Delete the logged rows of an ingest that has appeared, also after a crash.

        published  says whether there is an ingest with a digest. If not, the rows stay.
        """
        with self._transaction() as connection:
            for digest, number in connection.execute("SELECT * FROM settling").fetchall():
                if published(digest):
                    connection.execute("DELETE FROM logged WHERE number <= ?", (number,))
            connection.execute("DELETE FROM settling")

    def forget(self, is_person: Callable[[bytes], bool], *, dry_run: bool) -> int:
        """Remove the rows of a person from the log; return the number that were in no ingest.

        is_person  says whether a joined id is the person's.
        """
        with self._transaction() as connection:
            count = 0
            for table in ("logged", "undelivered"):
                ids = connection.execute(f"SELECT DISTINCT entity_id FROM {table}").fetchall()
                for entity_id in [row for row in ids if is_person(row[0])]:
                    sql = f"SELECT count(*) FROM {table} WHERE entity_id = ?"
                    found = connection.execute(sql, entity_id).fetchone()[0]
                    count += found if table == "logged" else 0
                    if not dry_run:
                        connection.execute(f"DELETE FROM {table} WHERE entity_id = ?", entity_id)
        # The pages that were replaced are in the file beside the database until it is emptied.
        if not dry_run:
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return count

    def delete_expired_events(self, now_ms: int) -> None:
        """Forget the event ids that were first seen more than EVENT_IDS_DAYS ago."""
        before_ms = now_ms - EVENT_IDS_DAYS * 86_400_000
        deleted = EXPIRED_EVENTS_AT_ONCE
        while deleted == EXPIRED_EVENTS_AT_ONCE:
            # Other processes may write between two parts.
            with self._transaction() as connection:
                deleted = connection.execute(
                    "DELETE FROM events WHERE event IN "
                    "(SELECT event FROM events WHERE seen_ms < ? LIMIT ?)",
                    (before_ms, EXPIRED_EVENTS_AT_ONCE),
                ).rowcount

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Hold the right to write, of all processes, until the block ends."""
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _counter(self, name: str) -> int:
        found = self._connection.execute(
            "SELECT value FROM counters WHERE name = ?", (name,)
        ).fetchone()
        return 0 if found is None else int(found[0])

    def _set_counter(self, name: str, value: int) -> None:
        self._connection.execute("INSERT OR REPLACE INTO counters VALUES (?, ?)", (name, value))

    def _undelivered(self, entity_ids: Collection[bytes]) -> list[LoggedRow]:
        sql = "SELECT number, entity_id, event_ms, row FROM undelivered WHERE entity_id IN"
        return [LoggedRow(*row) for row in self._select_in(sql, entity_ids)]

    def _note_events(self, rows: Sequence[RowToLog], now_ms: int) -> list[LogOutcome]:
        """Store the event ids that are new; return whether each row is NEW, or what else it is."""
        # Ids and contents are compared by their hashes, so that no id of a customer stays here.
        events = [blake2b(row.event_id.encode(), digest_size=16).digest() for row in rows]
        contents = [xxh3_64_digest(row.packed) for row in rows]
        sql = "SELECT event, content FROM events WHERE event IN"
        known: dict[bytes, bytes] = dict(self._select_in(sql, set(events)))
        # An id that comes twice in one batch is known the second time.
        outcomes, new = [], []
        for event, content in zip(events, contents, strict=True):
            seen = known.get(event)
            if seen is None:
                known[event] = content
                new.append((event, content, now_ms))
                outcomes.append(LogOutcome.NEW)
            else:
                is_same = seen == content
                outcomes.append(LogOutcome.DUPLICATE if is_same else LogOutcome.CONFLICT)
        self._connection.executemany("INSERT INTO events VALUES (?, ?, ?)", new)
        return outcomes

    def _select_in(self, sql: str, values: Collection[bytes]) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of *sql*, which ends with IN, for all values."""
        some = list(values)
        for start in range(0, len(some), VARIABLES_MAX):
            part = some[start : start + VARIABLES_MAX]
            yield from self._connection.execute(f"{sql} ({', '.join('?' * len(part))})", part)


def has_log(folder: Path) -> bool:
    """Return whether rows of the edition in *folder* were ever pushed."""
    return (folder / FOLDER / FILE).exists()


def has_logged_rows(folder: Path) -> bool:
    """Return whether rows of the edition in *folder* are in no ingest yet."""
    if not has_log(folder):
        return False
    with closing(PushedLog(folder)) as log:
        return log.oldest_logged_ms() is not None
