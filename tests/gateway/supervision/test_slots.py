"""The supervisor's decisions, on a clock that moves when told."""

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from gateway.supervision.slots import (
    HELLO_MS_MAX,
    LATE_TICK_MS,
    MEMORY_REPLACE_PAUSE_MS,
    NS_PER_MS,
    OPEN_MS_MAX,
    STABLE_MS,
    Drain,
    Kill,
    Serve,
    Slots,
    Start,
    SupervisorCommand,
    WorkerRecord,
    WorkerState,
)
from tests.property_examples import examples


@dataclass
class Stage:
    """Slots and a clock; workers do what they are told unless a test says otherwise."""

    slots: Slots = field(
        default_factory=lambda: Slots(
            2,
            heartbeat_timeout_ms=2_000,
            rss_bytes_max=1_000,
            restart_backoff_ms_max=5_000,
            drain_grace_s=1.0,
            handover_s=3.3,
        )
    )
    now_ms: int = 1
    pid: int = 100

    def due(self, after_ms: int = 0) -> list[SupervisorCommand]:
        """Tick as the supervisor does, for *after_ms* or until there are orders; return them."""
        for step in [*[50] * (after_ms // 50), after_ms % 50]:
            self.now_ms += step
            if orders := self.slots.due_commands(self.now_ms * NS_PER_MS):
                return orders
        return []

    def start(self) -> WorkerRecord:
        """Exec a worker and let it become warm."""
        self.pid += 1
        seat = self.slots.add_worker(self.pid, self.now_ms * NS_PER_MS)
        self.hear(seat, "hello", "ready")
        return seat

    def hear(self, seat: WorkerRecord, *kinds: str) -> None:
        """*seat* says *kinds*."""
        for kind in kinds:
            self.slots.on_message(seat, kind, self.now_ms * NS_PER_MS)

    def gone(self, seat: WorkerRecord) -> None:
        """*seat* dies."""
        self.slots.remove_worker(seat, self.now_ms * NS_PER_MS)

    def settle(self) -> None:
        """Carry out orders until none is left; everybody alive speaks."""
        for _ in range(20):
            orders = self.due()
            for order in orders:
                self.obey(order)
            for seat in self.slots.workers:
                self.hear(seat, "heartbeat")
            if not orders:
                return
        raise AssertionError("orders without end")

    def obey(self, order: SupervisorCommand) -> None:
        """Do what a healthy worker does."""
        match order:
            case Start():
                self.start()
            case Serve(seat):
                self.hear(seat, "serving")
            case Drain(seat) | Kill(seat):
                self.gone(seat)


def whole() -> Stage:
    """Two slots open and one spare."""
    stage = Stage()
    stage.settle()
    assert [seat.state for seat in stage.slots.workers].count(WorkerState.SERVING) == 2
    return stage


def spare(stage: Stage) -> WorkerRecord:
    """The one warm worker without a slot."""
    (seat,) = [seat for seat in stage.slots.workers if seat.state is WorkerState.SPARE]
    return seat


def test_at_first_one_worker_a_slot_and_one_more_are_started() -> None:
    """Two slots: three starts at once; asked again before they exist, the same three."""
    stage = Stage()
    assert stage.due() == [Start(), Start(), Start()]
    assert stage.due() == [Start(), Start(), Start()]


def test_a_dead_workers_slot_goes_to_the_spare_in_the_same_breath() -> None:
    """Death, then: serve the spare in that slot, and start the next spare."""
    stage = whole()
    stage.now_ms += STABLE_MS
    dead, warm = stage.slots.workers[0], spare(stage)
    for seat in stage.slots.workers:
        stage.hear(seat, "heartbeat")
    stage.gone(dead)
    assert stage.due() == [Serve(warm), Start()]
    assert warm.slot == dead.slot


def test_two_deaths_at_once_fill_one_slot_now_and_the_other_when_somebody_is_warm() -> None:
    """One spare cannot sit in two slots."""
    stage = whole()
    first, second = stage.slots.workers[:2]
    stage.gone(first)
    stage.gone(second)
    orders = stage.due()
    assert [type(order) for order in orders] == [Serve]
    stage.due(after_ms=200)
    late = stage.start()
    assert Serve(late) in stage.due()
    assert {seat.slot for seat in stage.slots.workers if seat.state is WorkerState.SERVING} == {
        0,
        1,
    }


def test_silence_is_killed_at_its_bound_and_its_slot_given_away_at_once() -> None:
    """2,000 ms are still fine; one tick more is not. The spare does not wait for the burial."""
    stage = whole()
    silent, other, warm = stage.slots.workers
    orders: list[SupervisorCommand] = []
    for _ in range(41):
        orders += stage.due(after_ms=50)
        for seat in (other, warm):
            stage.hear(seat, "heartbeat")
        if stage.now_ms <= 2_001:
            assert orders == []
    assert orders[:2] == [Kill(silent, "silent"), Serve(warm)]


def test_a_supervisor_that_was_stopped_itself_blames_nobody() -> None:
    """Ten seconds pass without a tick: the silence was ours, and everybody gets a new start."""
    stage = whole()
    stage.now_ms += 10_000
    assert stage.due() == []
    assert LATE_TICK_MS < 2_000


def test_a_worker_that_never_says_hello_or_never_opens_is_killed() -> None:
    """Each step towards serving has its own bound."""
    stage = Stage()
    mute = stage.slots.add_worker(7, stage.now_ms * NS_PER_MS)
    stage.now_ms += HELLO_MS_MAX
    assert Kill(mute, "silent") not in stage.due()
    stage.now_ms += 1
    assert Kill(mute, "silent") in stage.due()

    stage = Stage()
    seat = stage.start()
    assert Serve(seat) in stage.due()
    for _ in range(OPEN_MS_MAX // 50):
        stage.now_ms += 50
        assert Kill(seat, "not_opened") not in stage.due()
        stage.hear(seat, "heartbeat")
    stage.now_ms += 1
    assert Kill(seat, "not_opened") in stage.due()


def test_failing_starts_wait_longer_each_time_and_come_one_at_a_time() -> None:
    """0.1, 0.2, 0.4 ... 5 s: a broken setting costs a few starts a minute."""
    stage = whole()
    waits = []
    stage.gone(spare(stage))
    for _ in range(8):
        begun = stage.now_ms
        while not (orders := stage.due(after_ms=50)):
            for seat in stage.slots.workers:
                stage.hear(seat, "heartbeat")
        assert orders == [Start()]
        waits.append(stage.now_ms - begun)
        stage.pid += 1
        stage.gone(stage.slots.add_worker(stage.pid, stage.now_ms * NS_PER_MS))
    assert waits == [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]


def test_a_rolling_restart_gives_a_slot_before_it_takes_one() -> None:
    """At every order, each slot has an opened worker that nobody has asked to leave."""
    stage = whole()
    old = list(stage.slots.workers)
    stage.slots.start_rolling_restart()
    for _ in range(40):
        for order in stage.due(after_ms=50):
            stage.obey(order)
            staying = {
                seat.slot
                for seat in stage.slots.workers
                if seat.state is WorkerState.SERVING and seat.opened_ns is not None
            }
            assert staying == {0, 1}
        for seat in stage.slots.workers:
            stage.hear(seat, "heartbeat")
    assert not set(map(id, old)) & set(map(id, stage.slots.workers))
    assert len(stage.slots.workers) == 3
    assert stage.due() == []


def test_a_rolling_restart_whose_newcomers_cannot_start_changes_nothing() -> None:
    """Without a warm successor nobody leaves, not even the spare."""
    stage = whole()
    old = set(map(id, stage.slots.workers))
    stage.slots.start_rolling_restart()
    for _ in range(100):
        for order in stage.due(after_ms=50):
            assert order == Start()
            stage.pid += 1
            stage.gone(stage.slots.add_worker(stage.pid, stage.now_ms * NS_PER_MS))
        for seat in stage.slots.workers:
            stage.hear(seat, "heartbeat")
    assert set(map(id, stage.slots.workers)) == old


def test_a_swollen_worker_is_replaced_but_not_before_it_has_rested() -> None:
    """If the models alone need that much, replacing at once would never end."""
    stage = whole()
    swollen, *others = stage.slots.workers
    swollen.rss_bytes = 1_001
    orders: list[SupervisorCommand] = []
    begun = stage.now_ms
    while not orders:
        orders = stage.due(after_ms=50)
        for seat in (swollen, *others):
            stage.hear(seat, "heartbeat")
    assert stage.now_ms - begun > MEMORY_REPLACE_PAUSE_MS
    assert orders[0] == Serve(others[1])
    assert swollen.state is WorkerState.SERVING  # until its successor has opened
    stage.hear(others[1], "serving")
    assert Drain(swollen, 4.3) in stage.due()  # its grace, and time for its clients to move


def test_stopping_drains_who_serves_kills_who_loads_and_starts_nobody() -> None:
    """And a drain that outlives its grace by a second is killed."""
    stage = whole()
    loading = stage.slots.add_worker(999, stage.now_ms * NS_PER_MS)
    orders = stage.slots.stop(stage.now_ms * NS_PER_MS)
    assert Kill(loading, "stop") in orders
    assert sum(isinstance(order, Drain) for order in orders) == 3
    stage.gone(loading)
    late: list[SupervisorCommand] = []
    for _ in range(42):
        late += stage.due(after_ms=50)
        for seat in stage.slots.workers:
            stage.hear(seat, "heartbeat")
    assert [order.cause for order in late if isinstance(order, Kill)] == ["drain"] * 3
    assert len(late) == 3


def test_a_worker_that_drains_unasked_frees_its_slot() -> None:
    """Somebody sent it SIGTERM: the spare serves while it finishes."""
    stage = whole()
    leaver, warm = stage.slots.workers[0], spare(stage)
    stage.hear(leaver, "draining")
    assert Serve(warm) in stage.due()


@examples(30)
@given(st.lists(st.tuples(st.sampled_from(["kill", "mute", "roll", "tick"]), st.integers(0, 3))))
def test_whatever_happens_every_slot_is_taken_again(story: list[tuple[str, int]]) -> None:
    """Any mix of deaths, silences and restarts ends, left alone, whole: two open, one spare."""
    stage = whole()
    for what, who in story:
        seats = stage.slots.workers
        if what == "kill" and who < len(seats):
            stage.gone(seats[who])
        elif what == "roll":
            stage.slots.start_rolling_restart()
        elif what == "mute" and who < len(seats):
            seats[who].last_message_ns = max(1, stage.now_ms - 3_000) * NS_PER_MS
        for order in stage.due(after_ms=100):
            stage.obey(order)
        assert [s.slot for s in stage.slots.workers if s.state is WorkerState.SERVING].count(0) <= 2
    for _ in range(150):
        for order in stage.due(after_ms=50):
            stage.obey(order)
        for seat in stage.slots.workers:
            stage.hear(seat, "heartbeat")
    assert stage.slots.serving == 2
    assert sorted(str(seat.slot) for seat in stage.slots.workers) == ["0", "1", "None"]
