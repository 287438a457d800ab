"""The redis-py client for code that writes to the store: materialise, push, the CLI."""

import redis
from redis.sentinel import Sentinel

from features.online.store_url import parse_store_url

SENTINEL_TIMEOUT_S = 1.0


def store_client(url: str) -> redis.Redis:
    """Return a client that returns bytes, for any URL that OnlineReader takes. Close it after use.

    With a Sentinel URL, each new connection goes to the server that is master then.
    Raises StoreUrlError for another URL.
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
