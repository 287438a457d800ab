"""Readers of journals in the database: their positions, and what they could not read."""

import logging
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Row, Table, and_, delete, insert, select, update

from monitoring.store.tables import damages, positions
from protos import monitoring_pb2 as pb

log = logging.getLogger(__name__)

DAMAGES_SHOWN = 10
IMPORTS = "elsewhere"
"""In the place of a gateway's name: the import of a file, which is no reader of a journal."""


def is_journal(table: Table, name: pb.JournalName) -> ColumnElement[bool]:
    """Return the condition that a row of *table* is of this journal."""
    return and_(table.c.gateway == name.gateway, table.c.journal == name.journal)


def save_positions(connection: Connection, batch: pb.CellBatch) -> None:
    """Replace the positions that a batch has; drop those of segments that are gone."""
    named = [item.segment for item in batch.positions]
    if not named:
        return
    connection.execute(
        delete(positions).where(
            is_journal(positions, batch.journal), positions.c.segment.in_(named)
        )
    )
    kept = [
        {
            "gateway": batch.journal.gateway,
            "journal": batch.journal.journal,
            "segment": item.segment,
            "offset": item.offset,
            "check": item.check,
            "complete": item.complete,
        }
        for item in batch.positions
        if not item.gone
    ]
    if kept:
        connection.execute(insert(positions), kept)


def save_damages(connection: Connection, batch: pb.CellBatch, now_ms: int) -> None:
    """Note what of a journal cannot be read. Damage that is known already stays one."""
    for damage in batch.damages:
        where = and_(
            is_journal(damages, batch.journal),
            damages.c.segment == damage.segment,
            damages.c.offset == damage.offset,
        )
        values = {"next_offset": damage.next_offset, "kind": damage.kind}
        if connection.execute(select(damages.c.kind).where(where)).first() is None:
            connection.execute(
                insert(damages).values(
                    gateway=batch.journal.gateway,
                    journal=batch.journal.journal,
                    segment=damage.segment,
                    offset=damage.offset,
                    found_unix_ms=now_ms,
                    **values,
                )
            )
        else:
            connection.execute(update(damages).where(where).values(**values))
        log.warning(
            "journal of %r: %s is %s from %d to %d; what it had is not counted",
            batch.journal.gateway,
            damage.segment,
            damage.kind,
            damage.offset,
            damage.next_offset,
        )


class FoundDamage(NamedTuple):
    """A part of a journal that cannot be read."""

    gateway: str
    segment: str
    kind: str


def damages_found(connection: Connection, since_ms: int, until_ms: int) -> list[FoundDamage]:
    """Return the damages that were found in [since_ms, until_ms), oldest first."""
    found = connection.execute(
        select(damages.c.gateway, damages.c.segment, damages.c.kind)
        .where(damages.c.found_unix_ms >= since_ms, damages.c.found_unix_ms < until_ms)
        .order_by(damages.c.found_unix_ms, damages.c.segment, damages.c.offset)
    )
    return [FoundDamage(*row) for row in found]


def reader_status(connection: Connection, row: Row[Any]) -> pb.ReaderStatus:
    """Return how far the journal of a row of `readers` was counted, with its newest damages."""
    name = pb.JournalName(gateway=row.gateway, journal=row.journal)
    found = connection.execute(
        select(damages)
        .where(is_journal(damages, name))
        .order_by(damages.c.found_unix_ms.desc(), damages.c.segment, damages.c.offset)
    ).all()
    return pb.ReaderStatus(
        journal=name,
        pushed_unix_ms=row.pushed_unix_ms,
        sequence=row.sequence,
        backlog_bytes=row.backlog_bytes,
        newest_unix_ns=row.newest_unix_ns,
        damages=len(found),
        lost_bytes=sum(item.next_offset - item.offset for item in found),
        newest_damages=[
            pb.JournalDamage(
                segment=item.segment,
                offset=item.offset,
                next_offset=item.next_offset,
                kind=item.kind,
            )
            for item in found[:DAMAGES_SHOWN]
        ],
    )
