"""F13: the store of a running system takes rows from its own writers only."""

import socket
import stat
import time
from pathlib import Path

import numpy as np
import pytest
import redis
from redis.exceptions import NoPermissionError

from features.entity_ids import check_entity_id
from features.materialise import PushedRow, push_rows
from features.online.store_client import store_client
from features.online.store_url import parse_store_url, url_with_credentials
from features.online.store_users import ERASER, READER, WRITER
from features.rows import ViewRows
from tests.features.small_views import plan_view
from tests.walks.identified_system import IdentifiedSystem

pytestmark = pytest.mark.walk

VIEW = plan_view()
ROWS = ViewRows(VIEW)
COMMANDS = (
    ("FLUSHALL",),
    ("CONFIG", "SET", "maxmemory", "1"),
    ("REPLICAOF", "127.0.0.1", "1"),
    ("SAVE",),
    ("EVAL", "return 1", "0"),
    ("KEYS", "*"),
    ("SET", "not-a-row", "x"),
    ("ACL", "SETUSER", "reader", "+@all"),
    ("CLIENT", "KILL", "ID", "1"),
    ("SHUTDOWN", "NOSAVE"),
)


@pytest.mark.attack("F13")
def test_store_answers_no_stranger(attacked_system: IdentifiedSystem) -> None:
    """A process without a password sends commands to the store."""
    address = parse_store_url(attacked_system.system.addresses.store)
    folder = Path(address.path).parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        connection.connect(address.path)
        connection.sendall(b"GET {S1}:plan@0\r\n")
        assert connection.recv(100).startswith(b"-NOAUTH")
        # Our parser refuses a user without a password, so this one is sent as it is.
        connection.sendall(b'AUTH default ""\r\n')
        assert connection.recv(100).startswith(b"-WRONGPASS")
    guess = url_with_credentials(attacked_system.system.addresses.store, "default", "guess")
    with store_client(guess) as client, pytest.raises(redis.AuthenticationError):
        client.ping()


@pytest.mark.attack("F13")
@pytest.mark.parametrize("user", [READER, WRITER, ERASER])
def test_users_of_the_store_have_their_own_commands_only(
    attacked_system: IdentifiedSystem, user: str
) -> None:
    """A gateway or a writer that was taken over sends commands that its work does not need."""
    addresses = attacked_system.system.addresses
    key = ROWS.store_key(check_entity_id("S1")).decode()
    refused = [*COMMANDS]
    if user != WRITER:
        refused += [("SET", key, "x"), ("EVALSHA", "0" * 40, "1", key)]
    if user != ERASER:
        refused += [("DEL", key), ("SCAN", "0")]
    with store_client(addresses.store, user, addresses.store_passwords) as client:
        for command in refused:
            with pytest.raises(NoPermissionError):
                client.execute_command(*command)
        assert client.get(key) is None


@pytest.mark.attack("F13")
def test_row_of_the_year_287396_blocks_nothing(attacked_system: IdentifiedSystem) -> None:
    """A writer stores a row dated 2^53 - 1, which would be fresh for ever."""
    now_ms = time.time_ns() // 1_000_000
    values, valid = np.full((1, 3), 9, np.float32), np.ones((1, 3), np.bool_)
    (forged,) = ROWS.pack([b"S2"], np.array([2**53 - 1]), values, valid)
    addresses = attacked_system.system.addresses
    with store_client(addresses.store, WRITER, addresses.store_passwords) as client:
        client.set(ROWS.store_key(b"S2"), forged)
        honest = PushedRow(("S2",), now_ms, {"kind": "prepaid", "spend": 1.0, "balance": 1.0})
        assert push_rows(VIEW, client, [honest]).written == 1
