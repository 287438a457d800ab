"""Workers with scripted traffic that report and send as real workers do, over real gRPC."""

import asyncio
import contextlib
import random
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace

from gateway.telemetry.window_stream import WindowStream
from protos import registry_pb2, window_pb2
from registry.client import RegistryClient
from registry.signed import read_deployment
from registry.types import Deployment, RegistryError
from tests.rollout.scripted_parts import NS

ScriptedWindowKey = tuple[int, int, str, str]
"""(second, revision, arm, version)."""


@dataclass
class WindowCounts:
    """The keys of one open window."""

    clean: list[int] = field(default_factory=list)
    bad: list[int] = field(default_factory=list)
    bad_ns: list[int] = field(default_factory=list)
    pairs: int = 0
    pairs_faulty: int = 0


class ScriptedWorker:
    """One worker slot. It watches deployments, reports READY, and sends windows each second.

    calls_a_second  calls, each of a new key.
    gateway         name of its gateway.
    clock_ahead_s   how far its clock is ahead; below 0: behind.
    failure_rates   version -> how often it raises; production then answers in its place.
    """

    def __init__(
        self,
        registry: RegistryClient,
        sink: str,
        slot: int,
        calls_a_second: int,
        gateway: str = "g",
        clock_ahead_s: float = 0.0,
    ) -> None:
        self._registry = registry
        self._gateway = gateway
        self._ahead_ns = int(clock_ahead_s * NS)
        self._slot = slot
        self._boot_id = random.getrandbits(63)
        self.source = window_pb2.Source(gateway=gateway, slot=slot, boot_id=self._boot_id)
        self.stream = WindowStream(sink, self.source, 1000, lambda _: None, self._unix_ns)
        self._calls = calls_a_second
        self._deployment = Deployment(model="churn")
        self._open: dict[ScriptedWindowKey, WindowCounts] = defaultdict(WindowCounts)
        self.failure_rates: dict[str, float] = {}
        self.sending = True

    def _unix_ns(self) -> int:
        """Return the time by the worker's clock."""
        return time.time_ns() + self._ahead_ns

    async def run(self) -> None:
        """Run until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.stream.run())
            group.create_task(self._follow())
            group.create_task(self._serve())
            group.create_task(self._send_windows())

    async def _follow(self) -> None:
        while True:
            with contextlib.suppress(RegistryError):
                async for event in self._registry.watch_deployments(
                    self._gateway, self._slot, self._boot_id
                ):
                    for message in event.deployments:
                        self._deployment = read_deployment(message)
                    await self._report()
            await asyncio.sleep(0.1)

    async def _report(self) -> None:
        digests = dict(self._deployment.digests)
        loads = [
            registry_pb2.VersionLoad(
                model="churn", version=version, digest=digests[version], state="READY"
            )
            for version in self._deployment.versions
        ]
        now = self._unix_ns()
        await self._registry.report_state(
            registry_pb2.GatewayState(
                gateway=self._gateway,
                slot=self._slot,
                boot_id=self._boot_id,
                loads=loads,
                applied={"churn": self._deployment.revision},
                applied_unix_ns={"churn": now},
                at_unix_ns=now,
            )
        )

    async def _serve(self) -> None:
        while True:
            await asyncio.sleep(0.05)
            for _ in range(self._calls // 20):
                self._serve_call(self._deployment, self._unix_ns())

    def _serve_call(self, deployment: Deployment, now: int) -> None:
        if not deployment.production:
            return
        key, bucket = random.getrandbits(64), random.randrange(10_000)
        arm, version = "PRODUCTION", deployment.production
        if bucket < deployment.canary_bp:
            arm, version = "CANARY", deployment.canary
        elif bucket >= 10_000 - deployment.standby_bp:
            arm, version = "STANDBY", deployment.standby
        counts = self._open[now // NS, deployment.revision, arm, version]
        if random.random() < self.failure_rates.get(version, 0.0):
            counts.bad.append(key)
            counts.bad_ns.append(now)
        else:
            counts.clean.append(key)
        for shadow, _ in deployment.shadows:
            counts = self._open[now // NS, deployment.revision, "SHADOW", shadow]
            counts.pairs += 1
            counts.pairs_faulty += random.random() < self.failure_rates.get(shadow, 0.0)

    async def _send_windows(self) -> None:
        while True:
            await asyncio.sleep(1.01 - time.time() % 1.0)
            now = self._unix_ns()
            windows = list(self._close(now // NS))
            if self.sending:
                self.stream.offer(windows, [], now)

    def send_guard(self, guard: window_pb2.HardGuard) -> None:
        """Send a hard guard at once."""
        self.stream.offer([], [guard], self._unix_ns())

    def _close(self, second: int) -> Iterator[window_pb2.Window]:
        for key in [key for key in self._open if key[0] < second]:
            counts = self._open.pop(key)
            began, revision, arm, version = key
            window = window_pb2.Window(
                model="churn", version=version, arm=f"ARM_{arm}", revision=revision,
                second=began, sampled_of_65536=65_536,
                first_bad_unix_ns=min(counts.bad_ns, default=0),
                last_bad_unix_ns=max(counts.bad_ns, default=0),
                calls=window_pb2.CallCounts(
                    answered=len(counts.clean), faulty=len(counts.bad),
                    fallbacks=len(counts.bad) if arm == "CANARY" else 0,
                ),
            )  # fmt: skip
            if counts.pairs:
                window.pairs.pairs, window.pairs.faulty = counts.pairs, counts.pairs_faulty
            for metric, keys in (("METRIC_ERROR", counts.bad), ("METRIC_SCORE", counts.clean)):
                if keys:
                    window.records.add(metric=metric, key_hash=keys, bin=[0] * len(keys))
            yield window


@asynccontextmanager
async def run_workers(
    registry_address: str, sink: str, *, calls_a_second: int = 400
) -> AsyncIterator[list[ScriptedWorker]]:
    """Run two workers inside the block."""
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(RegistryClient(registry_address, "gateway"))
        workers = [ScriptedWorker(client, sink, slot, calls_a_second // 2) for slot in (0, 1)]
        tasks = [asyncio.ensure_future(worker.run()) for worker in workers]
        try:
            yield workers
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def deploy_first_version(
    ann: RegistryClient, bob: RegistryClient, files: dict[str, bytes]
) -> None:
    """Make the first version of churn production: preload, approve, deploy."""
    version = await ann.register("churn", files)
    deployment = await ann.deployment("churn")
    deployment = await ann.deploy(replace(deployment, preload=(version.label,), why="load it"))
    approval = await bob.approve("churn", version.label, "initial", "", "", "the first")
    for _ in range(100):
        with contextlib.suppress(RegistryError):
            await ann.deploy(
                replace(
                    deployment,
                    production=version.label,
                    preload=(),
                    approval_id=approval.id,
                    why="the first",
                )
            )
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the first version was never ready")
