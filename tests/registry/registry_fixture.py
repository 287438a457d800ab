"""A real registry on 127.0.0.1 with a few people, for tests that walk through gRPC."""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from protos import registry_pb2 as pb
from registry.api.server import serve_registry
from registry.client import RegistryClient
from registry.types import Deployment
from tests.tiny_models import linear_weights, tiny_files

POLICY = "ab" * 32
"""Digest of some rollout policy."""


@dataclass
class RegistryFixture:
    """ann writes versions, bob approves, cleo operates."""

    address: str
    ann: RegistryClient
    bob: RegistryClient
    cleo: RegistryClient

    async def register(self, number: int = 1, model: str = "churn") -> pb.Version:
        """The *number*-th version of a model, by ann: each has weights of its own."""
        files = tiny_files(model, weights=linear_weights(3) * number)
        return await self.ann.register(model, files)

    async def report_ready(
        self, *versions: pb.Version, slot: int = 0, refused: tuple[str, ...] = ()
    ) -> None:
        """One worker says that it holds *versions*; refuses those labelled so."""
        held = [
            pb.VersionLoad(
                model=version.model,
                version=version.label,
                digest=version.digest,
                state="REFUSED" if version.label in refused else "READY",
                reason="golden row 3" if version.label in refused else "",
            )
            for version in versions
        ]
        await self.cleo.report_state(pb.GatewayState(gateway="g", slot=slot, boot_id=7, loads=held))

    async def approve(self, version: pb.Version, policy: str = "careful") -> pb.Approval:
        """Bob's approval."""
        digest = "" if policy == "initial" else POLICY
        return await self.bob.approve(
            version.model, version.label, policy, digest, "", "the card was read"
        )

    async def put_in_production(self) -> tuple[pb.Version, Deployment]:
        """Version 1 of churn, deployed as everybody must: ready, approved, compare-and-set."""
        version = await self.register()
        await self.ann.set_status("churn", version.label, pb.STAGING, "it was tried")
        await self.report_ready(version)
        approval = await self.approve(version, "initial")
        held = await self.cleo.deployment("churn")
        return version, await self.cleo.deploy(
            replace(held, production=version.label, approval_id=approval.id, why="the first one")
        )


def run_walk(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run it; no walk here may take longer than 20 s."""
    asyncio.run(asyncio.wait_for(coroutine, 20))


@asynccontextmanager
async def registry_fixture(
    folder: Path, identities: Path | None = None
) -> AsyncIterator[RegistryFixture]:
    """Serve the registry in *folder* while the block runs."""
    server = await serve_registry(folder, "127.0.0.1:0", identities=identities, now_ns=time.time_ns)
    address = f"127.0.0.1:{server.port}"
    try:
        async with AsyncExitStack() as stack:
            people = [
                await stack.enter_async_context(RegistryClient(address, name))
                for name in ("ann", "bob", "cleo")
            ]
            yield RegistryFixture(address, *people)
    finally:
        await server.stop()
