"""Incidents and their notes in the database. Each change is an entry of the history.

The entry of an opening has every column, and that of a change the columns that it changed.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update

from protos import registry_pb2 as pb
from registry.storage import tables
from registry.storage.ledger import LedgerChange, read_head
from registry.types import NotFoundError
from registry.watching.incidents import INCIDENT_ID

INCIDENTS_PER_READ = 500
NOTES_MAX = 1_000
"""Notes in a reply, the newest ones."""


def find_open(connection: Connection, model: str, cause: str) -> pb.Incident | None:
    """Return the incident of a model with a cause that is not closed, or None."""
    table = tables.incidents
    row = connection.execute(
        select(table).where(
            table.c.model == model, table.c.cause == cause, table.c.closed_unix_ms == 0
        )
    ).first()
    return None if row is None else incident_message(row)


def insert_incident(change: LedgerChange, fields: Mapping[str, Any], reason: str) -> pb.Incident:
    """Write a new incident with its history entry, and return it."""
    table = tables.incidents
    place = (change.connection.execute(select(func.max(table.c.place))).scalar() or 0) + 1
    row = {**fields, "place": place}
    change.connection.execute(insert(table).values(**row, sequence=_next_sequence(change)))
    change.record("open incident", _object_name(fields), before={}, after=row, reason=reason)
    return get_incident(change.connection, str(fields["id"]))


def write_columns(
    change: LedgerChange, incident: pb.Incident, columns: Mapping[str, Any], reason: str
) -> None:
    """Write what a change replaces, with its history entry."""
    row = get_incident_row(change.connection, incident.id)
    before = {name: getattr(row, name) for name in columns}
    table = tables.incidents
    change.connection.execute(
        update(table)
        .where(table.c.id == incident.id)
        .values(**columns, sequence=_next_sequence(change))
    )
    change.record(
        "change incident",
        _object_name({"model": incident.model, "id": incident.id}),
        before={"id": incident.id, **before},
        after={"id": incident.id, **columns},
        reason=reason,
    )


def add_note(change: LedgerChange, incident: pb.Incident, kind: str, text: str) -> None:
    """Write a comment, a reason or a link, with its history entry."""
    note: dict[str, Any] = {
        "incident": incident.id,
        "kind": kind,
        "text": text,
        "who": change.actor,
        "at_unix_ms": change.at_unix_ms,
    }
    change.connection.execute(insert(tables.incident_notes).values(**note))
    table = tables.incidents
    change.connection.execute(
        update(table).where(table.c.id == incident.id).values(sequence=_next_sequence(change))
    )
    change.record(
        "note incident",
        _object_name({"model": incident.model, "id": incident.id}),
        before={},
        after=note,
        reason=text,
    )


def _next_sequence(change: LedgerChange) -> int:
    """Return the number of the history entry that this change writes next."""
    return read_head(change.connection, lock=True).seq + 1


def _object_name(fields: Mapping[str, Any]) -> str:
    return f"model/{fields['model']}/incident/{fields['id']}"


def get_incident_row(connection: Connection, incident_id: str) -> Row[Any]:
    """Return the row of an incident by its id, or its first 4 or more digits. NotFoundError."""
    table = tables.incidents
    rows: list[Row[Any]] = []
    if INCIDENT_ID.fullmatch(incident_id):
        rows = list(
            connection.execute(
                select(table).where(table.c.id.startswith(incident_id, autoescape=True)).limit(2)
            )
        )
    if len(rows) != 1:
        raise NotFoundError(
            f"{'several incidents begin' if rows else 'there is no incident that begins'} with "
            f"{incident_id[:40]!r} (at least 4 digits); turnout incidents list shows the ids"
        )
    return rows[0]


def get_incident(
    connection: Connection, incident_id: str, *, with_notes: bool = False
) -> pb.Incident:
    """Return an incident. Raises NotFoundError."""
    incident = incident_message(get_incident_row(connection, incident_id))
    if with_notes:
        table = tables.incident_notes
        newest = (
            select(table)
            .where(table.c.incident == incident.id)
            .order_by(table.c.place.desc())
            .limit(NOTES_MAX)
        )
        for row in reversed(list(connection.execute(newest))):
            incident.notes.add(kind=row.kind, text=row.text, who=row.who, at_unix_ms=row.at_unix_ms)
    return incident


def list_incidents(
    connection: Connection, model: str, before: int, *, open_only: bool
) -> Iterator[tuple[int, pb.Incident]]:
    """Yield (place, incident) newest first.

    model   empty: of all models.
    before  only incidents with a smaller place; 0: from the newest.
    """
    table = tables.incidents
    statement = select(table).order_by(table.c.place.desc())
    if model:
        statement = statement.where(table.c.model == model)
    if before:
        statement = statement.where(table.c.place < before)
    if open_only:
        statement = statement.where(table.c.closed_unix_ms == 0)
    for row in connection.execute(statement):
        yield row.place, incident_message(row)


def incidents_after(connection: Connection, sequence: int) -> list[pb.Incident]:
    """Return up to INCIDENTS_PER_READ incidents that changed after a history entry, in order."""
    table = tables.incidents
    rows = connection.execute(
        select(table)
        .where(table.c.sequence > sequence)
        .order_by(table.c.sequence)
        .limit(INCIDENTS_PER_READ)
    )
    return [incident_message(row) for row in rows]


def holds_open(connection: Connection, incident: pb.Incident) -> bool:
    """Whether another open incident holds the same model and version."""
    table = tables.incidents
    other = connection.execute(
        select(table.c.id).where(
            table.c.model == incident.model,
            table.c.version == incident.version,
            table.c.act == "hold",
            table.c.closed_unix_ms == 0,
            table.c.id != incident.id,
        )
    ).first()
    return other is not None


def find_by_finding(connection: Connection, finding: int) -> pb.Incident | None:
    """Return the incident that wrote a finding at its opening, or None."""
    if not finding:
        return None
    table = tables.incidents
    row = connection.execute(select(table).where(table.c.finding == finding).limit(1)).first()
    return None if row is None else incident_message(row)


def incident_message(row: Row[Any]) -> pb.Incident:
    """Return the message of a row."""
    fields = {name: value for name, value in row._mapping.items() if name != "place"}
    fields["figures_json"] = fields.pop("figures")
    return pb.Incident(**fields)
