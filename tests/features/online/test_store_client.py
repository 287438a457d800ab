"""The client that writes rows sends its password to no stranger."""

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from redis.exceptions import ConnectionError as StoreConnectionError

from features.online.store_client import store_client
from host.unix_sockets import ForeignPeerError, check_peer_user
from tests.host.test_unix_sockets import NOBODY, served_by


@pytest.mark.walk
def test_client_sends_no_password_to_another_user() -> None:
    """The stranger who bound the socket's name reads nothing."""
    if os.geteuid() != 0:
        # Only root can become another user. The kernel's answer is the same for a made-up one.
        with pytest.raises(ForeignPeerError):
            check_peer_user(NOBODY, os.geteuid(), "/x/s")
        return
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o1777)
        path = Path(folder) / "store.sock"
        with served_by(NOBODY, path) as process:
            with (
                store_client(f"unix://writer:secret@{path}") as client,
                pytest.raises(StoreConnectionError, match=f"user {NOBODY} listens"),
            ):
                client.ping()
            assert process.stdout is not None
            assert process.stdout.readline() == "0\n"
