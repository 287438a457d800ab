"""Reads the kept rows of one model and day, version by version, in bounded memory."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from monitoring.cells.decision_rows import ID_BYTES, SAMPLE_ALL, DecisionRows, unpack_decisions
from monitoring.store.database import MonitoringDatabase
from monitoring.store.tables import decision_blocks, decision_files
from protos import monitoring_pb2 as pb

ROWS_MAX = 1_000_000
"""Rows of a day that are read; of more rows, those of a sample of keys are."""


class DayRows:
    """The decisions of a day, from blocks that wait in the database and from Parquet files.

    folder  of the files, as DecisionStore has it.
    """

    def __init__(self, folder: Path, database: MonitoringDatabase) -> None:
        self._folder = folder
        self._database = database

    def days(self, model: str) -> list[int]:
        """Return the Unix days of which rows of a model are kept."""
        with self._database.read_transaction() as connection:
            days = [
                connection.execute(
                    select(table.c.day).where(table.c.model == model).distinct()
                ).scalars()
                for table in (decision_blocks, decision_files)
            ]
            return sorted({day for found in days for day in found})

    def day_rows(
        self, model: str, day: int, rows_max: int = ROWS_MAX
    ) -> Iterator[tuple[str, DecisionRows]]:
        """Yield (version label, rows) in parts. All rows of a key are there, or none.

        Of a day with more than *rows_max* rows the keys whose hash is below a threshold are read.
        """
        with self._database.read_transaction() as connection:
            where = (decision_blocks.c.model == model, decision_blocks.c.day == day)
            waiting = connection.execute(
                select(decision_blocks.c.id, decision_blocks.c.rows).where(*where)
            ).all()
            files = connection.execute(
                select(decision_files.c.name, decision_files.c.rows).where(
                    decision_files.c.model == model, decision_files.c.day == day
                )
            ).all()
        # The keys that are read.
        total = sum(row.rows for row in waiting) + sum(row.rows for row in files)
        sampled = SAMPLE_ALL if total <= rows_max else max(1, SAMPLE_ALL * rows_max // total)
        if files:
            yield from _rows_of_files([self._folder / row.name for row in files], sampled)
        for row in waiting:
            yield from self._rows_of_block(row.id, sampled)

    def _rows_of_block(self, number: int, sampled: int) -> Iterator[tuple[str, DecisionRows]]:
        with self._database.read_transaction() as connection:
            content = connection.execute(
                select(decision_blocks.c.block).where(decision_blocks.c.id == number)
            ).scalar_one_or_none()
        # A block that became a file meanwhile is read again with the next look.
        if content is not None:
            block = pb.DecisionBlock.FromString(content)
            rows = unpack_decisions(block)
            kept = (rows.key_hash & np.uint64(SAMPLE_ALL - 1)) < np.uint64(sampled)
            yield block.version, rows.only(kept)


def _rows_of_files(paths: list[Path], sampled: int) -> Iterator[tuple[str, DecisionRows]]:
    """Yield the sampled rows of Parquet files, one part for each version."""
    import duckdb

    source = "read_parquet($1)"
    where = f"(key_hash & {SAMPLE_ALL - 1}) < {sampled}"
    names = [str(path) for path in paths]
    with duckdb.connect() as connection:
        connection.execute("SET threads = 1")
        # One version has one number of inputs and outputs.
        shapes = connection.execute(
            "SELECT version, len(vector), len(scores), len(entity_ids) "
            f"FROM {source} WHERE {where} GROUP BY ALL ORDER BY ALL",
            [names],
        ).fetchall()
        for version, width, outputs, entities in shapes:
            columns = (
                _list_columns("vector", "v", width)
                + _list_columns("scores", "s", outputs)
                + _list_columns("entity_ids", "e", entities)
            )
            found: dict[str, Any] = connection.execute(
                "SELECT prediction_id, row, at_unix_ns, role, holdout, key_hash, row_flags"
                f"{columns} FROM {source} WHERE {where} AND version = $2 "
                f"AND len(vector) = {width} AND len(scores) = {outputs}",
                [names, version],
            ).fetchnumpy()
            yield version, _decision_rows(found, width, outputs, entities)


def _list_columns(name: str, letter: str, number: int) -> str:
    """Return the entries of a list as columns v0, v1, ... of a query."""
    return "".join(f", {name}[{item + 1}] AS {letter}{item}" for item in range(number))


def _decision_rows(found: dict[str, Any], width: int, outputs: int, entities: int) -> DecisionRows:
    rows = len(found["row"])
    texts = [np.asarray(found[f"e{item}"], dtype=object) for item in range(entities)]
    ids = np.stack(texts, axis=1).ravel().tolist() if entities else []
    return DecisionRows(
        np.frombuffer(b"".join(found["prediction_id"]), f"V{ID_BYTES}"),
        np.asarray(found["row"], dtype=np.uint32),
        np.asarray(found["at_unix_ns"], dtype=np.int64),
        np.asarray(found["role"], dtype=np.uint8),
        np.asarray(found["holdout"], dtype=np.uint8),
        np.asarray(found["key_hash"], dtype=np.uint64),
        np.asarray(found["row_flags"], dtype=np.uint32),
        _matrix(found, "v", rows, width),
        _matrix(found, "s", rows, outputs),
        tuple(ids),
    )


def _matrix(found: dict[str, Any], letter: str, rows: int, number: int) -> NDArray[np.float32]:
    matrix = np.empty((rows, number), dtype=np.float32)
    for item in range(number):
        matrix[:, item] = found[f"{letter}{item}"]
    return matrix
