"""One database: transactions that read, transactions that write, and what its errors mean.

All that is SQLite's own is here. Another database needs its own branch in `_prepare`; every
writing transaction locks the head row first, so writers stand in line there too.
"""

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from sqlalchemy import URL, Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError

from registry.storage.tables import schema
from registry.types import (
    BadRequestError,
    RegistryFaultError,
    RegistryFullError,
    RegistryUnavailableError,
)

BUSY_MS = 1_000
"""How long a writer waits for another process's lock before it says UNAVAILABLE."""

log = logging.getLogger(__name__)


class Database:
    """Opened once, used from any thread; one writer at a time."""

    def __init__(self, url: URL) -> None:
        self._engine = create_engine(url)
        self._lock = Lock()
        self.stopped_reason = ""
        """Why nothing is written any more; empty: all is well."""
        _configure_sqlite(self._engine, url)
        with self.write_transaction() as connection:
            schema.create_all(connection)
        self.check_integrity()

    def check_integrity(self) -> None:
        """Look for damage; found, the database goes on answering and stops writing."""
        if self._engine.dialect.name != "sqlite":
            return
        try:
            with self._engine.connect() as connection:
                found = connection.execute(text("PRAGMA quick_check(1)")).scalar_one()
        except DBAPIError as error:
            found = str(error.orig)
        if found != "ok":
            self.stop_writing(f"the database is damaged: {found}")

    def stop_writing(self, reason: str) -> None:
        """Write nothing from now on, and say why to whoever asks for it."""
        log.error("the registry stops writing: %s", reason)
        self.stopped_reason = reason

    @contextmanager
    def read_transaction(self) -> Iterator[Connection]:
        """One consistent view of everything."""
        with _translate_errors(self), self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write_transaction(self) -> Iterator[Connection]:
        """One change, durable when the block ends, undone when it raises.

        Raises RegistryUnavailableError when another process holds the lock beyond BUSY_MS or when
        writing has stopped, RegistryFullError when the disk is full.
        """
        with self._lock, _translate_errors(self):
            if self.stopped_reason:
                raise RegistryUnavailableError(
                    f"the registry writes nothing since {self.stopped_reason}; restore it from a "
                    "copy"
                )
            with (
                self._engine.connect().execution_options(writes=True) as connection,
                connection.begin(),
            ):
                yield connection

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()


def _configure_sqlite(engine: Engine, url: URL) -> None:
    if url.get_backend_name() != "sqlite":
        return

    @event.listens_for(engine, "connect")
    def _connected(connection: sqlite3.Connection, _record: object) -> None:
        # Python's sqlite3 would begin transactions by its own rules; ours are explicit.
        connection.isolation_level = None
        for setting in (
            "journal_mode=WAL",
            "synchronous=FULL",  # a commit survives the power going
            f"busy_timeout={BUSY_MS}",
            "foreign_keys=ON",
        ):
            connection.execute(f"PRAGMA {setting}").close()

    @event.listens_for(engine, "begin")
    def _begun(connection: Connection) -> None:
        # IMMEDIATE: a writer learns that it must wait before it has read anything stale.
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
            # After a failed fsync nobody knows what is on disk: going on would only spread it.
            database.stop_writing(str(cause))
            raise RegistryFaultError(
                f"the registry's database cannot be trusted any more ({cause}); restore it from a "
                "copy, then prove it with an audit"
            ) from error
        raise
    except OverflowError as error:
        raise BadRequestError("a number is above 2**63 - 1, the largest one kept") from error
