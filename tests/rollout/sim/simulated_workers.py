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
"""How often a worker draws customers; windows are still a second, cut at every revision."""
RESEND_S = 1.0
WAITING_MAX = 60


@dataclass(slots=True)
class GroundTruth:
    """What really happened, kept apart from everything that is tested."""

    clean: dict[int, set[int]] = field(default_factory=dict)
    """Revision -> distinct keys the candidate answered well."""
    baseline: dict[int, set[int]] = field(default_factory=dict)
    pairs: dict[int, int] = field(default_factory=dict)
    candidate_failed: int = 0
    """Calls and shadow pairs on which the candidate failed."""


@dataclass(slots=True)
class FailureRates:
    """How often each side fails; None traffic: nobody calls."""

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
    """One worker of one boot. *leaders*: whom it might reach, tried in turn."""

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
        """Kill -9: what was not sent is lost, and the registry sees the stream end."""
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
        """Load what is deployed, obey, and say so."""
        while True:
            changed = self._registry.changed
            if self.cut_from_registry:
                await asyncio.sleep(0.1)
                continue
            held = self._registry.current
            for version in held.versions:
                if version not in self._loaded:
                    await asyncio.sleep(self._rng.uniform(0.05, 0.4))
                    self._loaded.add(version)
            if held.revision > self.applied.revision:
                await asyncio.sleep(self._rng.uniform(0.001, 0.05))
                self.applied = held
            said = self._registry.states.get((self.source.gateway, self.source.slot, self._boot))
            if said is None or said.applied[MODEL] < self.applied.revision:
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
            if self._now_ns() // NS != second:  # less: the clock was set back
                second = self._now_ns() // NS
                self._close(second)
                self._send()

    def _serve_slice(self) -> None:
        """Serve one slice's customers under the deployment obeyed now."""
        chance, held = self._rng, self.applied
        count = self._failure_rates.keys_a_second * SLICE_S
        calls = int(count) + (chance.random() < count % 1)
        for _ in range(calls):
            key, bucket = chance.getrandbits(64), chance.random() * 10_000
            if held.canary and bucket < held.canary_bp:
                self._answer_call(held.revision, "CANARY", key)
            elif held.standby and bucket >= 10_000 - held.standby_bp:
                self._answer_call(held.revision, "STANDBY", key)
            else:
                self._answer_call(held.revision, "PRODUCTION", key)
        if held.shadows:
            shown = self._open_window(held.revision, "SHADOW")
            faulty = sum(chance.random() < self._failure_rates.candidate for _ in range(calls))
            shown.pairs += calls
            shown.pairs_faulty += faulty
            self._truth.candidate_failed += faulty
            pairs = self._truth.pairs
            pairs[held.revision] = pairs.get(held.revision, 0) + calls

    def _answer_call(self, revision: int, arm: str, key: int) -> None:
        candidate = arm == "CANARY" or (arm == "PRODUCTION" and self.applied.production == "2")
        fails = self._failure_rates.candidate if candidate else self._failure_rates.baseline
        told = self._open_window(revision, arm)
        if self._rng.random() < fails:
            told.bad.append(key)
            told.bad_ns.append(self._now_ns())
            self._truth.candidate_failed += candidate
            return
        told.clean.append(key)
        kept = self._truth.clean if candidate else self._truth.baseline
        kept.setdefault(revision, set()).add(key)

    def _open_window(self, revision: int, arm: str) -> _OpenWindow:
        return self._open.setdefault((self._now_ns() // NS, revision, arm), _OpenWindow())

    def _close(self, second: int) -> None:
        windows = []
        for key in [one for one in self._open if one[0] != second]:
            told = self._open.pop(key)
            began, revision, arm = key
            version = "2" if arm in ("CANARY", "SHADOW") else "1"
            if arm == "PRODUCTION":
                version = self._production_of(revision)
            windows.append(_window(began, revision, arm, version, told))
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
        """Forget what is kept; send the rest, the newest now and older ones again."""
        for leader in self._reachable_controllers():
            kept = leader.acknowledged_sequence(source_name(self.source))
            self._waiting = [one for one in self._waiting if one.sequence > kept]
        for batch in self._waiting:
            if self._rng.random() >= self.loss:
                wait = self._rng.expovariate(1 / self.jitter_s)
                self._loop.call_later(wait, self._deliver, batch)

    def _reachable_controllers(self) -> list[Controller]:
        return (
            [] if self.cut_from_controller else [one for one in self._controllers() if one.leading]
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
    made = window_pb2.Window(
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
        made.pairs.pairs, made.pairs.faulty = counts.pairs, counts.pairs_faulty
    for metric, keys in (
        (window_pb2.METRIC_ERROR, counts.bad),
        (window_pb2.METRIC_SCORE, counts.clean),
    ):
        if keys:
            made.records.add(metric=metric, key_hash=keys, bin=[0] * len(keys))
    return made
