"""Gives a source to DuckDB as the table `source`: files, a frame, or a PostgreSQL table."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import duckdb

from features.errors import SourceError
from features.ingest.columns import described, fitted_columns, instant_sql, same_name
from features.ingest.files import files_of, files_sql, sampled_files_sql
from features.ingest.postgres import copy_table
from features.source import FORMATS, Source
from features.storage.database import identifier

Frame: TypeAlias = Any
"""A pandas, polars or Arrow table. None of these packages is needed to name its type."""

INSTANTS = ("event_time_ms", "created_ms")


class ArrowStream:
    """Shows only the Arrow interface of a frame, for which DuckDB needs no other package."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Return a new stream over all rows, as the Arrow PyCapsule interface says."""
        return self._frame.__arrow_c_stream__(requested_schema)


def open_source(
    connection: duckdb.DuckDBPyConnection,
    source: Source,
    *,
    schema: tuple[tuple[str, str], ...] = (),
    frame: Frame = None,
    root: Path = Path(),
    connections: Mapping[str, str] | None = None,
    rows_max: int | None = None,
) -> int:
    """Make `source` a table of *connection*, and return the number of its rows.

    It has the columns of the data, read with the types of *schema*, and the instants that the
    source declares: event_time_ms, and created_ms if it names a column for it.

    schema       (column, DuckDB type) pairs that the data must have.
    frame        the pandas, polars or Arrow table of a source of kind "frame".
    root         the folder that relative paths start from.
    connections  name -> address of a PostgreSQL database, `postgresql://user@host/database`.
    rows_max     about how many rows are read, from all parts of the data. None: every row.

    Raises SourceError when the data are not there, cannot be read or do not fit.
    """
    # Read the data with the declared types.
    sql = _data_sql(connection, source, schema, frame, root, connections or {}, rows_max)
    if rows_max is not None:
        # A sample has many parts, which are read once.
        connection.execute(f"CREATE TABLE sampled_rows AS {sql}").fetchall()
        sql = "SELECT * FROM sampled_rows"
    present = described(connection, sql)
    columns = fitted_columns(connection, sql, present, schema)
    # The declared instants stand beside the data's own columns.
    declared = zip(INSTANTS, (source.time, source.created), strict=True)
    instants = {instant: column for instant, column in declared if column is not None}
    for instant, column in instants.items():
        taken = same_name(instant, present)
        if taken is not None and taken.lower() != column.lower():
            raise SourceError(
                f"the data have a column {taken!r} beside the declared time column {column!r}; "
                "rename it, or declare it as the time"
            )
        columns.pop(taken or "", None)
    selected = [f"{value} AS {identifier(name)}" for name, value in columns.items()]
    selected += [
        f"{instant_sql(source, column, present)} AS {instant}"
        for instant, column in instants.items()
    ]
    # Nothing is read yet, except by the count.
    connection.execute(
        f"CREATE OR REPLACE TEMP VIEW source AS SELECT {', '.join(selected)} FROM ({sql})"
    ).fetchall()
    rows = connection.execute(f"SELECT count(*) FROM ({sql})").fetchall()
    return int(rows[0][0])


def source_of(data: Path | str | Frame, declared: Source | None) -> tuple[Source, Frame]:
    """Return the source of *data*, a path or a frame, and the frame if it is one.

    A declared source keeps its times. Without one, the transform makes them.
    """
    times = declared or Source.frame(time=None)
    if not isinstance(data, str | Path):
        return replace(times, kind="frame", location="", connection="", format=None), data
    suffix = Path(str(data).removesuffix(".gz")).suffix.lower()
    kind = FORMATS.get(suffix, times.format)
    if kind is None:
        raise SourceError(f"the format of {data} is not known from its suffix {suffix!r}")
    named = replace(times, kind="files", location=str(data), connection="", format=kind)
    return named, None


def _data_sql(
    connection: duckdb.DuckDBPyConnection,
    source: Source,
    schema: tuple[tuple[str, str], ...],
    frame: Frame,
    root: Path,
    connections: Mapping[str, str],
    rows_max: int | None,
) -> str:
    """Return SQL for the rows of the data, as they are."""
    if source.kind == "files":
        files = files_of(source, root)
        if rows_max is not None:
            return sampled_files_sql(connection, source, files, schema, rows_max)
        return files_sql(connection, source, files, schema)
    # A table of a database is copied.
    if source.kind == "table":
        address = connections.get(source.connection)
        if address is None:
            raise SourceError(
                f"the environment has no connection {source.connection!r}; it has "
                f"{sorted(connections)}. Add [sources.{source.connection}]"
            )
        copy_table(connection, source.location, address, "source_rows", rows_max=rows_max)
        return "SELECT * FROM source_rows"
    if frame is None:
        raise SourceError("the view's source is a frame; give the frame when rows are ingested")
    # DuckDB reads pandas by itself. Every other frame has the Arrow interface.
    is_pandas = type(frame).__module__.partition(".")[0] == "pandas"
    if not is_pandas and not hasattr(frame, "__arrow_c_stream__"):
        raise SourceError(
            f"a {type(frame).__name__} is no frame; give a pandas, polars or Arrow table, or a path"
        )
    connection.register("source_frame", frame if is_pandas else ArrowStream(frame))
    return "SELECT * FROM source_frame"
