"""Writes pushed rows of one edition: offline first, then online."""

import threading
import time
from collections.abc import Sequence
from enum import Enum

import redis

from features.errors import ForeignStoreError, OnlineStoreError
from features.offline import OfflineStore
from features.online.store_marker import claim_store
from features.rows import ViewRows
from features.storage.pushed_log import LoggedRow, LogOutcome, RowToLog
from features.views import View
from features.writes.row_scripts import key_life_ms, namespace_of, write_each_row
from features.writes.stored_record import note_pushed

SETTLE_AFTER_MS = 15 * 60_000
"""Pushed rows are made an ingest when the oldest of them has waited this long."""
SETTLE_ROWS = 200_000
"""They are made one earlier when there are so many."""
DELIVER_ROWS = 5_000
"""Rows of a former outage that are written online at once."""


class PushStatus(Enum):
    """What became of a pushed row. The names are those of turnout.v1.PushResult.Status."""

    WRITTEN = "written"
    OLDER = "older"
    DUPLICATE = "duplicate"
    REFUSED = "refused"


class EditionWriter:
    """Writes rows of one edition of a view. Several processes of a host may write the same edition.

    Its methods block, and one runs at a time. `write` raises OnlineStoreError when the online store
    does not take the rows, ForeignStoreError when it belongs to another system, and sqlite3.Error
    or OSError when the offline store refuses.

    offline  the offline store, on a disk of this host.
    client   a client of the online store with a bound on its time.
    system   the system that the store must belong to (features.online.store_marker).
    """

    def __init__(self, view: View, offline: OfflineStore, client: redis.Redis, system: str) -> None:
        self.view = view
        self._offline = offline
        self._client = client
        self._system = system
        self._layout = ViewRows(view, namespace_of(client))
        self._lock = threading.Lock()
        self._log = offline.open_log(view)
        self._is_behind = True
        """Whether the online store may lack rows that are stored offline."""

    def close(self) -> None:
        """Close the log when the method that runs has ended."""
        with self._lock:
            self._log.close()

    def write(self, rows: Sequence[RowToLog]) -> list[PushStatus]:
        """Store the rows offline, then online, and return what became of each.

        A crash or an error between the two is mended by the next call with these rows, or by
        `catch_up`: the rows are known offline then, and are written online if no newer row is.
        """
        with self._lock:
            logged = self._log.append(rows, _now_ms())
            # Rows that are known already may be undelivered, so their entities are written too.
            taken = self._deliver({row.entity_id for row in rows})
        return [_status_of(outcome, number, taken) for outcome, number in logged]

    def catch_up(self) -> int:
        """Write rows online that a crash or an outage left behind; return how many."""
        count = 0
        with self._lock:
            while self._is_behind:
                written = len(self._deliver(None))
                count += written
                self._is_behind = written == DELIVER_ROWS
        return count

    def settle_when_due(self) -> int:
        """Make an ingest of the pushed rows if it is time; return the number of its rows.

        Small ingests are joined, so that there are a few dozen files however long this goes on.
        """
        now_ms = _now_ms()
        with self._lock:
            oldest_ms = self._log.oldest_logged_ms()
            if oldest_ms is None:
                return 0
            is_due = now_ms - oldest_ms >= SETTLE_AFTER_MS
            if not is_due and self._log.count_logged() < SETTLE_ROWS:
                return 0
            self._log.delete_expired_events(now_ms)
        # Rows may be pushed meanwhile.
        rows = self._offline.settle(self.view)
        self._offline.compact(self.view, recent=True)
        return rows

    def _deliver(self, entity_ids: set[bytes] | None) -> dict[int, bool]:
        try:
            return self._log.deliver(entity_ids, self._write_online, DELIVER_ROWS)
        except redis.RedisError as error:
            self._is_behind = True
            raise OnlineStoreError("unavailable", str(error)) from error
        except ForeignStoreError:
            self._is_behind = True
            raise

    def _write_online(self, rows: Sequence[LoggedRow]) -> list[int]:
        # A store that was emptied has lost the mark of its system.
        claim_store(self._client, self._system)
        written = write_each_row(
            self._client,
            self._layout.store_keys([row.entity_id for row in rows]),
            b"".join([row.packed for row in rows]),
            key_life_ms(self.view),
        )
        # The age of a view that is only pushed is that of its newest row.
        note_pushed(self._client, self.view, max(row.instant_ms for row in rows))
        return written


def _status_of(outcome: LogOutcome, number: int, taken: dict[int, bool]) -> PushStatus:
    match outcome:
        case LogOutcome.DUPLICATE:
            return PushStatus.DUPLICATE
        case LogOutcome.CONFLICT:
            return PushStatus.REFUSED
        case LogOutcome.SUPERSEDED:
            return PushStatus.OLDER
        case LogOutcome.NEW:
            # Another process may have delivered the row meanwhile.
            return PushStatus.WRITTEN if taken.get(number, True) else PushStatus.OLDER


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
