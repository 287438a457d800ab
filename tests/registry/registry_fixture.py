"""A real registry on 127.0.0.1 with three clients, for tests through gRPC."""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from access.peer_tls import make_certificate
from protos import registry_pb2 as pb
from registry.api.server import serve_registry
from registry.client import RegistryClient
from registry.types import Deployment
from tests.tiny_models import linear_weights, tiny_files

POLICY = "ab" * 32
"""Digest of some rollout policy."""


@dataclass
class RegistryFixture:
    """The clients of three people: ann registers versions, bob approves them, cleo operates."""

    address: str
    certificate: Path | None
    """None: plain text, for a registry without identities."""
    ann: RegistryClient
    bob: RegistryClient
    cleo: RegistryClient

    def client(self, actor: str, token: str | None = None) -> RegistryClient:
        """Return a client of one more person; an async context manager."""
        return RegistryClient(self.address, actor, token, certificate=self.certificate)

    async def register(self, number: int = 1, model: str = "churn") -> pb.Version:
        """Register the *number*-th version of a model as ann. Each number has other weights."""
        files = tiny_files(model, weights=linear_weights(3) * number)
        return await self.ann.register(model, files)

    async def report_ready(
        self, *versions: pb.Version, slot: int = 0, refused: tuple[str, ...] = ()
    ) -> None:
        """Report *versions* as loaded by one worker, except the labels in *refused*."""
        loads = [
            pb.VersionLoad(
                model=version.model,
                version=version.label,
                digest=version.digest,
                state="REFUSED" if version.label in refused else "READY",
                reason="golden row 3" if version.label in refused else "",
            )
            for version in versions
        ]
        await self.cleo.report_state(
            pb.GatewayState(gateway="g", slot=slot, boot_id=7, loads=loads)
        )

    async def approve(self, version: pb.Version, policy: str = "careful") -> pb.Approval:
        """Approve a version as bob."""
        digest = "" if policy == "initial" else POLICY
        return await self.bob.approve(
            version.model, version.label, policy, digest, "", "the card was read"
        )

    async def put_in_production(self) -> tuple[pb.Version, Deployment]:
        """Deploy version 1 of churn through all gates; return the version and the deployment."""
        version = await self.register()
        await self.ann.set_status("churn", version.label, pb.STAGING, "it was tried")
        await self.report_ready(version)
        approval = await self.approve(version, "initial")
        current = await self.cleo.deployment("churn")
        return version, await self.cleo.deploy(
            replace(current, production=version.label, approval_id=approval.id, why="the first one")
        )


def run_walk(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run the coroutine for at most 20 s."""
    asyncio.run(asyncio.wait_for(coroutine, 20))


@asynccontextmanager
async def registry_fixture(
    folder: Path, identities: Path | None = None
) -> AsyncIterator[RegistryFixture]:
    """Serve the registry in *folder* while the block runs."""
    own = None if identities is None else make_certificate(folder / "keys")
    server = await serve_registry(
        folder, "127.0.0.1:0", identities=identities, certificate=own, now_ns=time.time_ns
    )
    certificate = None if own is None else own.certificate
    address = f"127.0.0.1:{server.port}"
    try:
        async with AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(
                    RegistryClient(address, name, certificate=certificate)
                )
                for name in ("ann", "bob", "cleo")
            ]
            yield RegistryFixture(address, certificate, *clients)
    finally:
        await server.stop()
