"""A worker whose watch the registry refuses tries again later and later, and says so once."""

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from gateway.models.registry_trust import RegistryTrust
from gateway.models.registry_watch import RegistryWatch
from gateway.worker_identity import WorkerIdentity
from host.clock import SystemClock
from protos import registry_pb2 as pb
from protos.registry_pb2_grpc import RegistryServicer, add_RegistryServicer_to_server
from tests.gateway.models.test_loader import TRUSTED, LoaderFixture

pytestmark = pytest.mark.walk

REFUSALS = 4


class RefusingRegistry(RegistryServicer):
    """Refuses the first watches as one with too many streams does, and then serves."""

    def __init__(self) -> None:
        self.opened_s: list[float] = []

    async def WatchDeployments(  # noqa: N802  the name in registry.proto
        self,
        _request: pb.WatchDeploymentsRequest,
        context: Any,  # noqa: ANN401  untyped
    ) -> AsyncIterator[pb.DeploymentEvent]:
        """Refuse, or send an empty snapshot and stay open."""
        self.opened_s.append(asyncio.get_running_loop().time())
        if len(self.opened_s) <= REFUSALS:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "256 streams are open")
        yield pb.DeploymentEvent(snapshot_end=True)
        await asyncio.Event().wait()

    async def ReportState(self, _request: pb.GatewayState, _context: object) -> pb.Empty:  # noqa: N802
        """Take any report."""
        return pb.Empty()


def test_refused_watch_is_tried_again_later_and_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """0.2, 0.4 and 0.8 s after the first refusals; the worker has its snapshot in the end."""
    registry = RefusingRegistry()

    async def walk() -> None:
        # A registry that refuses.
        server = grpc.aio.server()
        add_RegistryServicer_to_server(registry, server)  # type: ignore[no-untyped-call]
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        # A worker that watches until it has a snapshot.
        gateway = LoaderFixture(tmp_path, {})
        watch = RegistryWatch(
            f"127.0.0.1:{port}",
            None,
            None,
            WorkerIdentity("g", 0, 7, bytes(32)),
            RegistryTrust(TRUSTED, gateway.disk, lambda _: None),
            SystemClock(),
            lambda _: None,
        )
        running = asyncio.create_task(watch.run(gateway.loader))
        async with asyncio.timeout(20):
            await watch.snapshot_seen.wait()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await server.stop(None)

    with caplog.at_level(logging.INFO):
        asyncio.run(walk())
    # When it tried, and what it said.
    assert len(registry.opened_s) == REFUSALS + 1
    pairs = zip(registry.opened_s, registry.opened_s[1:], strict=False)
    pauses_s = [later - earlier for earlier, later in pairs]
    assert pauses_s[0] >= 0.2
    assert pauses_s[2] >= 0.8
    said = [r.getMessage() for r in caplog.records if "registry_stream_ended" in r.getMessage()]
    assert len(said) == 1
    assert "256 streams are open" in said[0]
