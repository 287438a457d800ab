"""A gateway worker: one process that answers calls.

The supervisor starts it by exec:
python -m gateway.worker --channel-fd N --breadcrumbs-fd N --sockets-fd N --settings FILE
"""

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import secrets
import sys
from collections import Counter
from collections.abc import Coroutine, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import uvloop

from access.certificate_ends import watch_certificates
from features.online.reader import OnlineReader
from gateway.build import Surroundings, build_serving_parts
from gateway.ingress_choice import reads_log_of_grpc
from gateway.internal_error_log import InternalErrorLog
from gateway.isolation.breadcrumbs import BreadcrumbPage
from gateway.isolation.load_proofs import ProofStore
from gateway.isolation.prober import Prober
from gateway.methods.idempotency_keys import IdempotencyKeys
from gateway.models.disk_cache import DiskCache
from gateway.models.loader import Loader
from gateway.models.quarantine import Quarantine
from gateway.models.registry_trust import RegistryTrust
from gateway.models.registry_watch import RegistryWatch
from gateway.native_library import load_native_library
from gateway.settings import Settings
from gateway.supervision.channel import REGISTRY_CONNECTED, WorkerChannel
from gateway.supervision.sockets import LentSockets
from gateway.telemetry.loop_stalls import TimedLoop, run_in_slices
from gateway.telemetry.window_stream import WindowStream
from gateway.transport.grpcio.handshake_log import HANDSHAKE_LOG
from gateway.transport.reflection import SERVICES
from gateway.worker_identity import NO_SLOT, WorkerIdentity
from host.clock import NS_PER_SECOND, SystemClock
from host.processes import fail_fast, open_descriptors
from host.text import escape_controls, log_to_stderr
from journal.segment import JournalKind
from journal.writer import JournalAppender
from protos import registry_pb2, window_pb2
from protos.registry_pb2 import RegistryAlarm

log = logging.getLogger("gateway")

REGISTRY_WAIT_S_MAX = 3.0
"""A starting worker waits this long for the registry. Then it serves what its disk cache holds."""
WINDOW_FLUSH_S_MAX = 1.0
STORE_STATES = {"closed": 0, "half_open": 1, "open": 2}
"""Breaker state of the online store -> value of turnout_feature_store_state."""


class GatewayWorker:
    """The parts of a worker process, and its life: load, serve, drain."""

    def __init__(
        self, settings: Settings, folder: Path, breadcrumbs: BreadcrumbPage, sockets: LentSockets
    ) -> None:
        # What this worker is.
        self._settings, self._lent_sockets = settings, sockets
        self._clock, boot_id = SystemClock(), secrets.randbits(64)
        self.identity = WorkerIdentity(settings.gateway, NO_SLOT, boot_id, bytes(32))
        self._serving, self._leaving = False, False
        self._streams: list[WindowStream] = []
        self._windows_closing, self._tasks = asyncio.Lock(), set[asyncio.Task[None]]()
        # The journals, the online store and the parts that answer calls.
        journal = folder / "journal"
        self._served_journal = JournalAppender(
            journal,
            JournalKind.SERVED,
            boot_id=boot_id,
            bytes_waiting_max=settings.journal_bytes_waiting_max,
        )
        self._outcome_journal = JournalAppender(journal, JournalKind.OUTCOMES, boot_id=boot_id)
        self._journal_dropped: dict[str, int] = {}
        """Journal kind -> records that were dropped until the last snapshot."""
        self._idempotency_keys = IdempotencyKeys(journal, boot_id, settings.outcome_keys_max)
        self._store = OnlineReader(settings.store_url) if settings.redis_url else None
        self._parts = build_serving_parts(
            Surroundings(
                settings=settings,
                identity=self.identity,
                clock=self._clock,
                error_log=InternalErrorLog(log),
                store=self._store,
                served_journal=self._served_journal,
                outcome_journal=self._outcome_journal,
                idempotency_keys=self._idempotency_keys,
                on_guard=self._send_guard,
                is_serving=lambda: self._serving,
            )
        )
        # The disk cache and the registry watch bring versions and deployments.
        disk = DiskCache(folder)
        count_refusal = self._parts.metrics.count_registry_refusal
        self._trust = RegistryTrust(settings.version_key, disk, count_refusal)
        registry = (settings.registry, settings.registry_token, settings.certificate_of_registry)
        self._registry_watch = RegistryWatch(
            *registry, self.identity, self._trust, self._clock, self._set_keys
        )
        # The loader loads versions; the quarantine takes back those that crash workers.
        self._loader = Loader(
            settings,
            self._parts.route_table,
            disk,
            self._registry_watch.fetch,
            lambda: self._trust.key,
            self._clock,
            self._on_routes_changed,
            Prober(ProofStore(folder), settings, self._clock).prove,
            breadcrumbs,
        )
        self._quarantine = Quarantine(
            self._parts.route_table, self._loader.load_states, self._clock, self._send_guard
        )

    # Life

    async def load(self) -> None:
        """Load what the disk cache holds, then what the registry deploys. Return when warm."""
        if self._trust.keys is not None:
            self._set_keys(self._trust.keys)
        if self._store is not None:
            await self._store.start()
        await asyncio.to_thread(self._idempotency_keys.rebuild)
        for signed in self._trust.open_saved():
            self._loader.deploy(signed)
        if self._settings.registry:
            self._start_task(self._registry_watch.run(self._loader))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REGISTRY_WAIT_S_MAX):
                    await self._registry_watch.snapshot_seen.wait()
        await self._loader.wait_settled()
        # What was loaded stays, so the garbage collector need not walk it while callers wait.
        gc.collect()
        gc.freeze()

    def count_stalls(self, loop: asyncio.AbstractEventLoop) -> None:
        """Count the stalls of *loop*, on which this worker runs, in its metrics."""
        if isinstance(loop, TimedLoop):
            loop.on_stall = self._parts.metrics.count_stall

    async def serve(self, slot: int, port: int) -> None:
        """Take a slot, listen and answer calls."""
        self.identity.slot = slot
        self._start_window_streams()
        self._start_task(self._watch_certificates())
        if self._parts.view_ages is not None:
            self._start_task(self._parts.view_ages.watch())
        if self._parts.io_thread_store is not None:
            self._start_task(self._parts.io_thread_store.keep())
        self._quarantine.report_all()
        self._start_task(self._parts.pipeline.run())
        self._start_task(self._close_windows_each_second())
        folder = self._settings.unix_folder
        unix = str(Path(folder) / f"worker-{slot}.sock") if folder else ""
        server = self._parts.server
        with self._lent_sockets.received_sockets() as lent_fds:
            await server.listen(self._settings.host, port, unix, lent_fds)
        log.info("opened port=%d slot=%d ingress=%s", port, slot, server.kind)
        self._serving = True
        self._registry_watch.announce_serving()
        await self._publish_health()

    def leave(self) -> None:
        """Say NOT_SERVING from now on, and go on to accept and to answer calls."""
        self._leaving = True
        self._start_task(self._publish_health())

    async def drain(self, grace_s: float) -> None:
        """Stop listening, finish the calls inside, send the last windows and close the journals."""
        self._serving = False
        await self._parts.server.close(grace_s)
        await self._parts.pipeline.wait_finished()
        await self._parts.shadows.wait_closed()
        async with self._windows_closing:
            for _ in self._close_windows(everything=True):
                pass
        for stream in self._streams:
            await stream.wait_acknowledged(WINDOW_FLUSH_S_MAX)
        for journal in (self._served_journal, self._outcome_journal):
            await asyncio.to_thread(journal.close)
        for task in self._tasks:
            task.cancel()

    def quarantine(self, digest: str, reason: str, first_unix_ns: int) -> None:
        """Quarantine a version of which the supervisor says that workers died."""
        self._quarantine.add(digest, reason, first_unix_ns)
        if self._streams:
            self._quarantine.report(digest)

    async def _watch_certificates(self) -> None:
        """Show and log when the certificates of the registry and of this gateway end."""
        files = {"gateway": self._settings.tls_certificate}
        files["registry"] = self._settings.registry_certificate
        await watch_certificates(
            {name: Path(file) for name, file in files.items() if file},
            lambda name, days: self._parts.metrics.set_gauge(
                "turnout_certificate_days_left", days, name
            ),
            lambda: self._clock.unix_ns() / NS_PER_SECOND,
        )

    # Reports to the supervisor

    def gauges(self) -> dict[str, float]:
        """Return the gauges of a heartbeat."""
        return {
            "rows_inside": self._parts.server.rows_inside,
            REGISTRY_CONNECTED: float(self._registry_watch.connected),
        }

    def snapshot(self) -> dict[str, Any]:
        """Return the metrics with the gauges of this moment, and the statistics of the parts."""
        metrics = self._parts.metrics
        metrics.set_gauge("turnout_rows_inside", self._parts.server.rows_inside)
        for reason, detail, handshakes in self._parts.server.handshake_refusals():
            metrics.count_handshake_refusals(reason, handshakes)
            words = escape_controls(detail)
            log.warning("tls_refused reason=%s handshakes=%d last=%s", reason, handshakes, words)
        metrics.set_gauge("turnout_registry_connected", self._registry_watch.connected)
        metrics.set_gauge("turnout_worker_tasks", len(asyncio.all_tasks()))
        metrics.set_gauge("turnout_worker_fds", len(open_descriptors()))
        journals = (("served", self._served_journal), ("outcomes", self._outcome_journal))
        for kind, journal in journals:
            dropped = journal.dropped - self._journal_dropped.get(kind, 0)
            self._journal_dropped[kind] = journal.dropped
            metrics.set_gauge("turnout_journal_healthy", journal.healthy, kind)
            if dropped:
                metrics.count_journal_dropped(kind, dropped)
        for routes in self._parts.route_table.all():
            revision = routes.deployment.revision
            metrics.set_gauge("turnout_deployment_revision", revision, routes.model)
        alarms = Counter(RegistryAlarm.Kind.Name(alarm.kind) for alarm in self._trust.alarms)
        for name in RegistryAlarm.Kind.keys()[1:]:  # the first is UNSPECIFIED
            metrics.set_gauge("turnout_registry_alarms", alarms[name], name)
        metrics.set_gauge("turnout_windows_refused", len(self._window_refusals()))
        if self._store is not None:
            metrics.set_gauge("turnout_feature_store_state", STORE_STATES[self._store.state])
        return {**metrics.snapshot(), "statistics": self.statistics()}

    def statistics(self) -> dict[str, Any]:
        """Return a snapshot of each part, as JSON values, for people who debug a worker."""
        return {
            "server": asdict(self._parts.server.statistics()),
            "pipeline": asdict(self._parts.pipeline.statistics()),
            "recorder": asdict(self._parts.recorder.statistics()),
            "loader": asdict(self._loader.statistics()),
            "registry": {"alarms": [alarm.reason for alarm in self._trust.alarms]},
            "window_sinks": {"refusals": self._window_refusals()},
        }

    def _window_refusals(self) -> list[str]:
        return [stream.refusal for stream in self._streams if stream.refusal]

    # Events between the parts

    def _set_keys(self, keys: registry_pb2.ServingKeys) -> None:
        if keys.prediction_id_key != self.identity.prediction_id_key:
            self.identity.prediction_id_key = keys.prediction_id_key
            self._parts.pipeline.publish_plans()

    def _on_routes_changed(self) -> None:
        """Tell every part that the loader replaced routes or finished a load."""
        parts = self._parts
        all_routes = parts.route_table.all()
        parts.server.configure({routes.model: routes.shape for routes in all_routes})
        parts.metrics.set_deployed(
            {routes.model: routes.deployment.versions for routes in all_routes}
        )
        shadows = {shadow.version.id for routes in all_routes for shadow, _ in routes.shadows}
        parts.shadows.set_active_versions(shadows)
        self._quarantine.open_breakers()
        if self._parts.view_ages is not None:
            self._parts.view_ages.look_soon()
        self._registry_watch.report_soon()
        self._start_task(self._publish_health())

    async def _publish_health(self) -> None:
        """Set health: the server and its services serve once it has a slot, a model while it is
        deployed.
        """
        serving = self.identity.slot != NO_SLOT and not self._leaving
        # gRPC clients that check health ask for the service that they call.
        names = ["", *SERVICES, *[routes.model for routes in self._parts.route_table.all()]]
        await self._parts.server.show_health(dict.fromkeys(names, serving))

    # Windows

    def _start_window_streams(self) -> None:
        source = window_pb2.Source(
            gateway=self.identity.gateway, slot=self.identity.slot, boot_id=self.identity.boot_id
        )
        waiting_max = self._settings.windows_waiting_max
        on_dropped = self._parts.metrics.count_windows_dropped
        token, certificate = self._settings.registry_token, self._settings.certificate_of_registry
        self._streams = [
            WindowStream(
                address, source, waiting_max, on_dropped, self._clock.unix_ns, token, certificate
            )
            for address in self._settings.window_sinks
        ]
        for stream in self._streams:
            self._start_task(stream.run())

    def _send_guard(self, guard: window_pb2.HardGuard) -> None:
        """Send a hard guard at once."""
        log.error("guard model=%s version=%s reason=%s", guard.model, guard.version, guard.reason)
        for stream in self._streams:
            stream.offer([], [guard], self._clock.unix_ns())

    async def _close_windows_each_second(self) -> None:
        while True:
            now_ns = self._clock.unix_ns()
            await asyncio.sleep((NS_PER_SECOND - now_ns % NS_PER_SECOND + 1_000_000) / 1e9)
            async with self._windows_closing:
                await run_in_slices(self._close_windows(everything=False))

    def _close_windows(self, *, everything: bool) -> Iterator[None]:
        """Fold, close windows and send them, in steps between which other callbacks may run."""
        unix_ns, closed = self._clock.unix_ns(), list[window_pb2.Window]()
        yield from self._parts.recorder.fold_steps()
        for window in self._parts.windows.closed_windows(unix_ns, everything=everything):
            closed.append(window)
            yield
        closed += self._parts.outcome_windows.close_windows(unix_ns, everything=everything)
        for stream in self._streams:
            stream.offer(closed, [], unix_ns)

    # Tasks

    def _start_task(self, coroutine: Coroutine[Any, Any, None]) -> None:
        # The spare takes over when it fails: that is better than a worker without a part.
        task = fail_fast(asyncio.get_running_loop().create_task(coroutine))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def run_worker(
    channel_fd: int, settings: Settings, breadcrumbs_fd: int = -1, sockets_fd: int = -1
) -> None:
    """Run a worker until it has drained."""
    page = BreadcrumbPage(breadcrumbs_fd, getattr(load_native_library(), "SharedPage", None))
    worker = GatewayWorker(settings, Path(settings.folder), page, LentSockets(sockets_fd))
    channel = WorkerChannel(channel_fd, heartbeat_ms=settings.heartbeat_ms)
    await channel.start(
        on_serve=worker.serve,
        on_drain=worker.drain,
        on_quarantine=worker.quarantine,
        on_leaving=worker.leave,
        gauges=worker.gauges,
        snapshot=worker.snapshot,
    )
    try:
        await worker.load()
    except Exception as error:
        await channel.end(error)
        raise
    worker.count_stalls(asyncio.get_running_loop())
    channel.announce_ready()
    await channel.wait_finished()


SWITCH_INTERVAL_S = 0.0005
"""After this time the journal's thread gives the interpreter's lock back to the event loop. The
default of Python, 5 ms, is longer than most calls take."""


def main() -> None:
    """Run the command line of a worker."""
    parser = argparse.ArgumentParser(prog="python -m gateway.worker", description=__doc__)
    parser.add_argument("--channel-fd", type=int, required=True)
    parser.add_argument("--settings", type=Path, required=True)
    parser.add_argument("--breadcrumbs-fd", type=int, default=-1)
    parser.add_argument("--sockets-fd", type=int, default=-1)
    arguments = parser.parse_args()
    settings = Settings.read(arguments.settings)
    if reads_log_of_grpc(settings.ingress, settings.tls_certificate):
        HANDSHAKE_LOG.watch_stderr()
    log_to_stderr("%(asctime)s %(name)s %(message)s")
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    descriptors = (arguments.breadcrumbs_fd, arguments.sockets_fd)
    new_loop = TimedLoop if settings.count_loop_stalls else uvloop.new_event_loop
    uvloop.run(run_worker(arguments.channel_fd, settings, *descriptors), loop_factory=new_loop)
    logging.shutdown()
    os._exit(0)  # a scoring thread that hangs must not keep the process alive


if __name__ == "__main__":
    main()
