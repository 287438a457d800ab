"""One seed's fate of a rollout, in scripted time: everything around the controllers may fail.

Two controllers, a registry, three workers. Batches are late, out of order, doubled or lost; streams
break; controllers are killed, paused or cut from the registry, whose replies may get lost; leases
pass on while their holder still acts; workers are killed and apply what is deployed when they like;
a person writes another field of the deployment, or takes the split over.
After STORM_S everything is well, and the rollout has to end.
"""

import asyncio
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

from protos import registry_pb2, rollout_pb2, window_pb2
from registry.types import Deployment, RegistryError, RegistryUnavailableError
from rollout.apply import Terms
from rollout.controller import Controller
from rollout.errors import NotLeadingError
from rollout.inbox import source_name
from rollout.policy import CanaryStep
from rollout.steering import Steering
from tests.rollout.scripted import QUICK, FakeClock, FakeRegistry, batch, window

TICK_S = 0.25
STORM_S = 12.0
CALM_S_MAX = 150.0
LEASE_S, LOST_S = 5.0, 4.0
KEYS_A_TICK = 8
REGULARS = 40
"""Customers who call again and again."""
BAD = 0.5
POLICY = replace(
    QUICK,
    name="fated",
    shadow=None,
    canary=(CanaryStep(share_bp=2_000, bake_s=4.0), CanaryStep(share_bp=5_000, bake_s=0.5)),
    standby_bp=2_000,
    failure_bar=0.1,
    preload_s_max=600.0,
    stage_s_max=30.0,
    outcome=None,
)
HAND = "pat"
KINDS = ("healthy", "healthy", "failing", "late", "outage", "silent")
"""Never fails; fails at once; some seconds later; production fails meanwhile; nobody calls."""


class Line:
    """One controller's way to the registry: may be cut, before or after it was heard."""

    def __init__(
        self, registry: FakeRegistry, draw: random.Random, before: Callable[[str], None]
    ) -> None:
        self._registry = registry
        self._before = before
        self._draw = draw
        self.cut = False
        self.replies_lost = 0.0

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        """Any of its calls."""
        call = getattr(self._registry, name)

        async def carried(*args: object, **named: object) -> object:
            await asyncio.sleep(0)
            if self.cut:
                raise RegistryUnavailableError("cut")
            self._before(name)
            answer = await call(*args, **named)
            await asyncio.sleep(0)
            if self.cut or self._draw.random() < self.replies_lost:
                raise RegistryUnavailableError("the reply was lost")
            return answer

        return carried


@dataclass
class Seat:
    """Where a controller runs."""

    line: Line
    clock: FakeClock
    controller: Controller
    token: int = 0
    renewed_s: float = 0.0
    away_until_s: float = 0.0
    """Paused or dead until then."""


@dataclass
class Worker:
    """One worker, its traffic of this second, and what it has not been told is kept."""

    source: window_pb2.Source
    applied: Deployment
    peer: Seat | None = None
    sequence: int = 0
    cut_until_s: float = 0.0
    calls: dict[tuple[int, int, str], tuple[list[int], list[int]]] = field(default_factory=dict)
    """(second, revision, arm) -> clean keys, failing keys."""
    waiting: list[window_pb2.WindowBatch] = field(default_factory=list)
    flying: list[tuple[float, window_pb2.WindowBatch]] = field(default_factory=list)


class Fate:
    """Play it by `run`; then look at what was deployed and at what was true."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.kind = self.draw.choice(KINDS)
        self.now_s = 0.0
        self.registry = FakeRegistry()
        self.registry.put(Deployment(model="churn", production="1"))
        self.registry.approved.append(
            registry_pb2.Approval(id="a1", model="churn", version="2", policy_digest=POLICY.digest)
        )
        self.clock = FakeClock()
        self.seats = [self._seat() for _ in range(2)]
        self.holder: Seat | None = None
        self.workers = [
            Worker(window_pb2.Source(gateway="g", slot=slot, boot_id=1), self.held)
            for slot in range(3)
        ]
        self.wild = {
            "delay_s": self.draw.choice((0.05, 0.6, 1.5)),
            "doubled": self.draw.choice((0.0, 0.2)),
            "lost": self.draw.choice((0.0, 0.0, 0.0, 0.03)),
            "harm": self.draw.choice((0.0, 0.02, 0.08)),
        }
        self.onset_s = {"failing": 0.0, "late": self.draw.uniform(2.0, 10.0)}.get(self.kind)
        self.hand_s = self.draw.choice((None, None, self.draw.uniform(1.0, STORM_S)))
        """When a person writes a deployment ..."""
        self.hand_before = self.draw.choice(("", "deployment", "deploy"))
        """... or from when on: just before the next of these calls is heard."""
        self.clean: dict[int, set[int]] = defaultdict(set)
        """Revision -> keys that the candidate answered well."""
        self.bad_keys: dict[str, int] = defaultdict(int)
        """Arm -> how many failing keys."""
        self.entered: dict[int, float] = {}
        """Revision -> when it was deployed."""
        self.terms: Terms | None = None

    def _seat(self) -> Seat:
        line = Line(self.registry, self.draw, self._heard)
        return Seat(line, self.clock, self._controller(line))

    def _controller(self, line: Line) -> Controller:
        return Controller(line, self.clock, {POLICY.name: POLICY})  # type: ignore[arg-type]

    @property
    def held(self) -> Deployment:
        """What is deployed."""
        return self.registry.deployments["churn"]

    @property
    def stormy(self) -> bool:
        """Whether things still fail."""
        return self.now_s < STORM_S

    async def run(self) -> None:
        """Start the rollout, let the storm pass, and wait until it has ended and is remembered."""
        await self._lease()
        seat = self.seats[0]
        self._watch(seat)
        steering = Steering(seat.controller, seat.line, self.clock)  # type: ignore[arg-type]
        asked = rollout_pb2.StartRolloutRequest(model="churn", version="2", policy=POLICY.name)
        self.terms = (await steering.start(asked, "sam")).terms
        self.entered[self.held.revision] = 0.0
        while self.stormy or not self.over:
            if self.now_s > STORM_S + CALM_S_MAX:
                raise AssertionError(f"not ended by {self.now_s} s: {self._said()}")
            await self._tick()

    @property
    def over(self) -> bool:
        """Whether it has ended and everybody has obeyed."""
        ended = not self.held.rollout_id
        return ended and all(one.applied.revision == self.held.revision for one in self.workers)

    def _said(self) -> str:
        known = [seat.controller for seat in self.seats if seat.controller.leading]
        return "; ".join(one.trial("churn").reason for one in known) or "nobody leads"

    async def _tick(self) -> None:
        before = self.held.revision
        self.now_s += TICK_S
        self.clock.pass_s(TICK_S)
        if self.stormy:
            await self._harm()
        for seat in self.seats:
            seat.line.replies_lost = self.wild["harm"] if self.stormy else 0.0
            seat.line.cut = seat.line.cut and self.stormy
        for worker in self.workers:
            self._serve(worker)
            self._carry(worker)
        await self._lease()
        for seat in self.seats:
            if seat.away_until_s <= self.now_s and seat.controller.leading:
                await self._act(seat)
        for revision in range(before + 1, self.held.revision + 1):
            self.entered[revision] = self.now_s

    # Harm

    async def _harm(self) -> None:
        harm, draw = self.wild["harm"], self.draw
        for seat in self.seats:
            if draw.random() < harm / 2:
                await self._kill(seat)
                seat.away_until_s = self.now_s + draw.uniform(0.0, 6.0)
            if draw.random() < harm / 2:
                seat.away_until_s = self.now_s + draw.uniform(0.0, 8.0)
            if draw.random() < harm:
                seat.line.cut = not seat.line.cut
        if draw.random() < harm / 4:
            self.holder = None  # the registry's clock jumped: the lease is free for anybody
        self._heard("")
        for worker in self.workers:
            if draw.random() < harm / 2:
                worker.cut_until_s = self.now_s + draw.uniform(0.0, 4.0)
                worker.peer = None
            if draw.random() < harm / 8:
                self._kill_worker(worker)

    def _heard(self, call: str) -> None:
        if self.hand_s is None or self.now_s < self.hand_s or call != self.hand_before:
            return
        self.hand_s = None
        changed = replace(self.held, holdout_bp=self.held.holdout_bp + 1, who=HAND, why="by hand")
        if self.draw.random() < 0.5:
            bare = Deployment(model="churn", production="1", who=HAND, why="enough")
            changed = replace(bare, revision=changed.revision)
        self.registry.log.append(self.registry.put(changed))

    async def _kill(self, seat: Seat) -> None:
        """Kill -9: whatever it was about stops wherever it is."""
        await seat.controller.give_up()
        seat.controller = self._controller(seat.line)

    def _kill_worker(self, worker: Worker) -> None:
        """Its successor in the slot knows nothing; what was not sent is lost."""
        gone = self._state(worker)
        gone.gone = True
        for seat in self.seats:
            seat.controller.fleet.say(gone, self.clock.ns)
        slot, boot = worker.source.slot, worker.source.boot_id + 1
        worker.source = window_pb2.Source(gateway="g", slot=slot, boot_id=boot)
        worker.peer, worker.sequence = None, 0
        worker.calls, worker.waiting, worker.flying = {}, [], []

    # The lease

    async def _lease(self) -> None:
        """Renew it, lose it, take it, as rollout/run.py does each second and half second."""
        for seat in self.seats:
            if seat.away_until_s > self.now_s:
                continue
            leads = seat.controller.leading
            if leads and self.holder is seat and not seat.line.cut:
                seat.renewed_s = self.now_s
            stale = leads and (
                self.now_s - seat.renewed_s >= LOST_S
                or (self.holder is not seat and not seat.line.cut and self.draw.random() < 0.3)
            )
            if stale or seat.controller.fenced:
                await seat.controller.give_up()
            free = self.holder is None or self.now_s - self.holder.renewed_s >= LEASE_S
            if free and not seat.controller.leading and not seat.line.cut:
                self.holder, seat.renewed_s = seat, self.now_s
                self.registry.lease_token += 1
                seat.token = self.registry.lease_token
                try:
                    await seat.controller.take_over(seat.token)
                except RegistryError:
                    self.holder = None

    async def _act(self, seat: Seat) -> None:
        self._watch(seat)
        seat.controller.act()
        for _ in range(self.draw.randrange(1, 40) if self.stormy else 40):
            if len(asyncio.all_tasks()) == 1:
                break  # nothing was begun, or it has ended
            await asyncio.sleep(0)
        if self.draw.random() < 0.5:
            try:
                await seat.controller.save()
            except RegistryError:
                return  # fenced or cut: nothing was acknowledged

    def _watch(self, seat: Seat) -> None:
        """What the registry's streams bring, unless they are cut."""
        if seat.line.cut or (self.stormy and self.draw.random() < 0.3):
            return
        seat.controller.see_deployment(self.held)
        for worker in self.workers:
            seat.controller.fleet.say(self._state(worker), self.clock.ns)

    def _state(self, worker: Worker) -> registry_pb2.GatewayState:
        source = worker.source
        return registry_pb2.GatewayState(
            gateway=source.gateway,
            slot=source.slot,
            boot_id=source.boot_id,
            held=[registry_pb2.HeldVersion(model="churn", version="2", state="READY")],
            applied={"churn": worker.applied.revision},
            applied_unix_ns={"churn": self.clock.ns},
        )

    # Traffic

    def _serve(self, worker: Worker) -> None:
        """Answer a tick's calls under what the worker has applied; close what is over."""
        if not self.stormy or (worker.cut_until_s <= self.now_s and self.draw.random() < 0.5):
            worker.applied = self.held
        second = int(self.now_s)
        quiet = self.kind == "silent" and self.stormy
        for _ in range(0 if quiet else KEYS_A_TICK):
            self._call(worker, second)
        over = sorted({place[0] for place in worker.calls if place[0] < second})
        windows = [
            window(arm, place, revision=revision, clean=clean, errors=bad)
            for (place, revision, arm), (clean, bad) in sorted(worker.calls.items())
            if place in over
        ]
        worker.calls = {place: told for place, told in worker.calls.items() if place[0] >= second}
        if self.now_s == second:  # a batch a second, empty or not: it is the heartbeat
            worker.sequence += 1
            sent = batch(worker.sequence, *windows, sent_s=self.now_s, source=worker.source)
            worker.waiting.append(sent)
            self._send(worker, sent)

    def _call(self, worker: Worker, second: int) -> None:
        number = self.draw.randrange(2 * REGULARS)
        drawn = number if number < REGULARS else self.draw.getrandbits(40)
        key = (drawn + 1) * 0x9E3779B97F4A7C15 % 2**64
        held, bucket = worker.applied, key % 10_007 % 10_000
        main = "promoted" if held.production == "2" else "production"
        arm = "canary" if bucket < held.canary_bp else main
        arm = "standby" if bucket >= 10_000 - held.standby_bp else arm
        candidate = arm in ("canary", "promoted")
        if candidate:
            fails = self.onset_s is not None and self.now_s >= self.onset_s
        else:
            fails = self.kind == "outage" and 3.0 <= self.now_s <= STORM_S
        bad = fails and self.draw.random() < BAD
        place = (second, held.revision, arm)
        worker.calls.setdefault(place, ([], []))[bad].append(key)
        self.bad_keys[arm] += bad
        if candidate and not bad:
            self.clean[held.revision].add(key)

    # The way of batches

    def _send(self, worker: Worker, sent: window_pb2.WindowBatch) -> None:
        if worker.peer is None:
            return
        wild = self.wild if self.stormy else {"delay_s": 0.05, "doubled": 0.0, "lost": 0.0}
        if self.draw.random() < wild["lost"]:
            return
        for _ in range(1 + (self.draw.random() < wild["doubled"])):
            at_s = self.now_s + self.draw.uniform(0.0, wild["delay_s"])
            worker.flying.append((at_s, sent))

    def _carry(self, worker: Worker) -> None:
        """Connect, hand over what has arrived, and forget what is acknowledged."""
        seat = worker.peer
        if seat is not None and (seat.away_until_s > self.now_s or not seat.controller.leading):
            seat = worker.peer = None
        if worker.cut_until_s > self.now_s:
            return
        name = source_name(worker.source)
        if seat is None:
            worker.flying = []
            awake = [one for one in self.seats if one.away_until_s <= self.now_s]
            leading = [one for one in awake if one.controller.leading]
            if leading:
                worker.peer = seat = self.draw.choice(leading)
                kept = seat.controller.kept(name)
                worker.waiting = [one for one in worker.waiting if one.sequence > kept]
                for one in worker.waiting:
                    self._send(worker, one)
            return
        arrived = sorted(
            (one for one in worker.flying if one[0] <= self.now_s), key=lambda one: one[0]
        )
        worker.flying = [one for one in worker.flying if one[0] > self.now_s]
        try:
            for _, one in arrived:
                seat.controller.receive(one)
        except NotLeadingError:
            worker.peer = None
            return
        kept = seat.controller.kept(name)
        worker.waiting = [one for one in worker.waiting if one.sequence > kept]
