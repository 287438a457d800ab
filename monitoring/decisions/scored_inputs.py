"""Finds the inputs of scored rows by their prediction ids, many at once."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from monitoring.cells.decision_rows import ID_BYTES, unpack_decisions
from monitoring.decisions.parquet import SHADOW_ROLE, using_files
from monitoring.decisions.person_rows import connection_with, rows_in_block
from monitoring.store.database import MonitoringDatabase
from monitoring.store.tables import decision_blocks, decision_files
from protos import monitoring_pb2 as pb

BLOCK_ROWS_MAX = 200_000
"""Rows that are in no file yet and that are searched, the newest first."""

ScoredInputs = Mapping[tuple[bytes, int], NDArray[np.float32]]
"""Prediction id and number of the row -> the (F,) inputs of the version that answered."""


class ScoredRows:
    """The rows in the decisions of one folder.

    folder  of the files, as DecisionStore has it.
    """

    def __init__(self, folder: Path, database: MonitoringDatabase) -> None:
        self._folder = folder
        self._database = database

    def find(
        self,
        model: str,
        days: Collection[int],
        ids: Collection[bytes],
        pushed: Iterable[pb.DecisionBlock] = (),
    ) -> ScoredInputs:
        """Return the inputs of those rows that are kept.

        days    Unix days of the predictions.
        pushed  blocks that are not stored yet.

        Raises UnreadableDecisionsError.
        """
        found: dict[tuple[bytes, int], NDArray[np.float32]] = {}
        # In files.
        with self._database.read_transaction() as connection:
            names = connection.execute(
                select(decision_files.c.name).where(
                    decision_files.c.model == model, decision_files.c.day.in_(days)
                )
            ).scalars()
            paths = [str(self._folder / name) for name in names]
        if paths:
            with using_files(), connection_with(ids) as files:
                rows = files.execute(
                    "SELECT prediction_id, row, vector FROM read_parquet($1) SEMI JOIN gone "
                    "USING (id_hash, prediction_id) WHERE role != $2",
                    [paths, SHADOW_ROLE],
                ).fetchall()
            found = {(item, row): np.array(vector, np.float32) for item, row, vector in rows}
        # In blocks.
        for block in (*pushed, *self._waiting(model, days)):
            if block.model == model:
                found |= _in_block(block, ids)
        return found

    def _waiting(self, model: str, days: Collection[int]) -> Iterable[pb.DecisionBlock]:
        where = (decision_blocks.c.model == model, decision_blocks.c.day.in_(days))
        rows = 0
        with self._database.read_transaction() as connection:
            for row in connection.execute(
                select(decision_blocks).where(*where).order_by(decision_blocks.c.id.desc())
            ):
                rows += row.rows
                if rows > BLOCK_ROWS_MAX:
                    return
                yield pb.DecisionBlock.FromString(row.block)


def _in_block(block: pb.DecisionBlock, ids: Collection[bytes]) -> ScoredInputs:
    kept = rows_in_block(block, ids)
    if not kept.any():
        return {}
    columns = unpack_decisions(block)
    joined = columns.prediction_id.tobytes()
    return {
        (joined[ID_BYTES * row : ID_BYTES * row + ID_BYTES], int(columns.row[row])): (
            columns.vectors[row]
        )
        for row in np.flatnonzero(kept & (columns.role != SHADOW_ROLE)).tolist()
    }
