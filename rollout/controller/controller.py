"""The controller: listens to gateways and registry, judges, and acts. One acts at a time.

Everything it decides is decided in trial.py, from what it was told; here it only listens, keeps
what it was told in the registry before it says so, and carries decisions out.
"""

import asyncio
import logging
from collections.abc import Coroutine, Mapping

from protos import window_pb2
from registry.client import RegistryClient
from registry.types import Deployment, FencedError, RegistryError
from rollout.checkpoint.store import CheckpointStore
from rollout.controller.findings import Findings
from rollout.controller.fleet import Fleet
from rollout.controller.isolate_errors import isolate_errors
from rollout.controller.recovery import recover_rollouts
from rollout.controller.traffic_rate import TrafficRate
from rollout.errors import CheckpointError, NotLeadingError, SupersededError, UnknownRolloutError
from rollout.evidence.inbox import NS, source_name, split_by_model
from rollout.judge.judge import FleetView
from rollout.lifecycle.clock import ClockReading, ControllerClock
from rollout.lifecycle.deploy import RolloutSpec, deploy_position, deployment_at, position_of
from rollout.lifecycle.rollout import Rollout
from rollout.policy.policy import Policy
from rollout.policy.stages import Stage, StagePosition

log = logging.getLogger(__name__)

LAST_BAD_WAIT_NS = 2 * NS
"""How long after the last worker obeyed a rollback a last bad answer is still waited for."""
MOVE_WAIT_MAX_NS = 30 * NS
"""A worker that never obeys is the supervisor's to kill, not ours to wait for."""
RETRY_NS = NS // 2
"""Between two tries of a move that a gate or an unreachable registry stopped."""
REASON_CHARS_MAX = 1_000


class Controller:
    """All rollouts of one registry, while this process holds the lease.

    run.py drives it: `take_over`, then `act` whenever `wake` is set or a moment has passed, and
    `save` a few times a second.
    """

    def __init__(
        self, registry: RegistryClient, clock: ControllerClock, policies: Mapping[str, Policy]
    ) -> None:
        self._registry = registry
        self._clock = clock
        self.policies = policies
        self.fleet = Fleet()
        self.traffic_rate = TrafficRate()
        self.wake = asyncio.Event()
        """Something must be looked at now."""
        self.status_changed = asyncio.Event()
        """Replaced and set at each change of a status or of what has been kept."""
        self._rollouts: dict[str, Rollout] = {}
        self._earlier_rollouts: list[Rollout] = []
        self._newest_deployments: dict[str, Deployment] = {}
        self._received_sequences: dict[str, int] = {}
        self.findings = Findings()
        self.unreadable_rollouts: dict[str, str] = {}
        """Model -> why its newest rollout cannot be gone on with, and the way out."""
        self._finished_ids: set[str] = set()
        self._retry_at_monotonic_ns: dict[str, int] = {}
        self._running_tasks: dict[str, asyncio.Task[None]] = {}
        self._checkpoints: CheckpointStore | None = None
        self._lease_token = 0
        self.fenced = False
        """Another controller has the lease; whoever runs this one makes it give up."""

    # Leading

    @property
    def leading(self) -> bool:
        """Whether this controller holds the lease and has taken over."""
        return self._checkpoints is not None

    @property
    def lease_token(self) -> int:
        """What the registry must be shown with every write of the leading controller."""
        return self._lease_token

    async def start_leading(self, lease_token: int) -> None:
        """Load every model's newest rollout and go on with those that have not ended."""
        memory = CheckpointStore(self._registry, lease_token, self.policies)
        await self.findings.load_all(self._registry)
        for found in await recover_rollouts(self._registry, memory, self._clock):
            held, trial = found.deployment, found.rollout
            self._newest_deployments[held.model] = held
            if found.unreadable_reason:
                self.unreadable_rollouts[held.model] = found.unreadable_reason
            if trial is None or (not trial.decisions and held.rollout_id == ""):
                continue  # never had one, or it died before its first deployment
            self._rollouts[held.model] = trial
            if trial.ended and self._is_collected(trial, self._clock.now()):
                self._finished_ids.add(trial.spec.rollout_id)
        self._lease_token, self._checkpoints = lease_token, memory
        self.wake.set()

    async def stop_leading(self) -> None:
        """Forget everything: what counts is in the registry, and another controller acts now."""
        self._checkpoints = None
        busy = list(self._running_tasks.values())
        for task in busy:
            task.cancel()
        await asyncio.gather(*busy, return_exceptions=True)
        self.fenced = False
        for memory in (
            self._rollouts,
            self._newest_deployments,
            self._received_sequences,
            self._retry_at_monotonic_ns,
            self.unreadable_rollouts,
        ):
            memory.clear()
        self._earlier_rollouts.clear()
        self._finished_ids.clear()
        self.fleet.clear()
        self._notify_watchers()

    # What it is told

    def receive(self, batch: window_pb2.WindowBatch) -> None:
        """Take one batch of windows; raises NotLeadingError when another controller acts."""
        if not self.leading:
            raise NotLeadingError("this controller does not act now; send it again in a second")
        now = self._clock.now()
        source = batch.source
        self.fleet.note_heartbeat((source.gateway, source.slot, source.boot_id), now.monotonic_ns)
        self.traffic_rate.add_batch(batch)
        listening = self._active_rollouts()
        told = split_by_model(batch, {trial.spec.model for trial in listening})
        for trial in listening:
            with isolate_errors(trial, self._notify_watchers):
                if trial.receive(told[trial.spec.model], now):
                    self.wake.set()
        name = source_name(source)
        self._received_sequences[name] = max(self._received_sequences.get(name, 0), batch.sequence)

    def acknowledged_sequence(self, source: str) -> int:
        """Return the sequence up to which everything from *source* is kept."""
        listening = self._active_rollouts()
        if self._checkpoints is None:
            return 0
        if not listening:
            return self._received_sequences.get(source, 0)
        whole = [trial for trial in listening if not trial.judging_error]
        if not whole:
            return self._received_sequences.get(source, 0)
        return min(self._checkpoints.saved_sequence(trial, source) for trial in whole)

    def see_deployment(self, deployment: Deployment) -> None:
        """Take a deployment as the newest; older ones are ignored."""
        before = self._newest_deployments.get(deployment.model)
        if before is None or deployment.revision > before.revision:
            self._newest_deployments[deployment.model] = deployment
            self.wake.set()

    def _active_rollouts(self) -> list[Rollout]:
        return [
            trial
            for trial in self._rollouts.values()
            if trial.spec.rollout_id not in self._finished_ids
        ]

    # What it does

    def act(self) -> None:
        """Close what is over, judge, and begin whatever follows, without waiting for it."""
        now = self._clock.now()
        for trial in self._active_rollouts():
            with isolate_errors(trial, self._notify_watchers):
                self._advance(trial, now)

    def _advance(self, rollout: Rollout, now: ClockReading) -> None:
        if rollout.count_closed_seconds(now):
            self._notify_watchers()
        model = rollout.spec.model
        if model in self._running_tasks or now.monotonic_ns < self._retry_at_monotonic_ns.get(
            model, 0
        ):
            return
        newest = self._newest_deployments.get(model)
        if rollout.ended:
            if self._is_collected(rollout, now):
                self._start_task(model, self._finish(rollout))
        elif newest is not None and newest.revision > rollout.revision:
            self._start_task(model, self._reconcile(rollout, newest))
        else:
            before = (rollout.verdict, rollout.reason)
            to = rollout.judge(
                now,
                self._fleet_view(rollout, now),
                self.findings.hold_reason(rollout.spec.model, rollout.spec.version),
            )
            if before != (rollout.verdict, rollout.reason):
                self._notify_watchers()
            if to != rollout.position:
                self._start_task(model, self.move_to(rollout, to, rollout.reason))

    async def save(self) -> None:
        """Keep every rollout under way, then let the gateways forget what is kept."""
        if self._checkpoints is not None:
            for trial in self._active_rollouts():
                with isolate_errors(trial, self._notify_watchers):
                    trial.inbox.forget_silent_sources(self._clock.now().monotonic_ns)
                    if not trial.judging_error:
                        await self._checkpoints.save(trial)
        self._notify_watchers()

    async def move_to(self, rollout: Rollout, to: StagePosition, why: str) -> None:
        """Write what *to* means, and stand there; or learn why not, and look again soon.

        Raises FencedError when another controller has taken the lease.
        """
        now = self._clock.now()
        back = to.stage in (Stage.ROLLED_BACK, Stage.REFUSED)
        if back and not rollout.times.verdict_ns:
            rollout.times.verdict_ns = now.unix_ns
        try:
            written = await deploy_position(
                self._registry,
                rollout.spec,
                expected=rollout.position,
                revision=rollout.revision,
                target=to,
                why=f"{reason_prefix(rollout.spec)}{why}"[:REASON_CHARS_MAX],
                lease_token=self._lease_token,
            )
        except FencedError:
            raise
        except SupersededError as error:
            log.warning("rollout %s: %s", rollout.spec.rollout_id, error)
            written = None
        except RegistryError as error:
            log.warning("rollout %s cannot move to %s: %s", rollout.spec.rollout_id, to, error)
            rollout.hold(f"cannot move to {to.stage.name}: {error}")
            self._retry_at_monotonic_ns[rollout.spec.model] = now.monotonic_ns + RETRY_NS
            self._notify_watchers()
            return
        if written is None:  # somebody was faster: read what they wrote, and judge anew
            held = await self._registry.deployment(rollout.spec.model)
            self.see_deployment(held)
            if held.revision > rollout.revision:
                await self._reconcile(rollout, held)
            return
        self.see_deployment(written)
        await self._enter_position(rollout, to, written.revision, why)

    async def _enter_position(
        self, rollout: Rollout, position: StagePosition, revision: int, why: str
    ) -> None:
        rollout.enter_position(position, revision, self._clock.now(), why)
        log.info(
            "rollout %s: %s at revision %d: %s", rollout.spec.rollout_id, position, revision, why
        )
        self._notify_watchers()
        await self._save_checkpoint(rollout, as_newest=rollout.ended)
        self.wake.set()

    async def _reconcile(self, rollout: Rollout, deployment: Deployment) -> None:
        """A revision we did not write, or wrote and died before remembering it."""
        place = position_of(deployment, rollout.spec)
        if place == rollout.position:
            reason = f"revision {deployment.revision} by {deployment.who}: {deployment.why}"
            rollout.adopt_revision(deployment.revision, self._clock.now(), reason)
            await self._save_checkpoint(rollout)
        elif place is not None:
            await self._enter_position(rollout, place, deployment.revision, deployment.why)
        else:
            ours = deployment.why.startswith(reason_prefix(rollout.spec))
            answers = rollout.spec.version in (deployment.production, deployment.canary)
            stage = Stage.DONE if answers else Stage.ROLLED_BACK
            if ours and stage == Stage.ROLLED_BACK and not rollout.times.verdict_ns:
                rollout.times.verdict_ns = deployment.at_unix_ns
            why = deployment.why.removeprefix(reason_prefix(rollout.spec))
            if not ours:
                why = (
                    f"superseded by {deployment.who}, revision {deployment.revision}: "
                    f"{deployment.why}"
                )
            await self._enter_position(rollout, StagePosition(stage), deployment.revision, why)

    def _is_collected(self, rollout: Rollout, now: ClockReading) -> bool:
        """Whether the four times of a rollback are complete, or nothing is to be waited for."""
        times = rollout.times
        if rollout.position.stage == Stage.DONE or not times.verdict_ns:
            return True
        if not times.traffic_moved_ns:
            times.traffic_moved_ns = self.fleet.moved_unix_ns(rollout.spec.model, rollout.revision)
            if times.traffic_moved_ns:
                self._notify_watchers()
        if times.traffic_moved_ns:
            return now.unix_ns - max(times.traffic_moved_ns, times.verdict_ns) >= LAST_BAD_WAIT_NS
        return now.unix_ns - times.verdict_ns >= MOVE_WAIT_MAX_NS

    async def _finish(self, rollout: Rollout) -> None:
        await self._save_checkpoint(rollout, as_newest=True)
        self._finished_ids.add(rollout.spec.rollout_id)
        self._notify_watchers()

    async def _save_checkpoint(self, rollout: Rollout, *, as_newest: bool = False) -> None:
        if self._checkpoints is not None:
            with isolate_errors(rollout, self._notify_watchers):
                await self._checkpoints.save(rollout, as_newest=as_newest)
            self._notify_watchers()

    def _fleet_view(self, rollout: Rollout, now: ClockReading) -> FleetView:
        silence_ns = int(rollout.spec.policy.silence_s_max * NS)
        terms = rollout.spec
        return self.fleet.view(terms.model, terms.version, silence_ns, now.monotonic_ns)

    # For those who steer and those who look (steering.py, service.py)

    def rollout(self, model: str, rollout_id: str = "") -> Rollout:
        """Return the newest rollout of *model*, or the one named; UnknownRolloutError."""
        if not self.leading:
            raise NotLeadingError("this controller does not act now; ask again in a second")
        newest = self._rollouts.get(model)
        if newest is not None and rollout_id in ("", newest.spec.rollout_id):
            return newest
        for trial in (*self._rollouts.values(), *self._earlier_rollouts):
            if rollout_id and trial.spec.rollout_id == rollout_id:
                return trial
        if model in self.unreadable_rollouts:
            raise CheckpointError(self.unreadable_rollouts[model])
        named = f"rollout {rollout_id!r}" if rollout_id else f"a rollout of model {model!r}"
        raise UnknownRolloutError(
            f"this controller knows no {named}; `turnout rollout history` lists what it knows"
        )

    def rollouts(self, model: str = "") -> list[Rollout]:
        """Return the rollouts known, newest first: since this controller began, and each newest."""
        if not self.leading:
            raise NotLeadingError("this controller does not act now; ask again in a second")
        known = [*self._rollouts.values(), *self._earlier_rollouts]
        known = [trial for trial in known if model in ("", trial.spec.model)]
        return sorted(known, key=lambda trial: trial.started_unix_ms, reverse=True)

    def is_finished(self, rollout: Rollout) -> bool:
        """Whether nothing of it can change any more."""
        return rollout.spec.rollout_id in self._finished_ids

    async def begin_rollout(self, rollout: Rollout, deployment: Deployment, why: str) -> None:
        """Remember *trial*, write its preload over *held*, and listen for it from now on."""
        assert self._checkpoints is not None
        await self._checkpoints.save(rollout, as_newest=True)
        place = StagePosition(Stage.PRELOAD)
        written = await self._registry.deploy(
            deployment_at(place, deployment, rollout.spec, f"{reason_prefix(rollout.spec)}{why}"),
            lease_token=self._lease_token,
            policy_digest=rollout.spec.policy.digest,
        )
        now = self._clock.now()
        for source, sequence in self._received_sequences.items():
            rollout.inbox.start_source_at(source, sequence, now.monotonic_ns)
        before = self._rollouts.get(rollout.spec.model)
        if before is not None:
            self._earlier_rollouts.append(before)
        self._rollouts[rollout.spec.model] = rollout
        self._retry_at_monotonic_ns.pop(rollout.spec.model, None)
        self.unreadable_rollouts.pop(rollout.spec.model, None)
        self.see_deployment(written)
        await self._enter_position(rollout, place, written.revision, why)

    async def run_exclusively(self, model: str, work: Coroutine[None, None, None]) -> None:
        """Run *deed* while nothing else is done to the rollout of *model*."""
        while (busy := self._running_tasks.get(model)) is not None:
            await asyncio.wait([busy])
        await self._start_task(model, work, awaited=True)

    async def record_command(self, rollout: Rollout) -> None:
        """Keep and show what a person changed."""
        await self._save_checkpoint(rollout)
        self.wake.set()

    def _start_task(
        self, model: str, work: Coroutine[None, None, None], *, awaited: bool = False
    ) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._running_tasks[model] = task

        def done(ended: asyncio.Task[None]) -> None:
            self._running_tasks.pop(model, None)
            if not ended.cancelled() and (error := ended.exception()) is not None:
                self.fenced = self.fenced or isinstance(error, FencedError)
                if not awaited:
                    self._retry_at_monotonic_ns[model] = self._clock.now().monotonic_ns + RETRY_NS
                    self._handle_failure(model, error)
            self.wake.set()

        task.add_done_callback(done)
        return task

    def _handle_failure(self, model: str, error: BaseException) -> None:
        """What the registry refused is tried again; what we ourselves raised holds the rollout."""
        trial = self._rollouts.get(model)
        if trial is None or isinstance(error, RegistryError):
            log.error("rollout of %r: %s", model, error, exc_info=error)
            return
        with isolate_errors(trial, self._notify_watchers):
            raise error

    def _notify_watchers(self) -> None:
        """Wake everybody who waits for `changed`."""
        self.status_changed.set()
        self.status_changed = asyncio.Event()


def reason_prefix(spec: RolloutSpec) -> str:
    """How the reason of every deployment a rollout writes begins."""
    return f"rollout {spec.rollout_id}: "
