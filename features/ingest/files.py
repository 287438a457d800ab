"""Finds the files of a source, and writes the SQL that reads them."""

import glob
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


def _is_partition(column: str, files: list[Path]) -> bool:
    """Return True if *column* comes from the names of folders."""
    prefix = f"{column.lower()}="
    return any(part.lower().startswith(prefix) for part in files[0].parts[:-1])
