"""A real registry on 127.0.0.1 with three clients, for tests through gRPC."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from access.peer_tls import make_certificate
from protos import registry_pb2 as pb
from registry.api.registrations import ProveFiles
from registry.api.server import serve_registry
from registry.client import RegistryClient
from registry.probe import examine_new_version
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

    async def approve(
        self, version: pb.Version, policy: str = "careful", *, direct: bool = False
    ) -> pb.Approval:
        """Approve a version as bob."""
        digest = "" if policy == "initial" else POLICY
        return await self.bob.approve(
            version.model, version.label, policy, digest, "", "the card was read", direct=direct
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


async def prove_in_process(digest: str, files: Mapping[str, bytes]) -> None:
    """Prove a version without a child process, which takes a second: the test wrote the files."""
    examine_new_version(dict(files), digest, lambda **_: None)


@asynccontextmanager
async def registry_fixture(
    folder: Path, identities: Sequence[Path] = (), prove: ProveFiles | None = prove_in_process
) -> AsyncIterator[RegistryFixture]:
    """Serve the registry in *folder* while the block runs. With prove=None it starts children."""
    own = make_certificate(folder / "keys") if identities else None
    server = await serve_registry(
        folder,
        "127.0.0.1:0",
        identities=identities,
        certificate=own,
        now_ns=time.time_ns,
        prove=prove,
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


class RegistryProcess:
    """A process of `python -m registry` on a free port."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "registry", "--folder", str(folder), "--listen", "127.0.0.1:0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        self.address = self._process.stdout.readline().split()[-1]

    def kill(self) -> None:
        """Send the process SIGKILL."""
        os.kill(self._process.pid, signal.SIGKILL)

    def stop(self) -> int:
        """Send SIGTERM and return the exit code."""
        os.kill(self._process.pid, signal.SIGTERM)
        return self._process.wait(10)

    def close(self) -> None:
        """Kill the process if it runs, and reap it."""
        self._process.kill()
        self._process.wait(10)
        assert self._process.stdout is not None
        self._process.stdout.close()


def probe_runs(digest: str) -> bool:
    """Whether a process of this machine examines the version *digest*."""
    option = f"--digest={digest}".encode()
    return any(option in line.split(b"\0") for line in _command_lines())


def _command_lines() -> Iterator[bytes]:
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield process.read_bytes()
        except OSError:
            continue
