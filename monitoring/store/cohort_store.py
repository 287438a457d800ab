"""What looks at outcomes read: the outcome columns of cells, and the reported outcomes themselves.

Cells say how many; the rows say of which prediction. A look that joins outcomes with decisions, as
uplift and fairness do, needs the rows.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, or_, select

from host.clock import DAY_MS
from monitoring.cells.cell import CellCounts, CellKey
from monitoring.store.cell_rows import StoredCell
from monitoring.store.database import MonitoringDatabase
from monitoring.store.tables import cells, outcomes
from monitoring.store.window_counts import read_coverage
from protos import monitoring_pb2 as pb

HOURS_A_DAY = 24


@dataclass(frozen=True, slots=True)
class ReportedOutcome:
    """The value that stands for one row of one prediction."""

    id_digest: bytes
    """16 bytes that name the prediction id."""
    row: int
    name: str
    version: str
    role: int
    holdout: bool
    predicted_unix_ms: int
    score: float | None
    """The row's first output, from the prediction id; None: the id has none for this row."""
    value: float
    received_unix_ms: int
    key_hash: int
    """The sticky key of the call, hashed with the salt of its split."""


class CohortStore:
    """Reads what was reported of the predictions of whole days (UTC)."""

    def __init__(self, database: MonitoringDatabase) -> None:
        self._database = database

    def day_cells(
        self, model: str, version: str, first_day: int, last_day: int, prefixes: Sequence[str]
    ) -> list[StoredCell]:
        """Return the cells of all rows of predictions of [first_day, last_day], oldest first.

        first_day, last_day  Unix days.
        version   its label; empty: cells of reports that belong to no version.
        prefixes  beginnings of the names of the columns that are read; all others are left out.

        A cell that was rolled up to a week is there with the week's first day.
        """
        # The cells of these days, in whatever grain they are.
        query = (
            select(cells)
            .where(cells.c.model == model, cells.c.version == version, cells.c.segment == "")
            .where(cells.c.start_hour >= first_day * HOURS_A_DAY)
            .where(cells.c.start_hour < (last_day + 1) * HOURS_A_DAY)
            .order_by(cells.c.start_hour)
        )
        with self._database.read_transaction() as connection:
            rows = connection.execute(query).all()
        # Most columns of a cell are bins of features, which are not read.
        return [
            StoredCell(
                row.grain,
                CellKey(
                    row.model,
                    row.version,
                    int(row.digest8, 16),
                    row.role,
                    row.holdout,
                    row.segment,
                    row.start_hour,
                ),
                _columns(row.columns, tuple(prefixes)),
            )
            for row in rows
        ]

    def counted_share(
        self, model: str, version: str, first_day: int, last_day: int
    ) -> float | None:
        """Return which share of the scored rows of these days cells have; None: it is not known."""
        hours = first_day * HOURS_A_DAY, (last_day + 1) * HOURS_A_DAY
        with self._database.read_transaction() as connection:
            for item in read_coverage(connection, *hours):
                if (item.model, item.version) == (model, version):
                    return item.share
        return None

    def reported(
        self,
        model: str,
        first_day: int,
        last_day: int,
        names: Iterable[str],
        *,
        version: str | None = None,
    ) -> list[ReportedOutcome]:
        """Return the outcomes of predictions of [first_day, last_day], in order of prediction.

        names    of the outcomes. version  of the predictions; None: all versions of the model.
        """
        # What was asked for.
        where: list[ColumnElement[bool]] = [
            outcomes.c.predicted_unix_ms >= first_day * DAY_MS,
            outcomes.c.predicted_unix_ms < (last_day + 1) * DAY_MS,
            outcomes.c.model == model,
            or_(*(outcomes.c.name == name for name in names)),
        ]
        if version is not None:
            where.append(outcomes.c.version == version)
        # In an order that does not change.
        order = outcomes.c.predicted_unix_ms, outcomes.c.id_digest, outcomes.c.row
        with self._database.read_transaction() as connection:
            rows = connection.execute(select(outcomes).where(*where).order_by(*order)).all()
        return [
            ReportedOutcome(
                bytes(row.id_digest),
                row.row,
                row.name,
                row.version,
                row.role,
                row.holdout,
                row.predicted_unix_ms,
                row.score,
                row.value,
                row.received_unix_ms,
                int(row.key_hash, 16),
            )
            for row in rows
        ]


def _columns(content: bytes, prefixes: tuple[str, ...]) -> CellCounts:
    """Return the counts of the columns whose names begin with one of *prefixes*."""
    message = pb.CellColumns.FromString(content)
    return CellCounts.from_columns(
        column for column in message.columns if column.name.startswith(prefixes)
    )
