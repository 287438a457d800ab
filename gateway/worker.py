"""One worker: builds the parts once, in one screen; nowhere else do they meet.

Started by exec: python -m gateway.worker --channel-fd N --breadcrumbs-fd N --sockets-fd N
--settings FILE
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
from gateway.internal_error_log import InternalErrorLog
from gateway.isolation.breadcrumbs import BreadcrumbPage
from gateway.isolation.load_proofs import ProofStore
from gateway.isolation.prober import Prober, probe_limits_of
from gateway.methods.describe_model import DescribeModelService
from gateway.methods.idempotency_keys import IdempotencyKeys
from gateway.methods.open_inference_metadata import OpenInferenceService
from gateway.methods.report_outcome import ReportOutcomeService
from gateway.models.disk_cache import DiskCache
from gateway.models.loader import Loader
from gateway.models.registry_watch import RegistryWatch
from gateway.models.routes import RouteTable
from gateway.predict.batch import PredictionIdWriter, WorkerIdentity
from gateway.predict.dispatch import Dispatcher
from gateway.predict.pipeline import PredictPipeline
from gateway.predict.single_call import SingleCallPath
from gateway.settings import Settings
from gateway.shadow.shadow_process import shadow_limits_of
from gateway.shadow.shadows import Shadows
from gateway.status import Refusal
from gateway.supervision.channel import WorkerChannel
from gateway.supervision.sockets import LentSocket
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.outcome_windows import OutcomeWindows
from gateway.telemetry.recorder import Recorder
from gateway.telemetry.window_stream import WindowStream
from gateway.telemetry.windows import NS_PER_SECOND, Windows
from gateway.transport.grpcio.server import UnaryMethod
from gateway.transport.server import create_server
from journal.segment import JournalKind
from journal.writer import JournalAppender
from protos import registry_pb2, window_pb2

log = logging.getLogger("gateway")

NO_SLOT = 65_535
"""The slot of a spare."""
REGISTRY_WAIT_S_MAX = 3.0
"""A starting worker waits this long for the registry's word; then the disk's has to do."""
WINDOW_FLUSH_S_MAX = 1.0


class GatewayWorker:
    """Everything one worker process is made of."""

    def __init__(
        self, settings: Settings, folder: Path, breadcrumbs: BreadcrumbPage, lent_socket: LentSocket
    ) -> None:
        self._settings, self._lent_socket = settings, lent_socket
        clock = self._clock = SystemClock()
        faults = InternalErrorLog(log)
        boot_id = secrets.randbits(64)
        self.identity = WorkerIdentity(settings.gateway, NO_SLOT, boot_id, bytes(32))
        self.metrics = Metrics()
        self._disk_cache = DiskCache(folder)
        self._route_table = RouteTable()
        self._windows, self._outcome_windows = Windows(), OutcomeWindows()
        self._shadows = Shadows(
            self._windows,
            clock,
            settings.shadow_rows_waiting_max,
            shadow_limits_of(settings),
            self._send_guard,
            self.metrics,
        )
        self._served_journal = JournalAppender(
            folder / "journal",
            JournalKind.SERVED,
            boot_id=boot_id,
            bytes_waiting_max=settings.journal_bytes_waiting_max,
        )
        self._outcome_journal = JournalAppender(
            folder / "journal", JournalKind.OUTCOMES, boot_id=boot_id
        )
        self._store = OnlineReader(settings.redis_url) if settings.redis_url else None
        self._idempotency_keys = IdempotencyKeys(
            folder / "journal", boot_id, settings.outcome_keys_max
        )
        self.server = create_server(settings, clock, faults, self._count_refusals, self._methods())
        aside = self._recorder = Recorder(
            self._windows,
            self.metrics,
            self._shadows,
            self._served_journal,
            clock,
            self._send_guard,
        )
        ids = PredictionIdWriter(self.identity)
        arms = Dispatcher(self.server, ids, aside, clock, faults)
        self._pipeline = PredictPipeline(
            self.server, self._route_table, self._store, arms, aside, clock, settings, faults
        )
        self.server.single_call = SingleCallPath(
            self._route_table, self._store, ids, aside, clock, settings
        )
        registry = (settings.registry, settings.registry_token)
        self._registry_watch = RegistryWatch(
            *registry, self.identity, self._disk_cache, clock, self._set_keys
        )
        self._journal_dropped: dict[str, int] = {}
        """Records each journal had dropped when last counted."""
        self._trusted_key: bytes | None = None
        self._serving = False
        self._loader = Loader(
            settings,
            self._route_table,
            self._disk_cache,
            self._registry_watch.fetch,
            lambda: self._trusted_key,
            clock,
            self._on_routes_changed,
            Prober(ProofStore(folder), probe_limits_of(settings), clock).prove,
            breadcrumbs,
        )
        self._quarantined: dict[str, tuple[str, int]] = {}
        """Versions that workers of this host died of: id -> (why, first time, Unix ns)."""
        self._streams: list[WindowStream] = []
        self._guards: list[window_pb2.HardGuard] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def _methods(self) -> dict[str, UnaryMethod]:
        """Return every method that scores nothing."""
        outcomes = ReportOutcomeService(
            self._route_table,
            self._outcome_journal,
            self._idempotency_keys,
            self._clock,
            lambda: self.identity.prediction_id_key,
            self.metrics.count_outcome,
            self._settings.outcome_late_days,
            self._outcome_windows.record_outcome,
        )
        open_inference = OpenInferenceService(
            self._route_table, lambda: self._serving, distribution_version("turnout")
        )
        every = (DescribeModelService(self._route_table), outcomes, open_inference)
        return {path: method for one in every for path, method in one.methods().items()}

    async def load(self) -> None:
        """Bring up what the disk holds, then what the registry says; return when all is warm."""
        keys = self._disk_cache.read_serving_keys()
        if keys is not None:
            self._set_keys(keys)
        if self._store is not None:
            await self._store.start()
        await asyncio.to_thread(self._idempotency_keys.rebuild)
        for deployment in self._disk_cache.read_deployments():
            self._loader.deploy(deployment)
        if self._settings.registry:
            self._start_task(self._registry_watch.run(self._loader))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REGISTRY_WAIT_S_MAX):
                    await self._registry_watch.snapshot_seen.wait()
        await self._loader.wait_settled()
        # What was loaded stays: the collector need not walk through it while callers wait.
        gc.collect()
        gc.freeze()

    async def serve(self, slot: int, port: int) -> None:
        """Take a slot and open the port."""
        self.identity.slot = slot
        source = window_pb2.Source(
            gateway=self.identity.gateway, slot=slot, boot_id=self.identity.boot_id
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
            self._start_task(stream.run())
        for digest in self._quarantined:
            self._report_quarantine(digest)
        self._start_task(self._pipeline.run())
        self._start_task(self._close_windows_each_second())
        folder = self._settings.unix_folder
        unix = str(Path(folder) / f"worker-{slot}.sock") if folder else ""
        with self._lent_socket.received_socket() as lent:
            await self.server.listen(self._settings.host, port, unix, lent)
        log.info("opened port=%d slot=%d ingress=%s", port, slot, self.server.kind)
        self._serving = True
        self._registry_watch.announce_serving()
        await self._publish_health()

    async def drain(self, grace_s: float) -> None:
        """Leave the port, finish what is inside, send the last windows, close the journals."""
        self._serving = False
        await self.server.close(grace_s)
        await self._pipeline.wait_finished()
        await self._shadows.wait_closed()
        self._close_windows(everything=True)
        for stream in self._streams:
            await stream.wait_acknowledged(WINDOW_FLUSH_S_MAX)
        for writer in (self._served_journal, self._outcome_journal):
            await asyncio.to_thread(writer.close)
        for task in self._tasks:
            task.cancel()

    def gauges(self) -> dict[str, float]:
        """Return what each heartbeat says."""
        return {"rows_inside": self.server.rows_inside}

    def snapshot(self) -> dict[str, Any]:
        """Return the metrics, with the gauges of this moment."""
        metrics = self.metrics
        metrics.set_gauge("turnout_rows_inside", self.server.rows_inside)
        metrics.set_gauge("turnout_worker_tasks", len(asyncio.all_tasks()))
        metrics.set_gauge("turnout_worker_fds", count_open_fds())
        for kind, writer in (("served", self._served_journal), ("outcomes", self._outcome_journal)):
            lost = writer.dropped - self._journal_dropped.get(kind, 0)
            self._journal_dropped[kind] = writer.dropped
            if lost:
                metrics.count_journal_dropped(kind, lost)
        for routes in self._route_table.all():
            metrics.set_gauge(
                "turnout_deployment_revision", routes.deployment.revision, routes.model
            )
        if self._store is not None:
            states = {"closed": 0, "half_open": 1, "open": 2}
            metrics.set_gauge("turnout_feature_store_state", states[self._store.state])
        return metrics.snapshot()

    # Between the parts

    def _set_keys(self, keys: registry_pb2.ServingKeys) -> None:
        self.identity.prediction_id_key = keys.prediction_id_key
        self._trusted_key = keys.version_public_key

    def _on_routes_changed(self) -> None:
        """The loader swapped routes or learned of a version."""
        every = self._route_table.all()
        self.server.configure({routes.model: routes.shape for routes in every})
        self.metrics.set_models([routes.model for routes in every])
        self._shadows.set_active_versions(
            {p.version.id for routes in every for p, _ in routes.shadows}
        )
        self._stop_quarantined()
        self._registry_watch.report_soon()
        self._start_task(self._publish_health())

    async def _publish_health(self) -> None:
        """Set health: the server serves once it has a slot, a model while it is deployed."""
        serving = self.identity.slot != NO_SLOT
        every = {routes.model: serving for routes in self._route_table.all()}
        await self.server.show_health({"": serving, **every})

    def _count_refusals(self, model: str, refusal: Refusal, count: int) -> None:
        self.metrics.count_refusals(model or "other", refusal.code.name, "door", count)
        routes = self._route_table.get(model) if model else None
        if routes is not None:
            self._windows.add_refusals(routes, count, self._clock.unix_ns())

    def quarantine(self, digest: str, why: str, first_unix_ns: int) -> None:
        """Hear from the supervisor that workers died while they ran this version."""
        self._quarantined[digest] = (why, first_unix_ns)
        self._stop_quarantined()
        if self._streams:
            self._report_quarantine(digest)

    def _report_quarantine(self, digest: str) -> None:
        """Tell the controller, where a deployment of this moment names the version."""
        why, first_unix_ns = self._quarantined[digest]
        held = self._loader.load_states.get(digest)
        routes = self._route_table.get(held.model) if held is not None else None
        if held is None or routes is None:
            return
        self._send_guard(
            window_pb2.HardGuard(
                model=held.model,
                version=held.label,
                revision=routes.deployment.revision,
                kind=window_pb2.HardGuard.PROCESS_DIED,
                reason=why,
                at_unix_ns=self._clock.unix_ns(),
                first_bad_unix_ns=first_unix_ns,
            )
        )

    def _stop_quarantined(self) -> None:
        """Ask no condemned canary, whether or not a controller is there to take it back."""
        for routes in self._route_table.all():
            canary = routes.canary
            if canary is not None and canary.version.bundle.digest in self._quarantined:
                routes.breaker.open = True

    def _send_guard(self, guard: window_pb2.HardGuard) -> None:
        """Send a hard guard at once."""
        log.error("guard model=%s version=%s reason=%s", guard.model, guard.version, guard.reason)
        for stream in self._streams:
            stream.offer([], [guard], self._clock.unix_ns())

    async def _close_windows_each_second(self) -> None:
        """Close windows as each second ends."""
        while True:
            now_ns = self._clock.unix_ns()
            await asyncio.sleep((NS_PER_SECOND - now_ns % NS_PER_SECOND + 1_000_000) / 1e9)
            self._close_windows(everything=False)

    def _close_windows(self, *, everything: bool) -> None:
        unix_ns = self._clock.unix_ns()
        self._recorder.fold()
        closed = self._windows.close_windows(unix_ns, everything=everything)
        closed += self._outcome_windows.close_windows(unix_ns, everything=everything)
        for stream in self._streams:
            stream.offer(closed, [], unix_ns)

    def _start_task(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.critical("part_failed error=%r", error, exc_info=error)
            os._exit(70)  # a worker with a part missing is worse than none: the spare takes over


def count_open_fds() -> int:
    """Count the descriptors of this process; 0 where the system has no /proc."""
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.is_dir() else 0


async def run_worker(
    channel_fd: int, settings: Settings, crumbs_fd: int = -1, ports_fd: int = -1
) -> None:
    """Live one worker's life."""
    worker = GatewayWorker(
        settings, Path(settings.folder), BreadcrumbPage(crumbs_fd), LentSocket(ports_fd)
    )
    channel = WorkerChannel(channel_fd, heartbeat_ms=settings.heartbeat_ms)
    await channel.start(
        on_serve=worker.serve,
        on_drain=worker.drain,
        on_quarantine=worker.quarantine,
        gauges=worker.gauges,
        snapshot=worker.snapshot,
    )
    await worker.load()
    channel.announce_ready()
    await channel.wait_finished()


SWITCH_INTERVAL_S = 0.0005
"""After so long the journal's thread gives the interpreter back to the loop that waits for it;
Python's own 5 ms are longer than most calls take."""


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m gateway.worker", description=__doc__)
    parser.add_argument("--channel-fd", type=int, required=True)
    parser.add_argument("--settings", type=Path, required=True)
    parser.add_argument("--breadcrumbs-fd", type=int, default=-1)
    parser.add_argument("--sockets-fd", type=int, default=-1)
    asked = parser.parse_args()
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(name)s %(message)s"
    )
    settings = Settings.read(asked.settings)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    uvloop.run(run_worker(asked.channel_fd, settings, asked.breadcrumbs_fd, asked.sockets_fd))
    logging.shutdown()
    os._exit(0)  # a scoring thread that never returns must not keep the process


if __name__ == "__main__":
    main()
