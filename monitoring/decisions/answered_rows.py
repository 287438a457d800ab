"""Finds the kept rows that outcomes are about, with what a model answered, in files and blocks."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from host.clock import NS_PER_MS
from journal.prediction_id import hash_model_name
from monitoring.cells.decision_rows import ID_BYTES, unpack_decisions
from monitoring.cells.outcome_columns import id_digest
from monitoring.cells.outside_rows import MARK_BYTES
from monitoring.decisions.parquet import SHADOW_ROLE, using_files
from monitoring.store.database import MonitoringDatabase
from monitoring.store.tables import decision_blocks, decision_files
from monitoring.store.waiting_outcomes import KEY_SEPARATOR
from protos import monitoring_pb2 as pb
from stats.accuracy.attribution import attribute_outcomes

ALL_DAYS = (0, 10**6)
"""First and last Unix day of a search that no outcome bounds."""


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

    def outcome_event(self, report: pb.OutcomeEvent, digest8: int) -> pb.OutcomeEvent:
        """Return a report without an id as if the id of this row's prediction had been reported.

        report   its model, name, value and times.
        digest8  the first 8 bytes of the id of the row's version.
        """
        event = pb.OutcomeEvent(
            id_digest=id_digest(self.prediction_id),
            model_hash=hash_model_name(report.model),
            version_digest=digest8,
            role=self.role,
            holdout=self.holdout,
            predicted_unix_ms=self.at_ms,
            key_hash=self.key_hash,
            row=self.row,
            name=report.name,
            value=report.value,
            event_unix_ms=report.event_unix_ms,
            received_unix_ms=report.received_unix_ms,
            prediction_id=self.prediction_id,
        )
        # Like a prediction id, an event has the score of the first row only.
        if self.row == 0:
            event.score = self.score
        return event


@dataclass(frozen=True, slots=True)
class _Search:
    """Which rows are looked for: those of which one text is among *texts*."""

    texts: Collection[str]
    in_files: str
    """The text of a row as an expression of DuckDB."""
    in_blocks: Callable[[tuple[str, ...], bytes], str]
    """Returns the text of a row with these entity ids and this prediction id."""


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
        search = _Search(
            {KEY_SEPARATOR.join(ids) for ids in keys},
            f"array_to_string(entity_ids, chr({ord(KEY_SEPARATOR)}))",
            lambda ids, _: KEY_SEPARATOR.join(ids),
        )
        return list(self._find(model, search, first_day, last_day))

    def of_marks(self, model: str, marks: Collection[bytes]) -> list[AnsweredRow]:
        """Return the rows whose prediction id begins with one of these marks, as `of_entities`.

        marks  of MARK_BYTES bytes each, as the scores of models elsewhere have them.
        """
        search = _Search(
            {mark.hex().upper() for mark in marks},
            f"left(hex(prediction_id), {2 * MARK_BYTES})",
            lambda _, prediction_id: prediction_id[:MARK_BYTES].hex().upper(),
        )
        return list(self._find(model, search, *ALL_DAYS))

    def _find(
        self, model: str, search: _Search, first_day: int, last_day: int
    ) -> Iterator[AnsweredRow]:
        yield from self._in_files(model, search, first_day, last_day)
        yield from self._in_blocks(model, search, first_day, last_day)

    def _in_files(
        self, model: str, search: _Search, first_day: int, last_day: int
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
        # Their rows that are looked for.
        with using_files():
            import duckdb

            with duckdb.connect() as connection:
                connection.execute("SET threads = 1")
                rows = connection.execute(
                    "SELECT entity_ids, prediction_id, row, version, role, holdout, at_unix_ns, "
                    "key_hash, scores[1] FROM read_parquet($1) WHERE role != $2 "
                    f"AND {search.in_files} IN (SELECT unnest($3::VARCHAR[]))",
                    [paths, SHADOW_ROLE, sorted(search.texts)],
                ).fetchall()
        for ids, prediction_id, row, version, role, holdout, at_ns, key_hash, score in rows:
            yield AnsweredRow(
                keys=tuple(ids),
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
        self, model: str, search: _Search, first_day: int, last_day: int
    ) -> Iterator[AnsweredRow]:
        with self._database.read_transaction() as connection:
            blocks = connection.execute(
                select(decision_blocks.c.block).where(
                    decision_blocks.c.model == model,
                    decision_blocks.c.day.between(first_day, last_day),
                )
            ).scalars()
            for content in blocks:
                yield from _in_block(pb.DecisionBlock.FromString(content), search)


def choose_answers(
    answers: Sequence[AnsweredRow],
    keys: Sequence[tuple[str, ...]],
    happened_ms: NDArray[np.int64],
    *,
    window_ms: int,
    rule: str = "last",
) -> list[AnsweredRow | None]:
    """Return the answer that each of N outcomes belongs to; None: there is none.

    answers      of these entities, in any order.
    keys         N entity ids, each as AnsweredRow has them.
    happened_ms  (N,) Unix ms.
    window_ms, rule  as for `attribute_outcomes`.
    """
    entities = {ids: number for number, ids in enumerate(dict.fromkeys(keys))}
    chosen = attribute_outcomes(
        np.array([entities[answer.keys] for answer in answers], dtype=np.int64),
        np.array([answer.at_ms for answer in answers], dtype=np.int64),
        np.array([entities[ids] for ids in keys], dtype=np.int64),
        happened_ms,
        window_ms=window_ms,
        rule=rule,
    )
    return [answers[position] if position >= 0 else None for position in chosen.tolist()]


def _in_block(block: pb.DecisionBlock, search: _Search) -> Iterator[AnsweredRow]:
    columns = unpack_decisions(block)
    ids = columns.prediction_id.tobytes()
    for row in np.flatnonzero(columns.role != SHADOW_ROLE).tolist():
        keys = columns.entity_ids[block.entities * row : block.entities * (row + 1)]
        prediction_id = ids[ID_BYTES * row : ID_BYTES * (row + 1)]
        if search.in_blocks(keys, prediction_id) in search.texts:
            yield AnsweredRow(
                keys=keys,
                prediction_id=prediction_id,
                row=int(columns.row[row]),
                version=block.version,
                role=int(columns.role[row]),
                holdout=bool(columns.holdout[row]),
                at_ms=int(columns.at_unix_ns[row]) // NS_PER_MS,
                key_hash=int(columns.key_hash[row]),
                score=float(columns.scores[row, 0]),
            )
