"""Writes rows to the online store: the newest offline row of each entity, or pushed rows.

A row never replaces a newer row, whichever process writes it: a Lua script in the store compares
the event times in the two rows. At equal event times the later write wins, so that a corrected row
can be written again. A row dated in the future is not written, and is replaced where it lies.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import redis
from numpy.typing import NDArray

from features.encode import encode_columns
from features.entity_ids import check_entity_id, join_ids
from features.errors import SourceError
from features.offline import OfflineStore
from features.pushed import PushedRow, pushed_columns
from features.rows import EVENT_MS_MAX, ViewRows
from features.staleness import CLOCK_SKEW_MS_MAX, FORGET_AFTER_TTLS, is_from_future
from features.views import View

BATCH_ROWS = 10_000
"""Rows in one pipeline of commands."""

EXPIRY_SLACK_MS = CLOCK_SKEW_MS_MAX
"""A key expires this long after its row counts as forgotten, because clocks differ."""

# KEYS[1] is the key, ARGV[1] the row, ARGV[2] the key's expiry in Unix ms, or 0 for none, ARGV[3]
# the latest event time in Unix ms that a stored row may have.
# Event times are compared only if the stored row has the same view, id and length and is not from
# the future; anything else is replaced. Each call takes one key, so that the script runs on a
# Cluster as well.
WRITE_IF_NEWER = """
local stored = redis.call('GET', KEYS[1])
local row = ARGV[1]
if stored and #stored == #row and string.sub(stored, 1, 16) == string.sub(row, 1, 16)
   and struct.unpack('<i8', stored, 17) > struct.unpack('<i8', row, 17)
   and struct.unpack('<i8', stored, 17) <= tonumber(ARGV[3]) then
  return 0
end
if ARGV[2] == '0' then
  redis.call('SET', KEYS[1], row)
else
  redis.call('SET', KEYS[1], row, 'PXAT', ARGV[2])
end
return 1
"""


class StoreClient(redis.Redis):
    """A client that returns bytes, and knows the namespace of the keys that it writes.

    features.online.store_client opens it by URL.
    """

    namespace = ""


def _rows_of(view: View, client: redis.Redis) -> ViewRows:
    return ViewRows(view, client.namespace if isinstance(client, StoreClient) else "")


@dataclass(frozen=True, slots=True)
class WriteSummary:
    """Numbers of rows after writing to the online store."""

    written: int
    older_than_stored: int
    """Rows that were not written because the store has a newer row."""
    from_future: int = 0
    """Offline rows that were left out, because their event or created time is in the future."""


def materialise(
    store: OfflineStore,
    view: View,
    client: redis.Redis,
    *,
    batch_rows: int = BATCH_ROWS,
    as_of_ms: int | None = None,
    progress: Callable[[int, int], None] = lambda _done, _rows: None,
) -> WriteSummary:
    """Write the newest offline row of each entity to the online store.

    It may be repeated, and may run while rows are pushed. Rows that are dated more than an hour in
    the future (features.staleness) are left out: the newest row before them is written.

    client      a client of `store_client`, or of redis-py with the default that it returns bytes.
    batch_rows  rows in one pipeline of commands.
    as_of_ms    takes only rows that were known at this instant, Unix ms; None: at the present.
    progress    called with (rows done, rows in all) after each batch.

    Raises redis.RedisError when the store refuses a command. Rows written before stay, and are
    valid.
    """
    # Find the newest row of each entity.
    future_ms = _latest_event_ms()
    known_ms = future_ms if as_of_ms is None else min(as_of_ms, future_ms)
    latest = store.latest(view, as_of_ms=known_ms)
    layout = _rows_of(view, client)
    written = 0
    # One pipeline for each batch bounds the memory, and lets *progress* report.
    for start in range(0, len(latest), batch_rows):
        batch = slice(start, start + batch_rows)
        packed = layout.pack(
            latest.ids[batch],
            latest.event_times_ms[batch],
            latest.values[batch],
            latest.valid[batch],
        )
        keys = layout.store_keys(latest.ids[batch])
        written += _write(client, keys, packed, expiries_ms(view, latest.event_times_ms[batch]))
        progress(min(start + batch_rows, len(latest)), len(latest))
    return WriteSummary(written, len(latest) - written, store.count_after(view, future_ms))


def push_rows(view: View, client: redis.Redis, rows: Sequence[PushedRow]) -> WriteSummary:
    """Write pushed rows to the online store, encoded and compared as `materialise` does.

    Give the same rows to `OfflineStore.append_pushed`; otherwise training sets lack them.
    Raises SourceError or EntityIdError for a row that does not fit the view, or is dated more than
    an hour in the future. Then no row is written.
    """
    columns = pushed_columns(view, rows)
    values, valid = encode_columns(view, columns)
    ids = [join_ids([check_entity_id(entity_id) for entity_id in row.ids]) for row in rows]
    layout = _rows_of(view, client)
    event_times: NDArray[np.int64] = columns["event_time_ms"]
    now_ms = time.time_ns() // 1_000_000
    if len(rows) and is_from_future(now_ms - int(event_times.max())):
        raise SourceError(
            f"a row of view {view.name!r} is dated {int(event_times.max())}, which is more than an "
            "hour in the future; an event time is Unix milliseconds in UTC. No row was written"
        )
    packed = layout.pack(ids, event_times, values, valid)
    written = _write(client, layout.store_keys(ids), packed, expiries_ms(view, event_times))
    return WriteSummary(written, len(rows) - written)


def expiries_ms(view: View, event_times_ms: NDArray[np.int64]) -> list[int]:
    """Return the instant at which each row's key expires, Unix ms; 0 means never.

    A key expires an hour after its row counts as never written, which is two TTLs after the event
    (features.staleness). So rows of former customers and of redefined views leave the store.
    """
    life_ms = FORGET_AFTER_TTLS * view.ttl_ms + EXPIRY_SLACK_MS
    if life_ms >= EVENT_MS_MAX:
        return [0] * len(event_times_ms)
    expiries: list[int] = (event_times_ms + life_ms).tolist()
    return expiries


def _latest_event_ms() -> int:
    """Return the latest event time that a row may have now, Unix ms."""
    return time.time_ns() // 1_000_000 + CLOCK_SKEW_MS_MAX


def _write(client: redis.Redis, keys: list[bytes], rows: list[bytes], expiries: list[int]) -> int:
    """Return the number of rows written. The store has newer rows for the others."""
    sha = str(client.script_load(WRITE_IF_NEWER))
    pipeline, latest_ms = client.pipeline(transaction=False), _latest_event_ms()
    for key, row, expiry in zip(keys, rows, expiries, strict=True):
        pipeline.evalsha(sha, 1, key, row, expiry, latest_ms)
    return sum(pipeline.execute())
