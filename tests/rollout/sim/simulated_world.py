"""One simulated world from one seed: two controllers, two workers, and faults of many kinds."""

import asyncio
import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from unittest import mock

from protos import rollout_pb2
from registry.types import Deployment, RegistryError
from rollout.api.commands import RolloutCommands
from rollout.controller import leader
from rollout.controller.controller import Controller
from rollout.controller.policy_book import PolicyBook
from rollout.errors import NotLeadingError, UnknownRolloutError
from rollout.lifecycle.rollout import Rollout
from rollout.policy.policy import CanaryStep, Policy, ShadowStage
from rollout.policy.stages import Stage
from tests.rollout.sim.simulated_client import SimulatedClient
from tests.rollout.sim.simulated_registry import MODEL, SimulatedRegistry
from tests.rollout.sim.simulated_workers import FailureRates, GroundTruth, SimulatedWorker
from tests.rollout.sim.virtual_time import VirtualClock, VirtualLoop, run_virtual

SIM = Policy(
    name="sim",
    shadow=ShadowStage(sample_bp=10_000, pairs_min=40, bake_s=0.5, faulty_max=2, flips_bp_max=5000),
    canary=(CanaryStep(share_bp=2_000, bake_s=0.5), CanaryStep(share_bp=5_000, bake_s=3.0)),
    watch_s=3.0,
    standby_bp=1_000,
    failure_bar=0.06,
    preload_s_max=60.0,
    stage_s_max=600.0,
)
DIRECT = Policy(
    name="sim-direct",
    shadow=None,
    canary=SIM.canary,
    watch_s=SIM.watch_s,
    standby_bp=SIM.standby_bp,
    failure_bar=SIM.failure_bar,
    preload_s_max=SIM.preload_s_max,
    stage_s_max=SIM.stage_s_max,
)
POLICIES = {policy.name: policy for policy in (SIM, DIRECT)}
CHANGED_POLICIES = {
    policy.name: replace(
        policy,
        canary=(CanaryStep(share_bp=3_000, bake_s=60.0),),
        watch_s=60.0,
        standby_bp=2_000,
        failure_bar=0.5,
        freeze=("2020-01-01 - 2040-01-01",),
    )
    for policy in POLICIES.values()
}
"""The policies of the same names that the next controllers find in changed files."""

FAULTS_END_S = 9.0
"""Faults begin and end before this second."""
CONVERGED_S = 75.0
"""Every rollout must have ended by this second. Lease, catching up and all stages take less."""
BOTH_BAD_S = 20.0
"""Length of a world whose candidate is as bad as production, and may stay undecided."""
SKEW_S = 5.0
"""The largest error of a controller's wall clock, in seconds. Minimum stays are measured by it, so
a change of controllers may change a stay by twice as much, but never the evidence it needs."""
TICK_S, SAVE_S = 0.15, 0.6
"""The controllers act and save a third as often as real ones, so that more worlds are played."""
KINDS = ("healthy", "healthy", "bad", "dead", "both bad", "quiet at first", "turns bad")


@dataclass(slots=True)
class ControllerHost:
    """A host on which a controller runs. It is started again after each death."""

    name: str
    client: SimulatedClient
    controller: Controller
    task: asyncio.Task[None]


@dataclass(slots=True)
class WorldResult:
    """What happened in a world, and how it ended."""

    seed: int
    kind: str
    policy: str
    rollout: Rollout | None = None
    registry: SimulatedRegistry | None = None
    truth: GroundTruth = field(default_factory=GroundTruth)
    events: list[str] = field(default_factory=list)
    duration_s: float = 0.0
    all_applied: bool = False
    """Whether every worker has applied the newest revision."""
    ended_by_hand: bool = False
    """Whether a person ended the rollout."""


class SimulatedWorld:
    """The world of one seed. `play` plays it.

    changed_files  whether the next controllers find other policies of the same names.
    """

    def __init__(self, seed: int, loop: VirtualLoop, *, changed_files: bool = False) -> None:
        self._loop = loop
        self._later_policies = CHANGED_POLICIES if changed_files else POLICIES
        self._rng = random.Random(seed)
        self.kind = self._rng.choice(KINDS)
        self.policy = self._rng.choice([SIM, DIRECT])
        self.result = WorldResult(seed, self.kind, self.policy.name)
        self.truth = self.result.truth
        self.failure_rates = FailureRates(
            candidate={"bad": 0.35, "dead": 1.0, "both bad": 0.05}.get(self.kind, 0.0),
            baseline=0.05 if self.kind == "both bad" else 0.0,
            keys_a_second=0.0 if self.kind == "quiet at first" else 60.0,
        )
        self._boots = 0
        self._hosts: list[ControllerHost] = []
        self._workers: list[SimulatedWorker] = []

    async def play(self) -> WorldResult:
        """Play until the rollout has ended, at most for CONVERGED_S."""
        self.registry = SimulatedRegistry(self._loop.time, self.policy.digest)
        self.result.registry = self.registry
        self._hosts = [self._host(name, POLICIES) for name in ("a", "b")]
        self._workers = [self._worker(slot) for slot in range(2)]
        await self._start()
        for host in self._hosts:
            host.controller.policies = PolicyBook(self._later_policies)
        for at_s, trouble in sorted(self._faults(), key=lambda worker: worker[0]):
            self._loop.call_at(at_s, trouble)
        self._loop.call_at(FAULTS_END_S, self._end_faults)
        limit_s = BOTH_BAD_S if self.kind == "both bad" else CONVERGED_S
        while self._loop.time() < limit_s and not self._is_over():  # noqa: ASYNC110  virtual time
            await asyncio.sleep(0.5)
        self.result.duration_s = self._loop.time()
        self.result.rollout = self._rollout()
        newest = self.registry.current.revision
        self.result.all_applied = all(worker.applied.revision == newest for worker in self._workers)
        return self.result

    def _is_over(self) -> bool:
        rollout = self._rollout()
        ended = rollout is not None and rollout.ended and self._loop.time() > FAULTS_END_S + 1
        return (
            ended
            and not self.registry.current.rollout_id
            and all(
                worker.applied.revision == self.registry.current.revision
                for worker in self._workers
            )
        )

    def _rollout(self) -> Rollout | None:
        for host in self._hosts:
            if host.controller.leading:
                with contextlib.suppress(NotLeadingError, UnknownRolloutError):
                    return host.controller.rollout(MODEL)
        return None

    async def _start(self) -> None:
        request = rollout_pb2.StartRolloutRequest(
            model=MODEL, version="2", policy=self.policy.name, reason="sim"
        )
        while True:
            for host in self._hosts:
                if host.controller.leading:
                    clock = VirtualClock(self._loop)
                    commands = RolloutCommands(host.controller, host.client, clock)  # type: ignore[arg-type]
                    try:
                        await commands.start(request, "sam")
                    except (RegistryError, NotLeadingError):
                        continue
                    return
            await asyncio.sleep(0.1)

    def _host(self, name: str, policies: dict[str, Policy]) -> ControllerHost:
        self._boots += 1
        rng = random.Random(self._rng.getrandbits(64))
        client = SimulatedClient(self.registry, f"rollout-{name}", rng)
        clock = VirtualClock(self._loop, self._rng.uniform(-SKEW_S, SKEW_S))
        controller = Controller(client, clock, policies)  # type: ignore[arg-type]
        task = asyncio.ensure_future(
            leader.run_leader(controller, client, f"{name}{self._boots}", clock)  # type: ignore[arg-type]
        )
        return ControllerHost(name, client, controller, task)

    def _worker(self, slot: int) -> SimulatedWorker:
        self._boots += 1
        worker = SimulatedWorker(
            self.registry,
            slot,
            self._boots,
            self.failure_rates,
            self.truth,
            random.Random(self._rng.getrandbits(64)),
            lambda: [host.controller for host in self._hosts],
        )
        worker.skew_s = self._rng.uniform(-0.05, 0.05)
        return worker

    # Faults

    def _faults(self) -> list[tuple[float, Callable[[], None]]]:
        kinds: list[Callable[[], Callable[[], None]]] = [
            self._kill_controller,
            self._cut_controller,
            self._slow_controller,
            self._kill_worker,
            self._cut_worker_from_controller,
            self._cut_worker_from_registry,
            self._lossy_worker,
            self._late_worker,
            self._wrong_clock,
            self._edit_by_hand,
            self._take_over_by_hand,
            self._hold_by_monitoring,
        ]
        chosen = [self._rng.choice(kinds)() for _ in range(self._rng.randrange(5))]
        begin = self._loop.time()
        troubles = [(self._rng.uniform(begin, FAULTS_END_S - 1), fault) for fault in chosen]
        if self.kind == "turns bad":
            troubles.append((self._rng.uniform(begin + 2, FAULTS_END_S), self._turn_bad))
        return troubles

    def _note(self, what: str) -> None:
        self.result.events.append(f"{self._loop.time():6.2f} s  {what}")

    def _turn_bad(self) -> None:
        self._note("the candidate begins to fail")
        self.failure_rates.candidate = 0.5

    def _end_faults(self) -> None:
        self._note("all faults end")
        self.failure_rates.keys_a_second = 60.0
        self.registry.add_finding("clear", "calm")
        for host in self._hosts:
            host.client.disconnected, host.client.slow_s = False, 0.0
        for worker in self._workers:
            worker.cut_from_controller = worker.cut_from_registry = False
            worker.loss, worker.jitter_s = 0.0, 0.05
        self.registry.notify_watchers()

    def _kill_controller(self) -> Callable[[], None]:
        index, away_s = self._rng.randrange(2), self._rng.uniform(0.1, 3.0)

        def kill() -> None:
            host = self._hosts[index]
            if host.client.dead:
                return
            self._note(f"controller {host.name} is killed (leading: {host.controller.leading})")
            host.client.dead = True
            host.task.cancel()
            self.registry.notify_watchers()
            self._loop.call_later(away_s, again)

        def again() -> None:
            self._hosts[index] = self._host(self._hosts[index].name, self._later_policies)

        return kill

    def _cut_controller(self) -> Callable[[], None]:
        index, for_s = self._rng.randrange(2), self._rng.uniform(0.3, 7.0)

        def cut() -> None:
            client = self._hosts[index].client
            self._note(f"controller {index} is cut off from the registry for {for_s:.1f} s")
            client.disconnected = True
            self.registry.notify_watchers()
            self._loop.call_later(for_s, mend)

        def mend() -> None:
            self._hosts[index].client.disconnected = False

        return cut

    def _slow_controller(self) -> Callable[[], None]:
        index, slow_s = self._rng.randrange(2), self._rng.uniform(0.2, 6.0)

        def slow() -> None:
            self._note(f"controller {index}'s calls take {slow_s:.1f} s")
            self._hosts[index].client.slow_s = slow_s

        return slow

    def _kill_worker(self) -> Callable[[], None]:
        slot, away_s = self._rng.randrange(2), self._rng.uniform(0.0, 2.0)

        def kill() -> None:
            self._note(f"worker {slot} is killed")
            self._workers[slot].kill()
            self._loop.call_later(away_s, again)

        def again() -> None:
            self._workers[slot].kill()
            self._workers[slot] = self._worker(slot)

        return kill

    def _edit_by_hand(self) -> Callable[[], None]:
        def edit() -> None:
            current = self.registry.current
            self._note("an operator changes the holdout by hand")
            proposed = replace(current, holdout_bp=current.holdout_bp + 1, why="by hand")
            digest = self.policy.digest
            self.registry.deploy(proposed, "ann", 0, digest, rollback=False)

        return edit

    def _hold_by_monitoring(self) -> Callable[[], None]:
        for_s = self._rng.uniform(0.3, 7.0)

        def hold() -> None:
            self._note(f"monitoring holds the model, for {for_s:.1f} s")
            self.registry.add_finding("hold", "drift")
            self._loop.call_later(for_s, self.registry.add_finding, "clear", "over")

        return hold

    def _take_over_by_hand(self) -> Callable[[], None]:
        in_between = self._rng.random() < 0.5

        def begin() -> None:
            if not in_between:
                take_over()
            for host in self._hosts:
                host.client.before_read = take_over

        def take_over() -> None:
            current = self.registry.current
            if not current.rollout_id or self.result.ended_by_hand:
                return
            self._note("an operator gives all traffic back to version 1 by hand")
            proposed = Deployment(
                model=MODEL, revision=current.revision, production="1", why="by hand"
            )
            self.registry.deploy(proposed, "ann", 0, "", rollback=True)
            self.result.ended_by_hand = True

        return begin

    def _set_worker(
        self, name: str, value: float, healthy_value: float, what: str
    ) -> Callable[[], None]:
        slot, for_s = self._rng.randrange(2), self._rng.uniform(0.3, 7.0)

        def begin() -> None:
            worker = self._workers[slot]
            self._note(f"worker {slot} {what} for {for_s:.1f} s")
            setattr(worker, name, value)
            self._loop.call_later(for_s, setattr, worker, name, healthy_value)

        return begin

    def _cut_worker_from_controller(self) -> Callable[[], None]:
        return self._set_worker("cut_from_controller", True, False, "cannot reach the controller")

    def _cut_worker_from_registry(self) -> Callable[[], None]:
        return self._set_worker("cut_from_registry", True, False, "cannot reach the registry")

    def _lossy_worker(self) -> Callable[[], None]:
        return self._set_worker("loss", 0.5, 0.0, "loses every other batch")

    def _late_worker(self) -> Callable[[], None]:
        return self._set_worker("jitter_s", 1.0, 0.05, "sends late and out of order")

    def _wrong_clock(self) -> Callable[[], None]:
        ahead_s = self._rng.choice((3.0, 30.0, 3_600.0))
        return self._set_worker("skew_s", ahead_s, 0.0, f"has a clock {ahead_s:g} s ahead")


def simulate_world(seed: int, *, changed_files: bool = False) -> WorldResult:
    """Play the world of *seed* and return its result."""
    loop = VirtualLoop()

    async def play() -> WorldResult:
        return await SimulatedWorld(seed, loop, changed_files=changed_files).play()

    with mock.patch.multiple(leader, TICK_S=TICK_S, SAVE_S=SAVE_S):
        return run_virtual(play(), loop)


def expected_stage(result: WorldResult) -> Stage | None:
    """Return the final stage of a candidate of that kind; None: both are right."""
    if result.kind in ("bad", "dead") or result.ended_by_hand:
        return Stage.ROLLED_BACK
    return None if result.kind in ("both bad", "turns bad") else Stage.DONE
