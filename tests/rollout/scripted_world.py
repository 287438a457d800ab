"""A small world in scripted time: a controller, a registry in memory, two workers with traffic."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from protos import predict_pb2, registry_pb2, rollout_pb2, window_pb2
from registry.types import Deployment
from rollout.api.commands import RolloutCommands
from rollout.controller.controller import Controller
from rollout.evidence.inbox import source_name
from rollout.lifecycle.rollout import Rollout
from rollout.policy.stages import Stage
from tests.rollout.scripted_parts import (
    NS,
    POLICIES,
    SCRIPT_START_S,
    FakeClock,
    FakeRegistry,
    make_batch,
    make_window,
)

KEYS_A_SECOND = 400
SOURCES = [window_pb2.Source(gateway="g", slot=slot, boot_id=5) for slot in (0, 1)]


@dataclass
class ScriptedSource:
    """One worker: what it sent and was not told is kept."""

    source: window_pb2.Source
    sequence: int = 0
    unacknowledged: list[window_pb2.WindowBatch] = field(default_factory=list)


class ScriptedWorld:
    """Everything one rollout of churn needs. *fails*: how often version 2 fails, 0 to 1."""

    def __init__(self, fails: float = 0.0) -> None:
        self.failure_rate = fails
        self.clock = FakeClock()
        self.registry = FakeRegistry()
        self.registry.write_deployment(Deployment(model="churn", production="1"))
        self.workers = [ScriptedSource(source) for source in SOURCES]
        self.silent_slots: set[int] = set()
        self.traffic = True
        self.loaded_versions: tuple[str, ...] = ("2",)
        self.guards: list[window_pb2.HardGuard] = []
        self.policies = dict(POLICIES)
        """What a controller that begins now finds in its files."""
        self.controller = self._controller()

    def _controller(self) -> Controller:
        return Controller(self.registry, self.clock, self.policies)  # type: ignore[arg-type]

    async def start_rollout(self, policy: str = "quick") -> Rollout:
        """Take over, approve, start."""
        await self.controller.start_leading(self.registry.lease_token)
        self.registry.approvals_given.append(
            registry_pb2.Approval(
                id="a1", model="churn", version="2", policy_digest=POLICIES[policy].digest
            )
        )
        self._report_states()
        steering = RolloutCommands(self.controller, self.registry, self.clock)  # type: ignore[arg-type]
        asked = rollout_pb2.StartRolloutRequest(
            model="churn", version="2", policy=policy, reason="better"
        )
        return await steering.start(asked, "sam")

    @property
    def rollout(self) -> Rollout:
        """The newest rollout, as the present controller knows it."""
        return self.controller.rollout("churn")

    @property
    def deployment(self) -> Deployment:
        """What is deployed."""
        return self.registry.deployments["churn"]

    def _report_states(self) -> None:
        for worker in self.workers:
            self.controller.fleet.update_worker(
                registry_pb2.GatewayState(
                    gateway=worker.source.gateway,
                    slot=worker.source.slot,
                    boot_id=worker.source.boot_id,
                    loads=[
                        registry_pb2.VersionLoad(model="churn", version=one, state="READY")
                        for one in self.loaded_versions
                    ],
                    applied={"churn": self.deployment.revision},
                    applied_unix_ns={"churn": self.clock.ns},
                ),
                self.clock.ns,
            )

    async def run_pending_tasks(self) -> None:
        """Let what was begun end."""
        for _ in range(40):
            await asyncio.sleep(0)

    async def act_once(self) -> None:
        """One look of the controller, carried out."""
        self.controller.act()
        await self.run_pending_tasks()
        self._report_states()

    async def pass_second(self, *, save: bool = True) -> None:
        """One second of traffic, sent at its end, closed half a second later."""
        number = (self.clock.ns - SCRIPT_START_S * NS) // NS
        told = [self._windows(number, worker) for worker in self.workers]
        self.clock.advance(1.0)
        for worker, windows in zip(self.workers, told, strict=True):
            if worker.source.slot in self.silent_slots:
                continue
            worker.sequence += 1
            sent_s = (self.clock.ns - SCRIPT_START_S * NS) / NS
            one = make_batch(
                worker.sequence, *windows, sent_s=sent_s, source=worker.source, guards=self.guards
            )
            worker.unacknowledged.append(one)
            self.controller.receive(one)
        self.guards = []
        await self.act_once()
        if save:
            await self.controller.save()
            for worker in self.workers:
                kept = self.controller.acknowledged_sequence(source_name(worker.source))
                worker.unacknowledged = [
                    one for one in worker.unacknowledged if one.sequence > kept
                ]

    def _windows(self, number: int, worker: ScriptedSource) -> list[window_pb2.Window]:
        draw = random.Random(f"{number}/{worker.source.slot}")
        held, arms = self.deployment, {"canary": 0.0, "standby": 0.0}
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
                if arm in ("canary", "promoted") and draw.random() < self.failure_rate
            ]
            if keys[name]:
                clean = [key for key in keys[name] if key not in set(bad)]
                one = make_window(arm, number, revision=held.revision, clean=clean, errors=bad)
                told = [draw.randrange(200, 260) for _ in clean]
                one.records.add(metric="METRIC_LATENCY", key_hash=clean, bin=told)
                if arm == "canary":  # as production on the same rows, but for one in fifty
                    bins = [draw.randrange(20) for _ in clean]
                    one.records[-2].production_bin.extend(bins)
                    one.records[-2].bin[:] = [max(0, b - (draw.random() < 0.02)) for b in bins]
                made.append(one)
        if held.canary:
            made += [
                self._outcome_window(number, held.revision, keys[one], one)
                for one in ("main", "canary")
            ]
        if held.shadows:
            faulty = sum(draw.random() < self.failure_rate for _ in range(100))
            made.append(
                make_window("shadow", number, revision=held.revision, pairs=(100, 1, faulty))
            )
        return made

    @staticmethod
    def _outcome_window(number: int, revision: int, keys: list[int], arm: str) -> window_pb2.Window:
        """What a fifth of an arm's customers of this second did at once."""
        version, role = (
            ("2", predict_pb2.CANARY) if arm == "canary" else ("1", predict_pb2.PRODUCTION)
        )
        told = window_pb2.Window(model="churn", version=version, revision=revision)
        told.second = SCRIPT_START_S + number
        paid = [key for key in keys if key % 5 == 0]
        told.outcomes.add(role=role, name="paid", key_hash=paid, value=[1.0] * len(paid))
        return told

    async def restart(self) -> None:
        """Kill -9 the controller; another takes over, and the workers send what was not kept."""
        self.controller = self._controller()
        self.registry.lease_token += 1
        await self.controller.start_leading(self.registry.lease_token)
        self._report_states()
        for worker in self.workers:
            held = self.controller.acknowledged_sequence(source_name(worker.source))
            for one in worker.unacknowledged:
                if one.sequence > held:
                    self.controller.receive(one)

    async def run_until(self, reached: Callable[[Rollout], bool], seconds_max: int = 60) -> int:
        """Let seconds pass until *holds*; return how many did."""
        for passed in range(seconds_max):
            if reached(self.rollout):
                return passed
            await self.pass_second()
        raise AssertionError(f"not within {seconds_max} s: {self.rollout.reason}")


def has_ended(rollout: Rollout) -> bool:
    """Whether nothing follows."""
    return rollout.ended


def is_in_canary(rollout: Rollout) -> bool:
    """Whether it answers as a canary."""
    return rollout.position.stage == Stage.CANARY
