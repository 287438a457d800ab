"""redis-py's client for whoever writes: materialise, push, the operator's command."""

import redis
from redis.sentinel import Sentinel

from features.online.store_url import parse_store_url

SENTINEL_TIMEOUT_S = 1.0


def store_client(url: str) -> redis.Redis:
    """Return a client in bytes for any URL that OnlineReader takes; close it after use.

    Through Sentinel it writes to whoever is master at each new connection.
    Raises StoreUrlError.
    """
    address = parse_store_url(url)
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
