"""Finds the files of a source, and writes the SQL that reads them."""

import glob
from collections.abc import Iterable
from pathlib import Path

import duckdb

from features.errors import SourceError
from features.ingest.columns import described, same_name
from features.source import Format, Source
from features.storage.database import glob_escaped, identifier, quoted

READERS: dict[Format, str] = {"parquet": "read_parquet", "csv": "read_csv", "jsonl": "read_json"}

CSV_OPTIONS = ", header = true, allow_quoted_nulls = false, sample_size = 100000"
"""An empty field is NULL, and a quoted empty field is the empty text."""

JSON_OPTIONS = ", format = 'newline_delimited', sample_size = 100000"


SAMPLED_FILES = 10
"""Files from which a sample is read."""

SLICES = 10
"""Slices of each of these files, if it is a Parquet file."""


def files_of(source: Source, root: Path) -> list[Path]:
    """Return the files of a source, sorted by path.

    root  the folder that relative patterns start from.

    Raises SourceError when there is none.
    """
    # A path that exists is taken as it is: its name may contain brackets or a star.
    path = root / source.location
    if path.is_file():
        return [path]
    found = sorted(Path(name) for name in glob.glob(str(path), recursive=True))  # noqa: PTH207
    files = [name for name in found if name.is_file()]
    if not files:
        raise SourceError(
            f"no file matches {source.location!r} in {root}; correct the source's path, or the "
            "folder from which it is read"
        )
    return files


def files_sql(
    connection: duckdb.DuckDBPyConnection,
    source: Source,
    files: list[Path],
    schema: tuple[tuple[str, str], ...],
) -> str:
    """Return SQL for the rows of *files*, with the columns of folders such as `day=2026-11-01`.

    schema  (column, type) pairs. Text files are read with these types, so that an id with leading
            zeros stays a text.
    """
    # A pattern was expanded to paths, whose own brackets must match themselves.
    assert source.format is not None
    paths = ", ".join(quoted(glob_escaped(path)) for path in files)
    options = ", union_by_name = true, hive_partitioning = true"
    reader = READERS[source.format]
    if source.format == "parquet":
        return f"SELECT * FROM {reader}([{paths}]{options})"
    # Types of a text file are guessed from its first lines, except for declared columns.
    options += CSV_OPTIONS if source.format == "csv" else JSON_OPTIONS
    sql = f"SELECT * FROM {reader}([{paths}]{options})"
    present = described(connection, sql)
    types = {
        name: kind
        for column, kind in schema
        if (name := same_name(column, present)) is not None and not _is_partition(name, files)
    }
    if source.format == "jsonl" and types:
        types = {**{n: k for n, k in present.items() if not _is_partition(n, files)}, **types}
    if types:
        listed = ", ".join(f"{identifier(name)}: {quoted(kind)}" for name, kind in types.items())
        option = "types" if source.format == "csv" else "columns"
        sql = f"SELECT * FROM {reader}([{paths}]{options}, {option} = {{{listed}}})"
    return sql


def sampled_files_sql(
    connection: duckdb.DuckDBPyConnection,
    source: Source,
    files: list[Path],
    schema: tuple[tuple[str, str], ...],
    rows_max: int,
) -> str:
    """Return SQL as `files_sql` does, for about *rows_max* rows from all parts of the data.

    They come from at most SAMPLED_FILES files, the first and the last among them. Of a Parquet file
    they are slices from its first to its last row, of a text file its first rows.
    """
    if source.format == "parquet":
        return sliced_sql(connection, files, rows_max)
    chosen, rows_of_file = _chosen(files, rows_max)
    return _together(
        f"SELECT * FROM ({files_sql(connection, source, [path], schema)}) LIMIT {rows_of_file}"
        for path in chosen
    )


def sliced_sql(connection: duckdb.DuckDBPyConnection, files: list[Path], rows_max: int) -> str:
    """Return SQL for slices of Parquet files, which together have about *rows_max* rows."""
    chosen, rows_of_file = _chosen(files, rows_max)
    return _together(_sliced_sql(connection, path, rows_of_file) for path in chosen)


def _chosen(files: list[Path], rows_max: int) -> tuple[list[Path], int]:
    """Return the files from which a sample is read, and how many rows of each."""
    chosen = [files[number] for number in spread(len(files), SAMPLED_FILES)]
    return chosen, -(-rows_max // len(chosen))


def _together(parts: Iterable[str]) -> str:
    return " UNION ALL BY NAME ".join(f"({part})" for part in parts)


def spread(count: int, parts: int) -> list[int]:
    """Return at most *parts* numbers below *count*, evenly, the first and the last among them."""
    if count <= parts:
        return list(range(count))
    return [number * (count - 1) // (parts - 1) for number in range(parts)]


def _sliced_sql(connection: duckdb.DuckDBPyConnection, path: Path, rows: int) -> str:
    """Return SQL for slices of one Parquet file, which together have about *rows* rows.

    DuckDB finds a row's number without reading the groups of rows before it.
    """
    name = quoted(glob_escaped(path))
    found = connection.execute(
        f"SELECT coalesce(sum(num_rows), 0)::BIGINT FROM parquet_file_metadata({name})"
    ).fetchall()
    everything, options = int(found[0][0]), "hive_partitioning = true"
    if everything <= rows:
        return f"SELECT * FROM read_parquet({name}, {options})"
    length = max(1, rows // SLICES)
    slices = [
        f"file_row_number BETWEEN {start} AND {start + length - 1}"
        for start in spread(everything - length + 1, SLICES)
    ]
    return (
        f"SELECT * EXCLUDE (file_row_number) FROM read_parquet({name}, {options}, "
        f"file_row_number = true) WHERE {' OR '.join(slices)}"
    )


def _is_partition(column: str, files: list[Path]) -> bool:
    """Return True if *column* comes from the names of folders."""
    prefix = f"{column.lower()}="
    return any(part.lower().startswith(prefix) for part in files[0].parts[:-1])
