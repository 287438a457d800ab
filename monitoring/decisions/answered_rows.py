"""Finds the kept rows of entities, with what a model answered, in files and in blocks."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sqlalchemy import select

from host.clock import NS_PER_MS
from monitoring.cells.decision_rows import ID_BYTES, unpack_decisions
from monitoring.decisions.parquet import SHADOW_ROLE, using_files
from monitoring.store.database import MonitoringDatabase
from monitoring.store.tables import decision_blocks, decision_files
from monitoring.store.waiting_outcomes import KEY_SEPARATOR
from protos import monitoring_pb2 as pb


@dataclass(frozen=True, slots=True, kw_only=True)
class AnsweredRow:
    """One kept row with the answer that a caller got. Rows of shadows are left out."""

    keys: tuple[str, ...]
    """Its entity ids."""
    prediction_id: bytes
    row: int
    version: str
    role: int
    holdout: bool
    at_ms: int
    key_hash: int
    score: float
    """The first output."""


class AnsweredRows:
    """The rows in the decisions of one folder.

    folder  of the files, as DecisionStore has it.
    """

    def __init__(self, folder: Path, database: MonitoringDatabase) -> None:
        self._folder = folder
        self._database = database

    def of_entities(
        self, model: str, keys: Collection[tuple[str, ...]], first_day: int, last_day: int
    ) -> list[AnsweredRow]:
        """Return the rows of these entity ids in [first_day, last_day], Unix days, in no order.

        A row that moves from a block to a file during the search may be missing. Raises
        UnreadableDecisionsError.
        """
        joined = {KEY_SEPARATOR.join(ids) for ids in keys}
        return [
            *self._in_files(model, joined, first_day, last_day),
            *self._in_blocks(model, joined, first_day, last_day),
        ]

    def _in_files(
        self, model: str, joined: Collection[str], first_day: int, last_day: int
    ) -> Iterator[AnsweredRow]:
        # The files of these days.
        with self._database.read_transaction() as connection:
            found = connection.execute(
                select(decision_files.c.name).where(
                    decision_files.c.model == model,
                    decision_files.c.day.between(first_day, last_day),
                )
            ).scalars()
            paths = [str(self._folder / name) for name in found]
        if not paths:
            return
        # Their rows of these keys.
        with using_files():
            import duckdb

            with duckdb.connect() as connection:
                connection.execute("SET threads = 1")
                rows = connection.execute(
                    "SELECT array_to_string(entity_ids, $1) AS keys, prediction_id, row, version, "
                    "role, holdout, at_unix_ns, key_hash, scores[1] FROM read_parquet($2) "
                    "WHERE role != $3 AND keys IN (SELECT unnest($4::VARCHAR[]))",
                    [KEY_SEPARATOR, paths, SHADOW_ROLE, sorted(joined)],
                ).fetchall()
        for texts, prediction_id, row, version, role, holdout, at_ns, key_hash, score in rows:
            yield AnsweredRow(
                keys=tuple(texts.split(KEY_SEPARATOR)),
                prediction_id=bytes(prediction_id),
                row=row,
                version=version,
                role=role,
                holdout=holdout,
                at_ms=at_ns // NS_PER_MS,
                key_hash=key_hash,
                score=score,
            )

    def _in_blocks(
        self, model: str, joined: Collection[str], first_day: int, last_day: int
    ) -> Iterator[AnsweredRow]:
        with self._database.read_transaction() as connection:
            blocks = connection.execute(
                select(decision_blocks.c.block).where(
                    decision_blocks.c.model == model,
                    decision_blocks.c.day.between(first_day, last_day),
                )
            ).scalars()
            for content in blocks:
                yield from _in_block(pb.DecisionBlock.FromString(content), joined)


def _in_block(block: pb.DecisionBlock, joined: Collection[str]) -> Iterator[AnsweredRow]:
    columns = unpack_decisions(block)
    ids = columns.prediction_id.tobytes()
    for row in np.flatnonzero(columns.role != SHADOW_ROLE).tolist():
        keys = columns.entity_ids[block.entities * row : block.entities * (row + 1)]
        if KEY_SEPARATOR.join(keys) in joined:
            yield AnsweredRow(
                keys=keys,
                prediction_id=ids[ID_BYTES * row : ID_BYTES * (row + 1)],
                row=int(columns.row[row]),
                version=block.version,
                role=int(columns.role[row]),
                holdout=bool(columns.holdout[row]),
                at_ms=int(columns.at_unix_ns[row]) // NS_PER_MS,
                key_hash=int(columns.key_hash[row]),
                score=float(columns.scores[row, 0]),
            )
