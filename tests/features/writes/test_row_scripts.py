"""Tests of writing rows: every row counts by itself, and connections are never out of step."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import redis

from features.online.store_server import StoreServer
from features.rows import ViewRows
from features.writes.row_scripts import (
    CALLS_AHEAD,
    ROWS_OF_A_CALL,
    WRITE_IF_NEWER,
    run_script,
    write_rows,
)
from tests.features.small_views import plan_view
from tests.walks.running_system import poll_system_until
from turnout.processes.port_checks import free_tcp_port

pytestmark = pytest.mark.walk

ROWS = ViewRows(plan_view())
NOW_MS = time.time_ns() // 1_000_000
SENT_AT_ONCE = ROWS_OF_A_CALL * CALLS_AHEAD


def packed(count: int, event_ms: int, spend: float) -> tuple[list[bytes], list[bytes]]:
    """Keys and rows of *count* entities."""
    ids = [f"S{number}".encode() for number in range(count)]
    values = np.full((count, ROWS.width), spend, dtype=np.float32)
    valid = np.ones(values.shape, dtype=np.bool_)
    events = event_ms + np.arange(count, dtype=np.int64)
    return ROWS.store_keys(ids), ROWS.pack(ids, events, values, valid)


@pytest.mark.parametrize("life_ms", [0, 3_600_000])
@pytest.mark.parametrize(
    "count", [0, 1, ROWS_OF_A_CALL, ROWS_OF_A_CALL + 1, SENT_AT_ONCE + 1, 3 * SENT_AT_ONCE]
)
def test_each_row_of_a_call_is_compared_by_itself(
    store: StoreServer, count: int, life_ms: int
) -> None:
    """Every seventh stored row is newer and stays; each row has its own expiry."""
    with redis.Redis.from_url(store.url) as client:
        keys, rows = packed(count, NOW_MS, 1.0)
        newer = packed(count, NOW_MS + 1, 2.0)[1]
        before = dict(list(zip(keys, newer, strict=True))[::7])
        assert write_rows(client, list(before), b"".join(before.values()), 0) == len(before)
        assert write_rows(client, keys, b"".join(rows), life_ms) == count - len(before)
        stored = [before.get(key, row) for key, row in zip(keys, rows, strict=True)]
        assert (client.mget(keys) if keys else []) == stored
        pipeline = client.pipeline(transaction=False)
        for key in keys:
            pipeline.pexpiretime(key)
        expected = [
            -1 if key in before or not life_ms else NOW_MS + number + life_ms
            for number, key in enumerate(keys)
        ]
        assert pipeline.execute() == expected


def test_one_entity_twice_in_a_call_has_its_newest_row(store: StoreServer) -> None:
    """The rows of a call are written in their order."""
    with redis.Redis.from_url(store.url) as client:
        (key,), (old,) = packed(1, NOW_MS, 1.0)
        (new,) = packed(1, NOW_MS + 5, 2.0)[1]
        assert write_rows(client, [key] * 3, old + new + old, 0) == 2
        assert client.get(key) == new


def test_refused_call_leaves_no_reply_behind(store: StoreServer) -> None:
    """The error is raised, and the next command has its own reply."""
    with redis.Redis.from_url(store.url) as client:
        keys, rows = packed(SENT_AT_ONCE * 2, NOW_MS, 1.0)
        client.lpush(keys[3], "no row")
        with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
            write_rows(client, keys, b"".join(rows), 0)
        # A call that cannot be sent, while the replies of those before it are still to come.
        calls = [([keys[0]], [NOW_MS, 0, rows[0]])] * CALLS_AHEAD
        with pytest.raises(redis.DataError):
            run_script(client, WRITE_IF_NEWER, [*calls, ([keys[0]], [None])])  # type: ignore[list-item]
        client.delete(keys[3])
        assert client.get(keys[-1]) == rows[-1]
        assert write_rows(client, keys, b"".join(rows), 0) == len(keys)


def test_lost_connection_is_opened_again(store: StoreServer) -> None:
    """The store closes the connection of a client between two batches."""
    with redis.Redis.from_url(store.url) as client, redis.Redis.from_url(store.url) as other:
        keys, rows = packed(SENT_AT_ONCE, NOW_MS, 1.0)
        assert write_rows(client, keys, b"".join(rows), 0) == len(keys)
        for connection in other.client_list():
            if connection["id"] != str(other.client_id()):
                other.client_kill_filter(_id=connection["id"])
        assert write_rows(client, keys, b"".join(rows), 0) == len(keys)


@contextmanager
def cluster_node(program: Path, folder: Path) -> Iterator[redis.Redis]:
    """A Cluster of one node: it has every slot, and refuses calls with keys of several slots."""
    path = folder / "cluster.socket"
    line = [program, "--port", "0", "--unixsocket", path, "--cluster-enabled", "yes"]
    line += ["--cluster-port", str(free_tcp_port()), "--dir", folder, "--save", ""]
    with subprocess.Popen(line, stdout=subprocess.DEVNULL) as process:
        try:
            with redis.Redis(unix_socket_path=str(path)) as client:
                poll_system_until(path.exists, 10.0, "the node")
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16_383)
                poll_system_until(
                    lambda: b"cluster_state:ok" in client.execute_command("CLUSTER", "INFO"),
                    10.0,
                    "the Cluster",
                )
                yield client
        finally:
            process.terminate()


def test_node_of_a_cluster_gets_one_key_a_call(store: StoreServer, tmp_path: Path) -> None:
    """The rows of two entities lie in different slots as a rule."""
    program = Path(f"/proc/{store.pid}/exe").readlink()
    with cluster_node(program, tmp_path) as client:
        keys, rows = packed(100, NOW_MS, 1.0)
        assert write_rows(client, keys, b"".join(rows), 0) == 100
        assert [client.get(key) for key in keys] == rows
