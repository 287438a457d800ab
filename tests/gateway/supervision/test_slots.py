"""The decisions of the supervisor, with a clock that the test sets."""

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from gateway.supervision.slots import (
    HELLO_MS_MAX,
    LATE_TICK_MS,
    MEMORY_REPLACE_PAUSE_MS,
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
from host.clock import NS_PER_MS
from tests.property_examples import examples


@dataclass
class SlotsOnClock:
    """Slots on a manual clock, with workers that execute commands at once."""

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
        """Tick as the supervisor does, for *after_ms* or until commands are due; return those."""
        for step in [*[50] * (after_ms // 50), after_ms % 50]:
            self.now_ms += step
            if commands := self.slots.due_commands(self.now_ms * NS_PER_MS):
                return commands
        return []

    def start(self) -> WorkerRecord:
        """Start a worker and let it become a spare."""
        self.pid += 1
        worker = self.slots.add_worker(self.pid, self.now_ms * NS_PER_MS)
        self.receive(worker, "hello", "ready")
        return worker

    def receive(self, worker: WorkerRecord, *kinds: str) -> None:
        """Receive messages of these kinds from *worker*."""
        for kind in kinds:
            self.slots.on_message(worker, kind, self.now_ms * NS_PER_MS)

    def die(self, worker: WorkerRecord) -> None:
        """Remove *worker* as a worker that died."""
        self.slots.remove_worker(worker, self.now_ms * NS_PER_MS)

    def settle(self) -> None:
        """Execute commands until none is due; every living worker sends heartbeats."""
        for _ in range(20):
            commands = self.due()
            for command in commands:
                self.execute(command)
            for worker in self.slots.workers:
                self.receive(worker, "heartbeat")
            if not commands:
                return
        raise AssertionError("commands are still due after 20 rounds")

    def execute(self, command: SupervisorCommand) -> None:
        """Act as a healthy worker does."""
        match command:
            case Start():
                self.start()
            case Serve(worker):
                self.receive(worker, "serving")
            case Drain(worker) | Kill(worker):
                self.die(worker)


def fully_serving() -> SlotsOnClock:
    """Return a simulation with two slots open and one spare."""
    simulation = SlotsOnClock()
    simulation.settle()
    assert [worker.state for worker in simulation.slots.workers].count(WorkerState.SERVING) == 2
    return simulation


def spare(simulation: SlotsOnClock) -> WorkerRecord:
    """Return the only spare."""
    (worker,) = [worker for worker in simulation.slots.workers if worker.state is WorkerState.SPARE]
    return worker


def test_slots_start_one_worker_a_slot_and_one_spare() -> None:
    """Two slots need three starts. They are due until the workers exist."""
    simulation = SlotsOnClock()
    assert simulation.due() == [Start(), Start(), Start()]
    assert simulation.due() == [Start(), Start(), Start()]


def test_slots_assign_a_dead_workers_slot_to_the_spare_at_once() -> None:
    """The spare serves in that slot, and the next spare is started."""
    simulation = fully_serving()
    simulation.now_ms += STABLE_MS
    dead, warm = simulation.slots.workers[0], spare(simulation)
    for worker in simulation.slots.workers:
        simulation.receive(worker, "heartbeat")
    simulation.die(dead)
    assert simulation.due() == [Serve(warm), Start()]
    assert warm.slot == dead.slot


def test_slots_fill_a_second_empty_slot_when_another_worker_is_warm() -> None:
    """One spare cannot fill two slots."""
    simulation = fully_serving()
    first, second = simulation.slots.workers[:2]
    simulation.die(first)
    simulation.die(second)
    commands = simulation.due()
    assert [type(command) for command in commands] == [Serve]
    simulation.due(after_ms=200)
    second_spare = simulation.start()
    assert Serve(second_spare) in simulation.due()
    assert {
        worker.slot for worker in simulation.slots.workers if worker.state is WorkerState.SERVING
    } == {
        0,
        1,
    }


def test_slots_kill_a_silent_worker_and_assign_its_slot_at_once() -> None:
    """After 2,000 ms and one tick it is killed. The spare does not wait for its exit."""
    simulation = fully_serving()
    silent, other, warm = simulation.slots.workers
    commands: list[SupervisorCommand] = []
    for _ in range(41):
        commands += simulation.due(after_ms=50)
        for worker in (other, warm):
            simulation.receive(worker, "heartbeat")
        if simulation.now_ms <= 2_001:
            assert commands == []
    assert commands[:2] == [Kill(silent, "silent"), Serve(warm)]


def test_slots_ignore_silence_while_the_supervisor_was_stopped() -> None:
    """Ten seconds pass without a tick, and no worker is killed for its silence in that time."""
    simulation = fully_serving()
    simulation.now_ms += 10_000
    assert simulation.due() == []
    assert LATE_TICK_MS < 2_000


def test_slots_kill_a_worker_that_sends_no_hello_or_does_not_open() -> None:
    """Each step towards serving has a time limit of its own."""
    simulation = SlotsOnClock()
    silent_worker = simulation.slots.add_worker(7, simulation.now_ms * NS_PER_MS)
    simulation.now_ms += HELLO_MS_MAX
    assert Kill(silent_worker, "silent") not in simulation.due()
    simulation.now_ms += 1
    assert Kill(silent_worker, "silent") in simulation.due()

    simulation = SlotsOnClock()
    worker = simulation.start()
    assert Serve(worker) in simulation.due()
    for _ in range(OPEN_MS_MAX // 50):
        simulation.now_ms += 50
        assert Kill(worker, "not_opened") not in simulation.due()
        simulation.receive(worker, "heartbeat")
    simulation.now_ms += 1
    assert Kill(worker, "not_opened") in simulation.due()


def test_slots_double_the_pause_between_failing_starts() -> None:
    """The pauses are 0.1, 0.2, 0.4 ... 5 s, and one worker is started at a time."""
    simulation = fully_serving()
    waits = []
    simulation.die(spare(simulation))
    for _ in range(8):
        started_ms = simulation.now_ms
        while not (commands := simulation.due(after_ms=50)):
            for worker in simulation.slots.workers:
                simulation.receive(worker, "heartbeat")
        assert commands == [Start()]
        waits.append(simulation.now_ms - started_ms)
        simulation.pid += 1
        simulation.die(simulation.slots.add_worker(simulation.pid, simulation.now_ms * NS_PER_MS))
    assert waits == [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]


def test_rolling_restart_keeps_every_slot_open() -> None:
    """At every command, each slot has an opened worker that is not draining."""
    simulation = fully_serving()
    old = list(simulation.slots.workers)
    simulation.slots.start_rolling_restart()
    for _ in range(40):
        for command in simulation.due(after_ms=50):
            simulation.execute(command)
            staying = {
                worker.slot
                for worker in simulation.slots.workers
                if worker.state is WorkerState.SERVING and worker.opened_ns is not None
            }
            assert staying == {0, 1}
        for worker in simulation.slots.workers:
            simulation.receive(worker, "heartbeat")
    assert not set(map(id, old)) & set(map(id, simulation.slots.workers))
    assert len(simulation.slots.workers) == 3
    assert simulation.due() == []


def test_rolling_restart_drains_no_worker_while_new_ones_cannot_start() -> None:
    """Without a warm successor no worker is drained, not even the spare."""
    simulation = fully_serving()
    old = set(map(id, simulation.slots.workers))
    simulation.slots.start_rolling_restart()
    for _ in range(100):
        for command in simulation.due(after_ms=50):
            assert command == Start()
            simulation.pid += 1
            simulation.die(
                simulation.slots.add_worker(simulation.pid, simulation.now_ms * NS_PER_MS)
            )
        for worker in simulation.slots.workers:
            simulation.receive(worker, "heartbeat")
    assert set(map(id, simulation.slots.workers)) == old


def test_slots_replace_a_worker_above_its_memory_mark_after_a_pause() -> None:
    """If the models alone need that much memory, replacing at once would never end."""
    simulation = fully_serving()
    large, *others = simulation.slots.workers
    large.rss_bytes = 1_001
    commands: list[SupervisorCommand] = []
    started_ms = simulation.now_ms
    while not commands:
        commands = simulation.due(after_ms=50)
        for worker in (large, *others):
            simulation.receive(worker, "heartbeat")
    assert simulation.now_ms - started_ms > MEMORY_REPLACE_PAUSE_MS
    assert commands[0] == Serve(others[1])
    assert large.state is WorkerState.SERVING  # until its successor has opened
    simulation.receive(others[1], "serving")
    assert Drain(large, 4.3) in simulation.due()  # the grace, and time for clients to move


def test_slots_stop_drains_serving_workers_and_kills_loading_ones() -> None:
    """A drain that takes one second more than its grace is killed."""
    simulation = fully_serving()
    loading = simulation.slots.add_worker(999, simulation.now_ms * NS_PER_MS)
    commands = simulation.slots.stop(simulation.now_ms * NS_PER_MS)
    assert Kill(loading, "stop") in commands
    assert sum(isinstance(command, Drain) for command in commands) == 3
    simulation.die(loading)
    commands = []
    for _ in range(42):
        commands += simulation.due(after_ms=50)
        for worker in simulation.slots.workers:
            simulation.receive(worker, "heartbeat")
    assert [command.cause for command in commands if isinstance(command, Kill)] == ["drain"] * 3
    assert len(commands) == 3


def test_slots_reassign_the_slot_of_a_worker_that_drains_by_itself() -> None:
    """After a SIGTERM to a worker, the spare serves while the worker finishes its calls."""
    simulation = fully_serving()
    draining, warm = simulation.slots.workers[0], spare(simulation)
    simulation.receive(draining, "draining")
    assert Serve(warm) in simulation.due()


@examples(30)
@given(st.lists(st.tuples(st.sampled_from(["kill", "silence", "roll", "tick"]), st.integers(0, 3))))
def test_slots_recover_from_any_mix_of_deaths_silence_and_restarts(
    events: list[tuple[str, int]],
) -> None:
    """After any mix of them, two slots are open and one spare is warm again."""
    simulation = fully_serving()
    for event, index in events:
        workers = simulation.slots.workers
        if event == "kill" and index < len(workers):
            simulation.die(workers[index])
        elif event == "roll":
            simulation.slots.start_rolling_restart()
        elif event == "silence" and index < len(workers):
            workers[index].last_message_ns = max(1, simulation.now_ms - 3_000) * NS_PER_MS
        for command in simulation.due(after_ms=100):
            simulation.execute(command)
        assert [w.slot for w in simulation.slots.workers if w.state is WorkerState.SERVING].count(
            0
        ) <= 2
    for _ in range(150):
        for command in simulation.due(after_ms=50):
            simulation.execute(command)
        for worker in simulation.slots.workers:
            simulation.receive(worker, "heartbeat")
    assert simulation.slots.serving == 2
    assert sorted(str(worker.slot) for worker in simulation.slots.workers) == ["0", "1", "None"]
