"""Reads the columns of a CSV or Parquet file of an import as texts, and says which rows it cannot.

CSV is read without guesses: a guess may leave lines out. A line that is no row is a fault of this
line, and the lines after it are read as well, so that a person sees all of them at once.
"""

import csv
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb

from features.storage.database import duckdb_reason
from turnout.errors import OperatorError

Row = tuple[Any, ...]

PART_ROWS = 10_000
TEXT_TIME_SQL = (
    "coalesce(try_cast(time AS BIGINT)::VARCHAR, "
    "epoch_ms(try_cast(time AS TIMESTAMPTZ))::VARCHAR, time, '')"
)
"""A text that is a number has Unix milliseconds, and a time without a zone is UTC."""


class BadRowError(ValueError):
    """Says what is wrong with one row."""


def column_names(path: Path) -> list[str]:
    """Return the names of the columns of a file. Raises OperatorError for one that is no table."""
    _check_kind(path)
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as lines:
            return _csv_names(csv.reader(lines, strict=True), path)
    with duckdb.connect() as connection:
        try:
            return list(_parquet_types(connection, path))
        except duckdb.Error as error:
            raise _no_parquet(path, error) from error


def read_texts(
    path: Path, required: Sequence[str], others: Sequence[str]
) -> Iterator[Row | BadRowError]:
    """Yield the columns of each row as texts, in order; a column that is not there is empty.

    Times come as Unix milliseconds, or as they are where they are none. For a line that is no row
    its fault is yielded.

    Raises OperatorError for a file that is no such table.
    """
    _check_kind(path)
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        read = _csv_rows if path.suffix == ".csv" else _parquet_rows
        yield from read(connection, path, required, others)


def _csv_rows(
    connection: duckdb.DuckDBPyConnection,
    path: Path,
    required: Sequence[str],
    others: Sequence[str],
) -> Iterator[Row | BadRowError]:
    # A byte that is no UTF-8 becomes a lone surrogate, which is found in its row.
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as lines:
        reader = csv.reader(lines, strict=True)
        first = _csv_names(reader, path)
        _check_columns(path, first, required, others)
        places = [first.index(name) if name in first else None for name in (*required, *others)]
        time_at = required.index("time")
        # Times of many rows are read at once.
        records = _records(reader, len(first))
        while part := list(islice(records, PART_ROWS)):
            rows = [
                record
                if isinstance(record, BadRowError)
                else ["" if place is None else record[place] for place in places]
                for record in part
            ]
            good = [row for row in rows if not isinstance(row, BadRowError)]
            times = _times(connection, [row[time_at] for row in good])
            for row, time in zip(good, times, strict=True):
                row[time_at] = time
            yield from (row if isinstance(row, BadRowError) else tuple(row) for row in rows)


def _csv_names(reader: Any, path: Path) -> list[str]:  # noqa: ANN401  csv
    """Return the fields of the first line."""
    first = next(_records(reader, 0), [])
    if isinstance(first, BadRowError):
        raise OperatorError(f"{path.name} has no first line with names: {first}")
    if not first or len(set(first)) != len(first):
        raise OperatorError(f"{path.name} has no first line with names, each once: {first}")
    return first


def _records(reader: Any, width: int) -> Iterator[list[str] | BadRowError]:  # noqa: ANN401  csv
    """Yield the fields of each line, or its fault. A width of 0 is any number of fields."""
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield BadRowError(f"line {line} cannot be read as CSV, look at its quotes: {error}")
            continue
        # An empty line is no row.
        if not fields:
            continue
        try:
            "".join(fields).encode()
        except UnicodeEncodeError:
            yield BadRowError(f"line {line} is no text in UTF-8")
            continue
        if width and len(fields) != width:
            yield BadRowError(f"line {line} has {len(fields)} fields; {width} were expected")
            continue
        yield fields


def _times(connection: duckdb.DuckDBPyConnection, texts: list[str]) -> list[str]:
    """Return texts of Unix milliseconds, or each text as it is."""
    query = f"SELECT {TEXT_TIME_SQL} FROM (SELECT unnest($1::VARCHAR[]) AS time)"
    return [text for (text,) in connection.execute(query, [texts]).fetchall()]


def _parquet_rows(
    connection: duckdb.DuckDBPyConnection,
    path: Path,
    required: Sequence[str],
    others: Sequence[str],
) -> Iterator[Row]:
    try:
        types = _parquet_types(connection, path)
        _check_columns(path, list(types), required, others)
        columns = [_column(name, types.get(name)) for name in (*required, *others)]
        query = f"SELECT {', '.join(columns)} FROM read_parquet($1)"
        cursor = connection.execute(query, [str(path)])
        while part := cursor.fetchmany(PART_ROWS):
            yield from part
    except duckdb.Error as error:
        raise _no_parquet(path, error) from error


def _parquet_types(connection: duckdb.DuckDBPyConnection, path: Path) -> dict[str, str]:
    """Return the type of each column."""
    found = connection.execute("DESCRIBE SELECT * FROM read_parquet($1)", [str(path)])
    return {row[0]: row[1] for row in found.fetchall()}


def _no_parquet(path: Path, error: duckdb.Error) -> OperatorError:
    return OperatorError(
        f"{path.name} cannot be read as Parquet, and nothing was imported: "
        f"{duckdb_reason(error)}; write it again, or look whether it was cut"
    )


def _check_kind(path: Path) -> None:
    if path.suffix not in (".csv", ".parquet"):
        raise OperatorError(f"{path.name} is read as no table; give a file .csv or .parquet")


def _column(name: str, kind: str | None) -> str:
    """Return the expression of a column as a text."""
    if kind is None:
        return "''"
    if name == "time" and kind.startswith(("TIMESTAMP", "DATE")):
        return "coalesce(epoch_ms(time::TIMESTAMP)::VARCHAR, '')"
    if name == "time" and kind == "VARCHAR":
        return TEXT_TIME_SQL
    return f"coalesce(\"{name}\"::VARCHAR, '')"


def _check_columns(
    path: Path, names: Sequence[str], required: Sequence[str], others: Sequence[str]
) -> None:
    missing = [name for name in required if name not in names]
    if missing:
        raise OperatorError(
            f"{path.name} has no column {', '.join(missing)}; its columns are "
            f"{', '.join(names)}, and {', '.join((*required, *others))} are known"
        )
