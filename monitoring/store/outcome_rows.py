"""Versions by whose bins reported outcomes are counted, and the removal of outcomes."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TypeVar

from sqlalchemy import Connection, and_, delete, insert, or_, select, update

from monitoring.cells.outside_rows import ELSEWHERE
from monitoring.cells.version_bins import VersionBins
from monitoring.store.cell_rows import digest_text
from monitoring.store.tables import outcomes, versions
from protos import monitoring_pb2 as pb

Item = TypeVar("Item")

IN_MAX = 1_000
"""Values of one condition: databases bound the parameters of a statement."""


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


def version_digests(connection: Connection, model: str) -> dict[str, int]:
    """Return version label -> the first 8 bytes of its id, of the versions of a model."""
    found = connection.execute(
        select(versions.c.version, versions.c.digest8).where(versions.c.model == model)
    )
    return {row.version: int(row.digest8, 16) for row in found}


def delete_outcomes(
    connection: Connection,
    key_hashes: Mapping[str, Collection[int]],
    id_digests: Collection[bytes],
    outside_key_hash: int | None,
    *,
    dry_run: bool,
) -> int:
    """Delete outcomes by model and key hash, and by the digests of prediction ids; return how many.

    outside_key_hash  that of the person in models elsewhere; None: they have none.

    What was counted of them stays in the cells, which name nobody.
    """
    # What the rows of the person are.
    texts = {model: sorted(map(digest_text, hashes)) for model, hashes in key_hashes.items()}
    conditions = [
        and_(outcomes.c.model == model, outcomes.c.key_hash.in_(part))
        for model, hashes in texts.items()
        for part in batched(hashes, IN_MAX)
    ]
    conditions += [outcomes.c.id_digest.in_(part) for part in batched(sorted(id_digests), IN_MAX)]
    if outside_key_hash is not None:
        is_outside = or_(
            outcomes.c.version == ELSEWHERE, outcomes.c.version.startswith(f"{ELSEWHERE}:")
        )
        conditions.append(and_(is_outside, outcomes.c.key_hash == digest_text(outside_key_hash)))
    # A row may fit several conditions, and counts once.
    found: set[tuple[object, ...]] = set()
    for where in conditions:
        key = outcomes.c.id_digest, outcomes.c.row, outcomes.c.name
        found.update(map(tuple, connection.execute(select(*key).where(where))))
        if not dry_run:
            connection.execute(delete(outcomes).where(where))
    return len(found)


def batched(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """Yield *items* in parts of at most *size*."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
