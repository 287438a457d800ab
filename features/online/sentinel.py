"""Where the master is, asked of Sentinel; redis-py knows how. Never while a caller waits."""

import redis
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

from features.errors import OnlineStoreError
from features.online.store_url import StoreAddress

SENTINEL_TIMEOUT_S = 0.1
"""For each of the sentinels, one after the other: a dead one costs no more than this."""


class MasterFinder:
    """Asks the sentinels of one address. Used by one event loop's thread."""

    def __init__(self, address: StoreAddress) -> None:
        self._address = address
        self._sentinel: Sentinel | None = None

    async def find_master(self) -> tuple[str, int]:
        """Return the master's host and port, as the first sentinel that answers names it.

        A master that a sentinel believes to be down is not named. Raises OnlineStoreError
        "connection" when nobody names one.
        """
        if self._sentinel is None:
            # redis-py's own default is ten retries, for seconds: here the next try is ours.
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
        except (redis.RedisError, OSError) as error:
            raise OnlineStoreError("connection", f"no sentinel names it: {error}") from error
        return str(host), int(port)

    async def close(self) -> None:
        """Leave the sentinels."""
        if self._sentinel is not None:
            await self._sentinel.aclose()
            self._sentinel = None
