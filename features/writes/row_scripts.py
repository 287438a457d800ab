"""The scripts that the online store runs, so that no writer undoes what another has written."""

import time
from collections.abc import Sequence
from typing import Any

import redis

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

# KEYS are the keys, ARGV[1] the latest event time in Unix ms that a stored row may have, ARGV[2]
# how long after its event time a row expires in ms, or 0 for never, ARGV[3] the rows, joined. The
# script returns the number of rows that it wrote.
# Event times are compared only if the stored row has the same view, id and length and is not from
# the future; anything else is replaced.
WRITE_IF_NEWER = """
local latest, life, rows = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local size, written = #rows / #KEYS, 0
for index, key in ipairs(KEYS) do
  local start = (index - 1) * size
  local row = string.sub(rows, start + 1, start + size)
  local event = struct.unpack('<i8', row, 17)
  local stored = redis.call('GET', key)
  if not (stored and #stored == size and string.sub(stored, 1, 16) == string.sub(row, 1, 16)
     and struct.unpack('<i8', stored, 17) > event
     and struct.unpack('<i8', stored, 17) <= latest) then
    if life == 0 then
      redis.call('SET', key, row)
    else
      redis.call('SET', key, row, 'PXAT', event + life)
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


def key_life_ms(view: View) -> int:
    """Return how many ms after a row's event time its key expires; 0 means never.

    A key expires an hour after its row counts as never written, which is two TTLs after the event
    (features.staleness). So rows of former customers and of redefined views leave the store.
    """
    life_ms = FORGET_AFTER_TTLS * view.ttl_ms + EXPIRY_SLACK_MS
    return life_ms if life_ms < EVENT_MS_MAX else 0


def expiry_ms(view: View, event_time_ms: int) -> int:
    """Return the instant at which the key of such a row expires, Unix ms; 0 means never."""
    life_ms = key_life_ms(view)
    return event_time_ms + life_ms if life_ms else 0


def write_rows(client: redis.Redis, keys: list[bytes], rows: bytes, life_ms: int) -> int:
    """Return the number of rows written. The store has newer rows for the others.

    rows     a stored row for each key, in the order of the keys, joined.
    life_ms  how many ms after its event time a row's key expires; 0 means never.
    """
    try:
        return sum(_write_calls(client, keys, rows, life_ms, ROWS_OF_A_CALL))
    except redis.exceptions.ClusterCrossSlotError:
        # A node of a Cluster refuses calls whose keys lie in different slots, and writes nothing.
        return sum(write_each_row(client, keys, rows, life_ms))


def write_each_row(client: redis.Redis, keys: list[bytes], rows: bytes, life_ms: int) -> list[int]:
    """Return 1 for each row that was written, and 0 where the store has a newer row.

    The arguments are those of `write_rows`.
    """
    return _write_calls(client, keys, rows, life_ms, 1)


def _write_calls(
    client: redis.Redis, keys: list[bytes], rows: bytes, life_ms: int, each: int
) -> list[int]:
    """Write *each* rows with one call of the script; return how many rows each call wrote."""
    latest_ms = latest_event_ms()
    size = len(rows) // max(1, len(keys))
    calls: list[ScriptCall] = []
    for start in range(0, len(keys), each):
        part = rows[start * size : (start + each) * size]
        calls.append((keys[start : start + each], (latest_ms, life_ms, part)))
    return run_script(client, WRITE_IF_NEWER, calls)


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
