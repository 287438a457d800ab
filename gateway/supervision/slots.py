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

MS = 1_000_000
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
PROVEN_MS = 10_000
"""A worker that served this long has shown that workers start; the backoff begins anew."""

MEMORY_REST_MS = 30_000
"""A worker is not replaced for memory before: if the models need that much, the next does too."""

LATE_TICK_MS = 500
"""The supervisor itself was stopped for this long: nobody's silence in that time counts."""

LAGS_KEPT = 150
"""Heartbeats whose loop lag is remembered: 15 s at the default 100 ms, one Prometheus scrape."""


class State(Enum):
    """Where a worker is in its life."""

    STARTING = "starting"
    SPARE = "spare"
    SERVING = "serving"
    DRAINING = "draining"


@dataclass(slots=True, eq=False)
class Seat:
    """One worker as the supervisor knows it. Times are monotonic ns."""

    pid: int
    started_ns: int
    state: State = State.STARTING
    slot: int | None = None
    opened_ns: int | None = None
    """When it said `serving`."""
    given_ns: int = 0
    heard_ns: int = 0
    """Its last message; 0 before hello."""
    drain_by_ns: int = 0
    leaving: str = ""
    """Why it is replaced once somebody can take its slot: rolling, memory; empty: it stays."""
    killed: str = ""
    """Why we killed it; empty: we did not."""
    rss_bytes: int = 0
    lags_ms: deque[float] = field(default_factory=lambda: deque(maxlen=LAGS_KEPT))
    gauges: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Start:
    """Exec one more worker."""


@dataclass(frozen=True, slots=True)
class Serve:
    """Give *seat* its slot."""

    seat: Seat


@dataclass(frozen=True, slots=True)
class Drain:
    """Ask *seat* to leave within *grace_s*."""

    seat: Seat
    grace_s: float


@dataclass(frozen=True, slots=True)
class Kill:
    """SIGKILL *seat*."""

    seat: Seat
    cause: str


Order = Start | Serve | Drain | Kill


class Slots:
    """Every living worker, and the rules that keep each slot taken and one spare warm.

    Call `due` after each event and each tick; carry out what it returns, in order.
    """

    def __init__(
        self,
        slots: int,
        *,
        silent_ms_max: int,
        rss_bytes_max: int,
        restart_backoff_ms_max: int,
        drain_grace_s: float,
        hand_over_s: float,
        stop_hand_over_s: float = 0.0,
    ) -> None:
        """hand_over_s: on top of the grace where a successor serves, for clients to move over.

        stop_hand_over_s: the same when everybody leaves, for clients to move to other hosts.
        """
        self.seats: list[Seat] = []
        self.stopping = False
        self._slots = slots
        self._silent_ns_max = silent_ms_max * MS
        self._rss_bytes_max = rss_bytes_max
        self._backoff_ms_max = restart_backoff_ms_max
        self._drain_grace_s = drain_grace_s
        self._hand_over_s = hand_over_s
        self._stop_hand_over_s = stop_hand_over_s
        self._failures = 0
        self._start_at_ns = 0
        self._ticked_ns = 0

    def started(self, pid: int, now_ns: int) -> Seat:
        """A worker was started as *pid*."""
        seat = Seat(pid, now_ns)
        self.seats.append(seat)
        return seat

    def heard(self, seat: Seat, kind: str, now_ns: int) -> None:
        """*seat* sent a message of type *kind*."""
        seat.heard_ns = now_ns
        if kind == "ready" and seat.state is State.STARTING:
            seat.state = State.SPARE
        elif kind == "serving" and seat.state is State.SERVING:
            seat.opened_ns = now_ns
        elif kind == "draining" and seat.state is not State.DRAINING:
            # Not our order (its own SIGTERM): its slot is free, and it gets the usual grace.
            self._leave(seat, now_ns, self._drain_grace_s)

    def gone(self, seat: Seat, now_ns: int) -> None:
        """*seat* has died, or has closed its line."""
        self.seats.remove(seat)
        if seat.state is State.DRAINING or self.stopping:
            return
        if seat.opened_ns is not None and now_ns - seat.opened_ns >= PROVEN_MS * MS:
            self._failures = 0
            return
        self._failures += 1
        backoff_ms = min(RESTART_BACKOFF_MS_MIN * 2 ** (self._failures - 1), self._backoff_ms_max)
        self._start_at_ns = now_ns + backoff_ms * MS

    def roll(self) -> None:
        """Replace every worker of now, one slot at a time, each by one that is already warm."""
        for seat in self.seats:
            seat.leaving = "rolling"

    def stop(self, now_ns: int) -> list[Order]:
        """Ask everybody to leave; nobody is started any more. Who only loads is killed."""
        self.stopping = True
        orders: list[Order] = []
        for seat in self.seats:
            if seat.state is State.STARTING:
                seat.killed = seat.killed or "stop"
                orders.append(Kill(seat, "stop"))
            elif seat.state is not State.DRAINING:
                had_calls = self._stop_hand_over_s * (seat.state is State.SERVING)
                orders.append(self._leave(seat, now_ns, self._drain_grace_s + had_calls))
        return orders

    def due(self, now_ns: int) -> list[Order]:
        """Return what must be done now; each is taken as carried out, but Start is repeated until
        `started` is called.

        Killed first, so that their slots are free; then slots to spares; then who was replaced
        leaves; then new spares.
        """
        if self._ticked_ns and now_ns - self._ticked_ns > LATE_TICK_MS * MS:
            for seat in self.seats:
                seat.heard_ns = seat.heard_ns and now_ns
        self._ticked_ns = now_ns
        orders: list[Order] = [*self._kills(now_ns)]
        if not self.stopping:
            self._mark_memory(now_ns)
            orders += self._serves(now_ns)
            orders += self._drains(now_ns)
            orders += self._starts(now_ns)
        return orders

    @property
    def serving(self) -> int:
        """Slots whose worker has opened the port."""
        return len({s.slot for s in self.seats if _sits(s) and s.opened_ns is not None})

    def _kills(self, now_ns: int) -> Iterable[Kill]:
        for seat in self.seats:
            cause = "" if seat.killed else self._fault(seat, now_ns)
            if cause:
                seat.killed = cause
                yield Kill(seat, cause)

    def _fault(self, seat: Seat, now_ns: int) -> str:
        """Why *seat* cannot stay a moment longer; empty: it can."""
        if seat.heard_ns == 0:
            return "silent" if now_ns - seat.started_ns > HELLO_MS_MAX * MS else ""
        loading = seat.state is State.STARTING
        bound_ns = max(self._silent_ns_max, LOADING_SILENT_MS_MAX * MS * loading)
        if now_ns - seat.heard_ns > bound_ns:
            return "silent"
        if seat.state is State.DRAINING and now_ns > seat.drain_by_ns:
            return "drain"
        opening = seat.state is State.SERVING and seat.opened_ns is None
        return "stuck" if opening and now_ns - seat.given_ns > OPEN_MS_MAX * MS else ""

    def _mark_memory(self, now_ns: int) -> None:
        for seat in self.seats:
            rested = seat.opened_ns is not None and now_ns - seat.opened_ns > MEMORY_REST_MS * MS
            if rested and not seat.leaving and seat.rss_bytes > self._rss_bytes_max:
                seat.leaving = "memory"

    def _serves(self, now_ns: int) -> Iterable[Serve]:
        """Empty slots first; then, one at a time, the slots of those who are to leave."""
        # Someone warm but outdated still fills an empty slot: serving comes before being new.
        spares = [s for s in self.seats if s.state is State.SPARE and not s.killed]
        spares.sort(key=lambda seat: (bool(seat.leaving), seat.started_ns))
        sitting = [s for s in self.seats if s.slot is not None and _sits(s)]
        taken = [seat.slot for seat in sitting]
        wanted: list[int | None] = [slot for slot in range(self._slots) if slot not in taken]
        if not wanted and all(seat.opened_ns is not None for seat in sitting):
            renewed = {seat.slot for seat in sitting if not seat.leaving}
            wanted = [slot for slot in taken if slot not in renewed][:1]
            spares = [seat for seat in spares if not seat.leaving]
        for slot, seat in zip(wanted, spares, strict=False):
            seat.state, seat.slot, seat.given_ns = State.SERVING, slot, now_ns
            yield Serve(seat)

    def _drains(self, now_ns: int) -> Iterable[Drain]:
        """Those who are to leave, and whose place somebody newer has taken."""
        fresh = [seat for seat in self.seats if not seat.leaving and not seat.killed]
        opened = [s for s in self.seats if _sits(s) and s.opened_ns is not None]
        warm = any(seat.state is State.SPARE for seat in fresh)
        for seat in [seat for seat in self.seats if seat.leaving and not seat.killed]:
            replaced = {
                State.STARTING: True,
                State.SPARE: warm,
                State.SERVING: any(
                    o.slot == seat.slot and o.given_ns > seat.given_ns for o in opened
                ),
                State.DRAINING: False,
            }
            if replaced[seat.state]:
                had_calls = self._hand_over_s * (seat.state is State.SERVING)
                yield self._leave(seat, now_ns, self._drain_grace_s + had_calls)

    def _starts(self, now_ns: int) -> Iterable[Start]:
        """One worker a slot and one spare; while starts keep failing, one try at a time."""
        if now_ns < self._start_at_ns:
            return
        coming = [s for s in self.seats if s.state in (State.STARTING, State.SPARE)]
        coming = [seat for seat in coming if not seat.leaving and not seat.killed]
        starting = sum(seat.state is State.STARTING for seat in coming)
        taken = {seat.slot for seat in self.seats if _sits(seat)}
        missing = self._slots - len(taken) + 1 - len(coming)
        if self._failures:
            missing = min(missing, 1 - starting)
        yield from [Start()] * max(0, missing)

    def _leave(self, seat: Seat, now_ns: int, grace_s: float) -> Drain:
        seat.state = State.DRAINING
        seat.drain_by_ns = now_ns + int(grace_s * 1e9) + KILL_AFTER_GRACE_MS * MS
        return Drain(seat, grace_s)


def _sits(seat: Seat) -> bool:
    return seat.state is State.SERVING and not seat.killed
