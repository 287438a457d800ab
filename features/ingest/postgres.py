"""Copies a PostgreSQL table into DuckDB, read-only, by pages of its primary key.

Each page is one COPY, which `statement_timeout` bounds. All pages see one snapshot. A page is a CSV
file on disk for as long as DuckDB reads it, so a table of any size needs little memory.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb

from features.errors import SourceError
from features.storage.database import identifier, quoted

PAGE_ROWS = 200_000
"""Rows in one page."""

STATEMENT_TIMEOUT_MS = 300_000
"""No statement runs longer in the database. `?options=-c statement_timeout=N` sets another."""

SAMPLE_TIMEOUT_MS = 10_000
"""No statement that reads a sample runs longer, unless the address says so."""

CONNECT_TIMEOUT_S = 10

SESSION = (
    "SET TIME ZONE 'UTC'",
    "SET DateStyle = 'ISO, YMD'",
    "SET IntervalStyle = 'iso_8601'",
    "SET extra_float_digits = 1",
    "SET bytea_output = 'hex'",
)
"""How values are written as text, whatever the database's settings are."""

TYPES = {
    "bool": "BOOLEAN",
    "int2": "SMALLINT",
    "int4": "INTEGER",
    "int8": "BIGINT",
    "oid": "UINTEGER",
    "float4": "FLOAT",
    "float8": "DOUBLE",
    "date": "DATE",
    "timestamp": "TIMESTAMP",
    "timestamptz": "TIMESTAMP WITH TIME ZONE",
}
"""PostgreSQL type -> DuckDB type. All others are texts, except numeric."""

COLUMNS = """
    SELECT a.attname, t.typname,
           CASE WHEN a.atttypmod >= 4 THEN (a.atttypmod - 4) >> 16 END,
           CASE WHEN a.atttypmod >= 4 THEN (a.atttypmod - 4) & 2047 END
    FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
    WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped
    ORDER BY a.attnum"""
"""Name and type of each column. A type modifier of numeric has its precision and scale."""

KEY = """
    SELECT a.attname
    FROM pg_index i, unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, position)
    JOIN pg_attribute a ON a.attnum = k.attnum
    WHERE i.indrelid = %s::regclass AND i.indisprimary AND a.attrelid = i.indrelid
    ORDER BY k.position"""
"""The columns of the primary key, in order."""


def copy_table(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    address: str,
    target: str,
    *,
    page_rows: int = PAGE_ROWS,
    rows_max: int | None = None,
) -> None:
    """Make the DuckDB table *target* with the rows of a PostgreSQL table or view.

    A table without a primary key, or a view, is one page.

    name     `table` or `schema.table`, as the database spells it.
    address  `postgresql://user:password@host/database`. No error repeats it.
    rows_max None: all rows. Otherwise about so many, those with the lowest and the highest keys.

    Raises SourceError when psycopg is not installed, the database does not answer, refuses, or a
    page takes too long.
    """
    # The driver is an extra, because few hosts read a database.
    try:
        import psycopg
    except ImportError as error:
        raise SourceError(
            "PostgreSQL is read with psycopg, which is not installed; install the extra: "
            "pip install 'turnout[postgres]'"
        ) from error
    # Errors say the way out, and never the address, which may have a password.
    try:
        with psycopg.connect(address, connect_timeout=CONNECT_TIMEOUT_S) as database:
            _copy(connection, database, name, target, page_rows, rows_max)
    except psycopg.errors.QueryCanceled as error:
        raise SourceError(
            f"reading table {name!r} took longer than the statement timeout; give the table a "
            "primary key, so that it is read by pages, or raise the timeout in its address: "
            "?options=-c statement_timeout=600000"
        ) from error
    except psycopg.Error as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise SourceError(f"table {name!r} cannot be read: {lines[0]}") from error


def _copy(
    connection: duckdb.DuckDBPyConnection,
    database: Any,  # noqa: ANN401  psycopg is an extra
    name: str,
    target: str,
    page_rows: int,
    rows_max: int | None,
) -> None:
    from psycopg import IsolationLevel, sql

    # One read-only snapshot for all pages.
    database.read_only = True
    database.isolation_level = IsolationLevel.REPEATABLE_READ
    for setting in SESSION:
        database.execute(setting)
    if database.execute("SHOW statement_timeout").fetchone()[0] == "0":
        timeout_ms = STATEMENT_TIMEOUT_MS if rows_max is None else SAMPLE_TIMEOUT_MS
        database.execute(f"SET statement_timeout = {timeout_ms:d}")
    # Find the table, its columns and its key.
    table = sql.Identifier(*name.split("."))
    shown = table.as_string(database)
    if database.execute("SELECT to_regclass(%s)", [shown]).fetchone()[0] is None:
        raise SourceError(
            f"the database has no table {name!r}; write it as the database spells it, with its "
            "schema unless that is on the search path"
        )
    columns = database.execute(COLUMNS, [shown]).fetchall()
    key = [row[0] for row in database.execute(KEY, [shown]).fetchall()]
    types = {column: _duckdb_type(*kind) for column, *kind in columns}
    listed = ", ".join(f"{identifier(column)} {kind}" for column, kind in types.items())
    connection.execute(f"CREATE TABLE {target} ({listed})").fetchall()
    # Copy page by page through a file in DuckDB's folder for temporary files.
    folder = connection.execute("SELECT current_setting('temp_directory')").fetchall()[0][0]
    with tempfile.TemporaryDirectory(dir=folder) as spill:
        page = Path(spill) / "page.csv"
        pages = (
            _pages(database, table, list(types), key, page_rows)
            if rows_max is None
            else _sample(database, table, list(types), key, rows_max)
        )
        for rows in pages:
            statement = sql.SQL("COPY ({}) TO STDOUT (FORMAT csv)").format(rows)
            with page.open("wb") as file, database.cursor().copy(statement) as copy:
                for block in copy:
                    file.write(block)
            connection.execute(_insert_sql(target, page, types)).fetchall()


def _pages(
    database: Any,  # noqa: ANN401
    table: Any,  # noqa: ANN401
    columns: list[str],
    key: list[str],
    page_rows: int,
) -> Iterator[Any]:
    """Yield the query of each page, in the order of the primary key; one without a key."""
    from psycopg import sql

    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    rows = sql.SQL("SELECT {} FROM {}").format(names, table)
    if not key:
        yield rows
        return
    keys = sql.SQL(", ").join(map(sql.Identifier, key))
    after: Any = sql.SQL("true")
    while True:
        # The key of the page's last row; None for the last page.
        ahead = sql.SQL("SELECT {} FROM {} WHERE {} ORDER BY {} OFFSET {} LIMIT 1")
        offset = sql.Literal(page_rows - 1)
        last = database.execute(ahead.format(keys, table, after, keys, offset)).fetchone()
        if last is None:
            yield sql.SQL("{} WHERE {} ORDER BY {}").format(rows, after, keys)
            return
        ends = sql.SQL(", ").join(map(sql.Literal, last))
        limits = sql.SQL("{} AND ({}) <= ({})").format(after, keys, ends)
        yield sql.SQL("{} WHERE {} ORDER BY {}").format(rows, limits, keys)
        after = sql.SQL("({}) > ({})").format(keys, ends)


def _sample(
    database: Any,  # noqa: ANN401
    table: Any,  # noqa: ANN401
    columns: list[str],
    key: list[str],
    rows_max: int,
) -> Iterator[Any]:
    """Yield the queries of a sample: the rows with the lowest keys, and those with the highest."""
    from psycopg import sql

    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    rows = sql.SQL("SELECT {} FROM {}").format(names, table)
    if not key:
        yield sql.SQL("{} LIMIT {}").format(rows, sql.Literal(rows_max))
        return
    # Without a row of this number the table is smaller than the sample.
    half = max(1, rows_max // 2)
    keys = sql.SQL(", ").join(map(sql.Identifier, key))
    ahead = sql.SQL("SELECT {} FROM {} ORDER BY {} OFFSET {} LIMIT 1")
    last = database.execute(ahead.format(keys, table, keys, sql.Literal(half - 1))).fetchone()
    if last is None:
        yield rows
        return
    # The lower half of the sample, and the highest keys above it.
    yield sql.SQL("{} ORDER BY {} LIMIT {}").format(rows, keys, sql.Literal(half))
    descending = sql.SQL(", ").join(
        sql.SQL("{} DESC").format(sql.Identifier(column)) for column in key
    )
    above = sql.SQL("{} WHERE ({}) > ({}) ORDER BY {} LIMIT {}")
    ends = sql.SQL(", ").join(map(sql.Literal, last))
    yield above.format(rows, keys, ends, descending, sql.Literal(rows_max - half))


def _insert_sql(target: str, page: Path, types: dict[str, str]) -> str:
    columns = ", ".join(f"{identifier(name)}: {quoted(kind)}" for name, kind in types.items())
    return (
        f"INSERT INTO {target} SELECT * FROM read_csv({quoted(str(page))}, "
        f"auto_detect = false, header = false, delim = ',', quote = '\"', escape = '\"', "
        f"nullstr = '', allow_quoted_nulls = false, parallel = false, "
        f"max_line_size = 16777216, columns = {{{columns}}})"
    )


def _duckdb_type(kind: str, precision: int | None, scale: int | None) -> str:
    if kind == "numeric":
        if precision is None or scale is None or not scale <= precision <= 38:
            return "DOUBLE"
        return f"DECIMAL({precision:d}, {scale:d})"
    return TYPES.get(kind, "VARCHAR")
