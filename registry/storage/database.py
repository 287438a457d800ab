"""The registry's database: transactions, and the translation of database errors.

Everything that is special to SQLite is here. Another database needs its own `_configure_...`
function. There, too, only one writer is active, because `LedgerChange.record` locks the head row.
"""

import logging
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import Any

from sqlalchemy import (
    URL,
    Column,
    Connection,
    Engine,
    LargeBinary,
    MetaData,
    Table,
    create_engine,
    event,
    inspect,
    text,
)
from sqlalchemy.engine import ExecutionContext
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateColumn

from registry.storage.tables import raw_select, schema
from registry.types import (
    BadRequestError,
    RegistryFaultError,
    RegistryFullError,
    RegistryUnavailableError,
)

BUSY_MS = 1_000
"""Time that a writer waits for another process's lock before it fails, in milliseconds."""

Definition = tuple[object, object]
"""(table, SQL text without line breaks) of an object in the database."""

READ_DEFINITIONS = text(
    "SELECT type, name, tbl_name, sql FROM sqlite_master "
    "WHERE name NOT GLOB 'sqlite_stat*' ORDER BY name, type"
)
"""The tables of ANALYZE are left out: SQLite alone can make them, and they change no answer."""

log = logging.getLogger(__name__)


class Database:
    """The open database. Any thread may use it, and one thread writes at a time."""

    def __init__(self, url: URL) -> None:
        self._engine = create_engine(url)
        self._lock = Lock()
        self.stopped_reason = ""
        """Why the database is read-only now; empty while it is writable."""
        _configure_sqlite(self._engine, url)
        event.listen(self._engine, "after_cursor_execute", self._check_insert)
        # All writes go through one connection, so that writes of others can be noticed.
        with _translate_errors(self):
            self._writer = self._engine.connect().execution_options(writes=True)
        self._known_data_version = -1
        with self.write_transaction() as connection:
            self.note_changes(connection)
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
        """Return True if another process has written since `note_changes`, which none may.

        connection  of a write transaction. SQLite alone can tell; others always answer False.
        """
        return self._data_version(connection) != self._known_data_version

    def note_changes(self, connection: Connection) -> None:
        """Take what others have written until now as known, after it was proven."""
        self._known_data_version = self._data_version(connection)

    def _check_insert(
        self,
        _connection: Connection,
        cursor: sqlite3.Cursor,
        statement: str,
        _parameters: object,
        context: ExecutionContext,
        _many: bool,
    ) -> None:
        """Raise RegistryFaultError, which undoes the change, if an INSERT wrote no row.

        The registry inserts one row at a time. A foreign rule of a table could drop it silently.
        """
        if getattr(context, "isinsert", False) and cursor.rowcount != 1:
            table = statement.split()[2]
            self.stop_writing(f"table {table} took {cursor.rowcount} rows instead of 1")
            raise RegistryFaultError(
                f"table {table} took {cursor.rowcount} rows instead of 1, so its definition was "
                "altered; nothing was written. Restore the registry from a copy"
            )

    def _data_version(self, connection: Connection) -> int:
        if self._engine.dialect.name != "sqlite":
            return 0
        version: int = connection.exec_driver_sql("PRAGMA data_version").scalar_one()
        return version

    def find_undecodable(self) -> str:
        """Return what `find_undecodable` finds, read by a connection of its own."""
        with self._engine.connect() as connection:
            return find_undecodable(connection)

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
                add_column(connection, table.name, column)


def find_undecodable(connection: Connection) -> str:
    """Return table, row and field of the first text that is not UTF-8; empty if there is none."""
    if connection.dialect.name != "sqlite":
        return ""
    raw = connection.connection.dbapi_connection
    assert isinstance(raw, sqlite3.Connection)
    # Without a text factory of its own, SQLite's driver fails at such a text.
    factory, raw.text_factory = raw.text_factory, bytes
    try:
        for table in schema.tables.values():
            for row in connection.execute(raw_select(table)):
                for column, value in zip(table.columns, row, strict=True):
                    if isinstance(column.type, LargeBinary) or not isinstance(value, bytes):
                        continue
                    try:
                        value.decode()
                    except UnicodeDecodeError:
                        return _undecodable_text(table, row, column.name)
    finally:
        raw.text_factory = factory
    return ""


def _undecodable_text(table: Table, row: Sequence[Any], field: str) -> str:
    """Name the row by its key. A key that cannot be decoded itself is shown as bytes."""
    (key,) = table.primary_key.columns
    value = row[list(table.columns).index(key)]
    if isinstance(value, bytes):
        value = value.decode(errors="backslashreplace")
    name = f"table {table.name}, row {value!r}"
    if table.name == "history":
        name = f"history entry {value}"
    return f"{name}, field {field}: the value is not UTF-8 text, so it was altered"


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
        unreadable = database.find_undecodable() if "decode to UTF-8" in str(cause) else ""
        if unreadable:
            database.stop_writing(unreadable)
            raise RegistryFaultError(f"{unreadable}; restore the registry from a copy") from error
        raise
    except OverflowError as error:
        raise BadRequestError("a number is above 2**63 - 1, the largest that is stored") from error


def add_column(connection: Connection, table: str, column: Column[object]) -> None:
    """Add a column to a table of an earlier release, with the column's default."""
    definition = CreateColumn(column).compile(dialect=connection.dialect)
    connection.execute(text(f"ALTER TABLE {table} ADD COLUMN {definition}"))


def find_foreign_definition(connection: Connection) -> str:
    """Return the first definition that is not as this registry makes it; empty if all are."""
    if connection.dialect.name != "sqlite":
        return ""
    missing = dict(_own_definitions())
    for kind, name, table, sql in connection.execute(READ_DEFINITIONS):
        named = f"the {str(kind)[:20]} {str(name)[:80]!r}"
        own = missing.pop((kind, name), None)
        if own is None:
            return f"the database has {named}; the registry makes none of this name"
        found = (table, _one_line(sql))
        if found != own and not (
            kind == "table" and found in _definitions_after_upgrades(connection, str(name))
        ):
            return (
                f"{named} is not as the registry makes it: its definition is "
                f"{_difference(str(found[1]), str(own[1]))}"
            )
    for kind, name in missing:
        return f"{kind} {name} is missing from the database"
    return ""


@cache
def _own_definitions() -> Mapping[tuple[object, object], Definition]:
    """Return (type, name) -> definition in an empty database that this release makes."""
    return _definitions_of(schema, {})


def _definitions_after_upgrades(connection: Connection, name: str) -> Iterator[Definition]:
    """Yield the definitions of a table that an earlier release made and later ones extended.

    The columns that were added since are the last ones, in the order of the upgrades.
    """
    table = schema.tables.get(name)
    if table is None:
        return
    statement = text("SELECT name FROM pragma_table_info(:name) ORDER BY cid DESC")
    added: tuple[str, ...] = ()
    for column in connection.execute(statement, {"name": name}).scalars():
        # Only columns with a server default are ever added.
        if column not in table.c or table.c[column].server_default is None:
            return
        added = (column, *added)
        yield _extended_definition(name, added)


@cache
def _extended_definition(name: str, added: tuple[str, ...]) -> Definition:
    older = MetaData()
    copy = schema.tables[name].to_metadata(older)
    for column in added:
        copy.c[column].system = True  # CREATE TABLE leaves such a column out
    return _definitions_of(older, {schema.tables[name]: added})["table", name]


def _definitions_of(
    metadata: MetaData, added: Mapping[Table, tuple[str, ...]]
) -> dict[tuple[object, object], Definition]:
    """Return the definitions after the schema was made in an empty database and then extended."""
    engine = create_engine("sqlite://")
    try:
        with engine.begin() as connection:
            metadata.create_all(connection)
            for table, columns in added.items():
                for column in columns:
                    add_column(connection, table.name, table.c[column])
            return {
                (kind, name): (table_name, _one_line(sql))
                for kind, name, table_name, sql in connection.execute(READ_DEFINITIONS)
            }
    finally:
        engine.dispose()


def _one_line(sql: object) -> object:
    """Return the text without line breaks and indents, which have no meaning in ours."""
    return " ".join(sql.split()) if isinstance(sql, str) else sql


def _difference(found: str, own: str) -> str:
    """Show where two texts begin to differ."""
    pairs = zip(found, own, strict=False)
    place = next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(found), len(own)))
    start = max(place - 20, 0)
    return f"{found[start : place + 60]!r} and must be {own[start : place + 60]!r}"
