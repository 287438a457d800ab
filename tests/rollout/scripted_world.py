"""A scripted world: a controller, a registry in memory, and two workers with traffic."""

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
    """One worker, with the batches that were not acknowledged."""

    source: window_pb2.Source
    sequence: int = 0
    unacknowledged: list[window_pb2.WindowBatch] = field(default_factory=list)


class ScriptedWorld:
    """Everything that one rollout of churn needs.

    fails  failure rate of version 2, 0 to 1.
    """

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
        """The policies that the next controller reads from its files."""
        self.controller = self._controller()

    def _controller(self) -> Controller:
        return Controller(self.registry, self.clock, self.policies)  # type: ignore[arg-type]

    async def start_rollout(self, policy: str = "quick") -> Rollout:
        """Start to lead, approve version 2, and start its rollout."""
        await self.controller.start_leading(self.registry.lease_token)
        digest = self.controller.policies.policies[policy].digest
        self.registry.approvals_given.append(
            registry_pb2.Approval(id="a1", model="churn", version="2", policy_digest=digest)
        )
        self._report_states()
        commands = RolloutCommands(self.controller, self.registry, self.clock)  # type: ignore[arg-type]
        request = rollout_pb2.StartRolloutRequest(
            model="churn", version="2", policy=policy, reason="better"
        )
        return await commands.start(request, "sam")

    @property
    def rollout(self) -> Rollout:
        """The newest rollout of the present controller."""
        return self.controller.rollout("churn")

    @property
    def deployment(self) -> Deployment:
        """The newest deployment of churn."""
        return self.registry.deployments["churn"]

    def _report_states(self) -> None:
        for worker in self.workers:
            self.controller.fleet.update_worker(
                registry_pb2.GatewayState(
                    gateway=worker.source.gateway,
                    slot=worker.source.slot,
                    boot_id=worker.source.boot_id,
                    loads=[
                        registry_pb2.VersionLoad(model="churn", version=version, state="READY")
                        for version in self.loaded_versions
                    ],
                    applied={"churn": self.deployment.revision},
                    applied_unix_ns={"churn": self.clock.ns},
                ),
                self.clock.ns,
            )

    async def run_pending_tasks(self) -> None:
        """Run the tasks that the controller has started."""
        for _ in range(40):
            await asyncio.sleep(0)

    async def act_once(self) -> None:
        """Let the controller act once, and run its tasks."""
        self.controller.act()
        await self.run_pending_tasks()
        self._report_states()

    async def pass_second(self, *, save: bool = True) -> None:
        """Send one second of traffic at its end, let the controller act, and save."""
        number = (self.clock.ns - SCRIPT_START_S * NS) // NS
        windows_by_worker = [self._windows(number, worker) for worker in self.workers]
        self.clock.advance(1.0)
        for worker, windows in zip(self.workers, windows_by_worker, strict=True):
            if worker.source.slot in self.silent_slots:
                continue
            worker.sequence += 1
            sent_s = (self.clock.ns - SCRIPT_START_S * NS) / NS
            batch = make_batch(
                worker.sequence, *windows, sent_s=sent_s, source=worker.source, guards=self.guards
            )
            worker.unacknowledged.append(batch)
            self.controller.receive(batch)
        self.guards = []
        await self.act_once()
        if save:
            await self.controller.save()
            for worker in self.workers:
                acknowledged = self.controller.acknowledged_sequence(source_name(worker.source))
                worker.unacknowledged = [
                    batch for batch in worker.unacknowledged if batch.sequence > acknowledged
                ]

    def _windows(self, number: int, worker: ScriptedSource) -> list[window_pb2.Window]:
        rng = random.Random(f"{number}/{worker.source.slot}")
        deployment, arms = self.deployment, {"canary": 0.0, "standby": 0.0}
        if not self.traffic:
            return []
        arms["canary"], arms["standby"] = (
            deployment.canary_bp / 10_000,
            deployment.standby_bp / 10_000,
        )
        # Split the customers of this second.
        keys: dict[str, list[int]] = {"canary": [], "standby": [], "main": []}
        for _ in range(KEYS_A_SECOND // 2):
            key, bucket = rng.getrandbits(64), rng.random()
            arm = "canary" if bucket < arms["canary"] else "main"
            keys["standby" if bucket > 1 - arms["standby"] else arm].append(key)
        # One window for each arm with calls.
        main = "promoted" if deployment.production == "2" else "production"
        windows = []
        for arm, name in ((main, "main"), ("canary", "canary"), ("standby", "standby")):
            bad = [
                k
                for k in keys[name]
                if arm in ("canary", "promoted") and rng.random() < self.failure_rate
            ]
            if keys[name]:
                clean = [key for key in keys[name] if key not in set(bad)]
                window = make_window(
                    arm, number, revision=deployment.revision, clean=clean, errors=bad
                )
                latency_bins = [rng.randrange(200, 260) for _ in clean]
                window.records.add(metric="METRIC_LATENCY", key_hash=clean, bin=latency_bins)
                if arm == "canary":  # as production on the same rows, but for one in fifty
                    bins = [rng.randrange(20) for _ in clean]
                    window.records[-2].production_bin.extend(bins)
                    window.records[-2].bin[:] = [max(0, b - (rng.random() < 0.02)) for b in bins]
                windows.append(window)
        # Outcomes in the canary stage, and pairs of a shadow.
        if deployment.canary:
            windows += [
                self._outcome_window(number, deployment.revision, keys[window], window)
                for window in ("main", "canary")
            ]
        if deployment.shadows:
            faulty = sum(rng.random() < self.failure_rate for _ in range(100))
            windows.append(
                make_window("shadow", number, revision=deployment.revision, pairs=(100, 1, faulty))
            )
        return windows

    @staticmethod
    def _outcome_window(number: int, revision: int, keys: list[int], arm: str) -> window_pb2.Window:
        """Return the window of outcomes: a fifth of an arm's customers pay at once."""
        version, role = (
            ("2", predict_pb2.CANARY) if arm == "canary" else ("1", predict_pb2.PRODUCTION)
        )
        window = window_pb2.Window(model="churn", version=version, revision=revision)
        window.second = SCRIPT_START_S + number
        paid = [key for key in keys if key % 5 == 0]
        window.outcomes.add(role=role, name="paid", key_hash=paid, value=[1.0] * len(paid))
        return window

    async def restart(self) -> None:
        """Replace the controller, as after a kill. Workers send unacknowledged batches again."""
        self.controller = self._controller()
        self.registry.lease_token += 1
        await self.controller.start_leading(self.registry.lease_token)
        self._report_states()
        for worker in self.workers:
            acknowledged = self.controller.acknowledged_sequence(source_name(worker.source))
            for batch in worker.unacknowledged:
                if batch.sequence > acknowledged:
                    self.controller.receive(batch)

    async def run_until(self, reached: Callable[[Rollout], bool], seconds_max: int = 60) -> int:
        """Let seconds pass until *reached* is true; return how many passed."""
        for passed in range(seconds_max):
            if reached(self.rollout):
                return passed
            await self.pass_second()
        raise AssertionError(f"not within {seconds_max} s: {self.rollout.reason}")


def has_ended(rollout: Rollout) -> bool:
    """Whether the rollout has ended."""
    return rollout.ended


def is_in_canary(rollout: Rollout) -> bool:
    """Whether the rollout is in the canary stage."""
    return rollout.position.stage == Stage.CANARY
