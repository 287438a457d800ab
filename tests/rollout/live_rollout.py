"""A rollout over real gRPC: a registry, two workers, and a stub of the controller."""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from protos import registry_pb2, rollout_pb2, rollout_pb2_grpc
from registry.client import RegistryClient
from registry.types import FencedError
from rollout.api.server import RolloutServer, serve_rollout
from rollout.policy.policy import Policy
from tests.registry.registry_fixture import RegistryFixture, registry_fixture
from tests.rollout.scripted_parts import POLICIES
from tests.rollout.scripted_workers import ScriptedWorker, deploy_first_version, run_workers
from tests.tiny_models import linear_weights, tiny_files

SAM_METADATA = (("x-turnout-actor", "sam"),)


@dataclass
class LiveRollout:
    """A registry, two workers, and a stub of the controller."""

    registry: RegistryFixture
    workers: list[ScriptedWorker]
    stub: rollout_pb2_grpc.RolloutsStub
    sink: str
    """Address of the controller."""

    async def start(self, policy: Policy) -> rollout_pb2.RolloutStatus:
        """Register and approve a candidate, and start its rollout."""
        files = tiny_files("churn", weights=linear_weights(3) * 2)
        version = await self.registry.ann.register("churn", files)
        await self.registry.bob.approve(
            "churn", version.label, policy.name, policy.digest, "", "the card was read"
        )
        request = rollout_pb2.StartRolloutRequest(
            model="churn", version=version.label, policy=policy.name, reason="better"
        )
        return await call_until_leading(
            lambda: self.stub.Start(request, metadata=SAM_METADATA, wait_for_ready=True)
        )

    async def watch_statuses(self, within_s: float) -> list[rollout_pb2.RolloutStatus]:
        """Watch until the rollout has ended; return every status."""
        async with asyncio.timeout(within_s):
            watch = self.stub.WatchStatus(rollout_pb2.RolloutSelector(model="churn"))
            return [status async for status in watch]


async def call_until_leading(
    call: Callable[[], Awaitable[rollout_pb2.RolloutStatus]],
) -> rollout_pb2.RolloutStatus:
    """Call again while no controller leads, for at most 20 seconds."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await call()
            except grpc.aio.AioRpcError as error:
                if error.code() != grpc.StatusCode.UNAVAILABLE:
                    raise
            await asyncio.sleep(0.05)


@asynccontextmanager
async def run_live_rollout(folder: Path, sink: str | None = None) -> AsyncIterator[LiveRollout]:
    """Run everything.

    sink  address of a controller in another process; None: run a controller here.
    """
    async with registry_fixture(folder) as registry:
        server: RolloutServer | None = None
        if sink is None:
            server = await serve_rollout(registry.address, "127.0.0.1:0", policies=POLICIES)
            sink = f"127.0.0.1:{server.port}"
        try:
            async with (
                run_workers(registry.address, sink) as workers,
                grpc.aio.insecure_channel(sink) as channel,
            ):
                await deploy_first_version(registry.ann, registry.bob, tiny_files("churn"))
                stub = rollout_pb2_grpc.RolloutsStub(channel)  # type: ignore[no-untyped-call]
                yield LiveRollout(registry, workers, stub, sink)
        finally:
            if server is not None:
                await server.stop()


async def take_free_lease(client: RegistryClient) -> registry_pb2.Lease:
    """Take the lease of rollouts as soon as its last holder has let it run out."""
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(FencedError):
                return await client.acquire_lease("rollout", "by hand", 30)
            await asyncio.sleep(0.05)


async def wait_until_leading(server: RolloutServer) -> None:
    """Return when the server's controller leads."""
    controller = server.component.controller
    while not controller.leading:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                await controller.status_changed.wait()


def unused_port() -> int:
    """Return a port on which no process listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_controller_process(
    registry: str, listen: str, *more: str, log: Path | None = None
) -> "subprocess.Popen[bytes]":
    """Start `python -m rollout` as a process. *more* are further arguments."""
    command = [sys.executable, "-m", "rollout", "--registry", registry, "--listen", listen, *more]
    with (log or Path(os.devnull)).open("ab") as log_file:
        return subprocess.Popen(command, stderr=log_file)
