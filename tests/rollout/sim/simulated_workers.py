"""The gateway workers of a simulated world: they follow the deployment, serve, and send windows."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from protos import registry_pb2 as pb
from protos import window_pb2
from rollout.controller.controller import Controller
from rollout.errors import NotLeadingError
from rollout.evidence.inbox import source_name
from tests.rollout.sim.simulated_registry import MODEL, SimulatedRegistry
from tests.rollout.sim.virtual_time import NS, WORLD_START_S

SLICE_S = 0.25
"""Seconds between two draws of customers. Windows are of one second and one revision."""
RESEND_S = 1.0
WAITING_MAX = 60


@dataclass(slots=True)
class GroundTruth:
    """What really happened in a world, independent of the code that is tested."""

    clean: dict[int, set[int]] = field(default_factory=dict)
    """Revision -> distinct keys with a good answer of the candidate."""
    baseline: dict[int, set[int]] = field(default_factory=dict)
    pairs: dict[int, int] = field(default_factory=dict)
    candidate_failed: int = 0
    """Calls and shadow pairs on which the candidate failed."""


@dataclass(slots=True)
class FailureRates:
    """Failure rates of both arms, and the traffic; with 0 keys a second there are no calls."""

    candidate: float = 0.0
    baseline: float = 0.0
    keys_a_second: float = 120.0


@dataclass(slots=True)
class _OpenWindow:
    clean: list[int] = field(default_factory=list)
    bad: list[int] = field(default_factory=list)
    bad_ns: list[int] = field(default_factory=list)
    pairs: int = 0
    pairs_faulty: int = 0


class SimulatedWorker:
    """One worker from its start to its end.

    controllers  returns the controllers that it tries to reach.
    """

    def __init__(
        self,
        registry: SimulatedRegistry,
        slot: int,
        boot_id: int,
        failure_rates: FailureRates,
        truth: GroundTruth,
        rng: random.Random,
        controllers: Callable[[], list[Controller]],
    ) -> None:
        self.source = window_pb2.Source(gateway="g", slot=slot, boot_id=boot_id)
        self._registry = registry
        self._failure_rates = failure_rates
        self._truth = truth
        self._rng = rng
        self._controllers = controllers
        self.cut_from_controller = False
        self.cut_from_registry = False
        self.loss = 0.0
        self.jitter_s = 0.05
        self.skew_s = 0.0
        self.applied = registry.current
        self._loaded: set[str] = {"1"}
        self._open: dict[tuple[int, int, str], _OpenWindow] = {}
        self._waiting: list[window_pb2.WindowBatch] = []
        self._sequence = 0
        self._loop = asyncio.get_running_loop()
        self.tasks = [asyncio.ensure_future(self._follow()), asyncio.ensure_future(self._serve())]

    def kill(self) -> None:
        """End the worker, as kill -9 does. Windows that were not sent are lost."""
        for task in self.tasks:
            task.cancel()
        self._waiting.clear()
        source = self.source
        self._registry.update_worker(
            pb.GatewayState(
                gateway=source.gateway, slot=source.slot, boot_id=source.boot_id, disconnected=True
            )
        )

    async def _follow(self) -> None:
        """Load what is deployed, apply it, and report that."""
        while True:
            changed = self._registry.changed
            if self.cut_from_registry:
                await asyncio.sleep(0.1)
                continue
            deployment = self._registry.current
            for version in deployment.versions:
                if version not in self._loaded:
                    await asyncio.sleep(self._rng.uniform(0.05, 0.4))
                    self._loaded.add(version)
            if deployment.revision > self.applied.revision:
                await asyncio.sleep(self._rng.uniform(0.001, 0.05))
                self.applied = deployment
            reported = self._registry.states.get(
                (self.source.gateway, self.source.slot, self._boot)
            )
            if reported is None or reported.applied[MODEL] < self.applied.revision:
                self._report()
            if self._registry.current.revision == self.applied.revision:
                await changed.wait()

    @property
    def _boot(self) -> int:
        return self.source.boot_id

    def _report(self) -> None:
        state = pb.GatewayState(
            gateway=self.source.gateway, slot=self.source.slot, boot_id=self._boot
        )
        for version in sorted(self._loaded):
            state.loads.add(model=MODEL, version=version, digest=version * 64, state="READY")
        state.applied[MODEL] = self.applied.revision
        state.applied_unix_ns[MODEL] = self._now_ns()
        self._registry.update_worker(state)

    def _now_ns(self) -> int:
        return WORLD_START_S * NS + round((self._loop.time() + self.skew_s) * NS)

    async def _serve(self) -> None:
        second = self._now_ns() // NS
        await asyncio.sleep(self._rng.uniform(0, SLICE_S))
        while True:
            self._serve_slice()
            await asyncio.sleep(SLICE_S)
            if self._now_ns() // NS != second:  # smaller after the clock was set back
                second = self._now_ns() // NS
                self._close(second)
                self._send()

    def _serve_slice(self) -> None:
        """Serve the customers of one slice under the applied deployment."""
        rng, deployment = self._rng, self.applied
        count = self._failure_rates.keys_a_second * SLICE_S
        calls = int(count) + (rng.random() < count % 1)
        for _ in range(calls):
            key, bucket = rng.getrandbits(64), rng.random() * 10_000
            if deployment.canary and bucket < deployment.canary_bp:
                self._answer_call(deployment.revision, "CANARY", key)
            elif deployment.standby and bucket >= 10_000 - deployment.standby_bp:
                self._answer_call(deployment.revision, "STANDBY", key)
            else:
                self._answer_call(deployment.revision, "PRODUCTION", key)
        if deployment.shadows:
            counts = self._open_window(deployment.revision, "SHADOW")
            faulty = sum(rng.random() < self._failure_rates.candidate for _ in range(calls))
            counts.pairs += calls
            counts.pairs_faulty += faulty
            self._truth.candidate_failed += faulty
            pairs = self._truth.pairs
            pairs[deployment.revision] = pairs.get(deployment.revision, 0) + calls

    def _answer_call(self, revision: int, arm: str, key: int) -> None:
        candidate = arm == "CANARY" or (arm == "PRODUCTION" and self.applied.production == "2")
        fails = self._failure_rates.candidate if candidate else self._failure_rates.baseline
        counts = self._open_window(revision, arm)
        if self._rng.random() < fails:
            counts.bad.append(key)
            counts.bad_ns.append(self._now_ns())
            self._truth.candidate_failed += candidate
            return
        counts.clean.append(key)
        keys_by_revision = self._truth.clean if candidate else self._truth.baseline
        keys_by_revision.setdefault(revision, set()).add(key)

    def _open_window(self, revision: int, arm: str) -> _OpenWindow:
        return self._open.setdefault((self._now_ns() // NS, revision, arm), _OpenWindow())

    def _close(self, second: int) -> None:
        windows = []
        for key in [opened for opened in self._open if opened[0] != second]:
            counts = self._open.pop(key)
            began, revision, arm = key
            version = "2" if arm in ("CANARY", "SHADOW") else "1"
            if arm == "PRODUCTION":
                version = self._production_of(revision)
            windows.append(_window(began, revision, arm, version, counts))
        self._sequence += 1
        self._waiting.append(
            window_pb2.WindowBatch(
                source=self.source,
                sequence=self._sequence,
                windows=windows,
                sent_unix_ns=self._now_ns(),
            )
        )
        del self._waiting[:-WAITING_MAX]

    def _production_of(self, revision: int) -> str:
        writes = {
            write.deployment.revision: write.deployment.production
            for write in self._registry.writes
        }
        return writes.get(revision, "1")

    def _send(self) -> None:
        """Forget acknowledged batches, and send all others."""
        for leader in self._reachable_controllers():
            acknowledged = leader.acknowledged_sequence(source_name(self.source))
            self._waiting = [
                waiting for waiting in self._waiting if waiting.sequence > acknowledged
            ]
        for batch in self._waiting:
            if self._rng.random() >= self.loss:
                wait = self._rng.expovariate(1 / self.jitter_s)
                self._loop.call_later(wait, self._deliver, batch)

    def _reachable_controllers(self) -> list[Controller]:
        return (
            []
            if self.cut_from_controller
            else [controller for controller in self._controllers() if controller.leading]
        )

    def _deliver(self, batch: window_pb2.WindowBatch) -> None:
        for leader in self._reachable_controllers():
            try:
                leader.receive(batch)
            except NotLeadingError:
                continue


def _window(
    second: int, revision: int, arm: str, version: str, counts: _OpenWindow
) -> window_pb2.Window:
    window = window_pb2.Window(
        model=MODEL,
        version=version,
        arm=f"ARM_{arm}",
        revision=revision,
        second=second,
        sampled_of_65536=65_536,
        first_bad_unix_ns=min(counts.bad_ns, default=0),
        last_bad_unix_ns=max(counts.bad_ns, default=0),
        calls=window_pb2.CallCounts(
            answered=len(counts.clean),
            faulty=len(counts.bad),
            fallbacks=len(counts.bad) if arm == "CANARY" else 0,
        ),
    )
    if counts.pairs:
        window.pairs.pairs, window.pairs.faulty = counts.pairs, counts.pairs_faulty
    for metric, keys in (
        (window_pb2.METRIC_ERROR, counts.bad),
        (window_pb2.METRIC_SCORE, counts.clean),
    ):
        if keys:
            window.records.add(metric=metric, key_hash=keys, bin=[0] * len(keys))
    return window
