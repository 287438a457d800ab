"""Who sits in which slot, and what the supervisor owes next. Pure: time comes in, orders go out.

    exec           says ready        is given a slot          is asked to leave
    STARTING ────> SPARE (warm) ───> SERVING (opened later) ─> DRAINING ────> gone

Anybody may be killed from anywhere; a slot left empty goes to the spare at once, and a new spare
is started behind it. Who is to be replaced (rolling restart, memory) leaves only after somebody
newer has opened the same slot.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

NS_PER_MS = 1_000_000
"""Nanoseconds."""

HELLO_MS_MAX = 30_000
"""From exec to hello: an interpreter and its imports on a machine that is busy with others."""

LOADING_SILENT_MS_MAX = 10_000
"""A worker that loads answers nobody yet, so it may hold its loop longer than one that serves."""

OPEN_MS_MAX = 10_000
"""From `serve` to `serving`: one bind and one listen."""

KILL_AFTER_GRACE_MS = 1_000
"""A drained worker gets this much beyond its grace to leave by itself."""

RESTART_BACKOFF_MS_MIN = 100
STABLE_MS = 10_000
"""A worker that served this long has shown that workers start; the backoff begins anew."""

MEMORY_REPLACE_PAUSE_MS = 30_000
"""A worker is not replaced for memory before: if the models need that much, the next does too."""

LATE_TICK_MS = 500
"""The supervisor itself was stopped for this long: nobody's silence in that time counts."""

LAG_SAMPLES = 150
"""Heartbeats whose loop lag is remembered: 15 s at the default 100 ms, one Prometheus scrape."""


class WorkerState(Enum):
    """Where a worker is in its life."""

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
    """When it said `serving`."""
    slot_assigned_ns: int = 0
    last_message_ns: int = 0
    """Its last message; 0 before hello."""
    drain_by_ns: int = 0
    replace_reason: str = ""
    """Why it is replaced once somebody can take its slot: rolling, memory; empty: it stays."""
    kill_reason: str = ""
    """Why we killed it; empty: we did not."""
    rss_bytes: int = 0
    lags_ms: deque[float] = field(default_factory=lambda: deque(maxlen=LAG_SAMPLES))
    gauges: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Start:
    """Exec one more worker."""


@dataclass(frozen=True, slots=True)
class Serve:
    """Give *seat* its slot."""

    worker: WorkerRecord


@dataclass(frozen=True, slots=True)
class Drain:
    """Ask *seat* to leave within *grace_s*."""

    worker: WorkerRecord
    grace_s: float


@dataclass(frozen=True, slots=True)
class Kill:
    """SIGKILL *seat*."""

    worker: WorkerRecord
    cause: str


SupervisorCommand = Start | Serve | Drain | Kill


class Slots:
    """Every living worker, and the rules that keep each slot taken and one spare warm.

    Call `due` after each event and each tick; carry out what it returns, in order.
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
        """handover_s: on top of the grace where a successor serves, for clients to move over.

        stop_handover_s: the same when everybody leaves, for clients to move to other hosts.
        """
        self.workers: list[WorkerRecord] = []
        self.stopping = False
        self._slots = slots
        self._silent_ns_max = heartbeat_timeout_ms * NS_PER_MS
        self._rss_bytes_max = rss_bytes_max
        self._backoff_ms_max = restart_backoff_ms_max
        self._drain_grace_s = drain_grace_s
        self._handover_s = handover_s
        self._stop_handover_s = stop_handover_s
        self._failures = 0
        self._start_at_ns = 0
        self._ticked_ns = 0

    def add_worker(self, pid: int, now_ns: int) -> WorkerRecord:
        """A worker was started as *pid*."""
        seat = WorkerRecord(pid, now_ns)
        self.workers.append(seat)
        return seat

    def on_message(self, worker: WorkerRecord, kind: str, now_ns: int) -> None:
        """*seat* sent a message of type *kind*."""
        worker.last_message_ns = now_ns
        if kind == "ready" and worker.state is WorkerState.STARTING:
            worker.state = WorkerState.SPARE
        elif kind == "serving" and worker.state is WorkerState.SERVING:
            worker.opened_ns = now_ns
        elif kind == "draining" and worker.state is not WorkerState.DRAINING:
            # Not our order (its own SIGTERM): its slot is free, and it gets the usual grace.
            self._drain_worker(worker, now_ns, self._drain_grace_s)

    def remove_worker(self, worker: WorkerRecord, now_ns: int) -> None:
        """*seat* has died, or has closed its line."""
        self.workers.remove(worker)
        if worker.state is WorkerState.DRAINING or self.stopping:
            return
        if worker.opened_ns is not None and now_ns - worker.opened_ns >= STABLE_MS * NS_PER_MS:
            self._failures = 0
            return
        self._failures += 1
        backoff_ms = min(RESTART_BACKOFF_MS_MIN * 2 ** (self._failures - 1), self._backoff_ms_max)
        self._start_at_ns = now_ns + backoff_ms * NS_PER_MS

    def start_rolling_restart(self) -> None:
        """Replace every worker of now, one slot at a time, each by one that is already warm."""
        for seat in self.workers:
            seat.replace_reason = "rolling"

    def stop(self, now_ns: int) -> list[SupervisorCommand]:
        """Ask everybody to leave; nobody is started any more. Who only loads is killed."""
        self.stopping = True
        orders: list[SupervisorCommand] = []
        for seat in self.workers:
            if seat.state is WorkerState.STARTING:
                seat.kill_reason = seat.kill_reason or "stop"
                orders.append(Kill(seat, "stop"))
            elif seat.state is not WorkerState.DRAINING:
                had_calls = self._stop_handover_s * (seat.state is WorkerState.SERVING)
                orders.append(self._drain_worker(seat, now_ns, self._drain_grace_s + had_calls))
        return orders

    def due_commands(self, now_ns: int) -> list[SupervisorCommand]:
        """Return what must be done now; each is taken as carried out, but Start is repeated until
        `started` is called.

        Killed first, so that their slots are free; then slots to spares; then who was replaced
        leaves; then new spares.
        """
        if self._ticked_ns and now_ns - self._ticked_ns > LATE_TICK_MS * NS_PER_MS:
            for seat in self.workers:
                seat.last_message_ns = seat.last_message_ns and now_ns
        self._ticked_ns = now_ns
        orders: list[SupervisorCommand] = [*self._kill_commands(now_ns)]
        if not self.stopping:
            self._mark_memory(now_ns)
            orders += self._serve_commands(now_ns)
            orders += self._drain_commands(now_ns)
            orders += self._start_commands(now_ns)
        return orders

    @property
    def serving(self) -> int:
        """Slots whose worker has opened the port."""
        return len({s.slot for s in self.workers if _occupies_slot(s) and s.opened_ns is not None})

    def _kill_commands(self, now_ns: int) -> Iterable[Kill]:
        for seat in self.workers:
            cause = "" if seat.kill_reason else self._kill_cause(seat, now_ns)
            if cause:
                seat.kill_reason = cause
                yield Kill(seat, cause)

    def _kill_cause(self, worker: WorkerRecord, now_ns: int) -> str:
        """Why *seat* cannot stay a moment longer; empty: it can."""
        if worker.last_message_ns == 0:
            return "silent" if now_ns - worker.started_ns > HELLO_MS_MAX * NS_PER_MS else ""
        loading = worker.state is WorkerState.STARTING
        bound_ns = max(self._silent_ns_max, LOADING_SILENT_MS_MAX * NS_PER_MS * loading)
        if now_ns - worker.last_message_ns > bound_ns:
            return "silent"
        if worker.state is WorkerState.DRAINING and now_ns > worker.drain_by_ns:
            return "drain"
        opening = worker.state is WorkerState.SERVING and worker.opened_ns is None
        return (
            "not_opened"
            if opening and now_ns - worker.slot_assigned_ns > OPEN_MS_MAX * NS_PER_MS
            else ""
        )

    def _mark_memory(self, now_ns: int) -> None:
        for seat in self.workers:
            rested = (
                seat.opened_ns is not None
                and now_ns - seat.opened_ns > MEMORY_REPLACE_PAUSE_MS * NS_PER_MS
            )
            if rested and not seat.replace_reason and seat.rss_bytes > self._rss_bytes_max:
                seat.replace_reason = "memory"

    def _serve_commands(self, now_ns: int) -> Iterable[Serve]:
        """Empty slots first; then, one at a time, the slots of those who are to leave."""
        # Someone warm but outdated still fills an empty slot: serving comes before being new.
        spares = [s for s in self.workers if s.state is WorkerState.SPARE and not s.kill_reason]
        spares.sort(key=lambda seat: (bool(seat.replace_reason), seat.started_ns))
        sitting = [s for s in self.workers if s.slot is not None and _occupies_slot(s)]
        taken = [seat.slot for seat in sitting]
        wanted: list[int | None] = [slot for slot in range(self._slots) if slot not in taken]
        if not wanted and all(seat.opened_ns is not None for seat in sitting):
            renewed = {seat.slot for seat in sitting if not seat.replace_reason}
            wanted = [slot for slot in taken if slot not in renewed][:1]
            spares = [seat for seat in spares if not seat.replace_reason]
        for slot, seat in zip(wanted, spares, strict=False):
            seat.state, seat.slot, seat.slot_assigned_ns = WorkerState.SERVING, slot, now_ns
            yield Serve(seat)

    def _drain_commands(self, now_ns: int) -> Iterable[Drain]:
        """Those who are to leave, and whose place somebody newer has taken."""
        fresh = [seat for seat in self.workers if not seat.replace_reason and not seat.kill_reason]
        opened = [s for s in self.workers if _occupies_slot(s) and s.opened_ns is not None]
        warm = any(seat.state is WorkerState.SPARE for seat in fresh)
        for seat in [seat for seat in self.workers if seat.replace_reason and not seat.kill_reason]:
            replaced = {
                WorkerState.STARTING: True,
                WorkerState.SPARE: warm,
                WorkerState.SERVING: any(
                    o.slot == seat.slot and o.slot_assigned_ns > seat.slot_assigned_ns
                    for o in opened
                ),
                WorkerState.DRAINING: False,
            }
            if replaced[seat.state]:
                had_calls = self._handover_s * (seat.state is WorkerState.SERVING)
                yield self._drain_worker(seat, now_ns, self._drain_grace_s + had_calls)

    def _start_commands(self, now_ns: int) -> Iterable[Start]:
        """One worker a slot and one spare; while starts keep failing, one try at a time."""
        if now_ns < self._start_at_ns:
            return
        coming = [s for s in self.workers if s.state in (WorkerState.STARTING, WorkerState.SPARE)]
        coming = [seat for seat in coming if not seat.replace_reason and not seat.kill_reason]
        starting = sum(seat.state is WorkerState.STARTING for seat in coming)
        taken = {seat.slot for seat in self.workers if _occupies_slot(seat)}
        missing = self._slots - len(taken) + 1 - len(coming)
        if self._failures:
            missing = min(missing, 1 - starting)
        yield from [Start()] * max(0, missing)

    def _drain_worker(self, worker: WorkerRecord, now_ns: int, grace_s: float) -> Drain:
        worker.state = WorkerState.DRAINING
        worker.drain_by_ns = now_ns + int(grace_s * 1e9) + KILL_AFTER_GRACE_MS * NS_PER_MS
        return Drain(worker, grace_s)


def _occupies_slot(worker: WorkerRecord) -> bool:
    return worker.state is WorkerState.SERVING and not worker.kill_reason
