"""Which worker serves which slot, and what the supervisor must do next. Pure: no I/O, no clock.

    started by exec     sent `ready`        assigned a slot         drained
    STARTING ─────────> SPARE (warm) ─────> SERVING (opens later) ─> DRAINING ────> gone

A worker may be killed in any state. An empty slot is given to the spare at once, and a new spare is
started. A worker that is to be replaced (rolling restart, memory) is drained only after a newer
worker has opened the same slot.

`Slots` returns commands; gateway.supervision.supervisor executes them.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from host.clock import NS_PER_MS
from host.retry import Backoff

HELLO_MS_MAX = 30_000
"""From exec to hello: an interpreter and its imports on a machine that is busy with others."""

LOADING_SILENT_MS_MAX = 10_000
"""Longest pause between messages of a worker that loads. It answers no calls yet, so it may block
its event loop longer than a serving worker."""

OPEN_MS_MAX = 10_000
"""From `serve` to `serving`: one bind and one listen."""

KILL_AFTER_GRACE_MS = 1_000
"""A drained worker gets this much beyond its grace to exit by itself."""

RESTART_BACKOFF_MS_MIN = 100
STABLE_MS = 10_000
"""A worker that has served this long shows that workers can start: the backoff is reset."""

MEMORY_REPLACE_PAUSE_MS = 30_000
"""A worker is not replaced for memory sooner than this after it opened its slot. If the models need
that much memory, its successor will need it as well."""

LATE_TICK_MS = 500
"""A tick later than this means that the supervisor itself was stopped. Missing heartbeats of that
time do not count."""

LAG_SAMPLES = 150
"""Heartbeats whose loop lag is kept: 15 s at the default 100 ms, one Prometheus scrape."""


class WorkerState(Enum):
    """Where a worker is in its life; the module's docstring draws the transitions."""

    STARTING = "starting"
    SPARE = "spare"
    SERVING = "serving"
    DRAINING = "draining"


@dataclass(slots=True, eq=False)
class WorkerRecord:
    """One worker as the supervisor knows it. Times are monotonic ns."""

    pid: int
    started_ns: int
    state: WorkerState = WorkerState.STARTING
    slot: int | None = None
    opened_ns: int | None = None
    """When it sent `serving`: it accepts connections since then."""
    slot_assigned_ns: int = 0
    last_message_ns: int = 0
    """When its last message arrived; 0 before hello."""
    drain_by_ns: int = 0
    replace_reason: str = ""
    """Why it is to be replaced: rolling or memory; empty when it stays."""
    kill_reason: str = ""
    """Why the supervisor killed it; empty when it did not."""
    rss_bytes: int = 0
    lags_ms: deque[float] = field(default_factory=lambda: deque(maxlen=LAG_SAMPLES))
    gauges: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Start:
    """Start one more worker by exec."""


@dataclass(frozen=True, slots=True)
class Serve:
    """Tell *worker* to open its slot."""

    worker: WorkerRecord


@dataclass(frozen=True, slots=True)
class Drain:
    """Tell *worker* to close its port and to exit within *grace_s* seconds."""

    worker: WorkerRecord
    grace_s: float


@dataclass(frozen=True, slots=True)
class Kill:
    """Send SIGKILL to *worker*."""

    worker: WorkerRecord
    cause: str


SupervisorCommand = Start | Serve | Drain | Kill


class Slots:
    """Every living worker, and the rules that keep each slot served and one spare warm.

    Call `due_commands` after each event and each tick; execute what it returns, in order.
    """

    def __init__(
        self,
        slots: int,
        *,
        heartbeat_timeout_ms: int,
        rss_bytes_max: int,
        restart_backoff_ms_max: int,
        drain_grace_s: float,
        handover_s: float,
        stop_handover_s: float = 0.0,
    ) -> None:
        """Begin without workers; the first `due_commands` starts them.

        handover_s       added to the grace of a worker whose successor serves: clients use the
                         time to reconnect.
        stop_handover_s  added to the grace when all workers stop: clients use the time to move to
                         other hosts.
        """
        self.workers: list[WorkerRecord] = []
        self.stopping = False
        # The settings, in the units used here.
        self._slots = slots
        self._heartbeat_timeout_ns = heartbeat_timeout_ms * NS_PER_MS
        self._rss_bytes_max = rss_bytes_max
        self._backoff = Backoff(RESTART_BACKOFF_MS_MIN / 1e3, restart_backoff_ms_max / 1e3)
        self._drain_grace_s = drain_grace_s
        self._handover_s = handover_s
        self._stop_handover_s = stop_handover_s
        # What is known of failed starts and of the last tick.
        self._starts_fail = False
        """Whether a worker died since the last one that was stable."""
        self._start_at_ns = 0
        self._ticked_ns = 0

    def add_worker(self, pid: int, now_ns: int) -> WorkerRecord:
        """Register the worker that was started as *pid*."""
        worker = WorkerRecord(pid, now_ns)
        self.workers.append(worker)
        return worker

    def on_message(self, worker: WorkerRecord, kind: str, now_ns: int) -> None:
        """Note that *worker* sent a message of type *kind*."""
        worker.last_message_ns = now_ns
        if kind == "ready" and worker.state is WorkerState.STARTING:
            worker.state = WorkerState.SPARE
        elif kind == "serving" and worker.state is WorkerState.SERVING:
            worker.opened_ns = now_ns
        elif kind == "draining" and worker.state is not WorkerState.DRAINING:
            # The worker got a SIGTERM of its own. Its slot is free, and it gets the usual grace.
            self._drain_worker(worker, now_ns, self._drain_grace_s)

    def remove_worker(self, worker: WorkerRecord, now_ns: int) -> None:
        """Forget *worker*, which died or closed its connection.

        After an unexpected death the next start waits: 100 ms at first, doubled each time.
        """
        self.workers.remove(worker)
        if worker.state is WorkerState.DRAINING or self.stopping:
            return
        if worker.opened_ns is not None and now_ns - worker.opened_ns >= STABLE_MS * NS_PER_MS:
            self._starts_fail = False
            self._backoff.reset()
            return
        self._starts_fail = True
        self._start_at_ns = now_ns + self._backoff.next_ns()

    def start_rolling_restart(self) -> None:
        """Mark all present workers for replacement, one slot at a time, each by a warm worker."""
        for worker in self.workers:
            worker.replace_reason = "rolling"

    def stop(self, now_ns: int) -> list[SupervisorCommand]:
        """Return the commands that end all workers: those that still load are killed, the others
        drained. No worker is started after this.
        """
        self.stopping = True
        commands: list[SupervisorCommand] = []
        for worker in self.workers:
            if worker.state is WorkerState.STARTING:
                worker.kill_reason = worker.kill_reason or "stop"
                commands.append(Kill(worker, "stop"))
            elif worker.state is not WorkerState.DRAINING:
                # Only a serving worker has clients that need time to move.
                handover_s = self._stop_handover_s * (worker.state is WorkerState.SERVING)
                grace_s = self._drain_grace_s + handover_s
                commands.append(self._drain_worker(worker, now_ns, grace_s))
        return commands

    def due_commands(self, now_ns: int) -> list[SupervisorCommand]:
        """Return what must be done at *now_ns*, in order of execution.

        Kills come first, because they free slots. Then spares are assigned to slots, replaced
        workers are drained and new spares are started. Each command is returned once and counts as
        executed, except Start, which is repeated until `add_worker` is called.
        """
        if self._ticked_ns and now_ns - self._ticked_ns > LATE_TICK_MS * NS_PER_MS:
            for worker in self.workers:
                worker.last_message_ns = worker.last_message_ns and now_ns
        self._ticked_ns = now_ns
        commands: list[SupervisorCommand] = [*self._kill_commands(now_ns)]
        if not self.stopping:
            self._mark_memory(now_ns)
            commands += self._serve_commands(now_ns)
            commands += self._drain_commands(now_ns)
            commands += self._start_commands(now_ns)
        return commands

    @property
    def serving(self) -> int:
        """Number of slots whose worker has opened the port."""
        return len({w.slot for w in self.workers if _occupies_slot(w) and w.opened_ns is not None})

    def _kill_commands(self, now_ns: int) -> Iterable[Kill]:
        for worker in self.workers:
            cause = "" if worker.kill_reason else self._kill_cause(worker, now_ns)
            if cause:
                worker.kill_reason = cause
                yield Kill(worker, cause)

    def _kill_cause(self, worker: WorkerRecord, now_ns: int) -> str:
        """Return why *worker* must be killed now; empty when it need not be."""
        if worker.last_message_ns == 0:
            return "silent" if now_ns - worker.started_ns > HELLO_MS_MAX * NS_PER_MS else ""
        loading = worker.state is WorkerState.STARTING
        timeout_ns = max(self._heartbeat_timeout_ns, LOADING_SILENT_MS_MAX * NS_PER_MS * loading)
        if now_ns - worker.last_message_ns > timeout_ns:
            return "silent"
        if worker.state is WorkerState.DRAINING and now_ns > worker.drain_by_ns:
            return "drain"
        opening = worker.state is WorkerState.SERVING and worker.opened_ns is None
        opening_late = opening and now_ns - worker.slot_assigned_ns > OPEN_MS_MAX * NS_PER_MS
        return "not_opened" if opening_late else ""

    def _mark_memory(self, now_ns: int) -> None:
        for worker in self.workers:
            replaceable = (
                worker.opened_ns is not None
                and now_ns - worker.opened_ns > MEMORY_REPLACE_PAUSE_MS * NS_PER_MS
            )
            above_mark = worker.rss_bytes > self._rss_bytes_max
            if replaceable and not worker.replace_reason and above_mark:
                worker.replace_reason = "memory"

    def _serve_commands(self, now_ns: int) -> Iterable[Serve]:
        """Assign spares: to empty slots, else to one slot whose worker is to be replaced."""
        # An outdated spare still fills an empty slot: serving matters more than being new.
        spares = [w for w in self.workers if w.state is WorkerState.SPARE and not w.kill_reason]
        spares.sort(key=lambda worker: (bool(worker.replace_reason), worker.started_ns))
        occupants = [w for w in self.workers if w.slot is not None and _occupies_slot(w)]
        occupied = [worker.slot for worker in occupants]
        open_slots: list[int | None] = [slot for slot in range(self._slots) if slot not in occupied]
        # With every slot open, replace the worker of one slot that has no newer one yet.
        if not open_slots and all(worker.opened_ns is not None for worker in occupants):
            renewed = {worker.slot for worker in occupants if not worker.replace_reason}
            open_slots = [slot for slot in occupied if slot not in renewed][:1]
            spares = [worker for worker in spares if not worker.replace_reason]
        for slot, worker in zip(open_slots, spares, strict=False):
            worker.state, worker.slot, worker.slot_assigned_ns = WorkerState.SERVING, slot, now_ns
            yield Serve(worker)

    def _drain_commands(self, now_ns: int) -> Iterable[Drain]:
        """Drain the workers that are to be replaced and whose successor is there."""
        living = [worker for worker in self.workers if not worker.kill_reason]
        outdated = [worker for worker in living if worker.replace_reason]
        opened = [w for w in self.workers if _occupies_slot(w) and w.opened_ns is not None]
        warm = any(
            worker.state is WorkerState.SPARE and not worker.replace_reason for worker in living
        )
        for worker in outdated:
            replaced = {
                WorkerState.STARTING: True,
                WorkerState.SPARE: warm,
                WorkerState.SERVING: any(
                    successor.slot == worker.slot
                    and successor.slot_assigned_ns > worker.slot_assigned_ns
                    for successor in opened
                ),
                WorkerState.DRAINING: False,
            }
            if replaced[worker.state]:
                # Only a serving worker has clients that need time to reconnect.
                handover_s = self._handover_s * (worker.state is WorkerState.SERVING)
                yield self._drain_worker(worker, now_ns, self._drain_grace_s + handover_s)

    def _start_commands(self, now_ns: int) -> Iterable[Start]:
        """Start what is missing to one worker a slot and one spare; after a failed start, one."""
        if now_ns < self._start_at_ns:
            return
        coming = [
            worker
            for worker in self.workers
            if worker.state in (WorkerState.STARTING, WorkerState.SPARE)
            and not worker.replace_reason
            and not worker.kill_reason
        ]
        starting = sum(worker.state is WorkerState.STARTING for worker in coming)
        occupied = {worker.slot for worker in self.workers if _occupies_slot(worker)}
        missing = self._slots - len(occupied) + 1 - len(coming)
        if self._starts_fail:
            missing = min(missing, 1 - starting)
        yield from [Start()] * max(0, missing)

    def _drain_worker(self, worker: WorkerRecord, now_ns: int, grace_s: float) -> Drain:
        worker.state = WorkerState.DRAINING
        worker.drain_by_ns = now_ns + int(grace_s * 1e9) + KILL_AFTER_GRACE_MS * NS_PER_MS
        return Drain(worker, grace_s)


def _occupies_slot(worker: WorkerRecord) -> bool:
    return worker.state is WorkerState.SERVING and not worker.kill_reason
