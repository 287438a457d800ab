"""The registry's database: transactions, and the translation of database errors.

Everything that is special to SQLite is here. Another database needs its own `_configure_...`
function. There, too, only one writer is active, because `LedgerChange.record` locks the head row.
"""

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateColumn

from registry.storage.tables import schema
from registry.types import (
    BadRequestError,
    RegistryFaultError,
    RegistryFullError,
    RegistryUnavailableError,
)

BUSY_MS = 1_000
"""Time that a writer waits for another process's lock before it fails, in milliseconds."""

log = logging.getLogger(__name__)


class Database:
    """The open database. Any thread may use it, and one thread writes at a time."""

    def __init__(self, url: URL) -> None:
        self._engine = create_engine(url)
        self._lock = Lock()
        self.stopped_reason = ""
        """Why the database is read-only now; empty while it is writable."""
        _configure_sqlite(self._engine, url)
        # All writes go through one connection, so that writes of others can be noticed.
        with _translate_errors(self):
            self._writer = self._engine.connect().execution_options(writes=True)
        self._known_data_version = -1
        with self.write_transaction() as connection:
            self.was_changed_by_others(connection)
            schema.create_all(connection)
            _add_missing_columns(connection)
        self.check_integrity()

    def check_integrity(self) -> None:
        """Run SQLite's check of each table and its indexes. Stop writing when it finds damage.

        The history is left out: it may be large, and its hash chain proves it.
        """
        if self._engine.dialect.name != "sqlite":
            return
        for table in schema.tables.keys() - {"history"}:
            try:
                with self._engine.connect() as connection:
                    check = text(f"PRAGMA integrity_check('{table}')")
                    result = connection.execute(check).scalars().first()
            except DBAPIError as error:
                result = str(error.orig)
            if result != "ok":
                self.stop_writing(f"the database is damaged at table {table}: {result}")

    def stop_writing(self, reason: str) -> None:
        """Refuse every write from now on, with *reason* in the error. The first reason stays."""
        log.error("the registry stops writing: %s", reason)
        self.stopped_reason = self.stopped_reason or reason

    def check_writable(self) -> None:
        """Raise RegistryUnavailableError if writing has stopped."""
        if self.stopped_reason:
            raise RegistryUnavailableError(
                f"the registry writes nothing because {self.stopped_reason}; restore it from a copy"
            )

    @contextmanager
    def read_transaction(self) -> Iterator[Connection]:
        """Yield a connection whose queries all see one state of the database."""
        with _translate_errors(self), self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write_transaction(self) -> Iterator[Connection]:
        """Yield a connection for one change. The change is durable when the block ends.

        An error in the block undoes the change. Raises RegistryUnavailableError when another
        process holds the lock for longer than BUSY_MS or when writing has stopped, and
        RegistryFullError when the disk is full.
        """
        with self._lock, _translate_errors(self):
            self.check_writable()
            with self._writer.begin():
                yield self._writer

    def was_changed_by_others(self, connection: Connection) -> bool:
        """Return True if another process has written since the last call, which none may.

        connection  of a write transaction. SQLite alone can tell; others always answer False.
        """
        data_version = self._data_version(connection)
        changed = data_version != self._known_data_version
        self._known_data_version = data_version
        return changed

    def _data_version(self, connection: Connection) -> int:
        if self._engine.dialect.name != "sqlite":
            return 0
        version: int = connection.exec_driver_sql("PRAGMA data_version").scalar_one()
        return version

    def close(self) -> None:
        """Close every connection."""
        self._writer.close()
        self._engine.dispose()


def _add_missing_columns(connection: Connection) -> None:
    """Add the columns that a database of an earlier release does not have, with their defaults."""
    for table in schema.tables.values():
        present = {column["name"] for column in inspect(connection).get_columns(table.name)}
        for column in table.columns:
            if column.name not in present:
                definition = CreateColumn(column).compile(dialect=connection.dialect)
                connection.execute(text(f"ALTER TABLE {table.name} ADD COLUMN {definition}"))


def _configure_sqlite(engine: Engine, url: URL) -> None:
    if url.get_backend_name() != "sqlite":
        return

    @event.listens_for(engine, "connect")
    def _connected(connection: sqlite3.Connection, _record: object) -> None:
        # Without this, Python's sqlite3 would begin transactions by itself.
        connection.isolation_level = None
        for setting in (
            "journal_mode=WAL",
            "synchronous=FULL",  # a commit survives a power failure
            f"busy_timeout={BUSY_MS}",
            "foreign_keys=ON",
        ):
            connection.execute(f"PRAGMA {setting}").close()

    @event.listens_for(engine, "begin")
    def _begun(connection: Connection) -> None:
        # With IMMEDIATE a writer waits for the lock before it reads, so it never reads stale rows.
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def _translate_errors(database: Database) -> Iterator[None]:
    try:
        yield
    except (DBAPIError, sqlite3.Error) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        code: int = getattr(cause, "sqlite_errorcode", 0) or 0
        if code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise RegistryUnavailableError(
                f"another process has held the registry's database for {BUSY_MS} ms; try again"
            ) from error
        if code & 0xFF == sqlite3.SQLITE_FULL:
            raise RegistryFullError(
                "the registry's disk is full; nothing was written. Make room and try again"
            ) from error
        if code & 0xFF in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            # After a failed fsync the content of the disk is unknown. Writing could spread damage.
            database.stop_writing(str(cause))
            raise RegistryFaultError(
                f"the registry's database cannot be trusted any more ({cause}); restore it from a "
                "copy, then prove it with an audit"
            ) from error
        raise
    except OverflowError as error:
        raise BadRequestError("a number is above 2**63 - 1, the largest that is stored") from error
