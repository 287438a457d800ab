"""A small world in scripted time: a controller, a registry in memory, two workers with traffic."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from protos import predict_pb2, registry_pb2, rollout_pb2, window_pb2
from registry.types import Deployment
from rollout.api.commands import Steering
from rollout.controller.controller import Controller
from rollout.evidence.inbox import source_name
from rollout.lifecycle.rollout import Trial
from rollout.policy.stages import Stage
from tests.rollout.scripted_parts import NS, POLICIES, START, FakeClock, FakeRegistry, batch, window

KEYS_A_SECOND = 400
SOURCES = [window_pb2.Source(gateway="g", slot=slot, boot_id=5) for slot in (0, 1)]


@dataclass
class Worker:
    """One worker: what it sent and was not told is kept."""

    source: window_pb2.Source
    sequence: int = 0
    waiting: list[window_pb2.WindowBatch] = field(default_factory=list)


class World:
    """Everything one rollout of churn needs. *fails*: how often version 2 fails, 0 to 1."""

    def __init__(self, fails: float = 0.0) -> None:
        self.fails = fails
        self.clock = FakeClock()
        self.registry = FakeRegistry()
        self.registry.put(Deployment(model="churn", production="1"))
        self.workers = [Worker(source) for source in SOURCES]
        self.silent: set[int] = set()
        self.traffic = True
        self.holds: tuple[str, ...] = ("2",)
        self.guards: list[window_pb2.HardGuard] = []
        self.policies = dict(POLICIES)
        """What a controller that begins now finds in its files."""
        self.controller = self._controller()

    def _controller(self) -> Controller:
        return Controller(self.registry, self.clock, self.policies)  # type: ignore[arg-type]

    async def begin(self, policy: str = "quick") -> Trial:
        """Take over, approve, start."""
        await self.controller.take_over(self.registry.lease_token)
        self.registry.approved.append(
            registry_pb2.Approval(
                id="a1", model="churn", version="2", policy_digest=POLICIES[policy].digest
            )
        )
        self._report()
        steering = Steering(self.controller, self.registry, self.clock)  # type: ignore[arg-type]
        asked = rollout_pb2.StartRolloutRequest(
            model="churn", version="2", policy=policy, reason="better"
        )
        return await steering.start(asked, "sam")

    @property
    def trial(self) -> Trial:
        """The newest rollout, as the present controller knows it."""
        return self.controller.trial("churn")

    @property
    def held(self) -> Deployment:
        """What is deployed."""
        return self.registry.deployments["churn"]

    def _report(self) -> None:
        for worker in self.workers:
            self.controller.fleet.say(
                registry_pb2.GatewayState(
                    gateway=worker.source.gateway,
                    slot=worker.source.slot,
                    boot_id=worker.source.boot_id,
                    held=[
                        registry_pb2.HeldVersion(model="churn", version=one, state="READY")
                        for one in self.holds
                    ],
                    applied={"churn": self.held.revision},
                    applied_unix_ns={"churn": self.clock.ns},
                ),
                self.clock.ns,
            )

    async def settle(self) -> None:
        """Let what was begun end."""
        for _ in range(40):
            await asyncio.sleep(0)

    async def act(self) -> None:
        """One look of the controller, carried out."""
        self.controller.act()
        await self.settle()
        self._report()

    async def second(self, *, save: bool = True) -> None:
        """One second of traffic, sent at its end, closed half a second later."""
        number = (self.clock.ns - START * NS) // NS
        told = [self._windows(number, worker) for worker in self.workers]
        self.clock.pass_s(1.0)
        for worker, windows in zip(self.workers, told, strict=True):
            if worker.source.slot in self.silent:
                continue
            worker.sequence += 1
            sent_s = (self.clock.ns - START * NS) / NS
            one = batch(
                worker.sequence, *windows, sent_s=sent_s, source=worker.source, guards=self.guards
            )
            worker.waiting.append(one)
            self.controller.receive(one)
        self.guards = []
        await self.act()
        if save:
            await self.controller.save()
            for worker in self.workers:
                kept = self.controller.kept(source_name(worker.source))
                worker.waiting = [one for one in worker.waiting if one.sequence > kept]

    def _windows(self, number: int, worker: Worker) -> list[window_pb2.Window]:
        draw = random.Random(f"{number}/{worker.source.slot}")
        held, arms = self.held, {"canary": 0.0, "standby": 0.0}
        if not self.traffic:
            return []
        arms["canary"], arms["standby"] = held.canary_bp / 10_000, held.standby_bp / 10_000
        keys: dict[str, list[int]] = {"canary": [], "standby": [], "main": []}
        for _ in range(KEYS_A_SECOND // 2):
            key, bucket = draw.getrandbits(64), draw.random()
            arm = "canary" if bucket < arms["canary"] else "main"
            keys["standby" if bucket > 1 - arms["standby"] else arm].append(key)
        main = "promoted" if held.production == "2" else "production"
        made = []
        for arm, name in ((main, "main"), ("canary", "canary"), ("standby", "standby")):
            bad = [
                k
                for k in keys[name]
                if arm in ("canary", "promoted") and draw.random() < self.fails
            ]
            if keys[name]:
                clean = [key for key in keys[name] if key not in set(bad)]
                one = window(arm, number, revision=held.revision, clean=clean, errors=bad)
                told = [draw.randrange(200, 260) for _ in clean]
                one.records.add(metric="METRIC_LATENCY", key_hash=clean, bin=told)
                if arm == "canary":  # as production on the same rows, but for one in fifty
                    bins = [draw.randrange(20) for _ in clean]
                    one.records[-2].expected_bin.extend(bins)
                    one.records[-2].bin[:] = [max(0, b - (draw.random() < 0.02)) for b in bins]
                made.append(one)
        if held.canary:
            made += [
                self._paid(number, held.revision, keys[one], one) for one in ("main", "canary")
            ]
        if held.shadows:
            faulty = sum(draw.random() < self.fails for _ in range(100))
            made.append(window("shadow", number, revision=held.revision, pairs=(100, 1, faulty)))
        return made

    @staticmethod
    def _paid(number: int, revision: int, keys: list[int], arm: str) -> window_pb2.Window:
        """What a fifth of an arm's customers of this second did at once."""
        version, role = (
            ("2", predict_pb2.CANARY) if arm == "canary" else ("1", predict_pb2.PRODUCTION)
        )
        told = window_pb2.Window(model="churn", version=version, revision=revision)
        told.second = START + number
        paid = [key for key in keys if key % 5 == 0]
        told.outcomes.add(role=role, name="paid", key_hash=paid, value=[1.0] * len(paid))
        return told

    async def restart(self) -> None:
        """Kill -9 the controller; another takes over, and the workers send what was not kept."""
        self.controller = self._controller()
        self.registry.lease_token += 1
        await self.controller.take_over(self.registry.lease_token)
        self._report()
        for worker in self.workers:
            held = self.controller.kept(source_name(worker.source))
            for one in worker.waiting:
                if one.sequence > held:
                    self.controller.receive(one)

    async def until(self, holds: Callable[[Trial], bool], seconds_max: int = 60) -> int:
        """Let seconds pass until *holds*; return how many did."""
        for passed in range(seconds_max):
            if holds(self.trial):
                return passed
            await self.second()
        raise AssertionError(f"not within {seconds_max} s: {self.trial.reason}")


def ended(trial: Trial) -> bool:
    """Whether nothing follows."""
    return trial.ended


def in_canary(trial: Trial) -> bool:
    """Whether it answers as a canary."""
    return trial.place.stage == Stage.CANARY
