"""Sample rows of a foreign model: read from a file, or made up where there are none.

A sample is a table: name of a column -> its N values, as float64 with NaN for a missing number,
bool, or str objects with None for a missing text.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import onnx
from numpy.typing import NDArray

from features.errors import SourceError
from features.ingest.columns import described, is_number
from features.ingest.open_source import open_source
from features.source import Source
from features.storage.database import duckdb_reason, fetch_columns, identifier, open_duckdb
from training.adopted.answers import Answers
from training.adopted.proposals import ForeignColumn, folded_name
from training.adoption.edge_feed import neighbours
from training.adoption.graph.column_origins import find_columns
from training.adoption.inspect_graph import input_widths
from training.errors import AdoptionError

ROWS_MAX = 10_000
"""Most rows of a sample. Of a longer file every second, third, ... row is taken."""
MADE_ROWS = 2_000
NAMES_SHOWN = 5

Table = Mapping[str, NDArray[Any]]


def read_sample(path: Path) -> dict[str, NDArray[Any]]:
    """Return at most ROWS_MAX rows of a Parquet, CSV (with a header line) or JSON-lines file.

    Raises AdoptionError when it cannot be read or has no rows.
    """
    with open_duckdb() as connection:
        try:
            source = Source.files(str(path), time=None)
            count = open_source(connection, source)
            step = -(-count // ROWS_MAX)
            columns = ", ".join(
                _column_sql(name, kind)
                for name, kind in described(connection, "SELECT * FROM source").items()
            )
            sql = f'SELECT {columns} FROM (SELECT *, row_number() OVER () AS "row\\n" FROM source)'
            table = fetch_columns(connection, f'{sql} WHERE "row\\n" % {max(1, step)} = 0')
        except (duckdb.Error, SourceError, ValueError) as error:
            reason = duckdb_reason(error) if isinstance(error, duckdb.Error) else str(error)
            raise AdoptionError(f"the sample {path.name} cannot be read: {reason}") from error
    if not count:
        raise AdoptionError(f"the sample {path.name} has no rows; give a file with rows")
    return {name: _plain(column) for name, column in table.items()}


def _column_sql(name: str, kind: str) -> str:
    """Return a column as DOUBLE, BOOLEAN or VARCHAR."""
    target = "BOOLEAN" if kind == "BOOLEAN" else "DOUBLE" if is_number(kind) else "VARCHAR"
    return f"CAST({identifier(name)} AS {target}) AS {identifier(name)}"


def _plain(column: NDArray[Any]) -> NDArray[Any]:
    """Return NaN for a missing number and None for a missing text or truth value."""
    hidden, values = np.ma.getmaskarray(column), np.ma.getdata(column)
    if values.dtype.kind == "f":
        return np.where(hidden, np.nan, values)
    if not hidden.any() and values.dtype.kind == "b":
        return np.asarray(values)
    texts = values.astype(object)
    texts[hidden] = None
    return texts


def sample_columns(
    table: Table, columns: Sequence[ForeignColumn], answers: Answers
) -> dict[str, NDArray[Any]]:
    """Return the values of each column of the model, by the column's name.

    A column is found in *table* by its own name, or by that of the feature that it comes from, case
    and punctuation aside. As many columns as the model has are taken by their order if no name
    fits. A constant needs no column. Raises AdoptionError for a column that is not there.
    """
    # Each column by its name, or by that of its feature.
    rows = len(next(iter(table.values())))
    known = {folded_name(name): name for name in reversed(list(table))}
    found: dict[str, NDArray[Any]] = {}
    absent = []
    for column in columns:
        source = answers.inputs[column.name]
        if not isinstance(source, str):
            found[column.name] = np.full(rows, source["constant"], dtype=object)
            continue
        names = (column.name, source.rpartition(":")[2], source)
        match = next((known[key] for key in map(folded_name, names) if key in known), None)
        if match is None:
            absent.append(column.name)
        else:
            found[column.name] = table[match]
    # Without one equal name the order is what both have in common.
    if len(absent) == len(columns) == len(table):
        found = {item.name: table[name] for item, name in zip(columns, table, strict=True)}
        absent = []
    if absent:
        raise AdoptionError(
            f"the sample has no column for {absent[:NAMES_SHOWN]} of the model; it has "
            f"{list(table)[:NAMES_SHOWN]}... Name its columns as the model does"
        )
    return {item.name: _as_kind(item, found[item.name]) for item in columns}


def _as_kind(column: ForeignColumn, values: NDArray[Any]) -> NDArray[Any]:
    """Return *values* as texts or as float64. AdoptionError for values of another kind."""
    if column.kind == "text":
        texts = [None if _is_missing(value) else _word(value) for value in values.tolist()]
        return np.array(texts, dtype=object)
    try:
        return np.array(
            [np.nan if _is_missing(value) else float(value) for value in values.tolist()]
        )
    except (TypeError, ValueError) as error:
        raise AdoptionError(
            f"column {column.name!r} of the model takes numbers, and the sample has something "
            f"else there: {error}"
        ) from error


def _is_missing(value: object) -> bool:
    return value is None or value != value


def _word(value: object) -> str:
    """Return a value as a model knows it: a whole number without its point."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def distinct_texts(values: NDArray[Any]) -> tuple[str, ...]:
    """Return the distinct texts of a sample's column, sorted."""
    return tuple(sorted({value for value in values.tolist() if value is not None}))


def made_sample(
    graph: bytes, columns: Sequence[ForeignColumn], answers: Answers
) -> dict[str, NDArray[Any]]:
    """Return MADE_ROWS made-up rows: values near the thresholds of trees, and known words.

    A number without a threshold is drawn from a normal distribution. The same graph always gives
    the same rows.
    """
    model = onnx.load_model_from_string(graph)
    splits = find_columns(model, input_widths(model)).splits
    rng = np.random.default_rng(0)
    made: dict[str, NDArray[Any]] = {}
    for column in columns:
        source = answers.inputs[column.name]
        thresholds = splits.get((column.foreign_input, column.column), np.empty(0))
        if not isinstance(source, str):
            made[column.name] = _as_kind(column, np.full(MADE_ROWS, source["constant"], object))
        elif column.kind == "text":
            words = column.known_texts or (answers.missing.get(column.name, ""),)
            drawn = rng.integers(0, len(words), MADE_ROWS)
            made[column.name] = np.array([words[index] for index in drawn], dtype=object)
        else:
            made[column.name] = _made_numbers(column, thresholds, rng)
    return made


def _made_numbers(
    column: ForeignColumn, thresholds: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float64]:
    if column.kind == "boolean":
        return rng.integers(0, 2, MADE_ROWS).astype(np.float64)
    if not len(thresholds):
        drawn = rng.normal(size=MADE_ROWS)
        return np.asarray(np.round(3 * drawn) if column.kind == "integer" else drawn)
    # Half the values are at a threshold or next to it, the others lie between two of them.
    dtype = np.dtype(np.int64 if column.kind == "integer" else np.float32)
    near = np.concatenate([neighbours(value, dtype) for value in thresholds]).astype(np.float64)
    low, high = near.min(), near.max()
    margin = max(1.0, 0.1 * (high - low))
    between = rng.uniform(low - margin, high + margin, MADE_ROWS)
    chosen = np.where(rng.random(MADE_ROWS) < 0.5, rng.choice(near, MADE_ROWS), between)
    return np.asarray(np.round(chosen) if column.kind == "integer" else chosen)
