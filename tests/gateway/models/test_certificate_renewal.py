"""A registry changes its certificate, and its gateways go on without a restart."""

import asyncio
from pathlib import Path

import pytest

from access.peer_tls import ServerCertificate, make_certificate
from gateway.models.registry_trust import RegistryTrust
from gateway.models.registry_watch import RegistryWatch
from gateway.worker_identity import WorkerIdentity
from host.clock import SystemClock
from protos import registry_pb2 as pb
from registry.api.server import RegistryServer, serve_registry
from tests.gateway.models.test_loader import GOOD, LoaderFixture, digest_of
from tests.poll import wait_until

pytestmark = pytest.mark.walk


async def restarted(
    folder: Path, server: RegistryServer, certificate: ServerCertificate
) -> RegistryServer:
    """Stop the registry, and start it at the same port with another certificate."""
    await server.stop()
    return await serve_registry(folder, f"127.0.0.1:{server.port}", certificate=certificate)


def test_gateway_follows_a_registry_that_changes_its_certificate(tmp_path: Path) -> None:
    """The file has both certificates during the change, and a third one is refused until then."""
    first, second, third = (make_certificate(tmp_path / name) for name in ("1", "2", "3"))
    pinned = tmp_path / "registry.crt"

    def pin(*certificates: ServerCertificate) -> None:
        pinned.write_bytes(b"".join(item.certificate.read_bytes() for item in certificates))

    async def walk() -> None:
        # A worker watches a registry, whose certificate alone is pinned.
        pin(first)
        folder = tmp_path / "registry"
        server = await serve_registry(folder, "127.0.0.1:0", certificate=first)
        gateway = LoaderFixture(tmp_path / "gateway", {digest_of(GOOD): GOOD})
        trust = RegistryTrust(None, gateway.disk, lambda _: None)
        connected: list[pb.ServingKeys] = []
        identity, address = WorkerIdentity("g", 0, 7, bytes(32)), f"127.0.0.1:{server.port}"
        watch = RegistryWatch(
            address, None, pinned, identity, trust, SystemClock(), connected.append
        )
        running = asyncio.create_task(watch.run(gateway.loader))
        await wait_until(lambda: len(connected) == 1, 20.0)
        # Both are pinned before the change, so nothing needs to be done in time.
        pin(first, second)
        server = await restarted(folder, server, second)
        await wait_until(lambda: len(connected) == 2, 20.0)
        # One that nobody pinned is refused. It is accepted as soon as the file has it.
        pin(second)
        server = await restarted(folder, server, third)
        await wait_until(
            lambda: any(alarm.kind == pb.RegistryAlarm.PEER_NOT_PROVEN for alarm in trust.alarms),
            20.0,
        )
        assert len(connected) == 2
        pin(third)
        await wait_until(lambda: len(connected) == 3, 20.0)
        assert list(trust.alarms) == []
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await server.stop()

    asyncio.run(walk())
