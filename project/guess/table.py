"""A table as guesses look at it: its columns, their types, ranges and most common values."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from features.ingest.files import files_sql
from features.source import FORMATS, Source
from features.storage.database import duckdb_reason, identifier, open_duckdb
from project.errors import ProjectError

COMMON_MAX = 200
"""Values that are listed of a column."""
SAMPLE_ROWS = 50_000
"""Rows in which a leak is looked for."""

NUMBERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "FLOAT", "DOUBLE", "DECIMAL")
INSTANTS = ("TIMESTAMP", "DATE")


@dataclass(frozen=True, slots=True)
class TableColumn:
    """One column of a table."""

    name: str
    kind: str
    """Its DuckDB type."""
    missing: int
    distinct: int
    """How many different values there are, approximately above a few thousand."""
    low: str
    high: str
    median: str
    """Smallest, largest and middle value as text; empty where there is none."""

    @property
    def is_number(self) -> bool:
        """Whether it holds numbers."""
        return self.kind.removeprefix("U").startswith(NUMBERS) and not self.is_nested

    @property
    def is_instant(self) -> bool:
        """Whether it holds dates or timestamps."""
        return self.kind.startswith(INSTANTS) and not self.is_nested

    @property
    def is_nested(self) -> bool:
        """Whether it holds lists, such as BIGINT[], or arrays, such as BIGINT[3]."""
        return self.kind.endswith("]")


class Table:
    """A file, read into a table named `source` in memory."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, path: Path) -> None:
        self._connection = connection
        self.path = path
        self.columns: Mapping[str, TableColumn] = {}
        (self.rows,) = self._one("SELECT count(*) FROM source")
        described = connection.execute("SUMMARIZE source").fetchall()
        names = [str(item[0]) for item in connection.description or []]
        summaries = [dict(zip(names, row, strict=True)) for row in described]
        self.columns = {item["column_name"]: self._column(item) for item in summaries}

    def _one(self, sql: str) -> tuple[Any, ...]:
        found = self._connection.execute(sql).fetchone()
        assert found is not None
        return found

    def _column(self, summary: Mapping[str, Any]) -> TableColumn:
        name = summary["column_name"]
        # The summary's count of different values is an estimate; small ones must be exact.
        column = identifier(name)
        distinct, missing = self._one(
            f"SELECT count(DISTINCT {column}), count(*) - count({column}) FROM source"
        )
        texts = {key: summary[key] for key in ("min", "max", "q50")}
        return TableColumn(
            name,
            str(summary["column_type"]),
            int(missing),
            int(distinct),
            *("" if text is None else str(text) for text in texts.values()),
        )

    def common_values(self, column: str) -> list[tuple[str, int]]:
        """Return the most common values of a column as texts, with their rows."""
        name = identifier(column)
        found = self._connection.execute(
            f"SELECT {name}::VARCHAR, count(*) FROM source WHERE {name} IS NOT NULL "
            f"GROUP BY ALL ORDER BY 2 DESC, 1 LIMIT {COMMON_MAX}"
        ).fetchall()
        return [(str(value), int(rows)) for value, rows in found]

    def number_range(self, column: str) -> tuple[float, ...]:
        """Return the smallest, largest and middle finite number; empty when there is none."""
        number = f"{identifier(column)}::DOUBLE"
        found = self._one(
            f"SELECT min({number}), max({number}), median({number}) FROM source "
            f"WHERE isfinite({number})"
        )
        return () if found[0] is None else tuple(float(value) for value in found)

    def oldest_served_ms(self, entity: str, instant_sql: str, now_ms: int) -> int:
        """Return the age in ms of the oldest among the newest rows of each entity.

        instant_sql  gives Unix ms of a row.
        """
        newest = f"SELECT max({instant_sql}) AS newest FROM source GROUP BY {identifier(entity)}"
        (oldest,) = self._one(f"SELECT min(newest) FROM ({newest})")
        return now_ms - int(now_ms if oldest is None else oldest)

    def rows_outside(self, column: str, instant_sql: str, from_ms: int, until_ms: int) -> int:
        """Return how many rows have a value in *column* and no instant in [from_ms, until_ms)."""
        inside = f"({instant_sql}) >= {from_ms} AND ({instant_sql}) < {until_ms}"
        (rows,) = self._one(
            f"SELECT count(*) FROM source WHERE {identifier(column)} IS NOT NULL "
            f"AND NOT coalesce({inside}, false)"
        )
        return int(rows)

    def sample(self, expressions: Mapping[str, str], where: str) -> dict[str, NDArray[Any]]:
        """Return columns of at most SAMPLE_ROWS rows. The same rows are chosen each time."""
        listed = ", ".join(f"{sql} AS {identifier(name)}" for name, sql in expressions.items())
        fetched = self._connection.execute(
            f"SELECT {listed} FROM source WHERE {where} "
            f"USING SAMPLE reservoir({SAMPLE_ROWS} ROWS) REPEATABLE (7)"
        ).fetchnumpy()
        return {name: np.ma.filled(values, np.nan) for name, values in fetched.items()}


@contextmanager
def open_table(path: Path) -> Iterator[Table]:
    """Open a Parquet, CSV or JSON lines file. Raises ProjectError when it cannot be read."""
    if FORMATS.get(Path(path.name.removesuffix(".gz")).suffix.lower()) is None:
        raise ProjectError(f"{path} is no table: its name must end in {', '.join(FORMATS)}")
    with open_duckdb() as connection:
        try:
            connection.execute("SET threads = 2")
            # An ingest reads the file in the same way.
            source = Source.files(str(path), time=None)
            sql = files_sql(connection, source, [path], ())
            connection.execute(f"CREATE TEMP TABLE source AS {sql}")
            table = Table(connection, path)
            if not table.rows:
                raise ProjectError(f"{path} has no rows, so nothing can be guessed from it")
            yield table
        except duckdb.Error as error:
            raise ProjectError(f"{path} cannot be read: {duckdb_reason(error)}") from error
