"""Reads declared labels from their source, as the rows that a model is trained on."""

import datetime as dt
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from features.errors import SourceError
from features.ingest.open_source import Frame, open_source
from features.storage.database import (
    duckdb_reason,
    fetch_columns,
    identifier,
    open_duckdb,
    quoted,
)
from host.clock import DAY_MS
from training.errors import LabelsError
from training.labelled_rows import VALUES_SHOWN, LabelledRows
from training.labels import Labels

INSTANT = "event_time_ms"
OUTCOME = "outcome\n"
GROUP = "group\n"
"""Names that no column of a table has."""
KNOWN = "created_ms"
NUMBERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "FLOAT", "DOUBLE", "DECIMAL")


def read_labels(
    labels: Labels,
    *,
    root: Path = Path(),
    connections: Mapping[str, str] | None = None,
    frame: Frame = None,
    spill: Path | None = None,
    known_until_ms: int = 0,
) -> LabelledRows:
    """Run the transform of *labels* over their source. Rows without an outcome are left out.

    Labels that name no outcome give every row.
    So are, and are counted, rows whose horizon is not over at the newest instant at which a row of
    the result became known.

    root         the folder that relative paths of the source start from.
    connections  name -> address of a PostgreSQL database.
    frame        the pandas, polars or Arrow table of a source of kind "frame".
    spill        an existing folder for what does not fit into the memory.
    known_until_ms  above 0, only rows that were known at this instant, Unix ms, are read: so the
                 rows of a former training are found again in a table that has grown.

    Raises SourceError when the source cannot be read, and LabelsError when its rows do not fit: an
    id, an instant or a group is missing, a value is not of the labels' kind, or all binary outcomes
    are equal.
    """
    # Errors of the transform and of files come from DuckDB, in its words.
    with open_duckdb(spill) as connection:
        try:
            # The transform runs once: checks and rows read its result.
            open_source(connection, labels.source, frame=frame, root=root, connections=connections)
            connection.execute(f"CREATE TEMP TABLE labelled AS {labels.transform}")
            kinds = _kinds(labels, connection)
            # Outcomes that are not final are left out.
            newest_ms = _newest_known(labels, connection, kinds, known_until_ms)
            immature = _leave_out_immature(labels, connection, kinds, newest_ms)
            _check_gaps(labels, connection, kinds)
            columns = fetch_columns(connection, _rows_sql(labels, connection, kinds))
            # Binary outcomes need both classes. What is left out is counted.
            outcomes = columns.get(OUTCOME)
            if labels.value and labels.kind == "binary":
                outcomes = np.asarray(outcomes).astype(np.bool_)
                _check_classes(labels, connection, outcomes, kinds)
            left_out = _count(connection, f"NOT ({_known_sql(labels, kinds)})")
        except duckdb.Error as error:
            raise SourceError(f"labels {labels.name!r}: {duckdb_reason(error)}") from error
    return LabelledRows(
        ids={entity: columns[entity].tolist() for entity in labels.entities},
        as_of_ms=_int64(columns[INSTANT]),
        positive=outcomes if labels.kind == "binary" else None,
        values=None if labels.kind == "binary" else outcomes,
        groups=columns.get(GROUP),
        inputs={name: columns[name] for name in labels.inputs},
        left_out=left_out,
        immature=immature,
        known_until_ms=newest_ms,
    )


def _count(connection: duckdb.DuckDBPyConnection, condition: str) -> int:
    """Return the number of labelled rows for which the SQL *condition* is true."""
    found = connection.execute(f"SELECT count(*) FROM labelled WHERE {condition}").fetchone()
    return 0 if found is None else int(found[0])


def _newest_known(
    labels: Labels,
    connection: duckdb.DuckDBPyConnection,
    kinds: Mapping[str, str],
    known_until_ms: int,
) -> int:
    """Return the newest instant at which a row became known, Unix ms; 0 when rows have none.

    Rows that became known after *known_until_ms* are deleted, unless it is 0.
    """
    if KNOWN not in kinds:
        if labels.horizon_days:
            raise LabelsError(
                f"labels {labels.name!r} have horizon_days={labels.horizon_days:g}, and no row "
                "says when it became known, so nobody can tell which outcomes are final: name the "
                f"column with Source(created=...), or return {KNOWN} in the transform"
            )
        return 0
    if known_until_ms:
        connection.execute(f"DELETE FROM labelled WHERE {KNOWN} > {known_until_ms:d}").fetchall()
    newest = connection.execute(f"SELECT max({KNOWN})::BIGINT FROM labelled").fetchall()
    return int(newest[0][0] or 0)


def _leave_out_immature(
    labels: Labels, connection: duckdb.DuckDBPyConnection, kinds: Mapping[str, str], newest_ms: int
) -> int:
    """Delete the rows whose horizon ends after *newest_ms*, and return their number.

    Raises LabelsError when no other row is left.
    """
    if not labels.horizon_days:
        return 0
    horizon_ms = round(labels.horizon_days * DAY_MS)
    known = _known_sql(labels, kinds)
    late = f"{known} AND {INSTANT} + {horizon_ms:d} > {newest_ms:d}"
    counts = f"SELECT count(*) FILTER ({known}), count(*) FILTER ({late}) FROM labelled"
    ((rows, immature),) = connection.execute(counts).fetchall()
    if rows and immature == rows:
        raise LabelsError(
            f"labels {labels.name!r}: none of the {rows:,} outcomes is final. The horizon is "
            f"{labels.horizon_days:g} days, and the newest row became known at {_utc(newest_ms)}: "
            "wait for later rows, or correct the column with created="
        )
    connection.execute(f"DELETE FROM labelled WHERE {late}").fetchall()
    return int(immature)


def _utc(unix_ms: int) -> str:
    return dt.datetime.fromtimestamp(unix_ms / 1_000, dt.UTC).strftime("%Y-%m-%d %H:%M UTC")


def _int64(values: NDArray[Any]) -> NDArray[np.int64]:
    return np.asarray(values).astype(np.int64)


def _kinds(labels: Labels, connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
    """Return column -> DuckDB type. Raises LabelsError when a column is absent."""
    described = connection.execute("DESCRIBE labelled").fetchall()
    kinds = {str(row[0]): str(row[1]) for row in described}
    needed = (*labels.entities, INSTANT, labels.value, labels.group, *labels.inputs)
    absent = [name for name in needed if name and name not in kinds]
    if absent:
        raise LabelsError(
            f"the transform of labels {labels.name!r} returns no {absent}; it returns {list(kinds)}"
        )
    return kinds


def _check_gaps(
    labels: Labels, connection: duckdb.DuckDBPyConnection, kinds: Mapping[str, str]
) -> None:
    """Raise LabelsError for rows without an id, an instant or a group.

    They would be joined with nothing, in silence.
    """
    for name in (*labels.entities, INSTANT, *filter(None, (labels.group,))):
        gaps = _count(connection, f"{_known_sql(labels, kinds)} AND {identifier(name)} IS NULL")
        if gaps:
            raise LabelsError(
                f"labels {labels.name!r} have {gaps} rows without {name!r}; leave these rows "
                "out in the transform, or correct the table"
            )


def _rows_sql(
    labels: Labels, connection: duckdb.DuckDBPyConnection, kinds: Mapping[str, str]
) -> str:
    """Return SQL for ids, instant, the outcome, the group, and the request inputs."""
    columns = [f"{identifier(name)}::VARCHAR AS {identifier(name)}" for name in labels.entities]
    columns.append(f"{INSTANT}::BIGINT AS {INSTANT}")
    if labels.value:
        outcome = _OUTCOMES_SQL[labels.kind](labels, connection, kinds)
        columns.append(f"{outcome} AS {identifier(OUTCOME)}")
    if labels.group:
        columns.append(f"{identifier(labels.group)}::VARCHAR AS {identifier(GROUP)}")
    # An input is a text, or a number as a double, of which float32 is made as of a caller's.
    for name in labels.inputs:
        number = _is_number(kinds[name]) or kinds[name].startswith("BOOLEAN")
        columns.append(
            f"{identifier(name)}::{'DOUBLE' if number else 'VARCHAR'} AS {identifier(name)}"
        )
    return f"SELECT {', '.join(columns)} FROM labelled WHERE {_known_sql(labels, kinds)}"


def _is_number(kind: str) -> bool:
    """Whether a DuckDB type is one of numbers."""
    return kind.removeprefix("U").startswith(NUMBERS)


def _check_classes(
    labels: Labels,
    connection: duckdb.DuckDBPyConnection,
    outcomes: NDArray[np.bool_],
    kinds: Mapping[str, str],
) -> None:
    """Raise LabelsError when all outcomes are equal, with the values of the column."""
    if not len(outcomes):
        raise LabelsError(
            f"labels {labels.name!r} have no row with an outcome; look at the source, at the "
            f"transform, and at the column {labels.value!r}"
        )
    if outcomes.any() and not outcomes.all():
        return
    value = identifier(labels.value)
    found = connection.execute(
        f"SELECT DISTINCT {value} FROM labelled WHERE {_known_sql(labels, kinds)} "
        f"ORDER BY {value} LIMIT {VALUES_SHOWN}"
    ).fetchall()
    raise LabelsError(
        f"labels {labels.name!r}: all {len(outcomes)} labels are {bool(outcomes.any())}; the "
        f"column {labels.value!r} has values such as {[row[0] for row in found]}, and "
        f"positive={labels.positive!r}. A model needs both classes"
    )


def _known_sql(labels: Labels, kinds: Mapping[str, str]) -> str:
    """Return SQL that is true for rows with an outcome. NaN is what pandas writes for none."""
    if not labels.value:
        return "true"
    value = identifier(labels.value)
    floating = kinds[labels.value] in ("FLOAT", "DOUBLE")
    return f"{value} IS NOT NULL" + (f" AND NOT isnan({value})" if floating else "")


def _binary_sql(
    labels: Labels, connection: duckdb.DuckDBPyConnection, kinds: Mapping[str, str]
) -> str:
    value, kind = identifier(labels.value), kinds[labels.value]
    if labels.positive:
        # Each positive value is compared as what it is, so that 1 does not equal "1".
        return "(" + " OR ".join(_equals(value, kind, item) for item in labels.positive) + ")"
    if kind == "BOOLEAN":
        return value
    if _is_number(kind):
        other = connection.execute(
            f"SELECT {value} FROM labelled WHERE {_known_sql(labels, kinds)} "
            f"AND {value} NOT IN (0, 1) LIMIT 1"
        ).fetchone()
        if other is None:
            return f"{value} = 1"
        raise LabelsError(
            f"labels {labels.name!r} have the value {other[0]}; without positive= the numbers are "
            "0 and 1 only: name the positive values, and leave out rows whose outcome is not known"
        )
    raise LabelsError(
        f"labels {labels.name!r} have {kind} in column {labels.value!r}; name the positive values "
        'with positive=(...), or say kind="class"'
    )


def _class_sql(labels: Labels, _: duckdb.DuckDBPyConnection, kinds: Mapping[str, str]) -> str:
    """Return SQL for a text or a number, which the recipe compares as what it is."""
    value, kind = identifier(labels.value), kinds[labels.value]
    return f"{value}::DOUBLE" if _is_number(kind) else f"{value}::VARCHAR"


def _number_sql(
    labels: Labels, connection: duckdb.DuckDBPyConnection, kinds: Mapping[str, str]
) -> str:
    value, kind = identifier(labels.value), kinds[labels.value]
    if not _is_number(kind):
        raise LabelsError(
            f"labels {labels.name!r} have {kind} in column {labels.value!r}, and their outcome is "
            "a number; cast the column in the transform"
        )
    infinite = _count(connection, f"isinf({value}::DOUBLE)")
    if infinite:
        raise LabelsError(
            f"labels {labels.name!r} have {infinite} infinite values in column {labels.value!r}; "
            "leave these rows out in the transform, or correct the table"
        )
    return f"{value}::DOUBLE"


_OUTCOMES_SQL = {"binary": _binary_sql, "class": _class_sql, "number": _number_sql}


def _equals(value: str, kind: str, positive: str | float | bool) -> str:
    if isinstance(positive, bool):
        return f"({value} = {str(positive).lower()})" if kind == "BOOLEAN" else "false"
    if isinstance(positive, int | float):
        return f"({value} = {positive!r})" if _is_number(kind) else "false"
    return f"({value}::VARCHAR = {quoted(positive)})" if kind != "BOOLEAN" else "false"
