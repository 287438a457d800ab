"""Reported outcomes in the database: each is counted once, over all hosts and for all time kept.

A row for each outcome says what was counted, so that the same report is a duplicate and another
value takes the place of the first.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TypeVar

from sqlalchemy import Connection, and_, delete, insert, select, update

from monitoring.cells.cell import CellCounts, CellKey
from monitoring.cells.outcome_columns import (
    HOUR_MS,
    CountedOutcome,
    OutcomeKind,
    delay_counts,
    event_counts,
    outcome_counts,
    outcome_key,
    refuse_outcome,
)
from monitoring.cells.version_bins import VersionBins
from monitoring.store.cell_rows import add_to_cell, digest_text
from monitoring.store.tables import HOUR, outcomes, versions
from protos import monitoring_pb2 as pb

Item = TypeVar("Item")

IN_MAX = 1_000
"""Values of one condition: databases bound the parameters of a statement."""


def add_outcome(connection: Connection, event: pb.OutcomeEvent) -> OutcomeKind:
    """Count one report in the cell of its prediction, and return what became of it."""
    kind = refuse_outcome(event)
    bins = None
    if not event.forged and event.id_digest:
        bins = find_version_bins(connection, event.version_digest, event.model_hash)
    if bins is None:
        # The cell of reports whose version is not known is that of the hour of the report.
        kind = kind or OutcomeKind.ORPHAN
        hour = event.received_unix_ms // HOUR_MS
        key = CellKey(event.model, "", 0, event.role, event.holdout, "", hour)
    else:
        key = outcome_key(event, bins.model, bins.version)
    counts = CellCounts()
    if kind is None:
        assert bins is not None
        kind = _count_once(connection, event, key, bins, counts)
    counts.add_cell(event_counts(event.name, kind))
    add_to_cell(connection, HOUR, key, counts)
    return kind


def _count_once(
    connection: Connection,
    event: pb.OutcomeEvent,
    key: CellKey,
    bins: VersionBins,
    counts: CellCounts,
) -> OutcomeKind:
    """Add what the report changes to *counts*, and note it."""
    # The id carries the score of the first row only.
    score = event.score if event.HasField("score") and event.row == 0 else None
    where = and_(
        outcomes.c.id_digest == event.id_digest,
        outcomes.c.row == event.row,
        outcomes.c.name == event.name,
    )
    known = connection.execute(select(outcomes).where(where)).first()
    # The first report of this prediction, row and name.
    if known is None:
        connection.execute(
            insert(outcomes).values(
                id_digest=event.id_digest,
                row=event.row,
                name=event.name,
                model=key.model,
                version=key.version,
                digest8=digest_text(key.digest8),
                role=key.role,
                holdout=key.holdout,
                segment=key.segment,
                predicted_unix_ms=event.predicted_unix_ms,
                score=score,
                value=event.value,
                received_unix_ms=event.received_unix_ms,
                key_hash=digest_text(event.key_hash),
            )
        )
        counts.add_cell(outcome_counts(CountedOutcome(key, event.name, score, event.value), bins))
        counts.add_cell(delay_counts(event))
        return OutcomeKind.COUNTED
    # Another report of it: the same value again, or a correction.
    if known.value == event.value:
        return OutcomeKind.DUPLICATE
    # The newest report counts, also when hosts push in another order than the reports came.
    if event.received_unix_ms >= known.received_unix_ms:
        before = CountedOutcome(key, event.name, known.score, known.value)
        counts.add_cell(outcome_counts(before, bins, sign=-1))
        after = CountedOutcome(key, event.name, known.score, event.value)
        counts.add_cell(outcome_counts(after, bins))
        connection.execute(
            update(outcomes)
            .where(where)
            .values(value=event.value, received_unix_ms=event.received_unix_ms)
        )
    return OutcomeKind.CORRECTED


def delete_outcomes(
    connection: Connection,
    key_hashes: Mapping[str, Collection[int]],
    id_digests: Collection[bytes],
    *,
    dry_run: bool,
) -> int:
    """Delete outcomes by model and key hash, and by the digests of prediction ids; return how many.

    What was counted of them stays in the cells, which name nobody.
    """
    texts = {model: sorted(map(digest_text, hashes)) for model, hashes in key_hashes.items()}
    conditions = [
        and_(outcomes.c.model == model, outcomes.c.key_hash.in_(part))
        for model, hashes in texts.items()
        for part in batched(hashes, IN_MAX)
    ]
    conditions += [outcomes.c.id_digest.in_(part) for part in batched(sorted(id_digests), IN_MAX)]
    found: set[tuple[object, ...]] = set()
    for where in conditions:
        key = outcomes.c.id_digest, outcomes.c.row, outcomes.c.name
        found.update(map(tuple, connection.execute(select(*key).where(where))))
        if not dry_run:
            connection.execute(delete(outcomes).where(where))
    return len(found)


def save_version(connection: Connection, bins: VersionBins, model_hash: int) -> None:
    """Note the name and the bins of a version, by which its outcomes are counted."""
    values = {"model": bins.model, "version": bins.version}
    content = bins.to_proto().SerializeToString(deterministic=True)
    where = and_(
        versions.c.digest8 == digest_text(bins.digest8),
        versions.c.model_hash == digest_text(model_hash),
    )
    known = connection.execute(select(versions.c.bins).where(where)).scalar_one_or_none()
    if known is None:
        connection.execute(
            insert(versions).values(
                digest8=digest_text(bins.digest8),
                model_hash=digest_text(model_hash),
                bins=content,
                **values,
            )
        )
    elif known != content:
        connection.execute(update(versions).where(where).values(bins=content, **values))


def find_version_bins(connection: Connection, digest8: int, model_hash: int) -> VersionBins | None:
    """Return the bins of a version by the first 8 bytes of its id and the hash of its model."""
    content = connection.execute(
        select(versions.c.bins).where(
            versions.c.digest8 == digest_text(digest8),
            versions.c.model_hash == digest_text(model_hash),
        )
    ).scalar_one_or_none()
    return None if content is None else VersionBins.from_proto(pb.VersionBins.FromString(content))


def batched(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """Yield *items* in parts of at most *size*."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
