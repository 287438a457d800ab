"""Keeps every slot taken by a living worker, and one spare warm behind them.

Never imports grpc and never answers a call: workers are started by exec from a process without
grpc's threads (grpc#13873, #43055), and share one port by SO_REUSEPORT; a slot's socket goes from
one worker to the next (gateway.supervision.sockets). gateway.supervision.slots decides; this file
carries out. SIGTERM or SIGINT: drain all, exit 0; a second one: kill. SIGHUP: rolling restart.
"""

import asyncio
import contextlib
import dataclasses
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gateway.clock import SystemClock
from gateway.isolation.breadcrumbs import Suspects, create_breadcrumb_page, read_running_versions
from gateway.isolation.child_process import CRASH_SIGNALS, describe_exit
from gateway.settings import Settings
from gateway.supervision.channel import ControlConnection, Message
from gateway.supervision.exposition import Report, Snapshot, sum_snapshots, without_gauges
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
from gateway.supervision.sockets import SlotSockets, create_socket_channel

TICK_S = 0.05
"""How often silence, memory and exits are looked at; deaths are noticed at once, by the line."""

EXIT_S_MAX = 2.0
"""From a worker's last word to its end; a drained interpreter needs some 100 ms."""

WORKER_COMMAND = (sys.executable, "-m", "gateway.worker")

log = logging.getLogger("gateway.supervision.supervisor")


@dataclasses.dataclass(slots=True, eq=False)
class WorkerProcess:
    """A worker's process and its line, beside its seat."""

    process: subprocess.Popen[bytes]
    worker: WorkerRecord
    crumbs_fd: int
    """Its page of breadcrumbs."""
    socket_channel: socket.socket
    """Over which it is lent its slot's socket."""
    connection: ControlConnection | None = None
    snapshot: Snapshot = dataclasses.field(default_factory=dict)
    disconnected_s: float | None = None
    """When its line was lost."""


class Supervisor:
    """One a host. Build, then `await run()` on a plain asyncio loop."""

    def __init__(
        self,
        settings: Settings,
        *,
        command: Sequence[str] = WORKER_COMMAND,
        on_change: Callable[[Report], None] | None = None,
    ) -> None:
        """Reserve the ports; OSError when one is taken.

        command    what a worker is; `--channel-fd N --settings FILE` is added.
        on_change  called when the number of serving slots changes.
        """
        self.report = Report(slots=settings.workers)
        self._slot_sockets = SlotSockets(settings.host, settings.port)
        try:
            self._metrics_endpoint = MetricsEndpoint(
                "127.0.0.1", settings.metrics_port, lambda: self.report
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
        self._suspects = Suspects()
        self._clock = SystemClock()
        self._slots = Slots(
            settings.workers,
            heartbeat_timeout_ms=settings.heartbeat_timeout_ms,
            rss_bytes_max=settings.worker_rss_mb_max * 1024 * 1024,
            restart_backoff_ms_max=settings.restart_backoff_ms_max,
            drain_grace_s=settings.drain_grace_s,
            # Clients are told to reconnect at this age, +- 10 %; until then a replaced worker waits
            # for them, because closing a connection cancels the calls that cross it (grpc#41785).
            handover_s=1.1 * settings.connection_age_s_max,
            stop_handover_s=settings.stop_handover_s,
        )

    async def run(self) -> int:
        """Keep the slots taken until told to stop; return the exit code, 0 after a full drain."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self._start_rolling_restart)
        self._settings_file = self._write_settings()
        try:
            while not (self._slots.stopping and not self._children and not self._exiting):
                await self._execute_due()
                await asyncio.sleep(TICK_S)
                self._check_processes()
        finally:
            for child in [*self._children.values(), *self._exiting]:
                child.process.kill()
                child.process.wait()
                os.close(child.crumbs_fd)
                child.socket_channel.close()
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                loop.remove_signal_handler(number)
            self._metrics_endpoint.close()
            self._slot_sockets.close()
        return 0 if self._stop_requests == 1 else 1

    def stop(self) -> None:
        """Drain everybody and end; asked twice, kill them."""
        self._stop_requests += 1
        log.warning("stopping workers=%d kill=%s", len(self._children), self._stop_requests > 1)
        if self._stop_requests > 1:
            for child in [*self._children.values(), *self._exiting]:
                child.process.kill()
            return
        self._slot_sockets.close_except(())  # nobody comes after: whoever connects now is refused
        for order in self._slots.stop(time.monotonic_ns()):
            self._execute(order)

    def _start_rolling_restart(self) -> None:
        log.warning("rolling restart of %d slots", self.settings.workers)
        self._slots.start_rolling_restart()

    async def _execute_due(self) -> None:
        for order in self._slots.due_commands(time.monotonic_ns()):
            if not isinstance(order, Start):
                self._execute(order)
            elif not self._slots.stopping:
                await self._start_worker()
        sitting = [seat for seat in self._children if seat.state is WorkerState.SERVING]
        self._slot_sockets.close_except([seat.slot for seat in sitting if seat.slot is not None])
        self._publish()

    async def _start_worker(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        lending, lent = create_socket_channel()
        crumbs_fd = create_breadcrumb_page()
        with theirs, lent:
            own = [f"--channel-fd={theirs.fileno()}", f"--settings={self._settings_file}"]
            own += [f"--breadcrumbs-fd={crumbs_fd}", f"--sockets-fd={lent.fileno()}"]
            # A session of its own: Ctrl-C reaches the supervisor alone, which then drains.
            program = subprocess.Popen(  # noqa: ASYNC220  exec takes 1 ms and must not be raced
                [*self._command, *own],
                pass_fds=(theirs.fileno(), crumbs_fd, lent.fileno()),
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        seat = self._slots.add_worker(program.pid, time.monotonic_ns())
        child = self._children[seat] = WorkerProcess(program, seat, crumbs_fd, lending)
        child.connection = await ControlConnection.attach(
            ours,
            lambda message: self._on_message(child, message),
            lambda: self._on_disconnected(child),
        )
        log.info("started pid=%d", program.pid)

    def _execute(self, command: SupervisorCommand) -> None:
        match command:
            case Serve(seat):
                assert seat.slot is not None
                self._slot_sockets.send_socket(seat.slot, self._children[seat].socket_channel)
                message = {"type": "serve", "slot": seat.slot, "port": self.settings.port}
                self._send(seat, message)
                for digest in self._suspects.quarantined:
                    self._send_quarantine(seat, digest)
                log.info("slot_assigned pid=%d slot=%s", seat.pid, seat.slot)
            case Drain(seat, grace_s):
                self._send(seat, {"type": "drain", "grace_s": grace_s})
                log.info(
                    "draining pid=%d slot=%s reason=%s",
                    seat.pid,
                    seat.slot,
                    seat.replace_reason or "stop",
                )
            case Kill(seat, cause):
                self._children[seat].process.kill()
                log.warning("killed pid=%d slot=%s cause=%s", seat.pid, seat.slot, cause)

    def _send_quarantine(self, worker: WorkerRecord, digest: str) -> None:
        why, first_unix_ns = self._suspects.quarantined[digest]
        self._send(
            worker,
            {
                "type": "quarantine",
                "version": digest,
                "reason": why,
                "first_unix_ns": first_unix_ns,
            },
        )

    def _send(self, worker: WorkerRecord, message: Message) -> None:
        line = self._children[worker].connection
        if line is not None:
            line.send(message)

    def _on_message(self, child: WorkerProcess, message: Message) -> None:
        seat = child.worker
        kind = message["type"]
        self._slots.on_message(seat, kind, time.monotonic_ns())
        if kind == "heartbeat":
            numbers = {k: float(v) for k, v in message.items() if isinstance(v, int | float)}
            seat.lags_ms.append(numbers.pop("loop_lag_ms", 0.0))
            seat.gauges = numbers
        elif kind == "metrics":
            child.snapshot = message["snapshot"]
        else:
            log.info("%s pid=%d slot=%s", kind, seat.pid, seat.slot)
        if kind in ("ready", "serving"):
            self._execute_now()

    def _on_disconnected(self, child: WorkerProcess) -> None:
        """The line ended: whatever it was, this worker takes part no longer."""
        seat = child.worker
        if self._children.pop(seat, None) is None:
            return
        child.disconnected_s = time.monotonic()
        drained = seat.state is WorkerState.DRAINING and not seat.kill_reason
        if not drained:
            child.process.kill()
        self._exiting.append(child)
        self._slots.remove_worker(seat, time.monotonic_ns())
        worker = _worker_label(seat)
        self._past_snapshots[worker] = without_gauges(
            sum_snapshots([self._past_snapshots.get(worker, {}), child.snapshot])
        )
        if not self._slots.stopping:
            self._restarts[
                worker, seat.kill_reason or seat.replace_reason or "drain" * drained or "died"
            ] += 1
        self._execute_now()

    def _execute_now(self) -> None:
        """Give out slots in this very turn of the loop; starts may wait for the next tick."""
        orders = self._slots.due_commands(time.monotonic_ns())
        for order in orders:
            if not isinstance(order, Start):
                self._execute(order)

    def _check_processes(self) -> None:
        """Read memory, bury the dead, and kill who has said goodbye but does not go."""
        for child in self._children.values():
            child.worker.rss_bytes = rss_bytes(child.worker.pid)
        for child in list(self._exiting):
            code = child.process.poll()
            if code is not None:
                self._exiting.remove(child)
                self._on_exited(child, code)
                log.info("ended pid=%d slot=%s code=%d", child.worker.pid, child.worker.slot, code)
            elif (
                child.disconnected_s is not None
                and time.monotonic() - child.disconnected_s > EXIT_S_MAX
            ):
                child.process.kill()

    def _on_exited(self, child: WorkerProcess, code: int) -> None:
        """Look what a worker that crashed was running; twice the same, and nobody runs it more."""
        if -code in CRASH_SIGNALS:
            running = read_running_versions(child.crumbs_fd)
            log.error(
                "crashed pid=%d by=%s running=%s", child.worker.pid, describe_exit(code), running
            )
            for digest in self._suspects.record_crash(
                describe_exit(code), running, self._clock.unix_ns()
            ):
                for seat in [seat for seat in self._children if seat.slot is not None]:
                    self._send_quarantine(seat, digest)
        os.close(child.crumbs_fd)
        child.socket_channel.close()

    def _publish(self) -> None:
        now_ns = time.monotonic_ns()
        counts = {worker: [snapshot] for worker, snapshot in self._past_snapshots.items()}
        lags: dict[str, float] = {}
        rows: list[dict[str, Any]] = []
        for seat, child in self._children.items():
            if child.snapshot:
                counts.setdefault(_worker_label(seat), []).append(child.snapshot)
            if seat.lags_ms and seat.state is WorkerState.SERVING:
                lags[_worker_label(seat)] = max(seat.lags_ms) / 1e3
            rows.append(
                {
                    "pid": seat.pid,
                    "slot": seat.slot,
                    "state": seat.state.value,
                    "open": seat.opened_ns is not None,
                    "age_s": round((now_ns - seat.started_ns) / 1e9, 3),
                    "rss_bytes": seat.rss_bytes,
                    **seat.gauges,
                }
            )
        before = self.report.serving
        self.report = Report(
            slots=self.settings.workers,
            serving=self._slots.serving,
            workers=tuple(sorted(rows, key=lambda row: (row["slot"] is None, row["slot"]))),
            counts={worker: tuple(snapshots) for worker, snapshots in counts.items()},
            lags_s=lags,
            restarts=dict(self._restarts),
        )
        if self.report.serving != before and self._on_change is not None:
            self._on_change(self.report)

    def _write_settings(self) -> Path:
        """Leave the settings, ports filled in, where workers read them; written whole or not."""
        path = Path(self.settings.folder) / "settings.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        part.write_text(self.settings.to_json(), encoding="utf-8")
        part.replace(path)
        return path


def rss_bytes(pid: int) -> int:
    """Resident memory of *pid*; 0 when it is gone or the system has no /proc."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")
    return 0


def _worker_label(worker: WorkerRecord) -> str:
    return "spare" if worker.slot is None else str(worker.slot)
