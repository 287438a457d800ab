"""Reported outcomes without a prediction id, from their report until their prediction is found.

They have entity ids, so a person's removal deletes them (monitoring/api/removal.py).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from features.entity_ids import SEPARATOR
from monitoring.cells.outcome_columns import OutcomeKind, refuse_outcome
from monitoring.store.outcome_rows import IN_MAX, batched
from monitoring.store.tables import entity_outcomes
from protos import monitoring_pb2 as pb

KEY_SEPARATOR = SEPARATOR.decode()
"""Stands between the ids of one row. No entity id contains it."""
ARRIVAL_MS = 600_000
"""Time from a report to the first search. By then the readers of all gateways have usually pushed
the decisions of this minute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingOutcome:
    """A report that names a model, the entity ids of one row, and when the event was."""

    id: int
    model: str
    keys: tuple[str, ...]
    name: str
    value: float
    event_unix_ms: int
    received_unix_ms: int

    def report(self) -> pb.OutcomeEvent:
        """Return the report without its keys."""
        return pb.OutcomeEvent(
            model=self.model,
            name=self.name,
            value=self.value,
            event_unix_ms=self.event_unix_ms,
            received_unix_ms=self.received_unix_ms,
        )

    def given_up(self, now_ms: int) -> pb.OutcomeEvent:
        """Return the report as one that belongs to no prediction, of now.

        The day of its receipt was looked at before.
        """
        report = self.report()
        report.received_unix_ms = now_ms
        return report


def must_wait(event: pb.OutcomeEvent) -> bool:
    """Whether the prediction of a report has to be looked for by its keys."""
    return bool(event.keys) and refuse_outcome(event) is OutcomeKind.BY_ENTITY


def keep_waiting(connection: Connection, events: Iterable[pb.OutcomeEvent]) -> None:
    """Store reports for which `must_wait` is true."""
    rows = [
        {
            "model": event.model,
            "entity_ids": KEY_SEPARATOR.join(event.keys),
            "name": event.name,
            "value": event.value,
            "event_unix_ms": event.event_unix_ms,
            "received_unix_ms": event.received_unix_ms,
            "due_unix_ms": event.received_unix_ms + ARRIVAL_MS,
        }
        for event in events
    ]
    if rows:
        connection.execute(insert(entity_outcomes), rows)


def due_models(connection: Connection, now_ms: int, looked_at: int) -> dict[str, int]:
    """Return model -> how many of its reports have a search due, the longest due first.

    Only the *looked_at* reports that are the longest due are counted.
    """
    longest_due = (
        select(entity_outcomes.c.model, entity_outcomes.c.due_unix_ms)
        .where(entity_outcomes.c.due_unix_ms <= now_ms)
        .order_by(entity_outcomes.c.due_unix_ms, entity_outcomes.c.id)
        .limit(looked_at)
        .subquery()
    )
    found = connection.execute(
        select(longest_due.c.model, func.count().label("number"))
        .group_by(longest_due.c.model)
        .order_by(func.min(longest_due.c.due_unix_ms), longest_due.c.model)
    )
    return {row.model: row.number for row in found}


def due_outcomes(
    connection: Connection, model: str, now_ms: int, limit: int
) -> list[WaitingOutcome]:
    """Return up to *limit* reports of a model with a search due, the longest due first."""
    found = connection.execute(
        select(entity_outcomes)
        .where(entity_outcomes.c.due_unix_ms <= now_ms, entity_outcomes.c.model == model)
        .order_by(entity_outcomes.c.due_unix_ms, entity_outcomes.c.id)
        .limit(limit)
    )
    return [_waiting(row) for row in found]


@dataclass(frozen=True, slots=True)
class OutcomeBacklog:
    """The reports of one model that wait."""

    number: int
    oldest_unix_ms: int
    """When the oldest report was received."""


def outcome_backlogs(connection: Connection) -> dict[str, OutcomeBacklog]:
    """Return model -> its reports that wait, of models with such reports."""
    found = connection.execute(
        select(
            entity_outcomes.c.model,
            func.count(),
            func.min(entity_outcomes.c.received_unix_ms),
        ).group_by(entity_outcomes.c.model)
    )
    return {model: OutcomeBacklog(number, oldest) for model, number, oldest in found}


def put_off(connection: Connection, ids: Sequence[int], due_unix_ms: int) -> None:
    """Look for the predictions of these reports again at *due_unix_ms*."""
    for part in batched(ids, IN_MAX):
        where = entity_outcomes.c.id.in_(part)
        connection.execute(update(entity_outcomes).where(where).values(due_unix_ms=due_unix_ms))


def delete_waiting(connection: Connection, ids: Sequence[int]) -> None:
    """Delete reports that do not wait any more."""
    for part in batched(ids, IN_MAX):
        connection.execute(delete(entity_outcomes).where(entity_outcomes.c.id.in_(part)))


def delete_of_person(
    connection: Connection,
    positions: Mapping[str, Collection[frozenset[tuple[int, str]]]],
    *,
    dry_run: bool,
) -> int:
    """Delete the waiting reports of a person; return how many there are.

    positions  model -> for each order of its entities, the (position, id) pairs of the person.
    """
    models = sorted(positions)
    found = connection.execute(
        select(entity_outcomes.c.id, entity_outcomes.c.model, entity_outcomes.c.entity_ids).where(
            entity_outcomes.c.model.in_(models)
        )
    )
    ids = [
        row.id
        for row in found
        if any(
            pairs <= set(enumerate(row.entity_ids.split(KEY_SEPARATOR)))
            for pairs in positions[row.model]
        )
    ]
    if not dry_run:
        delete_waiting(connection, ids)
    return len(ids)


def _waiting(row: Any) -> WaitingOutcome:  # noqa: ANN401  a row of SQLAlchemy
    return WaitingOutcome(
        id=row.id,
        model=row.model,
        keys=tuple(row.entity_ids.split(KEY_SEPARATOR)),
        name=row.name,
        value=row.value,
        event_unix_ms=row.event_unix_ms,
        received_unix_ms=row.received_unix_ms,
    )
