"""Versions by whose bins reported outcomes are counted, in the database."""

from sqlalchemy import Connection, and_, insert, select, update

from monitoring.cells.version_bins import VersionBins
from monitoring.store.cell_rows import digest_text
from monitoring.store.tables import versions
from protos import monitoring_pb2 as pb


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
