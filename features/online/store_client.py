"""The redis-py client for code that writes to the store: materialise, push, the CLI."""

import socket
from pathlib import Path

import redis
from redis.sentinel import Sentinel

from features.online.store_url import parse_store_url
from features.online.store_users import url_for_user
from host.unix_sockets import check_peer

SENTINEL_TIMEOUT_S = 1.0


class _CheckedUnixConnection(redis.UnixDomainSocketConnection):
    """A connection that sends no password to a user who may not serve the socket."""

    def _connect(self) -> socket.socket:
        connected: socket.socket = super()._connect()  # type: ignore[no-untyped-call]
        try:
            check_peer(connected, self.path)
        except OSError:
            connected.close()
            raise
        return connected


def store_client(url: str, user: str = "", passwords: str | Path = "") -> redis.Redis:
    """Return a client that returns bytes, for any URL that OnlineReader takes. Close it after use.

    user, passwords  where the store is one of `turnout up`: "writer", and the folder
                     `store_passwords` in its system.json.

    With a Sentinel URL, each new connection goes to the server that is master then.
    Raises StoreUrlError for another URL.
    """
    url = url_for_user(url, user, passwords)
    address = parse_store_url(url)
    if address.path:
        return redis.Redis.from_url(url, connection_class=_CheckedUnixConnection)
    if not address.sentinels:
        return redis.Redis.from_url(url)
    sentinel = Sentinel(  # type: ignore[no-untyped-call]
        address.sentinels,
        sentinel_kwargs={
            "password": address.sentinel_password or None,
            "socket_timeout": SENTINEL_TIMEOUT_S,
        },
    )
    client: redis.Redis = sentinel.master_for(  # type: ignore[no-untyped-call]
        address.service,
        db=address.database,
        username=address.user or None,
        password=address.password or None,
    )
    return client
