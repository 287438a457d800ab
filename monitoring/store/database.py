"""Opens the database of monitoring: SQLite or PostgreSQL, with the tables of this release.

An empty database gets the tables of tables.py, and a database of an earlier release is migrated.
Alembic takes long to import, so it is imported only for a migration.

One transaction writes at a time. In SQLite the database says so, and in PostgreSQL a lock that
every writer takes; so no other writer comes between a read and a write of one transaction.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    MetaData,
    String,
    Table,
    create_engine,
    event,
    inspect,
    make_url,
    select,
    text,
)
from sqlalchemy.exc import ArgumentError, DBAPIError

from monitoring.errors import MonitoringStoreError
from monitoring.store import tables

BUSY_MS = 10_000
"""Time that a writer waits for another process before it fails, in milliseconds."""
WRITER_LOCK = 0x7475_726E
"""Key of the advisory lock that a writer of PostgreSQL takes."""
MIGRATIONS = Path(__file__).with_name("migrations")
REVISION = max(file.name[1:5] for file in (MIGRATIONS / "versions").glob("r????_*.py"))
"""The newest migration: the revision of the tables of this release."""
migrations = Table(
    "monitoring_migrations",
    MetaData(),
    Column("version_num", String(32), primary_key=True),
)
"""Alembic's table: the revision of the database."""


class MonitoringDatabase:
    """The open database. Any thread may use it.

    url  of SQLAlchemy: "sqlite:///FILE", or "postgresql://..." with the extra `postgres`.

    Raises MonitoringStoreError when it cannot be opened or migrated.
    """

    def __init__(self, url: str) -> None:
        self._lock = Lock()
        try:
            self._engine = _engine(url)
            self.kind = self._engine.dialect.name
            """sqlite or postgresql."""
            with self.write_transaction() as connection:
                _make_tables(connection)
        except (
            DBAPIError,
            ArgumentError,
            ImportError,
            MonitoringStoreError,
            sqlite3.Error,
        ) as error:
            raise MonitoringStoreError(
                f"the database of monitoring cannot be opened: {error}; give sqlite:///FILE, or "
                "postgresql://USER@HOST/NAME with turnout[postgres] installed"
            ) from error

    @contextmanager
    def read_transaction(self) -> Iterator[Connection]:
        """Yield a connection whose queries see one state of the database."""
        with self._errors(), self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write_transaction(self) -> Iterator[Connection]:
        """Yield a connection for one change, which is durable when the block ends.

        An error in the block undoes the change. Raises MonitoringStoreError when the disk is full,
        or another process keeps the database locked.
        """
        with self._lock, self._errors(), self._engine.connect() as connection:
            writer = connection.execution_options(writes=True)
            with writer.begin():
                if self._engine.dialect.name == "postgresql":
                    writer.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": WRITER_LOCK})
                yield writer

    def overwrite_deleted(self) -> bool:
        """Take deleted rows out of SQLite's log of changes, which keeps them for a while.

        Return False when another process reads the database, so that the log stays. The pages of
        deleted rows are overwritten already. PostgreSQL does it by its own vacuum.
        """
        if self.kind != "sqlite":
            return True
        with self._lock, self._errors(), self._engine.connect() as connection:
            raw = connection.connection.cursor()
            (busy, _, _) = raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            return not busy

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise MonitoringStoreError(
                f"the database of monitoring refuses: {error.orig}; nothing of this change was "
                "written, and it is tried again"
            ) from error


def _make_tables(connection: Connection) -> None:
    """Give the database the tables of this release."""
    if not inspect(connection).has_table(migrations.name):
        tables.schema.create_all(connection)
        migrations.create(connection)
        connection.execute(migrations.insert().values(version_num=REVISION))
    elif connection.scalar(select(migrations.c.version_num)) != REVISION:
        migrate(connection)


def migrate(connection: Connection, revision: str = "head") -> None:
    """Run the migrations up to *revision*, from the first one in an empty database."""
    from alembic import command
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(MIGRATIONS))
    command.upgrade(config, revision)


def _engine(url: str) -> Engine:
    parsed = make_url(url)
    if parsed.get_backend_name() == "postgresql" and "+" not in parsed.drivername:
        parsed = parsed.set(drivername="postgresql+psycopg")
    engine = create_engine(parsed)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    elif engine.dialect.name != "postgresql":
        raise MonitoringStoreError(
            f"the database of monitoring is {engine.dialect.name}; it must be sqlite or postgresql"
        )
    return engine


def _configure_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    # Without this, Python's sqlite3 would begin transactions by itself.
    connection.isolation_level = None
    # Deleted rows are overwritten with zeros, because a person may have asked for it.
    for setting in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "secure_delete=ON",
        f"busy_timeout={BUSY_MS}",
    ):
        connection.execute(f"PRAGMA {setting}").close()


def _begin_sqlite(connection: Connection) -> None:
    # With IMMEDIATE a writer waits for the lock before it reads, so it never reads stale rows.
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
