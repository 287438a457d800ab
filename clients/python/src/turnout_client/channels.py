"""The connections of a client and the methods that it calls over them."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from typing import Any, Callable, Protocol, Union
from urllib.parse import urlsplit

import grpc

from turnout_client._protos.features_pb2 import PushReply, PushRequest
from turnout_client._protos.predict_pb2 import (
    DescribeRequest,
    ModelDescription,
    OutcomeReply,
    OutcomeRequest,
    PredictReply,
    PredictRequest,
)
from turnout_client.retry import CHANNEL_OPTIONS, FEATURES_SERVICE, SERVICE


class _OpenInsecure(Protocol):
    """The common signature of grpc.insecure_channel and grpc.aio.insecure_channel."""

    def __call__(self, target: str, options: Any) -> Any: ...  # noqa: ANN401


class _OpenSecure(Protocol):
    """The common signature of grpc.secure_channel and grpc.aio.secure_channel."""

    def __call__(self, target: str, credentials: Any, options: Any) -> Any: ...  # noqa: ANN401


Token = Union[str, Callable[[], str]]
"""A bearer token, or a function that returns the present one, for tokens that expire."""

PROXY_VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy")
"""Environment variables in which gRPC looks for a proxy, in this order."""

LOOPBACK = ("127.", "localhost:", "[::1]:", "unix:")
"""Targets on the same host, which nobody on the network can listen to."""


_UNREACHABLE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


class ChannelPool:
    """Several channels to one target. Each call takes the next channel in turn.

    Each channel has one connection, and a connection belongs to one worker of the gateway. So a
    client with several channels reaches several workers. `predict`, `describe`, `outcome` and
    `push` are endless iterators over the method of each channel.
    """

    def __init__(
        self,
        target: str,
        connections: int,
        credentials: grpc.ChannelCredentials | None,
        open_insecure: _OpenInsecure,
        open_secure: _OpenSecure,
        token: Token | None = None,
        server_name: str = "",
        *,
        use_proxy: bool = False,
    ) -> None:
        # A token must not be read on its way.
        if token is not None and credentials is None and not target.startswith(LOOPBACK):
            raise ValueError(
                f"a token is sent to {target} over TLS only, or everybody on the way could read "
                "it: give credentials, for example grpc.ssl_channel_credentials()"
            )
        self._token = token
        self._use_proxy = use_proxy
        # A certificate of the server's own need not have the name by which the host is called.
        expected = (("grpc.ssl_target_name_override", server_name),) if server_name else ()
        proxy = (("grpc.enable_http_proxy", int(use_proxy)),)
        options = (*CHANNEL_OPTIONS, *proxy, *expected)
        self.channels = [
            open_insecure(target, options=(*CHANNEL_OPTIONS, *proxy))
            if credentials is None
            else open_secure(target, credentials, options=options)
            for _ in range(connections)
        ]
        # The methods of all channels in turn.
        self.predict = self._methods(SERVICE, "Predict", PredictRequest, PredictReply)
        self.describe = self._methods(SERVICE, "DescribeModel", DescribeRequest, ModelDescription)
        self.outcome = self._methods(SERVICE, "ReportOutcome", OutcomeRequest, OutcomeReply)
        self.push = self._methods(FEATURES_SERVICE, "Push", PushRequest, PushReply)

    def message_of(self, error: Any) -> str:  # noqa: ANN401  grpc.RpcError says no code
        """Return what an error of gRPC says, and what a proxy may have to do with it."""
        details: str = error.details() or ""
        name = next((name for name in PROXY_VARIABLES if os.environ.get(name)), "")
        if not name or error.code() not in _UNREACHABLE:
            return details
        if self._use_proxy:
            address = urlsplit(os.environ[name])
            return f"{details}; the call went through the proxy {address.hostname} of {name}"
        return f"{details}; {name} is set, and only use_proxy=True sends calls through it"

    def metadata(self) -> Sequence[tuple[str, str]] | None:
        """Return the metadata of a call: its token, if there is one."""
        if self._token is None:
            return None
        token = self._token if isinstance(self._token, str) else self._token()
        return (("authorization", f"Bearer {token}"),)

    def _methods(self, service: str, name: str, request: Any, reply: Any) -> Iterator[Any]:  # noqa: ANN401
        return itertools.cycle(
            [
                channel.unary_unary(
                    f"/{service}/{name}",
                    request_serializer=request.SerializeToString,
                    response_deserializer=reply.FromString,
                )
                for channel in self.channels
            ]
        )
