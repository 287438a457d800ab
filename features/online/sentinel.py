"""Finds the master of a store through Redis Sentinel, with redis-py. No call waits for this.

redis-py takes long to import and few stores have sentinels, so the first query imports it.
"""

from typing import TYPE_CHECKING

from features.errors import OnlineStoreError
from features.online.store_url import StoreAddress

if TYPE_CHECKING:
    from redis.asyncio.sentinel import Sentinel

SENTINEL_TIMEOUT_S = 0.1
"""Timeout for each sentinel. They are queried one after the other."""


class MasterFinder:
    """Queries the sentinels of one store address. Used by one event loop's thread."""

    def __init__(self, address: StoreAddress) -> None:
        self._address = address
        self._sentinel: Sentinel | None = None

    async def find_master(self) -> tuple[str, int]:
        """Return the master's host and port from the first sentinel that answers.

        A sentinel does not name a master that it believes to be down. Raises OnlineStoreError
        "connection" when no sentinel names a master.
        """
        from redis.asyncio.retry import Retry
        from redis.asyncio.sentinel import Sentinel
        from redis.backoff import NoBackoff
        from redis.exceptions import RedisError

        if self._sentinel is None:
            # redis-py would retry ten times, for seconds. The reader retries by itself.
            self._sentinel = Sentinel(  # type: ignore[no-untyped-call]
                self._address.sentinels,
                sentinel_kwargs={
                    "password": self._address.sentinel_password or None,
                    "socket_timeout": SENTINEL_TIMEOUT_S,
                    "socket_connect_timeout": SENTINEL_TIMEOUT_S,
                    "retry": Retry(NoBackoff(), 0),
                },
            )
        try:
            host, port = await self._sentinel.discover_master(self._address.service)
        except (RedisError, OSError) as error:
            raise OnlineStoreError("connection", f"no sentinel names it: {error}") from error
        return str(host), int(port)

    async def close(self) -> None:
        """Close the connections to the sentinels."""
        if self._sentinel is not None:
            await self._sentinel.aclose()
            self._sentinel = None
