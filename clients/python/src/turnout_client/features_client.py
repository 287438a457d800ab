"""The clients that push rows of features: one for asyncio, one for threads."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

import grpc
import grpc.aio

from turnout_client._protos.features_pb2 import PushReply
from turnout_client.channels import ChannelPool, Token
from turnout_client.errors import PushError
from turnout_client.feature_rows import FeatureRow, RowResult, build_pushes, read_results

TIMEOUT_S = 10.0
"""The deadline of a call that gives none. It has room for the waits of a caller above its rate."""


class FeaturesClient:
    """Pushes rows from asyncio. Build it inside the event loop that uses it.

    >>> import asyncio, time
    >>> from turnout_client import FeatureRow, FeaturesClient
    >>> async def main() -> None:
    ...     row = FeatureRow("S0000042", time.time_ns() // 1_000_000, {"gigabytes": 1.5})
    ...     async with FeaturesClient("127.0.0.1:7003") as client:
    ...         print(await client.push("usage", [row]))
    >>> asyncio.run(main())
    [RowResult(status='written', reason='')]
    """

    def __init__(
        self,
        target: str,
        *,
        timeout_s: float = TIMEOUT_S,
        credentials: grpc.ChannelCredentials | None = None,
        token: Token | None = None,
        server_name: str = "",
        use_proxy: bool = False,
    ) -> None:
        """Prepare the connection. gRPC opens it with the first call.

        target       "host:port" of `turnout features serve`.
        timeout_s    the deadline of calls that give none, in seconds.
        credentials  from grpc.ssl_channel_credentials. None: plain text.
        token        a bearer token with the role `pusher`, or a function that returns the present
                     one. It needs credentials, except on the same host.
        server_name  the name in the server's certificate, if the target has another one:
                     "turnout-control" for a certificate that Turnout made. Empty: the target's.
        use_proxy    whether calls go through the proxy that grpc_proxy, https_proxy or http_proxy
                     names.

        Raises ValueError for a token that would be sent over a network in plain text.
        """
        # The bound on a call.
        self._timeout_s = timeout_s
        # One connection is enough: calls share it, and a push has many rows.
        open_insecure, open_secure = grpc.aio.insecure_channel, grpc.aio.secure_channel
        self._pool = ChannelPool(
            target,
            1,
            credentials,
            open_insecure,
            open_secure,
            token,
            server_name,
            use_proxy=use_proxy,
        )

    async def __aenter__(self) -> FeaturesClient:  # noqa: PYI034  Self needs Python 3.11
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection. Calls that are still open are cancelled."""
        for channel in self._pool.channels:
            await channel.close()

    async def push(
        self,
        view: str,
        rows: Sequence[FeatureRow],
        *,
        view_hash: str = "",
        timeout_s: float | None = None,
    ) -> list[RowResult]:
        """Store rows of a view offline and online; return what became of each, in order.

        rows       any number. They are sent in calls of 1,000, one after the other.
        view_hash  16 digits or more of the hash of one edition. Empty: each edition that is applied
                   or that a deployed version reads.
        timeout_s  the deadline of each call in seconds. None: the client's timeout_s.

        Raises PushError if a call fails. Send all rows again then: those that are stored are
        duplicates.
        """
        results: list[RowResult] = []
        for request in build_pushes(view, rows, view_hash):
            try:
                reply: PushReply = await next(self._pool.push)(
                    request, timeout=timeout_s or self._timeout_s, metadata=self._pool.metadata()
                )
            except grpc.aio.AioRpcError as error:
                raise PushError(error.code(), self._pool.message_of(error)) from None
            results += read_results(reply)
        return results


class SyncFeaturesClient:
    """Pushes rows from threads. All threads of a process may share one client."""

    def __init__(
        self,
        target: str,
        *,
        timeout_s: float = TIMEOUT_S,
        credentials: grpc.ChannelCredentials | None = None,
        token: Token | None = None,
        server_name: str = "",
        use_proxy: bool = False,
    ) -> None:
        """Prepare the connection. FeaturesClient documents the arguments and errors."""
        self._timeout_s = timeout_s
        self._pool = ChannelPool(
            target,
            1,
            credentials,
            grpc.insecure_channel,
            grpc.secure_channel,
            token,
            server_name,
            use_proxy=use_proxy,
        )

    def __enter__(self) -> SyncFeaturesClient:  # noqa: PYI034  Self needs Python 3.11
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. Calls that are still open are cancelled."""
        for channel in self._pool.channels:
            channel.close()

    def push(
        self,
        view: str,
        rows: Sequence[FeatureRow],
        *,
        view_hash: str = "",
        timeout_s: float | None = None,
    ) -> list[RowResult]:
        """Store rows of a view offline and online, as FeaturesClient.push does.

        Raises PushError if a call fails.
        """
        results: list[RowResult] = []
        for request in build_pushes(view, rows, view_hash):
            try:
                reply: PushReply = next(self._pool.push)(
                    request, timeout=timeout_s or self._timeout_s, metadata=self._pool.metadata()
                )
            except grpc.RpcError as error:
                raise PushError(error.code(), self._pool.message_of(error)) from None
            results += read_results(reply)
        return results
