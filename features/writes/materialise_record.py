"""The records that lie beside the rows of a view in the online store: what was written, when.

It is in the store and not on a disk, because it must be gone when the rows are: a store that was
emptied or replaced has no record, and is filled from the beginning. Its key expires when no row of
that materialise can be used any more.

A push notes its newest row beside it. The note counts while no materialise does: a view
that is materialised has all its entities, and one fresh row says nothing of the others.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any

from features.staleness import is_stale
from features.views import View

FORMAT = 1

OLD_AFTER_TTL_SHARE = 0.8
"""A view is old when its newest row has this share of its TTL behind it. What is left is the time
to act in: beyond the TTL, models answer with defaults."""


@dataclass(frozen=True, slots=True)
class Materialised:
    """Rows of an offline store: those of its first ingests that were known at an instant."""

    ingests: int
    """Number of the last ingest."""
    digest: str
    """OfflineStore.ingested up to it, which says whether another store has the same history."""
    known_ms: int
    """Rows that were not known at this instant, Unix ms, are not among them."""
    at_ms: int
    """When the rows were chosen, Unix ms."""
    newest_event_ms: int | None
    """The event time of the newest row, Unix ms; None: there is no row."""


@dataclass(frozen=True, slots=True)
class BegunMaterialise:
    """A materialise that has not ended. The next one continues it."""

    rows: Materialised
    """What is there when it ends; newest_event_ms is that of the rows so far."""
    since: tuple[int, int] | None
    """(ingest, instant) after which rows are written; None: all rows are."""
    after_id: str
    """The rows of ids up to this one are written."""
    token: str
    """Drawn by each process, so that two of them never take each other's record for their own."""


@dataclass(frozen=True, slots=True)
class PushedRows:
    """What the store says of pushed rows of one edition of a view."""

    ttl_ms: int
    newest_event_ms: int
    """The event time of the newest row that was ever pushed, Unix ms."""

    def to_bytes(self) -> bytes:
        """Return the value that the store keeps. features.writes.row_scripts compares its start."""
        return f"{self.newest_event_ms} {self.ttl_ms}".encode()


@dataclass(frozen=True, slots=True)
class MaterialiseRecord:
    """What the store says of the rows of one edition of a view."""

    ttl_ms: int
    complete: Materialised | None = None
    begun: BegunMaterialise | None = None

    def is_readable(self, now_ms: int) -> bool:
        """Whether a gateway would use at least one of the rows."""
        if self.complete is None or self.complete.newest_event_ms is None:
            return False
        return not is_stale(now_ms - self.complete.newest_event_ms, self.ttl_ms)

    def to_bytes(self) -> bytes:
        """Return the value that the store keeps."""
        return json.dumps({"format": FORMAT, **asdict(self)}).encode()


@dataclass(frozen=True, slots=True)
class ViewRecord:
    """What the store says of the rows of one edition of a view."""

    materialise: MaterialiseRecord | None
    pushed: PushedRows | None

    @property
    def newest_event_ms(self) -> int | None:
        """The event time by which the rows' age counts, Unix ms; None: nothing is known of them."""
        if self.materialise is not None and self.materialise.complete is not None:
            return self.materialise.complete.newest_event_ms
        return None if self.pushed is None else self.pushed.newest_event_ms

    def is_old(self, now_ms: int) -> bool:
        """Whether the rows near the end of their TTL, or were never written."""
        newest_ms = self.newest_event_ms
        if newest_ms is None:
            return True
        return now_ms - newest_ms > OLD_AFTER_TTL_SHARE * self.ttl_ms

    @property
    def ttl_ms(self) -> int:
        """The view's TTL; 0 when nothing is known of its rows."""
        known = (self.materialise, self.pushed)
        return next((record.ttl_ms for record in known if record is not None), 0)


def view_record_keys(name: str, view_hash: str, namespace: str) -> list[bytes]:
    """Return the keys whose values `parse_view_record` takes.

    namespace  of the store's URL.
    """
    record = record_key(name, view_hash, namespace)
    return [record, record.removesuffix(b":materialised") + b":pushed"]


def parse_view_record(materialised: bytes | None, pushed: bytes | None) -> ViewRecord:
    """Return what two stored values say."""
    return ViewRecord(parse_record(materialised), _parse_pushed(pushed))


def _parse_pushed(value: bytes | None) -> PushedRows | None:
    try:
        newest_event_ms, ttl_ms = map(int, (value or b"").split())
    except ValueError:
        return None
    return PushedRows(ttl_ms, newest_event_ms)


def record_key(name: str, view_hash: str, namespace: str) -> bytes:
    """Return the key of the record of a view. No row has it: the key of a row ends with its hash.

    namespace  of the store's URL.
    """
    prefix = f"{namespace}:" if namespace else ""
    return f"{{turnout}}:{prefix}{name}@{view_hash[:16]}:materialised".encode()


def key_of(view: View, namespace: str) -> bytes:
    """Return the key of the record of *view*."""
    return record_key(view.name, view.view_hash, namespace)


def parse_record(value: bytes | None) -> MaterialiseRecord | None:
    """Return the record in a stored value; None without one, or where it cannot be read.

    Then nothing is known of the rows, so that they are written again.
    """
    try:
        read: dict[str, Any] = json.loads(value or b"")
        if read["format"] != FORMAT:
            return None
        complete, begun = read["complete"], read["begun"]
        return MaterialiseRecord(
            ttl_ms=int(read["ttl_ms"]),
            complete=None if complete is None else Materialised(**complete),
            begun=None
            if begun is None
            else BegunMaterialise(
                rows=Materialised(**begun["rows"]),
                since=None if begun["since"] is None else (begun["since"][0], begun["since"][1]),
                after_id=str(begun["after_id"]),
                token=str(begun["token"]),
            ),
        )
    except (ValueError, KeyError, TypeError, IndexError):
        return None
