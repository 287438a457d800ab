"""One worker: builds the parts once, in one screen; nowhere else do they meet.

Started by exec: python -m gateway.worker --channel-fd N --crumbs-fd N --ports-fd N --settings FILE
"""

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import secrets
import sys
from collections.abc import Coroutine
from importlib.metadata import version as distribution_version
from pathlib import Path
from typing import Any

import uvloop

from features.online.reader import OnlineReader
from gateway.clock import SystemClock
from gateway.fault_log import FaultLog
from gateway.isolation.breadcrumbs import Page
from gateway.isolation.load_proofs import Proofs
from gateway.isolation.prober import Prober, limits_of
from gateway.methods.describe_model import Services
from gateway.methods.idempotency_keys import OutcomeKeys
from gateway.methods.open_inference_metadata import OpenInferenceService
from gateway.methods.report_outcome import Outcomes
from gateway.models.disk_cache import Disk
from gateway.models.loader import Loader
from gateway.models.registry_watch import RegistryLink
from gateway.models.routes import Deployed
from gateway.predict.batch import IdWriter, Worker
from gateway.predict.dispatch import Arms
from gateway.predict.pipeline import BatchCore
from gateway.predict.single_call import LoneCalls
from gateway.settings import Settings
from gateway.shadow.shadow_process import shadow_limits_of
from gateway.shadow.shadows import Shadows
from gateway.status import Refusal
from gateway.supervision.channel import WorkerChannel
from gateway.supervision.sockets import LentPort
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.outcome_windows import OutcomeWindows
from gateway.telemetry.recorder import Aside
from gateway.telemetry.window_stream import WindowStream
from gateway.telemetry.windows import NS, Windows
from gateway.transport.grpcio.server import Unary
from gateway.transport.server import door_of
from journal.segment import Kind
from journal.writer import Writer
from protos import registry_pb2, window_pb2

log = logging.getLogger("gateway")

NO_SLOT = 65_535
"""The slot of a spare."""
REGISTRY_PATIENCE_S = 3.0
"""A starting worker waits this long for the registry's word; then the disk's has to do."""
FLUSH_S = 1.0


class GatewayWorker:
    """Everything one worker process is made of."""

    def __init__(self, settings: Settings, folder: Path, page: Page, lent: LentPort) -> None:
        self._settings, self._lent = settings, lent
        clock = self._clock = SystemClock()
        faults = FaultLog(log)
        boot_id = secrets.randbits(64)
        self.worker = Worker(settings.gateway, NO_SLOT, boot_id, bytes(32))
        self.metrics = Metrics()
        self._disk = Disk(folder)
        self._deployed = Deployed()
        self._windows, self._outcome_windows = Windows(), OutcomeWindows()
        self._shadows = Shadows(
            self._windows,
            clock,
            settings.shadow_rows_waiting_max,
            shadow_limits_of(settings),
            self._guard,
            self.metrics,
        )
        self._served = Writer(
            folder / "journal",
            Kind.SERVED,
            boot_id=boot_id,
            bytes_waiting_max=settings.journal_bytes_waiting_max,
        )
        self._outcomes = Writer(folder / "journal", Kind.OUTCOMES, boot_id=boot_id)
        self._store = OnlineReader(settings.redis_url) if settings.redis_url else None
        self._outcome_keys = OutcomeKeys(folder / "journal", boot_id, settings.outcome_keys_max)
        self.door = door_of(settings, clock, faults, self._refused_at_door, self._methods())
        aside = self._aside = Aside(
            self._windows, self.metrics, self._shadows, self._served, clock, self._guard
        )
        ids = IdWriter(self.worker)
        arms = Arms(self.door, ids, aside, clock, faults)
        self._core = BatchCore(
            self.door, self._deployed, self._store, arms, aside, clock, settings, faults
        )
        self.door.lone = LoneCalls(self._deployed, self._store, ids, aside, clock, settings)
        registry = (settings.registry, settings.registry_token)
        self._link = RegistryLink(*registry, self.worker, self._disk, clock, self._take_keys)
        self._dropped: dict[str, int] = {}
        """Records each journal had dropped when last counted."""
        self._trusted_key: bytes | None = None
        self._serving = False
        self._loader = Loader(
            settings,
            self._deployed,
            self._disk,
            self._link.fetch,
            lambda: self._trusted_key,
            clock,
            self._changed,
            Prober(Proofs(folder), limits_of(settings), clock).prove,
            page,
        )
        self._condemned: dict[str, tuple[str, int]] = {}
        """Versions that workers of this host died of: id -> (why, first time, Unix ns)."""
        self._streams: list[WindowStream] = []
        self._guards: list[window_pb2.HardGuard] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def _methods(self) -> dict[str, Unary]:
        """Return every method that scores nothing."""
        outcomes = Outcomes(
            self._deployed,
            self._outcomes,
            self._outcome_keys,
            self._clock,
            lambda: self.worker.prediction_id_key,
            self.metrics.count_outcome,
            self._settings.outcome_late_days,
            self._outcome_windows.tell,
        )
        open_inference = OpenInferenceService(
            self._deployed, lambda: self._serving, distribution_version("turnout")
        )
        every = (Services(self._deployed), outcomes, open_inference)
        return {path: method for one in every for path, method in one.methods().items()}

    async def load(self) -> None:
        """Bring up what the disk holds, then what the registry says; return when all is warm."""
        keys = self._disk.keys()
        if keys is not None:
            self._take_keys(keys)
        if self._store is not None:
            await self._store.start()
        await asyncio.to_thread(self._outcome_keys.rebuild)
        for deployment in self._disk.deployments():
            self._loader.obey(deployment)
        if self._settings.registry:
            self._start(self._link.run(self._loader))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REGISTRY_PATIENCE_S):
                    await self._link.snapshot_seen.wait()
        await self._loader.settled()
        # What was loaded stays: the collector need not walk through it while callers wait.
        gc.collect()
        gc.freeze()

    async def serve(self, slot: int, port: int) -> None:
        """Take a slot and open the port."""
        self.worker.slot = slot
        source = window_pb2.Source(
            gateway=self.worker.gateway, slot=slot, boot_id=self.worker.boot_id
        )
        self._streams = [
            WindowStream(
                address,
                source,
                self._settings.windows_waiting_max,
                self.metrics.count_windows_dropped,
            )
            for address in self._settings.window_sinks
        ]
        for stream in self._streams:
            self._start(stream.run())
        for digest in self._condemned:
            self._tell_condemned(digest)
        self._start(self._core.run())
        self._start(self._tick())
        folder = self._settings.unix_folder
        unix = str(Path(folder) / f"worker-{slot}.sock") if folder else ""
        with self._lent.taken() as lent:
            await self.door.listen(self._settings.host, port, unix, lent)
        log.info("opened port=%d slot=%d ingress=%s", port, slot, self.door.kind)
        self._serving = True
        self._link.serve()
        await self._show()

    async def drain(self, grace_s: float) -> None:
        """Leave the port, finish what is inside, send the last windows, close the journals."""
        self._serving = False
        await self.door.close(grace_s)
        await self._core.finish()
        await self._shadows.closed()
        self._close_windows(everything=True)
        for stream in self._streams:
            await stream.flushed(FLUSH_S)
        for writer in (self._served, self._outcomes):
            await asyncio.to_thread(writer.close)
        for task in self._tasks:
            task.cancel()

    def gauges(self) -> dict[str, float]:
        """Return what each heartbeat says."""
        return {"rows_inside": self.door.rows_inside}

    def snapshot(self) -> dict[str, Any]:
        """Return the metrics, with the gauges of this moment."""
        metrics = self.metrics
        metrics.gauge("turnout_rows_inside", self.door.rows_inside)
        metrics.gauge("turnout_worker_tasks", len(asyncio.all_tasks()))
        metrics.gauge("turnout_worker_fds", open_fds())
        for kind, writer in (("served", self._served), ("outcomes", self._outcomes)):
            lost = writer.dropped - self._dropped.get(kind, 0)
            self._dropped[kind] = writer.dropped
            if lost:
                metrics.count_journal_dropped(kind, lost)
        for routes in self._deployed.all():
            metrics.gauge("turnout_deployment_revision", routes.deployment.revision, routes.model)
        if self._store is not None:
            states = {"closed": 0, "half_open": 1, "open": 2}
            metrics.gauge("turnout_feature_store_state", states[self._store.state])
        return metrics.snapshot()

    # Between the parts

    def _take_keys(self, keys: registry_pb2.ServingKeys) -> None:
        self.worker.prediction_id_key = keys.prediction_id_key
        self._trusted_key = keys.version_public_key

    def _changed(self) -> None:
        """The loader swapped routes or learned of a version."""
        every = self._deployed.all()
        self.door.configure({routes.model: routes.shape for routes in every})
        self.metrics.know([routes.model for routes in every])
        self._shadows.keep({p.version.id for routes in every for p, _ in routes.shadows})
        self._stop_condemned()
        self._link.changed()
        self._start(self._show())

    async def _show(self) -> None:
        """Set health: the server serves once it has a slot, a model while it is deployed."""
        serving = self.worker.slot != NO_SLOT
        every = {routes.model: serving for routes in self._deployed.all()}
        await self.door.show_health({"": serving, **every})

    def _refused_at_door(self, model: str, refusal: Refusal, count: int) -> None:
        self.metrics.refuse(model or "other", refusal.code.name, "door", count)
        routes = self._deployed.get(model) if model else None
        if routes is not None:
            self._windows.refuse(routes, count, self._clock.unix_ns())

    def condemn(self, digest: str, why: str, first_unix_ns: int) -> None:
        """Hear from the supervisor that workers died while they ran this version."""
        self._condemned[digest] = (why, first_unix_ns)
        self._stop_condemned()
        if self._streams:
            self._tell_condemned(digest)

    def _tell_condemned(self, digest: str) -> None:
        """Tell the controller, where a deployment of this moment names the version."""
        why, first_unix_ns = self._condemned[digest]
        held = self._loader.held.get(digest)
        routes = self._deployed.get(held.model) if held is not None else None
        if held is None or routes is None:
            return
        self._guard(
            window_pb2.HardGuard(
                model=held.model,
                version=held.label,
                revision=routes.deployment.revision,
                kind=window_pb2.HardGuard.WORKER_DIED,
                reason=why,
                at_unix_ns=self._clock.unix_ns(),
                first_bad_unix_ns=first_unix_ns,
            )
        )

    def _stop_condemned(self) -> None:
        """Ask no condemned canary, whether or not a controller is there to take it back."""
        for routes in self._deployed.all():
            canary = routes.canary
            if canary is not None and canary.version.bundle.digest in self._condemned:
                routes.breaker.open = True

    def _guard(self, guard: window_pb2.HardGuard) -> None:
        """Send a hard guard at once."""
        log.error("guard model=%s version=%s reason=%s", guard.model, guard.version, guard.reason)
        for stream in self._streams:
            stream.offer([], [guard], self._clock.unix_ns())

    async def _tick(self) -> None:
        """Close windows as each second ends."""
        while True:
            now_ns = self._clock.unix_ns()
            await asyncio.sleep((NS - now_ns % NS + 1_000_000) / 1e9)
            self._close_windows(everything=False)

    def _close_windows(self, *, everything: bool) -> None:
        unix_ns = self._clock.unix_ns()
        self._aside.fold()
        closed = self._windows.close(unix_ns, everything=everything)
        closed += self._outcome_windows.close(unix_ns, everything=everything)
        for stream in self._streams:
            stream.offer(closed, [], unix_ns)

    def _start(self, part: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(part)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.critical("part_failed error=%r", error, exc_info=error)
            os._exit(70)  # a worker with a part missing is worse than none: the spare takes over


def open_fds() -> int:
    """Count the descriptors of this process; 0 where the system has no /proc."""
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.is_dir() else 0


async def run(channel_fd: int, settings: Settings, crumbs_fd: int = -1, ports_fd: int = -1) -> None:
    """Live one worker's life."""
    worker = GatewayWorker(settings, Path(settings.folder), Page(crumbs_fd), LentPort(ports_fd))
    channel = WorkerChannel(channel_fd, heartbeat_ms=settings.heartbeat_ms)
    await channel.start(
        on_serve=worker.serve,
        on_drain=worker.drain,
        on_condemned=worker.condemn,
        gauges=worker.gauges,
        snapshot=worker.snapshot,
    )
    await worker.load()
    channel.ready()
    await channel.finished()


SWITCH_S = 0.0005
"""After so long the journal's thread gives the interpreter back to the loop that waits for it;
Python's own 5 ms are longer than most calls take."""


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m gateway.worker", description=__doc__)
    parser.add_argument("--channel-fd", type=int, required=True)
    parser.add_argument("--settings", type=Path, required=True)
    parser.add_argument("--crumbs-fd", type=int, default=-1)
    parser.add_argument("--ports-fd", type=int, default=-1)
    asked = parser.parse_args()
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(name)s %(message)s"
    )
    settings = Settings.read(asked.settings)
    sys.setswitchinterval(SWITCH_S)
    uvloop.run(run(asked.channel_fd, settings, asked.crumbs_fd, asked.ports_fd))
    logging.shutdown()
    os._exit(0)  # a scoring thread that never returns must not keep the process


if __name__ == "__main__":
    main()
