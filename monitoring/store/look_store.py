"""What looks read and write in the database of monitoring: their state, figures and alarms.

A look at one period is stored in one transaction with the state for the next period. A process that
was killed before that looks again at the same counts, and a second process that looked at the same
period stores nothing. So each period is judged once.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, and_, bindparam, delete, insert, select, update

from features.canonical import canonical_json
from monitoring.cells.cell import CellCounts
from monitoring.jobs.grouping import MonitoringAlarm
from monitoring.store.database import MonitoringDatabase
from monitoring.store.tables import accepted_references, alarms, figures, looks, person_looks
from stats.figure import Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFigure:
    """A number about a version in a period, with its interval or the reason why there is none."""

    model: str
    version: str
    """Its label; empty: the figure is of the model."""
    kind: str
    """drift, quality, estimate, uplift, fairness or coverage."""
    name: str
    """What was measured, such as "psi usage:data_gb" or "auc churned"."""
    last_day: int
    """Unix day at which the period ends."""
    days: int
    """Length of the period: 1, 7 or more."""
    figure: Figure
    segment: str = ""
    """By the policy; empty: everybody."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """JSON values that belong to the figure, such as notes or the points of a curve."""


@dataclass(frozen=True, slots=True)
class StoredAlarm:
    """An alarm with its row number."""

    number: int
    alarm: MonitoringAlarm
    details: Mapping[str, Any]
    incident_id: str
    """Empty: no incident has it yet."""


@dataclass(frozen=True, slots=True)
class LookState:
    """How far a look of a version is."""

    position: int
    """The newest period that was looked at, such as a Unix day; -1: none."""
    state: Mapping[str, Any]


@dataclass(frozen=True, eq=False, slots=True)
class PersonLooks:
    """Counts in which each person counts once in the period, on the bins of the version."""

    last_day: int
    days: int
    persons: int
    counts: CellCounts


@dataclass(frozen=True, slots=True)
class AcceptedReference:
    """The days of production that a person accepted as the reference of a version."""

    model: str
    version: str
    finding: int
    """Number of the finding in the history that says so."""
    first_day: int
    last_day: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LookOutcome:
    """What one look at one period of a version found."""

    figures: tuple[StoredFigure, ...] = ()
    alarms: tuple[MonitoringAlarm, ...] = ()
    state: Mapping[str, Any] = field(default_factory=dict)
    """JSON values for the next look."""
    details: Mapping[MonitoringAlarm, Mapping[str, Any]] = field(default_factory=dict)
    """Alarm -> JSON values for its incident."""


class LookStore:
    """Looks, figures and alarms in one database."""

    def __init__(self, database: MonitoringDatabase) -> None:
        self._database = database

    # Looks

    def look_state(self, model: str, version: str, name: str) -> LookState:
        """Return how far a look is. A look that never ran has the position -1."""
        with self._database.read_transaction() as connection:
            return _look_state(connection, model, version, name)

    def save_look(
        self, model: str, version: str, name: str, position: int, outcome: LookOutcome
    ) -> bool:
        """Store what a look found. False: this period was stored before, and nothing changes."""
        state = canonical_json(dict(outcome.state)).decode()
        values = {"position": position, "state": state}
        with self._database.write_transaction() as connection:
            known = _look_state(connection, model, version, name).position
            if known >= position:
                return False
            if known < 0:
                key = {"model": model, "version": version, "name": name}
                connection.execute(insert(looks).values(**key, **values))
            else:
                connection.execute(
                    update(looks).where(_is_look(model, version, name)).values(**values)
                )
            _save_figures(connection, outcome.figures)
            for alarm in outcome.alarms:
                details = dict(outcome.details.get(alarm, {}))
                connection.execute(insert(alarms).values(**_alarm_values(alarm, details)))
        return True

    # Figures

    def save_figures(self, found: Iterable[StoredFigure]) -> None:
        """Store figures; each takes the place of an earlier one of its name and period."""
        with self._database.write_transaction() as connection:
            _save_figures(connection, found)

    def read_figures(
        self,
        since_day: int,
        until_day: int,
        *,
        model: str | None = None,
        kind: str | None = None,
    ) -> list[StoredFigure]:
        """Return the figures of periods that end in [since_day, until_day), oldest first."""
        # What was asked for.
        query = select(figures).where(
            figures.c.last_day >= since_day, figures.c.last_day < until_day
        )
        if model is not None:
            query = query.where(figures.c.model == model)
        if kind is not None:
            query = query.where(figures.c.kind == kind)
        # In an order that does not change.
        order = figures.c.last_day, figures.c.model, figures.c.version, figures.c.kind
        with self._database.read_transaction() as connection:
            rows = connection.execute(
                query.order_by(*order, figures.c.segment, figures.c.name, figures.c.days)
            )
            return [
                StoredFigure(
                    model=row.model,
                    version=row.version,
                    kind=row.kind,
                    segment=row.segment,
                    name=row.name,
                    last_day=row.last_day,
                    days=row.days,
                    figure=Figure(row.value, row.low, row.high, row.n, row.lacking),
                    details=json.loads(row.details),
                )
                for row in rows
            ]

    # Alarms

    def read_alarms(self, since_unix_s: int, until_unix_s: int) -> list[StoredAlarm]:
        """Return the alarms that were raised in [since_unix_s, until_unix_s), oldest first."""
        with self._database.read_transaction() as connection:
            rows = connection.execute(
                select(alarms)
                .where(alarms.c.at_unix_s >= since_unix_s, alarms.c.at_unix_s < until_unix_s)
                .order_by(alarms.c.at_unix_s, alarms.c.id)
            )
            return [_stored_alarm(row) for row in rows]

    def unreported_alarms(self) -> list[StoredAlarm]:
        """Return the alarms that no incident has, oldest first."""
        with self._database.read_transaction() as connection:
            rows = connection.execute(
                select(alarms).where(alarms.c.incident_id == "").order_by(alarms.c.id)
            )
            return [_stored_alarm(row) for row in rows]

    def note_incident(self, numbers: Sequence[int], incident_id: str) -> None:
        """Note the incident of alarms."""
        with self._database.write_transaction() as connection:
            connection.execute(
                update(alarms).where(alarms.c.id.in_(list(numbers))).values(incident_id=incident_id)
            )

    # Person-looks and references

    def save_person_looks(
        self, model: str, version: str, counted: PersonLooks, *, shadow: bool
    ) -> None:
        """Store the person-looks of a period; they take the place of earlier ones."""
        key = {
            "model": model,
            "version": version,
            "last_day": counted.last_day,
            "days": counted.days,
            "shadow": shadow,
        }
        with self._database.write_transaction() as connection:
            where = and_(*(person_looks.c[name] == value for name, value in key.items()))
            connection.execute(delete(person_looks).where(where))
            connection.execute(
                insert(person_looks).values(
                    **key, persons=counted.persons, columns=counted.counts.to_bytes()
                )
            )

    def read_person_looks(
        self, model: str, version: str, first_day: int, last_day: int, days: int, *, shadow: bool
    ) -> list[PersonLooks]:
        """Return the person-looks of periods of *days* days that end in [first_day, last_day]."""
        with self._database.read_transaction() as connection:
            rows = connection.execute(
                select(person_looks)
                .where(person_looks.c.model == model, person_looks.c.version == version)
                .where(person_looks.c.days == days, person_looks.c.shadow == shadow)
                .where(person_looks.c.last_day >= first_day, person_looks.c.last_day <= last_day)
                .order_by(person_looks.c.last_day)
            )
            return [
                PersonLooks(row.last_day, row.days, row.persons, CellCounts.from_bytes(row.columns))
                for row in rows
            ]

    def accept_reference(self, accepted: AcceptedReference) -> bool:
        """Note an accepted reference. False: a newer finding, or the same one, is noted already."""
        values = {
            "finding": accepted.finding,
            "first_day": accepted.first_day,
            "last_day": accepted.last_day,
        }
        table = accepted_references
        where = and_(table.c.model == accepted.model, table.c.version == accepted.version)
        with self._database.write_transaction() as connection:
            known = connection.execute(select(table.c.finding).where(where)).scalar_one_or_none()
            if known is not None and known >= accepted.finding:
                return False
            if known is None:
                key = {"model": accepted.model, "version": accepted.version}
                connection.execute(insert(table).values(**key, **values))
            else:
                connection.execute(update(table).where(where).values(**values))
        return True

    def accepted_references(self) -> list[AcceptedReference]:
        """Return the accepted reference of each version that has one."""
        table = accepted_references
        with self._database.read_transaction() as connection:
            return [
                AcceptedReference(row.model, row.version, row.finding, row.first_day, row.last_day)
                for row in connection.execute(select(table).order_by(table.c.model))
            ]


def _is_look(model: str, version: str, name: str) -> Any:  # noqa: ANN401  an SQL expression
    return and_(looks.c.model == model, looks.c.version == version, looks.c.name == name)


def _look_state(connection: Connection, model: str, version: str, name: str) -> LookState:
    row = connection.execute(select(looks).where(_is_look(model, version, name))).first()
    return LookState(-1, {}) if row is None else LookState(row.position, json.loads(row.state))


def _save_figures(connection: Connection, found: Iterable[StoredFigure]) -> None:
    """Write figures. Those of the same name and period are deleted first."""
    rows = [
        {
            "model": item.model,
            "version": item.version,
            "kind": item.kind,
            "segment": item.segment,
            "name": item.name,
            "last_day": item.last_day,
            "days": item.days,
            "value": item.figure.value,
            "low": item.figure.low,
            "high": item.figure.high,
            "n": item.figure.n,
            "lacking": item.figure.lacking,
            "details": canonical_json(dict(item.details)).decode(),
        }
        for item in found
    ]
    keys = [column.name for column in figures.primary_key.columns]
    if rows:
        where = and_(*(figures.c[name] == bindparam(f"old_{name}") for name in keys))
        old = [{f"old_{name}": row[name] for name in keys} for row in rows]
        connection.execute(delete(figures).where(where), old)
        connection.execute(insert(figures), rows)


def _alarm_values(alarm: MonitoringAlarm, details: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "model": alarm.model,
        "version": alarm.version,
        "kind": alarm.kind,
        "stream": alarm.stream,
        "view": alarm.view,
        "host": alarm.host,
        "shadow": alarm.shadow,
        "at_unix_s": alarm.at,
        "since_unix_s": alarm.since,
        "details": canonical_json(dict(details)).decode(),
        "incident_id": "",
    }


def _stored_alarm(row: Any) -> StoredAlarm:  # noqa: ANN401  a row of SQLAlchemy
    alarm = MonitoringAlarm(
        model=row.model,
        version=row.version,
        kind=row.kind,
        stream=row.stream,
        at=row.at_unix_s,
        since=row.since_unix_s,
        view=row.view,
        host=row.host,
        shadow=row.shadow,
    )
    return StoredAlarm(row.id, alarm, json.loads(row.details), row.incident_id)
