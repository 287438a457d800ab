"""Reads figures, alarms, looks and cells page by page.

A page goes on behind the last key of the page before, so rows that are added meanwhile neither
repeat nor hide others. The key travels as a token, which the caller sends back as it came.
"""

import base64
import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, ColumnElement, Select, Table, and_, func, literal, select, tuple_

from host.clock import DAY_S
from monitoring.cells.cell import ROW_FLAGS
from monitoring.errors import BadPageError
from monitoring.jobs.grouping import MonitoringAlarm
from monitoring.store.database import MonitoringDatabase
from monitoring.store.look_store import AcceptedReference, StoredAlarm, StoredFigure
from monitoring.store.tables import (
    GRAIN_HOURS,
    accepted_references,
    alarms,
    cells,
    figures,
    looks,
)
from protos.monitoring_pb2 import CellColumns
from protos.predict_pb2 import RowFlag
from stats.figure import Figure

FIVE_MINUTES_S = 300
FIVE_MINUTES_FROM = 1_000_000
"""Positions of looks at days are Unix days, which are below it. A look every five minutes has the
number of its instant in five minutes since 1970, which is above it."""
INT_MAX = 2**63 - 1
ROWS_AT_ONCE = 100
"""Rows that are in memory at once. A figure with a curve may have a megabyte."""

FIGURE_KEY = ("last_day", "model", "version", "kind", "segment", "name", "days")
ALARM_KEY = ("at_unix_s", "id")
LOOK_KEY = ("model", "version", "name")
KNOWN_FLAGS = frozenset(RowFlag.values())
CELL_KEY = tuple(column.name for column in cells.primary_key.columns)


@dataclass(frozen=True, slots=True)
class LookRow:
    """How far a look of a version is, and what it cannot watch."""

    model: str
    version: str
    name: str
    position: int
    state: Mapping[str, Any]

    @property
    def until_unix_s(self) -> int:
        """The end of the newest period that was looked at; 0: none was."""
        if self.position >= FIVE_MINUTES_FROM:
            return self.position * FIVE_MINUTES_S
        return (self.position + 1) * DAY_S

    @property
    def unwatched(self) -> dict[str, str]:
        """Stream without a detector -> why. Looks keep it in their state as `unwatched`."""
        found = self.state.get("unwatched")
        if not isinstance(found, Mapping):
            return {}
        return {str(stream): str(reason) for stream, reason in found.items()}


@dataclass(frozen=True, slots=True)
class CellRow:
    """The totals of one cell."""

    model: str
    version: str
    role: int
    holdout: bool
    segment: str
    hour: int
    """Unix hour at which it begins."""
    hours: int
    calls: int
    rows: int
    row_flags: Mapping[str, int]
    """Flag in lower case -> rows with it; flags without rows are left out."""


class PageStore:
    """Reads lists of one database in pages of at most *limit* items, with the key of each item."""

    def __init__(self, database: MonitoringDatabase) -> None:
        self._database = database

    def figures(
        self,
        since_day: int,
        until_day: int,
        *,
        model: str = "",
        kind: str = "",
        name: str = "",
        version: str = "",
        newest: bool = False,
        without: Sequence[str] = (),
        token: str = "",
        limit: int = 500,
    ) -> Generator[tuple[StoredFigure, str]]:
        """Yield figures of periods that end in [since_day, until_day), each with its token.

        newest   only the newest of each name and length. With model, version and kind its rows are
                 found by the primary key.
        without  kinds that are left out.

        Raises BadPageError and MonitoringStoreError.
        """
        chosen = [figures.c.last_day >= since_day, figures.c.last_day < until_day]
        chosen += _equal(figures, model=model, version=version, kind=kind, name=name)
        if without:
            chosen.append(figures.c.kind.not_in(list(without)))
        query = _newest(chosen) if newest else select(figures).where(*chosen)
        for row in self._rows(query, figures, FIGURE_KEY, token, limit):
            yield _figure(row), page_token(row[name] for name in FIGURE_KEY)

    def newest_figures(self, since_day: int, kinds: Sequence[str]) -> list[StoredFigure]:
        """Return the newest figure of each name, of periods that end on *since_day* or later."""
        chosen = [figures.c.last_day >= since_day, figures.c.kind.in_(list(kinds))]
        with self._database.read_transaction() as connection:
            return [_figure(row) for row in connection.execute(_newest(chosen)).mappings()]

    def alarms(
        self, since_unix_s: int, until_unix_s: int, *, model: str = "", token: str = "", limit: int
    ) -> Generator[tuple[StoredAlarm, str]]:
        """Yield the alarms that were raised in [since_unix_s, until_unix_s), oldest first."""
        chosen = [alarms.c.at_unix_s >= since_unix_s, alarms.c.at_unix_s < until_unix_s]
        chosen += _equal(alarms, model=model)
        for row in self._rows(select(alarms).where(*chosen), alarms, ALARM_KEY, token, limit):
            yield _alarm(row), page_token(row[name] for name in ALARM_KEY)

    def alarm_counts(self) -> dict[tuple[str, str], int]:
        """Return (model, kind) -> all alarms that were ever raised."""
        columns = alarms.c.model, alarms.c.kind
        query = select(*columns, func.count()).group_by(*columns)
        with self._database.read_transaction() as connection:
            return {(model, kind): count for model, kind, count in connection.execute(query)}

    def looks(
        self, *, model: str = "", token: str = "", limit: int
    ) -> Generator[tuple[LookRow, str]]:
        """Yield how far each look is, by model, version and name."""
        query = select(looks).where(*_equal(looks, model=model))
        for row in self._rows(query, looks, LOOK_KEY, token, limit):
            found = LookRow(**{**row, "state": json.loads(row["state"])})
            yield found, page_token(row[name] for name in LOOK_KEY)

    def references(self, *, model: str = "") -> list[AcceptedReference]:
        """Return the reference of each version that a person accepted."""
        query = select(accepted_references).where(*_equal(accepted_references, model=model))
        with self._database.read_transaction() as connection:
            return [AcceptedReference(**row) for row in connection.execute(query).mappings()]

    def cells(
        self, since_hour: int, until_hour: int, *, model: str = "", token: str = "", limit: int
    ) -> Generator[tuple[CellRow, str]]:
        """Yield the totals of cells that begin in [since_hour, until_hour), finest grain last."""
        chosen = [cells.c.start_hour >= since_hour, cells.c.start_hour < until_hour]
        chosen += _equal(cells, model=model)
        for row in self._rows(select(cells).where(*chosen), cells, CELL_KEY, token, limit):
            yield _cell(row), page_token(row[name] for name in CELL_KEY)

    def _rows(
        self, query: Select[Any], table: Table, key: Sequence[str], token: str, limit: int
    ) -> Iterator[Mapping[str, Any]]:
        """Yield the rows as they are read: a page may end long before its limit."""
        columns = [table.c[name] for name in key]
        if token:
            query = query.where(tuple_(*columns) > _last_key(token, columns))
        with self._database.read_transaction() as connection:
            streaming = connection.execution_options(yield_per=ROWS_AT_ONCE)
            for row in streaming.execute(query.order_by(*columns).limit(limit)).mappings():
                yield dict(row)


def page_token(key: Iterator[Any]) -> str:
    """Return the token of a page that begins behind the row with this key.

    >>> page_token(iter([20787, "churn"]))
    'WzIwNzg3LCJjaHVybiJd'
    """
    text = json.dumps(list(key), ensure_ascii=False, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode()


def _last_key(token: str, columns: Sequence[Column[Any]]) -> ColumnElement[Any]:
    """Return the key in a token as an SQL expression. Raises BadPageError."""
    try:
        values = json.loads(base64.b64decode(token, altchars=b"-_", validate=True))
        kinds = [column.type.python_type for column in columns]
        right = (
            isinstance(values, list)
            and [type(value) for value in values] == kinds
            and all(abs(value) <= INT_MAX for value in values if isinstance(value, int))
            and all("\0" not in value for value in values if isinstance(value, str))
        )
    except (ValueError, RecursionError):
        right = False
    if not right:
        raise BadPageError(
            "the page token is none of this list; send next_page_token of the page before as it "
            "came, or none for the first page"
        )
    pairs = zip(values, columns, strict=True)
    return tuple_(*(literal(value, column.type) for value, column in pairs))


def _equal(table: Table, **values: str) -> list[ColumnElement[bool]]:
    return [table.c[name] == value for name, value in values.items() if value]


def _newest(chosen: Sequence[ColumnElement[bool]]) -> Select[Any]:
    """Return the query for the newest figure of each name and length among those chosen."""
    names = [name for name in FIGURE_KEY if name != "last_day"]
    columns = [figures.c[name] for name in names]
    newest = (
        select(*columns, func.max(figures.c.last_day).label("last_day"))
        .where(*chosen)
        .group_by(*columns)
        .subquery()
    )
    equal = and_(*(figures.c[name] == newest.c[name] for name in FIGURE_KEY))
    return select(figures).join(newest, onclause=equal)


def _figure(row: Mapping[Any, Any]) -> StoredFigure:
    names = ("model", "version", "kind", "segment", "name", "last_day", "days")
    return StoredFigure(
        **{name: row[name] for name in names},
        figure=Figure(row["value"], row["low"], row["high"], row["n"], row["lacking"]),
        details=json.loads(row["details"]),
    )


def _alarm(row: Mapping[str, Any]) -> StoredAlarm:
    names = ("model", "version", "kind", "stream", "view", "host", "shadow")
    alarm = MonitoringAlarm(
        **{name: row[name] for name in names}, at=row["at_unix_s"], since=row["since_unix_s"]
    )
    return StoredAlarm(row["id"], alarm, json.loads(row["details"]), row["incident_id"])


def _cell(row: Mapping[str, Any]) -> CellRow:
    names = ("model", "version", "role", "holdout", "segment", "calls", "rows")
    # Only one of the columns is read: making vectors of all would take ten times as long.
    columns = CellColumns.FromString(row["columns"]).columns
    flags = {
        RowFlag.Name(1 << bit).lower(): count
        for column in columns
        if column.name == ROW_FLAGS
        for bit, count in zip(column.index, column.count, strict=True)
        if 1 << bit in KNOWN_FLAGS
    }
    return CellRow(
        **{name: row[name] for name in names},
        hour=row["start_hour"],
        hours=GRAIN_HOURS[row["grain"]],
        row_flags=flags,
    )
