"""The redis-py client for code that writes to the store: materialise, push, the CLI."""

from pathlib import Path
from typing import Any

from redis.sentinel import Sentinel

from features.materialise import StoreClient
from features.online.store_url import parse_store_url
from features.online.store_users import url_for_user

SENTINEL_TIMEOUT_S = 1.0


def store_client(url: str, user: str = "", passwords: str | Path = "") -> StoreClient:
    """Return a client that returns bytes, for any URL that OnlineReader takes. Close it after use.

    user, passwords  where the store is one of `turnout up`: "writer", and the folder
                     `store_passwords` in its system.json.

    With a Sentinel URL, each new connection goes to the server that is master then.
    Raises StoreUrlError for another URL.
    """
    url = url_for_user(url, user, passwords)
    address = parse_store_url(url)
    login: dict[str, Any] = {
        "db": address.database,
        "username": address.user or None,
        "password": address.password or None,
    }
    client: StoreClient
    if address.sentinels:
        sentinels = {
            "password": address.sentinel_password or None,
            "socket_timeout": SENTINEL_TIMEOUT_S,
        }
        sentinel = Sentinel(address.sentinels, sentinel_kwargs=sentinels)  # type: ignore[no-untyped-call]
        client = sentinel.master_for(address.service, redis_class=StoreClient, **login)  # type: ignore[no-untyped-call]
    elif address.path:
        client = StoreClient(unix_socket_path=address.path, **login)
    else:
        client = StoreClient(host=address.host, port=address.port, **login)
    client.namespace = address.namespace
    return client
