"""The rollout room on a gRPC server: its own, or the registry's in one control process."""

import asyncio
import os
import secrets
import socket
from collections.abc import Mapping
from types import TracebackType
from typing import Self

import grpc

from host.clock import SystemClock
from protos import rollout_pb2_grpc, window_pb2_grpc
from registry.client import RegistryClient
from rollout.api.commands import RolloutCommands
from rollout.api.service import RolloutsService
from rollout.api.window_sink import WindowSinkService
from rollout.controller.controller import Controller
from rollout.controller.leader import run_leader
from rollout.lifecycle.clock import ControllerClock
from rollout.policy.policy import POLICIES, Policy

SERVER_OPTIONS = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", 16 * 2**20),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
)
STOP_GRACE_S = 2.0


class RolloutComponent:
    """Everything of rollout in one process. `start` once the server that carries it serves.

    registry_address   host:port; may be the very server this room is added to
    actor, token       who the controller is to the registry (role: controller)
    """

    def __init__(
        self,
        registry_address: str,
        *,
        actor: str = "rollout",
        token: str | None = None,
        policies: Mapping[str, Policy] = POLICIES,
    ) -> None:
        self._clock = ControllerClock(SystemClock())
        self._registry = RegistryClient(registry_address, actor, token)
        self.controller = Controller(self._registry, self._clock, policies)
        self._running: asyncio.Task[None] | None = None

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serve Rollouts and WindowSink on *server*, which must not have started yet."""
        steering = RolloutCommands(self.controller, self._registry, self._clock)
        rollout_pb2_grpc.add_RolloutsServicer_to_server(  # type: ignore[no-untyped-call]
            RolloutsService(self.controller, steering), server
        )
        window_pb2_grpc.add_WindowSinkServicer_to_server(  # type: ignore[no-untyped-call]
            WindowSinkService(self.controller), server
        )

    async def start(self) -> None:
        """Begin to ask for the lease, and to lead when it is had."""
        await self._registry.__aenter__()
        holder = f"{socket.gethostname()[:32]}/{os.getpid()}/{secrets.token_hex(4)}"
        self._running = asyncio.ensure_future(
            run_leader(self.controller, self._registry, holder, self._clock)
        )

    async def stop(self) -> None:
        """Pass the lease on and end; gateways keep what was not acknowledged."""
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
    policies: Mapping[str, Policy] = POLICIES,
) -> RolloutComponent:
    """Put the rollout room on *server*; call its `start` after the server's, `stop` before."""
    room = RolloutComponent(registry_address, actor=actor, token=token, policies=policies)
    room.add_to(server)
    return room


class RolloutServer:
    """The room on a server of its own."""

    def __init__(self, server: grpc.aio.Server, room: RolloutComponent, port: int) -> None:
        self._server = server
        self.component = room
        self.port = port

    async def stop(self) -> None:
        """Pass the lease on, then stop serving."""
        await self.component.stop()
        await self._server.stop(STOP_GRACE_S)

    async def wait(self) -> None:
        """Return when the server has ended."""
        await self._server.wait_for_termination()


async def serve_rollout(
    registry_address: str,
    listen: str,
    *,
    actor: str = "rollout",
    token: str | None = None,
    policies: Mapping[str, Policy] = POLICIES,
) -> RolloutServer:
    """Serve on *listen* (host:port, port 0: any free one) against a registry elsewhere."""
    server = grpc.aio.server(options=SERVER_OPTIONS)
    room = add_rollout_to(server, registry_address, actor=actor, token=token, policies=policies)
    port = server.add_insecure_port(listen)
    await server.start()
    await room.start()
    return RolloutServer(server, room, port)
