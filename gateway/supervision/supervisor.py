"""The supervisor: keeps a worker serving in every slot, and one spare loaded and warm.

It answers no calls and never imports grpc. Workers are started by exec from a process without
grpc's threads, because a fork among those threads can hang or crash (grpc#13873, #43055). All
workers share one port by SO_REUSEPORT; a slot's listening socket goes from one worker to the next
(gateway.supervision.sockets). Decisions are made in gateway.supervision.slots; this module
executes them.

Signals: SIGTERM or SIGINT drains all workers and the exit code is 0; a second one kills them.
SIGHUP starts a rolling restart.
"""

import asyncio
import dataclasses
import logging
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gateway.isolation.breadcrumbs import Suspects, read_running_versions
from gateway.settings import Settings
from gateway.supervision.channel import REGISTRY_CONNECTED, ControlConnection, Message
from gateway.supervision.exposition import (
    Report,
    Snapshot,
    bounded_past,
    sum_snapshots,
    without_gauges,
)
from gateway.supervision.journal_keeper import JournalKeeper
from gateway.supervision.metrics_endpoint import MetricsEndpoint
from gateway.supervision.slots import (
    Drain,
    Kill,
    Serve,
    Slots,
    Start,
    SupervisorCommand,
    WorkerRecord,
    WorkerState,
)
from gateway.supervision.sockets import SlotSockets
from gateway.supervision.worker_process import WorkerProcess, start_worker_process
from host.child_process import CRASH_SIGNALS, describe_exit
from host.clock import SystemClock
from host.files import make_private_folder, replace_file
from host.processes import rss_bytes

FAILURES_ALIKE_MAX = 3
"""As long as no worker has served, the gateway ends when this many failed for the same reason."""

TICK_S = 0.05
"""Period of the checks for missing heartbeats, memory and exits. A worker's death is noticed
sooner, when its control connection closes."""

EXIT_S_MAX = 2.0
"""From the end of a worker's connection to its exit. A drained interpreter needs some 100 ms."""

LEAVING: Message = {"type": "leaving"}
"""Sent to workers that go on to answer while the host is about to stop."""

WORKER_COMMAND = (sys.executable, "-P", "-m", "gateway.worker")

log = logging.getLogger("gateway.supervision.supervisor")


class Supervisor:
    """The supervisor of one host. Build it, then `await run()` on a plain asyncio loop."""

    def __init__(
        self,
        settings: Settings,
        *,
        command: Sequence[str] = WORKER_COMMAND,
        on_change: Callable[[Report], None] | None = None,
    ) -> None:
        """Reserve the ports; OSError when one is taken.

        command    starts a worker; the worker's options, such as `--settings FILE`, are appended.
        on_change  called with the new report when the number of serving slots changes.
        """
        # Reserve the ports.
        self.report = Report(slots=settings.workers)
        self._slot_sockets = SlotSockets(settings.host, settings.port)
        try:
            self._metrics_endpoint = MetricsEndpoint(
                settings.observe_host,
                settings.metrics_port,
                lambda: self.report,
                settings.observe_token,
            )
        except OSError:
            self._slot_sockets.close()
            raise
        self.settings = dataclasses.replace(
            settings, port=self._slot_sockets.port, metrics_port=self._metrics_endpoint.port
        )
        self._command = tuple(command)
        self._on_change = on_change
        self._children: dict[WorkerRecord, WorkerProcess] = {}
        self._exiting: list[WorkerProcess] = []
        self._past_snapshots: dict[str, Snapshot] = {}
        self._restarts: Counter[tuple[str, str]] = Counter()
        self._stop_requests = 0
        self._leaving = False
        """Whether a stop was requested and new connections are still accepted."""
        self._has_served = False
        self._failures: Counter[str] = Counter()
        """Reason -> number of workers that failed for it before any worker served."""
        self.start_failure = ""
        """Why no worker can serve; empty while one may."""
        self._suspects = Suspects()
        self._clock = SystemClock()
        journal = Path(settings.folder) / "journal"
        self._journal = JournalKeeper(journal, settings.journal_bounds, self._clock)
        self._slots = Slots(
            settings.workers,
            heartbeat_timeout_ms=settings.heartbeat_timeout_ms,
            rss_bytes_max=settings.worker_rss_mb_max * 1024 * 1024,
            restart_backoff_ms_max=settings.restart_backoff_ms_max,
            drain_grace_s=settings.drain_grace_s,
            # Clients are told to reconnect at this age, +- 10 %. A replaced worker waits that long
            # for them, because closing a connection cancels the calls that cross it (grpc#41785).
            handover_s=1.1 * settings.connection_age_s_max,
            stop_handover_s=settings.stop_handover_s,
        )

    async def run(self) -> int:
        """Keep the slots served until a stop is requested.

        Returns the exit code: 0 after a full drain, 1 after a second stop request, 2 when no worker
        can serve (`start_failure`).
        """
        # Signals, and the files that workers and the journal's keeper need.
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self._start_rolling_restart)
        self._settings_file = self._write_settings()
        keeping_journal = loop.create_task(self._journal.run())
        # Until everything has ended.
        try:
            while not (self._slots.stopping and not self._children and not self._exiting):
                await self._execute_due()
                await asyncio.sleep(TICK_S)
                self._check_processes()
        finally:
            # No worker may outlive the supervisor, even when the loop above raised, or start now.
            keeping_journal.cancel()
            children, self._children = [*self._children.values(), *self._exiting], {}
            for child in children:
                child.process.kill()
                child.process.wait()
                child.close()
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                loop.remove_signal_handler(number)
            self._metrics_endpoint.close()
            self._slot_sockets.close()
        return 2 if self.start_failure else int(self._stop_requests != 1)

    def stop(self) -> None:
        """Drain all workers and end, after stop_accept_s; a second call kills them."""
        self._stop_requests += 1
        log.warning("stopping workers=%d kill=%s", len(self._children), self._stop_requests > 1)
        if self._stop_requests > 1:
            self._drain_all()
            for child in [*self._children.values(), *self._exiting]:
                child.process.kill()
            return
        self._leaving = self.settings.stop_accept_s > 0 and self.report.serving > 0
        if not self._leaving:
            self._drain_all()
            return
        for worker in self._children:
            self._send(worker, LEAVING)
        self._publish()
        asyncio.get_running_loop().call_later(self.settings.stop_accept_s, self._drain_all)

    def _drain_all(self) -> None:
        if self._slots.stopping:
            return
        # No successor will accept from these sockets, so new connections are refused from here on.
        self._leaving = True
        self._slot_sockets.close_except(())
        for command in self._slots.stop(time.monotonic_ns()):
            self._execute(command)

    def _start_rolling_restart(self) -> None:
        log.warning("rolling restart of %d slots", self.settings.workers)
        self._slots.start_rolling_restart()

    async def _execute_due(self) -> None:
        """Execute the commands that are due, close unused slot sockets and publish a report."""
        for command in self._slots.due_commands(time.monotonic_ns()):
            if not isinstance(command, Start):
                self._execute(command)
            elif not self._slots.stopping:
                await self._start_worker()
        serving = [worker for worker in self._children if worker.state is WorkerState.SERVING]
        self._slot_sockets.close_except(
            [worker.slot for worker in serving if worker.slot is not None]
        )
        self._publish()

    async def _start_worker(self) -> None:
        # Register the worker before the first message can arrive.
        child, parent_end = start_worker_process(
            self._command,
            self._settings_file,
            lambda pid: self._slots.add_worker(pid, time.monotonic_ns()),
        )
        worker = child.worker
        self._children[worker] = child
        child.connection = await ControlConnection.attach(
            parent_end,
            lambda message: self._on_message(child, message),
            lambda: self._on_disconnected(child),
        )
        for digest in self._suspects.quarantined:
            self._send_quarantine(worker, digest)
        log.info("started pid=%d", worker.pid)

    def _execute(self, command: SupervisorCommand) -> None:
        match command:
            case Serve(worker):
                assert worker.slot is not None
                # The sockets are sent first, so that they are there when the worker reads `serve`.
                self._slot_sockets.send_sockets(worker.slot, self._children[worker].socket_channel)
                message = {"type": "serve", "slot": worker.slot, "port": self.settings.port}
                self._send(worker, message)
                if self._leaving:
                    self._send(worker, LEAVING)
                log.info("slot_assigned pid=%d slot=%s", worker.pid, worker.slot)
            case Drain(worker, grace_s):
                self._send(worker, {"type": "drain", "grace_s": grace_s})
                reason = worker.replace_reason or "stop"
                log.info("draining pid=%d slot=%s reason=%s", worker.pid, worker.slot, reason)
            case Kill(worker, cause):
                self._children[worker].process.kill()
                log.warning("killed pid=%d slot=%s cause=%s", worker.pid, worker.slot, cause)

    def _send_quarantine(self, worker: WorkerRecord, digest: str) -> None:
        reason, first_unix_ns = self._suspects.quarantined[digest]
        self._send(
            worker,
            {
                "type": "quarantine",
                "version": digest,
                "reason": reason,
                "first_unix_ns": first_unix_ns,
            },
        )

    def _send(self, worker: WorkerRecord, message: Message) -> None:
        connection = self._children[worker].connection
        if connection is not None:
            connection.send(message)

    def _on_message(self, child: WorkerProcess, message: Message) -> None:
        worker = child.worker
        kind = message["type"]
        self._slots.on_message(worker, kind, time.monotonic_ns())
        if kind == "heartbeat":
            worker.gauges = {k: float(v) for k, v in message.items() if isinstance(v, int | float)}
            worker.lags_ms.append(worker.gauges.pop("loop_lag_ms", 0.0))
        elif kind == "metrics":
            child.snapshot = message["snapshot"]
        elif kind == "failed":
            child.failure = str(message["reason"])
            log.error("failed pid=%d reason=%s", worker.pid, child.failure)
        else:
            log.info("%s pid=%d slot=%s", kind, worker.pid, worker.slot)
        self._has_served |= kind == "serving"
        if kind in ("ready", "serving"):
            self._execute_now()
            self._publish()  # at once: the worker's health says SERVING, so /readyz agrees

    def _on_disconnected(self, child: WorkerProcess) -> None:
        """Take a worker whose control connection ended out of its slot, for whatever reason."""
        worker = child.worker
        if self._children.pop(worker, None) is None:
            return
        child.disconnected_s = time.monotonic()
        drained = worker.state is WorkerState.DRAINING and not worker.kill_reason
        if not drained:
            child.process.kill()
        self._exiting.append(child)
        self._slots.remove_worker(worker, time.monotonic_ns())
        # The slot keeps the worker's counts, so that totals never go back.
        label = _worker_label(worker)
        past = sum_snapshots([self._past_snapshots.get(label, {}), child.snapshot])
        living = [other.snapshot for other in self._children.values()]
        self._past_snapshots[label] = without_gauges(bounded_past(past, living))
        if not self._slots.stopping:
            cause = worker.kill_reason or worker.replace_reason or "drain" * drained or "died"
            self._restarts[label, cause] += 1
        self._execute_now()

    def _execute_now(self) -> None:
        """Assign free slots in this turn of the loop; starting workers may wait for the tick."""
        for command in self._slots.due_commands(time.monotonic_ns()):
            if not isinstance(command, Start):
                self._execute(command)

    def _check_processes(self) -> None:
        """Read memory use, reap ended processes, and kill disconnected ones that do not exit."""
        for child in self._children.values():
            child.worker.rss_bytes = rss_bytes(child.worker.pid)
        for child in list(self._exiting):
            worker, code = child.worker, child.process.poll()
            if code is not None:
                self._exiting.remove(child)
                self._on_exited(child, code)
                log.info("ended pid=%d slot=%s code=%d", worker.pid, worker.slot, code)
            elif (
                child.disconnected_s is not None
                and time.monotonic() - child.disconnected_s > EXIT_S_MAX
            ):
                child.process.kill()

    def _on_exited(self, child: WorkerProcess, code: int) -> None:
        """After a crash, count the versions that were running; quarantine one at its second."""
        if -code in CRASH_SIGNALS:
            running = read_running_versions(child.breadcrumbs_fd)
            cause = describe_exit(code)
            log.error("crashed pid=%d by=%s running=%s", child.worker.pid, cause, running)
            for digest in self._suspects.record_crash(cause, running, self._clock.unix_ns()):
                for worker in self._children:
                    self._send_quarantine(worker, digest)
        child.close()
        # A crash may be a version's, and a kill is the supervisor's; neither is counted here.
        failed = code > 0 or child.failure
        if failed and not self._has_served and not self._slots.stopping:
            self._count_failure(child.failure or f"a worker ended with {describe_exit(code)}")

    def _count_failure(self, reason: str) -> None:
        """End the gateway when workers fail again and again for one reason and none ever served."""
        self._failures[reason] += 1
        if self._failures[reason] >= FAILURES_ALIKE_MAX:
            self.start_failure = reason
            self._drain_all()

    def _publish(self) -> None:
        """Build the report of this moment; call on_change when a slot opened or closed."""
        now_ns = time.monotonic_ns()
        counts = {label: [snapshot] for label, snapshot in self._past_snapshots.items()}
        lags_s: dict[str, float] = {}
        # One row a worker for each page.
        rows: list[dict[str, Any]] = []
        statistics: list[dict[str, Any]] = []
        for worker, child in self._children.items():
            # A worker's counts go behind those of its slot's earlier workers.
            if child.snapshot:
                counts.setdefault(_worker_label(worker), []).append(child.snapshot)
            if "statistics" in child.snapshot:
                statistics.append(child.statistics_row())
            if worker.lags_ms and worker.state is WorkerState.SERVING:
                lags_s[_worker_label(worker)] = max(worker.lags_ms) / 1e3
            rows.append(child.row(now_ns))
        # The report replaces the old one whole: the endpoint's threads may be reading that one.
        serving_before = self.report.serving
        self.report = Report(
            slots=self.settings.workers,
            serving=self._slots.serving,
            leaving=self._leaving,
            connected=sum(
                bool(row.get(REGISTRY_CONNECTED))
                for row in rows
                if row["state"] == WorkerState.SERVING.value
            ),
            workers=tuple(sorted(rows, key=_by_slot)),
            statistics=tuple(sorted(statistics, key=_by_slot)),
            counts={label: tuple(snapshots) for label, snapshots in counts.items()},
            lags_s=lags_s,
            restarts=dict(self._restarts),
            journal=self._journal.use,
            segments_deleted=dict(self._journal.deleted),
        )
        if self.report.serving != serving_before and self._on_change is not None:
            self._on_change(self.report)

    def _write_settings(self) -> Path:
        """Write the settings, with the ports filled in, to the file that workers read."""
        path = Path(self.settings.folder) / "settings.json"
        make_private_folder(path.parent)
        replace_file(path, self.settings.to_json(), durable=False)
        return path


def _by_slot(row: Mapping[str, Any]) -> tuple[bool, int]:
    """Order rows by slot, workers without one last."""
    return row["slot"] is None, row["slot"] or 0


def _worker_label(worker: WorkerRecord) -> str:
    return "spare" if worker.slot is None else str(worker.slot)
