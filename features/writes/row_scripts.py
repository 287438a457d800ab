"""The scripts that the online store runs, so that no writer undoes what another has written."""

import time
from collections.abc import Sequence
from typing import Any

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

ROWS_OF_A_CALL = 20
"""Rows that one call of the script writes. With more of them the store is no faster, and readers
wait for a call as a whole."""

CALLS_AHEAD = 50
"""Calls that are sent before the replies of the calls before them are read, so that the store
works while the next ones are packed."""

# KEYS are the keys, ARGV[1] the latest event time in Unix ms that a stored row may have; then for
# each key the row, and the key's expiry in Unix ms, or 0 for none. The script returns the number of
# rows that it wrote.
# Event times are compared only if the stored row has the same view, id and length and is not from
# the future; anything else is replaced.
WRITE_IF_NEWER = """
local latest, written = tonumber(ARGV[1]), 0
for index, key in ipairs(KEYS) do
  local row, expiry = ARGV[2 * index], ARGV[2 * index + 1]
  local stored = redis.call('GET', key)
  if not (stored and #stored == #row and string.sub(stored, 1, 16) == string.sub(row, 1, 16)
     and struct.unpack('<i8', stored, 17) > struct.unpack('<i8', row, 17)
     and struct.unpack('<i8', stored, 17) <= latest) then
    if expiry == '0' then
      redis.call('SET', key, row)
    else
      redis.call('SET', key, row, 'PXAT', expiry)
    end
    written = written + 1
  end
end
return written
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

# KEYS[1] is the key, ARGV[1] a number, ARGV[2] the value, which begins with it, ARGV[3] the expiry.
# The value with the largest number stays.
SET_IF_LARGER = """
local stored = redis.call('GET', KEYS[1])
local number = stored and tonumber(string.match(stored, '^%d+'))
if number and number >= tonumber(ARGV[1]) then
  return 0
end
if ARGV[3] == '0' then
  redis.call('SET', KEYS[1], ARGV[2])
else
  redis.call('SET', KEYS[1], ARGV[2], 'PXAT', ARGV[3])
end
return 1
"""


ScriptCall = tuple[Sequence[bytes], Sequence[bytes | int]]
"""The keys and the further arguments of one call of a script."""


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
    try:
        return _write_rows(client, keys, rows, expiries, ROWS_OF_A_CALL)
    except redis.exceptions.ClusterCrossSlotError:
        # A node of a Cluster refuses calls whose keys lie in different slots, and writes nothing.
        return _write_rows(client, keys, rows, expiries, 1)


def write_each_row(
    client: redis.Redis, keys: list[bytes], rows: list[bytes], expiries: list[int]
) -> list[int]:
    """Return 1 for each row that was written, and 0 where the store has a newer row."""
    return run_script(client, WRITE_IF_NEWER, _write_calls(keys, rows, expiries, 1))


def _write_rows(
    client: redis.Redis, keys: list[bytes], rows: list[bytes], expiries: list[int], each: int
) -> int:
    """Write *each* rows with one call of the script."""
    return sum(run_script(client, WRITE_IF_NEWER, _write_calls(keys, rows, expiries, each)))


def _write_calls(
    keys: list[bytes], rows: list[bytes], expiries: list[int], each: int
) -> list[ScriptCall]:
    """Return the calls of WRITE_IF_NEWER that write *each* rows at a time."""
    latest_ms = latest_event_ms()
    calls: list[ScriptCall] = []
    for start in range(0, len(keys), each):
        part = slice(start, start + each)
        values: list[bytes | int] = [latest_ms]
        for value in zip(rows[part], expiries[part], strict=True):
            values += value
        calls.append((keys[part], values))
    return calls


def latest_event_ms() -> int:
    """Return the latest event time that a row may have now, Unix ms."""
    return time.time_ns() // 1_000_000 + CLOCK_SKEW_MS_MAX


def run_script(client: redis.Redis, script: str, calls: Sequence[ScriptCall]) -> list[int]:
    """Run a script once for each call, and return the numbers that it returns.

    Raises redis.RedisError when the store refuses a call, or cannot be reached.
    """
    results = [0] * len(calls)
    waiting = list(range(len(calls)))
    for _ in range(SCRIPT_LOADS_MAX):
        sha = str(client.script_load(script))
        replies = _replies(client, sha, [calls[index] for index in waiting])
        # A store that restarted, or whose scripts were flushed, needs the script again.
        lost = []
        for index, reply in zip(waiting, replies, strict=True):
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


def _replies(
    client: redis.Redis, sha: str, calls: Sequence[ScriptCall]
) -> list[int | redis.exceptions.ResponseError]:
    """Call a loaded script; return a number or an error for each call.

    A pipeline of redis-py packs all commands before it sends the first, so that the store waits
    meanwhile, and takes three times as long for each.
    """
    pool = client.connection_pool
    connection: Any = pool.get_connection()  # redis-py has no types for what follows
    # A connection that was lost is opened again, as often as the client's settings say.
    try:
        replies: list[int | redis.exceptions.ResponseError] = connection.retry.call_with_retry(
            lambda: _exchange(connection, sha, calls), lambda _error: connection.disconnect()
        )
    finally:
        pool.release(connection)
    return replies


def _exchange(
    connection: Any,  # noqa: ANN401  redis-py
    sha: str,
    calls: Sequence[ScriptCall],
) -> list[int | redis.exceptions.ResponseError]:
    replies: list[int | redis.exceptions.ResponseError] = []
    try:
        for start in range(0, len(calls), CALLS_AHEAD):
            # Send a part, and read the replies of the part before it.
            part = calls[start : start + CALLS_AHEAD]
            commands = [("EVALSHA", sha, len(keys), *keys, *values) for keys, values in part]
            connection.send_packed_command(connection.pack_commands(commands))
            replies += [_reply(connection) for _ in range(start - len(replies))]
        replies += [_reply(connection) for _ in range(len(calls) - len(replies))]
    except BaseException:
        # Replies that nothing reads would be those of the next command.
        connection.disconnect()
        raise
    return replies


def _reply(connection: Any) -> int | redis.exceptions.ResponseError:  # noqa: ANN401  redis-py
    try:
        return int(connection.read_response())
    except redis.exceptions.ResponseError as error:
        return error
