"""Serves monitoring on a gRPC server of its own."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc

from access import streams
from access.bounds import MESSAGE_BYTES_MAX
from access.interceptor import access_interceptor
from access.peer_tls import ServerCertificate, add_port
from monitoring.api.component import MonitoringComponent
from monitoring.api.windows import WindowListener

SERVER_OPTIONS: Sequence[tuple[str, Any]] = (
    *streams.SERVER_OPTIONS,
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
)
STOP_GRACE_S = 2.0


class MonitoringServer:
    """A gRPC server that serves monitoring alone, and receives the windows of gateways itself.

    Gateways name it in `window_sinks` beside the controller of rollouts.
    """

    def __init__(self, server: grpc.aio.Server, component: MonitoringComponent, port: int) -> None:
        self._server = server
        self.component = component
        self.port = port
        self._keeping_connections = streams.keep_client_connections(port)

    async def stop(self) -> None:
        """Stop the server, then close the database."""
        await self._server.stop(STOP_GRACE_S)
        await self.component.stop()
        self._keeping_connections.cancel()


async def serve_monitoring(
    component: MonitoringComponent,
    listen: str,
    *,
    certificate: ServerCertificate | None = None,
    identities: Sequence[Path] = (),
) -> MonitoringServer:
    """Start a server of monitoring on *listen* (host:port; port 0: any free port).

    certificate  this server's own; None: plain text.
    identities   files of tokens (docs/governance.md). Without one every name is believed.
    """
    server = grpc.aio.server(options=SERVER_OPTIONS, interceptors=(access_interceptor(identities),))
    component.add_to(server)
    WindowListener(component).add_to(server)
    port = add_port(server, listen, certificate)
    await server.start()
    await component.start()
    return MonitoringServer(server, component, port)
