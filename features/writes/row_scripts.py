"""The scripts that the online store runs, so that no writer undoes what another has written."""

import time
from collections.abc import Sequence

import numpy as np
import redis
from numpy.typing import NDArray

from features.rows import EVENT_MS_MAX
from features.staleness import CLOCK_SKEW_MS_MAX, FORGET_AFTER_TTLS
from features.views import View

SCRIPT_LOADS_MAX = 5
"""How often the script is loaded anew for one batch of rows."""

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

# KEYS[1] is the key, ARGV[1] the value that it must have (empty: none), ARGV[2] the new value,
# ARGV[3] the expiry as above. A client that lost the reply may send the same again.
SET_IF_UNCHANGED = """
local stored = redis.call('GET', KEYS[1]) or ''
if stored == ARGV[2] then
  return 1
end
if stored ~= ARGV[1] then
  return 0
end
if ARGV[3] == '0' then
  redis.call('SET', KEYS[1], ARGV[2])
else
  redis.call('SET', KEYS[1], ARGV[2], 'PXAT', ARGV[3])
end
return 1
"""


class StoreClient(redis.Redis):
    """A client that returns bytes, and knows the namespace of the keys that it writes.

    features.online.store_client opens it by URL.
    """

    namespace = ""


def namespace_of(client: redis.Redis) -> str:
    """Return the namespace of a client's keys; empty for a client of redis-py."""
    return client.namespace if isinstance(client, StoreClient) else ""


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


def write_rows(
    client: redis.Redis, keys: list[bytes], rows: list[bytes], expiries: list[int]
) -> int:
    """Return the number of rows written. The store has newer rows for the others."""
    return sum(write_each_row(client, keys, rows, expiries))


def write_each_row(
    client: redis.Redis, keys: list[bytes], rows: list[bytes], expiries: list[int]
) -> list[int]:
    """Return 1 for each row that was written, and 0 where the store has a newer row."""
    latest_ms = latest_event_ms()
    calls = [
        (key, row, expiry, latest_ms) for key, row, expiry in zip(keys, rows, expiries, strict=True)
    ]
    return run_script(client, WRITE_IF_NEWER, calls)


def latest_event_ms() -> int:
    """Return the latest event time that a row may have now, Unix ms."""
    return time.time_ns() // 1_000_000 + CLOCK_SKEW_MS_MAX


def run_script(
    client: redis.Redis, script: str, calls: Sequence[tuple[bytes, *tuple[bytes | int, ...]]]
) -> list[int]:
    """Run a script once for each call, (key, arguments ...), and return the numbers it returns."""
    results = [0] * len(calls)
    waiting = list(range(len(calls)))
    for _ in range(SCRIPT_LOADS_MAX):
        sha = str(client.script_load(script))
        pipeline = client.pipeline(transaction=False)
        for index in waiting:
            pipeline.evalsha(sha, 1, *calls[index])
        # A store that restarted, or whose scripts were flushed, needs the script again.
        lost = []
        for index, reply in zip(waiting, pipeline.execute(raise_on_error=False), strict=True):
            if isinstance(reply, redis.exceptions.NoScriptError):
                lost.append(index)
            elif isinstance(reply, Exception):
                raise reply
            else:
                results[index] = reply
        waiting = lost
        if not waiting:
            return results
    raise redis.exceptions.NoScriptError("the store lost the script again and again")
