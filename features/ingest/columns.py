"""Fits the columns of a source to the types that a view declares, and makes instants of times."""

from collections.abc import Iterable, Mapping

import duckdb

from features.errors import SourceError
from features.source import Source
from features.storage.database import identifier, quoted

INTEGER_TYPES = {
    "TINYINT": (1, True),
    "SMALLINT": (2, True),
    "INTEGER": (4, True),
    "BIGINT": (8, True),
    "HUGEINT": (16, True),
    "UTINYINT": (1, False),
    "USMALLINT": (2, False),
    "UINTEGER": (4, False),
    "UBIGINT": (8, False),
    "UHUGEINT": (16, False),
}
"""Whole numbers: bytes, and whether they may be negative."""

FLOATING = ("FLOAT", "DOUBLE")

NAIVE = ("TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", "DATE")
"""Times without a zone."""

ZONED = "TIMESTAMP WITH TIME ZONE"

PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}

HAS_ZONE = r"[0-9]:[0-9]{2}.*([zZ]|[+-][0-9]{2}(:?[0-9]{2})?)$"
"""A text that ends with a zone after its time of day."""


def described(connection: duckdb.DuckDBPyConnection, sql: str) -> dict[str, str]:
    """Return the columns of a query and their types, as DuckDB writes them."""
    rows = connection.execute(f"DESCRIBE {sql}").fetchall()
    return {str(row[0]): str(row[1]) for row in rows}


def same_name(column: str, names: Iterable[str]) -> str | None:
    """Return the name among *names* that is equal to *column* without regard to case."""
    return next((name for name in names if name.lower() == column.lower()), None)


def is_number(kind: str) -> bool:
    """Return True for the DuckDB types that a number feature takes."""
    return (
        kind in INTEGER_TYPES or kind in FLOATING or kind == "BOOLEAN" or kind.startswith("DECIMAL")
    )


def fitted_columns(
    connection: duckdb.DuckDBPyConnection,
    sql: str,
    present: Mapping[str, str],
    schema: tuple[tuple[str, str], ...],
) -> dict[str, str]:
    """Return for each column of *sql* the SQL that reads it with its declared type.

    A column may be narrower than declared, or wider if each of its values fits, or all NULL. Names
    are compared without regard to case. Columns that are not declared are read as they are.

    Raises SourceError that lists each column which is absent or has another type.
    """
    fitted = {name: identifier(name) for name in present}
    wrong: list[str] = []
    for column, declared in schema:
        # Find the column, and compare both types as DuckDB writes them.
        name = same_name(column, present)
        if name is None:
            wrong.append(f"{column} is absent (declared {declared})")
            continue
        kind, wanted = present[name], _type_name(connection, column, declared)
        if kind == wanted:
            continue
        # A column that fits without loss is cast. One that is all NULL fits every type.
        cast = _cast(identifier(name), kind, wanted)
        if cast is None and not _has_values(connection, sql, name):
            cast = f"CAST(NULL AS {wanted})"
        if cast is None:
            wrong.append(f"{column} is {kind} (declared {declared})")
        else:
            fitted[name] = cast
    if wrong:
        raise SourceError(
            f"the source does not fit: {'; '.join(wrong)}. Declare the type that the source has, "
            "or cast the column where it is made"
        )
    return fitted


def instant_sql(source: Source, column: str, present: Mapping[str, str]) -> str:
    """Return SQL for *column* as BIGINT, Unix milliseconds in UTC.

    Raises SourceError when the column is absent, or needs a zone or a unit that is not declared.
    """
    name = same_name(column, present)
    if name is None:
        raise SourceError(f"the source has no column {column!r}; it has {sorted(present)[:30]}")
    kind, value = present[name], identifier(name)
    # A number counts from 1970 in UTC. It needs a unit and no zone.
    if is_number(kind) and kind != "BOOLEAN":
        if source.unit is None:
            raise SourceError(
                f'column {column!r} holds numbers ({kind}); declare their unit: unit="s", '
                '"ms", "us" or "ns"'
            )
        if kind in INTEGER_TYPES:
            scale = PER_SECOND[source.unit]
            up, down = max(1, 1_000 // scale), max(1, scale // 1_000)
            return f"CAST(CAST({value} AS HUGEINT) * {up} // {down} AS BIGINT)"
        per_ms = PER_SECOND[source.unit] / 1_000
        return f"CAST(round(CAST({value} AS DOUBLE) / {per_ms!r}) AS BIGINT)"
    if source.unit is not None:
        raise SourceError(
            f"column {column!r} is {kind}, which has a unit of its own; leave out "
            f"unit={source.unit!r}"
        )
    # A timestamp with a zone is an instant. One without is local time in the declared zone.
    if kind == ZONED:
        return f"epoch_ms({value})"
    if kind in NAIVE:
        return _local_instant(source, column, f"CAST({value} AS TIMESTAMP)")
    if kind == "VARCHAR":
        zoned = f"epoch_ms(CAST({value} AS TIMESTAMP WITH TIME ZONE))"
        if source.zone is None:
            problem = quoted(_zone_needed(column, "a text that names no zone"))
            local = f"CAST(error({problem}) AS BIGINT)"
        else:
            local = _local_instant(source, column, f"CAST({value} AS TIMESTAMP)")
        return (
            f"CASE WHEN {value} IS NULL THEN NULL "
            f"WHEN regexp_matches({value}, {quoted(HAS_ZONE)}) THEN {zoned} ELSE {local} END"
        )
    raise SourceError(f"column {column!r} is {kind}, which is no time")


def _local_instant(source: Source, column: str, local: str) -> str:
    if source.zone is None:
        raise SourceError(_zone_needed(column, "times without a zone"))
    return f"epoch_ms(timezone({quoted(source.zone)}, {local}))"


def _zone_needed(column: str, what: str) -> str:
    return (
        f"column {column!r} holds {what}; declare the zone of the source, such as "
        'zone="Europe/Berlin" or zone="UTC"'
    )


def _type_name(connection: duckdb.DuckDBPyConnection, column: str, declared: str) -> str:
    """Return a declared type as DuckDB writes it: TEXT is VARCHAR, INT4 is INTEGER."""
    try:
        rows = connection.execute(
            "SELECT * FROM (DESCRIBE SELECT CAST(NULL AS " + declared + ") AS x)"
        ).fetchall()
    except duckdb.Error as error:
        raise SourceError(
            f"source_schema declares {column} as {declared!r}, which is no type of DuckDB"
        ) from error
    return str(rows[0][1])


def _cast(value: str, kind: str, wanted: str) -> str | None:
    """Return SQL that reads *kind* as *wanted* without loss, or None. A value may not fit."""
    plain = f"CAST({value} AS {wanted})"
    wide, narrow = f"CAST({value} AS {kind})", f"TRY_CAST({value} AS {wanted})"
    exact = (
        f"CASE WHEN {value} IS NULL THEN NULL WHEN CAST({narrow} AS {kind}) = {wide} "
        f"THEN {narrow} ELSE CAST(error('the value ' || CAST({value} AS VARCHAR) || ' does not "
        f"fit {wanted}') AS {wanted}) END"
    )
    numbers = (*INTEGER_TYPES, *FLOATING)
    if kind in INTEGER_TYPES and wanted in INTEGER_TYPES and _holds(wanted, kind):
        return plain
    if (kind in INTEGER_TYPES and wanted == "DOUBLE" and INTEGER_TYPES[kind][0] <= 4) or (
        (kind, wanted) == ("FLOAT", "DOUBLE")
    ):
        return plain
    # A float column is how some libraries hold whole numbers with gaps: NaN stands for NULL.
    if kind in FLOATING and wanted in INTEGER_TYPES:
        return f"CASE WHEN isnan({value}) THEN NULL ELSE {exact} END"
    if (kind in numbers or kind.startswith("DECIMAL")) and (
        wanted in numbers or wanted.startswith("DECIMAL")
    ):
        return exact
    if kind == '"NULL"' or (kind.startswith("ENUM") and wanted == "VARCHAR"):
        return plain
    if kind in NAIVE and wanted in NAIVE:
        return exact
    return None


def _holds(wanted: str, kind: str) -> bool:
    (wide, may_be_negative), (narrow, is_signed) = INTEGER_TYPES[wanted], INTEGER_TYPES[kind]
    if is_signed == may_be_negative:
        return wide >= narrow
    return may_be_negative and wide > narrow


def _has_values(connection: duckdb.DuckDBPyConnection, sql: str, name: str) -> bool:
    rows = connection.execute(
        f"SELECT count(*) FROM (SELECT 1 FROM ({sql}) WHERE {identifier(name)} IS NOT NULL LIMIT 1)"
    ).fetchall()
    return bool(rows[0][0])
