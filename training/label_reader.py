"""Reads declared labels from their source, as the rows that a model is trained on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from features.errors import SourceError
from features.ingest.open_source import Frame, open_source
from features.storage.database import fetch_columns, identifier, open_duckdb, quoted
from training.errors import LabelsError
from training.labelled_rows import VALUES_SHOWN, LabelledRows
from training.labels import Labels

INSTANT = "event_time_ms"
NUMBERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "FLOAT", "DOUBLE", "DECIMAL")


def read_labels(
    labels: Labels,
    *,
    root: Path = Path(),
    connections: Mapping[str, str] | None = None,
    frame: Frame = None,
    spill: Path | None = None,
) -> LabelledRows:
    """Run the transform of *labels* over their source. Rows without an outcome are left out.

    root         the folder that relative paths of the source start from.
    connections  name -> address of a PostgreSQL database.
    frame        the pandas, polars or Arrow table of a source of kind "frame".
    spill        an existing folder for what does not fit into the memory.

    Raises SourceError when the source cannot be read, and LabelsError when its rows do not fit:
    an id or an instant is missing, or a value is neither positive nor negative.
    """
    # Errors of the transform and of files come from DuckDB, in its words.
    with open_duckdb(spill) as connection:
        try:
            # The transform runs once: checks and rows read its result.
            open_source(connection, labels.source, frame=frame, root=root, connections=connections)
            connection.execute(f"CREATE TEMP TABLE labelled AS {labels.transform}")
            kinds = _kinds(labels, connection)
            columns = fetch_columns(connection, _rows_sql(labels, connection, kinds))
            outcomes = np.asarray(columns[labels.value]).astype(np.bool_)
            _check_classes(labels, connection, outcomes, kinds[labels.value])
        except duckdb.Error as error:
            raise SourceError(f"labels {labels.name!r}: {error}") from error
    return LabelledRows(
        ids={entity: columns[entity].tolist() for entity in labels.entities},
        as_of_ms=_int64(columns[INSTANT]),
        positive=outcomes,
        inputs={name: columns[name] for name in labels.inputs},
    )


def _int64(values: NDArray[Any]) -> NDArray[np.int64]:
    return np.asarray(values).astype(np.int64)


def _kinds(labels: Labels, connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
    """Return column -> DuckDB type. Raises LabelsError when a column is absent."""
    described = connection.execute("DESCRIBE labelled").fetchall()
    kinds = {str(row[0]): str(row[1]) for row in described}
    needed = (*labels.entities, INSTANT, labels.value, *labels.inputs)
    absent = [name for name in needed if name not in kinds]
    if absent:
        raise LabelsError(
            f"the transform of labels {labels.name!r} returns no {absent}; it returns {list(kinds)}"
        )
    return kinds


def _rows_sql(
    labels: Labels, connection: duckdb.DuckDBPyConnection, kinds: Mapping[str, str]
) -> str:
    """Return SQL for ids, instant, the outcome as BOOLEAN, and the request inputs."""
    value = identifier(labels.value)
    known = _known_sql(labels, kinds[labels.value])
    # A row without an id or an instant would be joined with nothing, in silence.
    for name in (*labels.entities, INSTANT):
        gaps = f"SELECT count(*) FROM labelled WHERE {known} AND {identifier(name)} IS NULL"
        found = connection.execute(gaps).fetchone()
        if found is not None and found[0]:
            raise LabelsError(
                f"labels {labels.name!r} have {found[0]} rows without {name!r}; leave these rows "
                "out in the transform, or correct the table"
            )
    columns = [f"{identifier(name)}::VARCHAR AS {identifier(name)}" for name in labels.entities]
    outcome = _outcome_sql(labels, connection, kinds[labels.value])
    columns += [f"{INSTANT}::BIGINT AS {INSTANT}", f"{outcome} AS {value}"]
    # An input is a text, or a number as a double, of which float32 is made as of a caller's.
    for name in labels.inputs:
        number = kinds[name].removeprefix("U").startswith((*NUMBERS, "BOOLEAN"))
        columns.append(
            f"{identifier(name)}::{'DOUBLE' if number else 'VARCHAR'} AS {identifier(name)}"
        )
    return f"SELECT {', '.join(columns)} FROM labelled WHERE {known}"


def _check_classes(
    labels: Labels,
    connection: duckdb.DuckDBPyConnection,
    outcomes: NDArray[np.bool_],
    kind: str,
) -> None:
    """Raise LabelsError when all outcomes are equal, with the values of the column."""
    if outcomes.any() and not outcomes.all():
        return
    value = identifier(labels.value)
    found = connection.execute(
        f"SELECT DISTINCT {value} FROM labelled WHERE {_known_sql(labels, kind)} "
        f"ORDER BY {value} LIMIT {VALUES_SHOWN}"
    ).fetchall()
    raise LabelsError(
        f"labels {labels.name!r}: all {len(outcomes)} labels are {bool(outcomes.any())}; the "
        f"column {labels.value!r} has values such as {[row[0] for row in found]}, and "
        f"positive={labels.positive!r}. A model needs both classes"
    )


def _known_sql(labels: Labels, kind: str) -> str:
    """Return SQL that is true for rows with an outcome. NaN is what pandas writes for none."""
    value = identifier(labels.value)
    floating = kind in ("FLOAT", "DOUBLE")
    return f"{value} IS NOT NULL" + (f" AND NOT isnan({value})" if floating else "")


def _outcome_sql(labels: Labels, connection: duckdb.DuckDBPyConnection, kind: str) -> str:
    value = identifier(labels.value)
    if labels.positive:
        # Each positive value is compared as what it is, so that 1 does not equal "1".
        return "(" + " OR ".join(_equals(value, kind, item) for item in labels.positive) + ")"
    if kind == "BOOLEAN":
        return value
    if kind.removeprefix("U").startswith(NUMBERS):
        other = connection.execute(
            f"SELECT {value} FROM labelled WHERE {_known_sql(labels, kind)} "
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
        "with positive=(...)"
    )


def _equals(value: str, kind: str, positive: str | float | bool) -> str:
    if isinstance(positive, bool):
        return f"({value} = {str(positive).lower()})" if kind == "BOOLEAN" else "false"
    if isinstance(positive, int | float):
        is_number = kind.removeprefix("U").startswith(NUMBERS)
        return f"({value} = {positive!r})" if is_number else "false"
    return f"({value}::VARCHAR = {quoted(positive)})" if kind != "BOOLEAN" else "false"
