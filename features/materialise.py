"""Writing rows online: the newest offline row of each entity, or a stream's, in the same bytes.

A row never replaces a newer one, whoever writes: the comparison runs inside the store, on the
event time in the row's own bytes. Equal event times: the later write wins, so that a corrected
row can be written again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import redis
from numpy.typing import NDArray

from features.encode import encode_columns
from features.entity_ids import check_entity_id, join_ids
from features.offline import OfflineStore
from features.pushed import PushedRow, pushed_columns
from features.rows import EVENT_MS_MAX, ViewRows
from features.staleness import FORGET_AFTER_TTLS
from features.views import View

BATCH_ROWS = 10_000

EXPIRY_SLACK_MS = 3_600_000
"""Clocks differ: a key goes an hour after `is_forgotten` makes no difference any more."""

# KEYS[1] key; ARGV[1] row; ARGV[2] Unix ms at which the key goes, 0: never.
# Only a row of this view, this id and this length has an event time worth comparing.
# One key a call, so that it runs on a Cluster too.
WRITE_IF_NEWER = """
local stored = redis.call('GET', KEYS[1])
local row = ARGV[1]
if stored and #stored == #row and string.sub(stored, 1, 16) == string.sub(row, 1, 16)
   and struct.unpack('<i8', stored, 17) > struct.unpack('<i8', row, 17) then
  return 0
end
if ARGV[2] == '0' then
  redis.call('SET', KEYS[1], row)
else
  redis.call('SET', KEYS[1], row, 'PXAT', ARGV[2])
end
return 1
"""


@dataclass(frozen=True, slots=True)
class WriteSummary:
    """What was written online."""

    written: int
    older_than_stored: int
    """Rows left alone because the store holds a newer one."""


def materialise(
    store: OfflineStore,
    view: View,
    client: redis.Redis,
    *,
    batch_rows: int = BATCH_ROWS,
    as_of_ms: int | None = None,
    progress: Callable[[int, int], None] = lambda _done, _rows: None,
) -> WriteSummary:
    """Write each entity's newest offline row online. Safe to repeat, or to run beside `push`.

    client      redis-py's, in bytes (the default).
    batch_rows  in one pipeline.
    as_of_ms    only rows known by then; None: all that were ever ingested.
    progress    told (rows done, rows in all) after each batch.

    Raises redis.RedisError when the store refuses; what was written before stays, and is right.
    """
    latest = store.latest(view, as_of_ms=as_of_ms)
    layout = ViewRows(view)
    written = 0
    for start in range(0, len(latest), batch_rows):
        part = slice(start, start + batch_rows)
        packed = layout.pack(
            latest.ids[part],
            latest.event_times_ms[part],
            latest.values[part],
            latest.valid[part],
        )
        keys = layout.store_keys(latest.ids[part])
        written += _write(client, keys, packed, expiries_ms(view, latest.event_times_ms[part]))
        progress(min(start + batch_rows, len(latest)), len(latest))
    return WriteSummary(written, len(latest) - written)


def push_rows(view: View, client: redis.Redis, rows: Sequence[PushedRow]) -> WriteSummary:
    """Write a stream's rows online, by the same encoding, bytes and comparison.

    Give the same rows to `OfflineStore.append`, or training sets will not know them.
    Raises SourceError, EntityIdError for rows that do not fit the view; nothing is written then.
    """
    columns = pushed_columns(view, rows)
    values, valid = encode_columns(view, columns)
    ids = [join_ids([check_entity_id(entity_id) for entity_id in row.ids]) for row in rows]
    layout = ViewRows(view)
    event_times: NDArray[np.int64] = columns["event_time_ms"]
    packed = layout.pack(ids, event_times, values, valid)
    written = _write(client, layout.store_keys(ids), packed, expiries_ms(view, event_times))
    return WriteSummary(written, len(rows) - written)


def expiries_ms(view: View, event_times_ms: NDArray[np.int64]) -> list[int]:
    """When each row's key goes, Unix ms; 0: never.

    Two TTLs after its event, when a row counts as never written (features.staleness), plus an
    hour for clocks that differ. So customers who left, and views that were redefined, do not fill
    the store for ever.
    """
    life_ms = FORGET_AFTER_TTLS * view.ttl_ms + EXPIRY_SLACK_MS
    if life_ms >= EVENT_MS_MAX:
        return [0] * len(event_times_ms)
    ends: list[int] = (event_times_ms + life_ms).tolist()
    return ends


def _write(client: redis.Redis, keys: list[bytes], rows: list[bytes], expiries: list[int]) -> int:
    """Return how many rows were written; the others met a newer one."""
    sha = str(client.script_load(WRITE_IF_NEWER))
    pipeline = client.pipeline(transaction=False)
    for key, row, expiry in zip(keys, rows, expiries, strict=True):
        pipeline.evalsha(sha, 1, key, row, expiry)
    return sum(pipeline.execute())
