"""Serves the rollout room on a gRPC server of its own, or on the server of the control process."""

import asyncio
import os
import secrets
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc

from access import streams
from access.bounds import MESSAGE_BYTES_MAX
from access.interceptor import access_interceptor
from access.peer_tls import ServerCertificate, add_port
from host.clock import SystemClock
from host.processes import fail_fast
from registry.client import RegistryClient
from rollout.api.commands import RolloutCommands
from rollout.api.service import RolloutsService, rollouts_handlers
from rollout.api.window_sink import OnWindowBatch, WindowSinkService
from rollout.controller.controller import Controller
from rollout.controller.leader import LeaderLoop, run_leader
from rollout.lifecycle.clock import ControllerClock
from rollout.policy.policy import POLICIES, Policy

SERVER_OPTIONS = (
    *streams.SERVER_OPTIONS,
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
)
STOP_GRACE_S = 2.0


class RolloutComponent:
    """The controller and its services in one process.

    Call `start` after the server has started, because the registry may be on the same server.

    registry_address   host:port of the registry.
    actor, token       the controller's credentials at the registry; its role is controller.
    certificate        file of the registry's certificate; None: plain text.
    policies           the policies by name.
    beside             what else runs while this controller leads, such as schedules.
    on_windows         gets each batch of windows, for monitoring.
    """

    def __init__(
        self,
        registry_address: str,
        *,
        actor: str = "rollout",
        token: str | None = None,
        certificate: Path | None = None,
        policies: Mapping[str, Policy] = POLICIES,
        beside: Sequence[LeaderLoop] = (),
        on_windows: OnWindowBatch | None = None,
    ) -> None:
        self._beside = beside
        self._on_windows = on_windows
        self._clock = ControllerClock(SystemClock())
        self._registry = RegistryClient(registry_address, actor, token, certificate=certificate)
        self.controller = Controller(self._registry, self._clock, policies)
        self._running: asyncio.Task[None] | None = None

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serve Rollouts and WindowSink on *server*, which must not have started yet.

        The server needs an AccessInterceptor, which gives each call its identity.
        """
        commands = RolloutCommands(self.controller, self._registry, self._clock)
        rollouts = RolloutsService(self.controller, commands)
        server.add_generic_rpc_handlers((rollouts_handlers(rollouts),))
        WindowSinkService(self.controller, self._on_windows).add_to(server)

    async def start(self) -> None:
        """Start to try for the lease, and to lead when the controller has it."""
        await self._registry.__aenter__()
        holder = f"{socket.gethostname()[:32]}/{os.getpid()}/{secrets.token_hex(4)}"
        leading = run_leader(self.controller, self._registry, holder, self._clock, self._beside)
        self._running = fail_fast(asyncio.ensure_future(leading))

    async def stop(self) -> None:
        """Give the lease up and stop. The next controller gets the unacknowledged windows."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        await self._registry.__aexit__(None, None, None)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()


def add_rollout_to(
    server: grpc.aio.Server,
    registry_address: str,
    *,
    actor: str = "rollout",
    token: str | None = None,
    certificate: Path | None = None,
    policies: Mapping[str, Policy] = POLICIES,
    beside: Sequence[LeaderLoop] = (),
    on_windows: OnWindowBatch | None = None,
) -> RolloutComponent:
    """Add rollout to *server*. Call its `start` after the server's start, and `stop` before it."""
    component = RolloutComponent(
        registry_address,
        actor=actor,
        token=token,
        certificate=certificate,
        policies=policies,
        beside=beside,
        on_windows=on_windows,
    )
    component.add_to(server)
    return component


class RolloutServer:
    """A gRPC server that serves rollout alone."""

    def __init__(self, server: grpc.aio.Server, component: RolloutComponent, port: int) -> None:
        self._server = server
        self.component = component
        self.port = port
        self._keeping_connections = streams.keep_client_connections(port)

    async def stop(self) -> None:
        """Give the lease up, then stop the server."""
        await self.component.stop()
        await self._server.stop(STOP_GRACE_S)
        self._keeping_connections.cancel()

    async def wait(self) -> None:
        """Return when the server has ended."""
        await self._server.wait_for_termination()


async def serve_rollout(
    registry_address: str,
    listen: str,
    *,
    actor: str = "rollout",
    token: str | None = None,
    registry_certificate: Path | None = None,
    certificate: ServerCertificate | None = None,
    policies: Mapping[str, Policy] = POLICIES,
    identities: Sequence[Path] = (),
) -> RolloutServer:
    """Start a server of rollout on *listen* (host:port; port 0: any free port).

    registry_certificate  file of the registry's certificate; None: plain text.
    certificate           this server's own; None: plain text.
    identities            files of tokens (docs/governance.md). Without one every name is believed.
    """
    server = grpc.aio.server(options=SERVER_OPTIONS, interceptors=(access_interceptor(identities),))
    component = add_rollout_to(
        server,
        registry_address,
        actor=actor,
        token=token,
        certificate=registry_certificate,
        policies=policies,
    )
    port = add_port(server, listen, certificate)
    await server.start()
    await component.start()
    return RolloutServer(server, component, port)
