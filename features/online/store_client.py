"""The redis-py client for code that writes to the store: materialise, push, the CLI."""

import socket
from pathlib import Path
from typing import Any

from redis import ConnectionPool, UnixDomainSocketConnection
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

from features.online.store_url import parse_store_url
from features.online.store_users import url_for_user
from features.writes.row_scripts import StoreClient
from host.unix_sockets import check_peer

SENTINEL_TIMEOUT_S = 1.0


class _CheckedUnixConnection(UnixDomainSocketConnection):
    """A connection that sends no password to a user who may not serve the socket."""

    def _connect(self) -> socket.socket:
        connected: socket.socket = super()._connect()  # type: ignore[no-untyped-call]
        try:
            check_peer(connected, self.path)
        except OSError:
            connected.close()
            raise
        return connected


def store_client(
    url: str, user: str = "", passwords: str | Path = "", *, timeout_s: float | None = None
) -> StoreClient:
    """Return a client that returns bytes, for any URL that OnlineReader takes. Close it after use.

    user, passwords  where the store is one of `turnout up`: "writer", and the folder
                     `store_passwords` in its system.json.

    timeout_s        bound on the wait for a connection and for a reply. A command that fails is
                     then not repeated. None: no bound, and redis-py repeats.

    With a Sentinel URL, each new connection goes to the server that is master then.
    Raises StoreUrlError for another URL.
    """
    # Our parser reads the URL, so that no side knows more of it than another.
    url = url_for_user(url, user, passwords)
    address = parse_store_url(url)
    login: dict[str, Any] = {
        "db": address.database,
        "username": address.user or None,
        "password": address.password or None,
    }
    if timeout_s is not None:
        login |= {"socket_timeout": timeout_s, "retry": Retry(NoBackoff(), 0)}
        # A socket of this host needs no time to connect.
        if not address.path:
            login["socket_connect_timeout"] = timeout_s
    # The server of a socket is checked before it gets a password.
    client: StoreClient
    if address.sentinels:
        sentinels = {
            "password": address.sentinel_password or None,
            "socket_timeout": SENTINEL_TIMEOUT_S,
        }
        sentinel = Sentinel(address.sentinels, sentinel_kwargs=sentinels)  # type: ignore[no-untyped-call]
        client = sentinel.master_for(address.service, redis_class=StoreClient, **login)  # type: ignore[no-untyped-call]
    elif address.path:
        checked = ConnectionPool(
            connection_class=_CheckedUnixConnection, path=address.path, **login
        )
        client = StoreClient(connection_pool=checked)
        client.auto_close_connection_pool = True
    else:
        client = StoreClient(host=address.host, port=address.port, **login)
    client.namespace = address.namespace
    return client
