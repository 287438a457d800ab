"""The controller: it receives windows, judges every rollout, and moves traffic.

Only the controller that holds the lease leads. Decisions are made in rollout/lifecycle/rollout.py,
which is pure. The controller does the input and output around them: it keeps what it received in a
checkpoint before gateways may forget it, and it writes the deployments that were decided.

Everything here runs on one event loop. `act` never waits: work that must wait for the registry
runs in one task for each model.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass

from protos import window_pb2
from registry.client import RegistryClient
from registry.types import Deployment, FencedError, RegistryError
from rollout.checkpoint.store import CheckpointStore
from rollout.controller.findings import Findings, rollback_finding
from rollout.controller.fleet import Fleet
from rollout.controller.gateway_clocks import ClockCheck, GatewayClocks
from rollout.controller.isolate_errors import isolate_errors
from rollout.controller.policy_book import PolicyBook
from rollout.controller.recovery import recover_rollouts
from rollout.controller.traffic_rate import TrafficRate
from rollout.errors import CheckpointError, NotLeadingError, SupersededError, UnknownRolloutError
from rollout.evidence.inbox import NS, source_name, split_by_model
from rollout.evidence.window_checks import DeployedVersions, add_deployed
from rollout.judge.judge import FleetView
from rollout.lifecycle.clock import ClockReading, ControllerClock
from rollout.lifecycle.deploy import RolloutSpec, deploy_position, deployment_at, position_of
from rollout.lifecycle.rollout import Rollout
from rollout.policy.approved_policy import policy_file_note
from rollout.policy.policy import Policy
from rollout.policy.stages import Stage, StagePosition

log = logging.getLogger(__name__)

LAST_BAD_WAIT_NS = 2 * NS
"""After a rollback: how long the last bad answer may still be reported."""
MOVE_WAIT_MAX_NS = 30 * NS
"""After a rollback: how long to wait for the last worker to apply it. The supervisor ends a worker
that never does."""
RETRY_NS = NS // 2
"""Time between two tries of a move that a gate or an unreachable registry stopped."""
REFUSAL_FORGET_NS = 30 * NS
"""A worker that was refused and then sends nothing is forgotten."""
REASON_CHARS_MAX = 1_000
SOURCES_MAX = 10_000
"""Starts of workers in memory, of all gateways."""


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Why a worker's windows are not counted, and when it last sent any."""

    why: str
    at_monotonic_ns: int


class Controller:
    """All rollouts of one registry, while this process holds the lease.

    rollout/controller/leader.py drives it: `start_leading`, then `act` whenever `wake` is set or a
    tick is over, and `save` several times a second.
    """

    def __init__(
        self, registry: RegistryClient, clock: ControllerClock, policies: Mapping[str, Policy]
    ) -> None:
        # What the controller works with.
        self._registry = registry
        self._clock = clock
        self.policies = PolicyBook(policies)
        self.fleet = Fleet()
        self.traffic_rate = TrafficRate()
        self.wake = asyncio.Event()
        """Set when `act` should run now."""
        self.status_changed = asyncio.Event()
        """Set, and replaced by a new event, when a status or an acknowledged sequence changes."""
        # What it knows while it leads.
        self._rollouts: dict[str, Rollout] = {}
        """Model -> its newest rollout."""
        self._earlier_rollouts: list[Rollout] = []
        self._newest_deployments: dict[str, Deployment] = {}
        self.deployed: dict[str, DeployedVersions] = {}
        """Model -> what windows may be about."""
        self._clocks = GatewayClocks()
        self._received_sequences: dict[str, int] = {}
        """Source -> the newest sequence number received from it."""
        self._refusals: dict[str, _Refusal] = {}
        """Source -> why its windows are not counted."""
        self.findings = Findings()
        self.unreadable_rollouts: dict[str, str] = {}
        """Model -> why its newest rollout cannot go on, and the way out."""
        self._finished_ids: set[str] = set()
        """Rollouts that ended and whose rollback times are complete."""
        self._retry_at_monotonic_ns: dict[str, int] = {}
        self._running_tasks: dict[str, asyncio.Task[None]] = {}
        """Model -> the task that works on its rollout now."""
        self._checkpoints: CheckpointStore | None = None
        self._lease_token = 0
        self.fenced = False
        """The registry refused a write because another controller has the lease."""

    # Leading

    @property
    def leading(self) -> bool:
        """Whether this controller holds the lease and has recovered the rollouts."""
        return self._checkpoints is not None

    @property
    def lease_token(self) -> int:
        """The token that the registry requires with every write of the leading controller."""
        return self._lease_token

    async def start_leading(self, lease_token: int) -> None:
        """Recover every model's newest rollout and go on with those that have not ended.

        Raises RegistryError.
        """
        # Rollouts go on under their approved policies, also when the projects cannot be read.
        try:
            await self.policies.refresh(self._registry)
        except RegistryError as error:
            log.warning("rollout: the policies of projects cannot be read: %s", error)
        checkpoints = CheckpointStore(self._registry, lease_token, self.policies.policies)
        await self.findings.load_all(self._registry)
        for recovered in await recover_rollouts(self._registry, checkpoints, self._clock):
            deployment, rollout = recovered.deployment, recovered.rollout
            self._note_deployment(deployment)
            if recovered.unreadable_reason:
                self.unreadable_rollouts[deployment.model] = recovered.unreadable_reason
            # Without a decision the rollout stopped before its first deployment.
            if rollout is None or (not rollout.decisions and deployment.rollout_id == ""):
                continue
            self._rollouts[deployment.model] = rollout
            if rollout.ended and self._is_collected(rollout, self._clock.now()):
                self._finished_ids.add(rollout.spec.rollout_id)
        self._lease_token, self._checkpoints = lease_token, checkpoints
        self.wake.set()

    async def stop_leading(self) -> None:
        """Forget everything. The registry has what the next leading controller needs."""
        self._checkpoints = None
        tasks = list(self._running_tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.fenced = False
        for mapping in (
            self._rollouts,
            self._newest_deployments,
            self.deployed,
            self._received_sequences,
            self._refusals,
            self._retry_at_monotonic_ns,
            self.unreadable_rollouts,
        ):
            mapping.clear()
        self._earlier_rollouts.clear()
        self._finished_ids.clear()
        self.fleet.clear()
        self._notify_watchers()

    # Receiving

    def receive(self, batch: window_pb2.WindowBatch) -> None:
        """Receive one batch of windows for every active rollout.

        Raises NotLeadingError when another controller leads.
        """
        if not self.leading:
            raise NotLeadingError("this controller does not act now; send it again in a second")
        now = self._clock.now()
        self.note_heartbeat(batch.source)
        self.traffic_rate.add_batch(batch)
        active = self._active_rollouts()
        batches = split_by_model(batch, {rollout.spec.model for rollout in active})
        for rollout in active:
            with isolate_errors(rollout, self._notify_watchers):
                if rollout.receive(batches[rollout.spec.model], now):
                    self.wake.set()
        name = source_name(batch.source)
        received = max(self._received_sequences.pop(name, 0), batch.sequence)
        self._received_sequences[name] = received
        # The source that was silent for longest is forgotten, because its worker is gone.
        if len(self._received_sequences) > SOURCES_MAX:
            del self._received_sequences[next(iter(self._received_sequences))]

    def note_heartbeat(self, source: window_pb2.Source) -> None:
        """Note that the worker *source* sends, whether or not its windows are counted."""
        worker = (source.gateway, source.slot, source.boot_id)
        self.fleet.note_heartbeat(worker, self._clock.now().monotonic_ns)

    def received_sequence(self, source: str) -> int | None:
        """Return the newest sequence number received from *source*; None: nothing came."""
        return self._received_sequences.get(source)

    def check_clock(self, batch: window_pb2.WindowBatch) -> ClockCheck:
        """Return what *batch* says about the clock of its gateway."""
        now = self._clock.now()
        return self._clocks.check(
            batch.source.gateway,
            batch.sent_unix_ns,
            batch.clock_unix_ns,
            now.unix_ns,
            now.monotonic_ns,
        )

    def refuse_sender(self, source: window_pb2.Source, why: str) -> None:
        """Note that no windows of the worker *source* are counted, and why.

        Its clock closes no second, and it does not count as silent, so that rollouts go on with the
        windows of the others. Statuses, its acknowledgements and the log say why.
        """
        now_ns, name = self._clock.now().monotonic_ns, source_name(source)
        known = self.refusal_of(name)
        self._refusals[name] = _Refusal(why, now_ns)
        self.note_heartbeat(source)
        for rollout in self._active_rollouts():
            rollout.inbox.ignore_clock_of(name)
        if not known:
            log.warning("WINDOWS OF %s ARE NOT COUNTED: %s", name, why)
            self._notify_watchers()

    def accept_sender(self, source: str) -> None:
        """Note that the windows of *source* are counted again."""
        if self._refusals.pop(source, None) is not None:
            log.info("windows of %s are counted again", source)
            self._notify_watchers()

    def refusal_of(self, source: str) -> str:
        """Return why no windows of *source* are counted; empty: they are."""
        refusal = self._refusals.get(source)
        if refusal is None:
            return ""
        if self._clock.now().monotonic_ns - refusal.at_monotonic_ns > REFUSAL_FORGET_NS:
            del self._refusals[source]
            return ""
        return refusal.why

    def count_dropped(self, dropped: Counter[tuple[str, str]]) -> int:
        """Count malformed windows, by (model, reason), in the statuses; return the time, ns."""
        for (model, _), count in dropped.items():
            if (rollout := self._rollouts.get(model)) is not None:
                rollout.dropped_windows += count
        return self._clock.now().monotonic_ns

    def acknowledged_sequence(self, source: str) -> int:
        """Return the sequence number up to which *source* may forget its batches.

        That is the lowest number in the checkpoints of all rollouts that can be judged. Without
        such a rollout nothing needs to be saved, so everything received is acknowledged.
        """
        active = self._active_rollouts()
        if self._checkpoints is None:
            return 0
        judged = [rollout for rollout in active if not rollout.judging_error]
        if not judged:
            return self._received_sequences.get(source, 0)
        return min(self._checkpoints.saved_sequence(rollout, source) for rollout in judged)

    def see_deployment(self, deployment: Deployment) -> None:
        """Take *deployment* as its model's newest, unless a newer revision is known."""
        known = self._newest_deployments.get(deployment.model)
        if known is None or deployment.revision > known.revision:
            self._note_deployment(deployment)
            self.wake.set()

    def _note_deployment(self, deployment: Deployment) -> None:
        self._newest_deployments[deployment.model] = deployment
        versions = set(deployment.versions)
        add_deployed(self.deployed, deployment.model, deployment.revision, versions)

    def _active_rollouts(self) -> list[Rollout]:
        return [
            rollout
            for rollout in self._rollouts.values()
            if rollout.spec.rollout_id not in self._finished_ids
        ]

    # Acting

    def act(self) -> None:
        """Count the seconds that are over, judge, and start the tasks that follow."""
        now = self._clock.now()
        refused = tuple(filter(None, map(self._refused_sender, sorted(self._refusals))))
        for rollout in self._active_rollouts():
            rollout.refused_senders = refused
            with isolate_errors(rollout, self._notify_watchers):
                self._advance(rollout, now)

    def wait_for_gateways(self) -> None:
        """Close no second before the batches are read that came while this process stood still.

        Without this wait their windows would be late, and late windows hold a rollout.
        """
        now_ns = self._clock.now().monotonic_ns
        for rollout in self._active_rollouts():
            rollout.inbox.wait_for_sources(now_ns)

    def _refused_sender(self, source: str) -> str:
        why = self.refusal_of(source)
        return f"{source}: {why}" if why else ""

    def _advance(self, rollout: Rollout, now: ClockReading) -> None:
        # Windows are counted even while another task works on the rollout.
        if rollout.count_closed_seconds(now):
            self._notify_watchers()
        model = rollout.spec.model
        retry_at_ns = self._retry_at_monotonic_ns.get(model, 0)
        if model in self._running_tasks or now.monotonic_ns < retry_at_ns:
            return
        newest = self._newest_deployments.get(model)
        if rollout.ended:
            if self._is_collected(rollout, now):
                self._start_task(model, self._finish(rollout))
        elif newest is not None and newest.revision > rollout.revision:
            # The deployment was changed from outside: reconcile before anything is judged.
            self._start_task(model, self._reconcile(rollout, newest))
        else:
            before = (rollout.verdict, rollout.reason)
            target = rollout.judge(
                now,
                self._fleet_view(rollout, now),
                self.findings.hold_reason(rollout.spec.model, rollout.spec.version),
            )
            if before != (rollout.verdict, rollout.reason):
                self._notify_watchers()
            if target != rollout.position:
                self._start_task(model, self.move_to(rollout, target, rollout.reason))

    async def save(self) -> None:
        """Write the checkpoint of every active rollout. Then gateways may forget its windows.

        Raises RegistryError; FencedError when another controller has the lease.
        """
        if self._checkpoints is not None:
            for rollout in self._active_rollouts():
                with isolate_errors(rollout, self._notify_watchers):
                    rollout.inbox.forget_silent_sources(self._clock.now().monotonic_ns)
                    if not rollout.judging_error:
                        await self._checkpoints.save(rollout)
        self._notify_watchers()

    async def move_to(self, rollout: Rollout, target: StagePosition, why: str) -> None:
        """Write the deployment of *target* and enter that position.

        If the registry refuses, the rollout is held with the reason and the move is tried again
        after RETRY_NS. Raises FencedError when another controller has the lease.
        """
        now = self._clock.now()
        back = target.stage in (Stage.ROLLED_BACK, Stage.REFUSED)
        if back and not rollout.times.verdict_ns:
            rollout.times.verdict_ns = now.unix_ns
        # Compare-and-set over the position and revision that were judged.
        try:
            written = await deploy_position(
                self._registry,
                rollout.spec,
                expected=rollout.position,
                revision=rollout.revision,
                target=target,
                why=f"{reason_prefix(rollout.spec)}{why}"[:REASON_CHARS_MAX],
                lease_token=self._lease_token,
            )
        except FencedError:
            raise
        except SupersededError as error:
            log.warning("rollout %s: %s", rollout.spec.rollout_id, error)
            written = None
        except RegistryError as error:
            log.warning("rollout %s cannot move to %s: %s", rollout.spec.rollout_id, target, error)
            rollout.hold(f"cannot move to {target.stage.name}: {error}")
            self._retry_at_monotonic_ns[rollout.spec.model] = now.monotonic_ns + RETRY_NS
            self._notify_watchers()
            return
        # Another revision was written meanwhile: read it, and judge anew.
        if written is None:
            current = await self._registry.deployment(rollout.spec.model)
            self.see_deployment(current)
            if current.revision > rollout.revision:
                await self._reconcile(rollout, current)
            return
        self.see_deployment(written)
        await self._enter_position(rollout, target, written.revision, why)

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
        """Adopt a revision that the rollout does not know.

        A person or another program wrote it, or this rollout wrote it before a crash.
        """
        spec, position = rollout.spec, position_of(deployment, rollout.spec)
        # The same position: another field changed, and the rollout stays where it is.
        if position == rollout.position:
            reason = f"revision {deployment.revision} by {deployment.who}: {deployment.why}"
            rollout.adopt_revision(deployment.revision, self._clock.now(), reason)
            await self._save_checkpoint(rollout)
            return
        # Another position of this rollout.
        if position is not None:
            await self._enter_position(rollout, position, deployment.revision, deployment.why)
            return
        # No position of this rollout: it has ended, by its own deployment or by another one.
        prefix = reason_prefix(spec)
        own = deployment.why.startswith(prefix)
        answers = spec.version in (deployment.production, deployment.canary)
        stage = Stage.DONE if answers else Stage.ROLLED_BACK
        if own and stage == Stage.ROLLED_BACK and not rollout.times.verdict_ns:
            rollout.times.verdict_ns = deployment.at_unix_ns
        why = (
            deployment.why.removeprefix(prefix)
            if own
            else f"superseded by {deployment.who}, revision {deployment.revision}: {deployment.why}"
        )
        await self._enter_position(rollout, StagePosition(stage), deployment.revision, why)

    def _is_collected(self, rollout: Rollout, now: ClockReading) -> bool:
        """Whether the rollback times are complete, or no more of them can be expected."""
        times = rollout.times
        if rollout.position.stage == Stage.DONE or not times.verdict_ns:
            return True
        if not times.traffic_moved_ns:
            # A worker whose clock is ahead has not moved its traffic in the future.
            moved_ns = self.fleet.moved_unix_ns(rollout.spec.model, rollout.revision)
            times.traffic_moved_ns = min(moved_ns, now.unix_ns)
            if times.traffic_moved_ns:
                self._notify_watchers()
        if times.traffic_moved_ns:
            return now.unix_ns - max(times.traffic_moved_ns, times.verdict_ns) >= LAST_BAD_WAIT_NS
        return now.unix_ns - times.verdict_ns >= MOVE_WAIT_MAX_NS

    async def _finish(self, rollout: Rollout) -> None:
        """Save an ended rollout. The times of a rollback go into the history as a finding."""
        await self._save_checkpoint(rollout, as_newest=True)
        if rollout.times.verdict_ns:
            finding = rollback_finding(rollout, self._lease_token)
            self.findings.add_finding(await self._registry.write_finding(finding))
        self._finished_ids.add(rollout.spec.rollout_id)
        self._notify_watchers()

    async def _save_checkpoint(self, rollout: Rollout, *, as_newest: bool = False) -> None:
        if self._checkpoints is not None:
            with isolate_errors(rollout, self._notify_watchers):
                await self._checkpoints.save(rollout, as_newest=as_newest)
            self._notify_watchers()

    def _fleet_view(self, rollout: Rollout, now: ClockReading) -> FleetView:
        spec = rollout.spec
        silence_ns = int(spec.policy.silence_s_max * NS)
        return self.fleet.view(spec.model, spec.version, silence_ns, now.monotonic_ns)

    # For commands and statuses (rollout/api)

    async def refresh_policies(self) -> PolicyBook:
        """Return the policies by name, those of projects as they are applied now.

        Raises RegistryError.
        """
        await self.policies.refresh(self._registry)
        current = self.policies.policies
        # A rollout goes on under its approved policy, and says that there is another edition.
        for rollout in self._active_rollouts():
            rollout.policy_note = policy_file_note(rollout.spec.policy, current)
        return self.policies

    def rollout(self, model: str, rollout_id: str = "") -> Rollout:
        """Return the newest rollout of *model*, or the rollout with *rollout_id*.

        Raises NotLeadingError, UnknownRolloutError, and CheckpointError if the model's newest
        rollout cannot be read.
        """
        if not self.leading:
            raise NotLeadingError("this controller does not act now; ask again in a second")
        newest = self._rollouts.get(model)
        if newest is not None and rollout_id in ("", newest.spec.rollout_id):
            return newest
        for rollout in (*self._rollouts.values(), *self._earlier_rollouts):
            if rollout_id and rollout.spec.rollout_id == rollout_id:
                return rollout
        if model in self.unreadable_rollouts:
            raise CheckpointError(self.unreadable_rollouts[model])
        named = f"rollout {rollout_id!r}" if rollout_id else f"a rollout of model {model!r}"
        raise UnknownRolloutError(
            f"this controller knows no {named}; `turnout rollout history` lists what it knows"
        )

    def rollouts(self, model: str = "") -> list[Rollout]:
        """Return the known rollouts of *model*, or of all models, newest first.

        These are the rollouts that this controller began, and the newest of each model. Raises
        NotLeadingError.
        """
        if not self.leading:
            raise NotLeadingError("this controller does not act now; ask again in a second")
        known = [*self._rollouts.values(), *self._earlier_rollouts]
        selected = [rollout for rollout in known if model in ("", rollout.spec.model)]
        return sorted(selected, key=lambda rollout: rollout.started_unix_ms, reverse=True)

    def is_finished(self, rollout: Rollout) -> bool:
        """Whether *rollout* has ended and its status will not change any more."""
        return rollout.spec.rollout_id in self._finished_ids

    async def begin_rollout(self, rollout: Rollout, deployment: Deployment, why: str) -> None:
        """Save *rollout*, write its preload over *deployment*, and begin to count its windows.

        Raises RegistryError.
        """
        assert self._checkpoints is not None
        # The checkpoint comes first: a deployment must never name a rollout that has none.
        await self._checkpoints.save(rollout, as_newest=True)
        spec, position = rollout.spec, StagePosition(Stage.PRELOAD)
        written = await self._registry.deploy(
            deployment_at(position, deployment, spec, f"{reason_prefix(spec)}{why}"),
            lease_token=self._lease_token,
            policy_digest=spec.policy.digest,
        )
        # Windows that were received before the rollout began are not evidence of it.
        now = self._clock.now()
        for source, sequence in self._received_sequences.items():
            rollout.inbox.start_source_at(source, sequence, now.monotonic_ns)
        # Replace the model's earlier rollout.
        earlier = self._rollouts.get(spec.model)
        if earlier is not None:
            self._earlier_rollouts.append(earlier)
        self._rollouts[spec.model] = rollout
        self._retry_at_monotonic_ns.pop(spec.model, None)
        self.unreadable_rollouts.pop(spec.model, None)
        self.see_deployment(written)
        await self._enter_position(rollout, position, written.revision, why)

    async def run_exclusively(self, model: str, work: Coroutine[None, None, None]) -> None:
        """Run *work* when no other task works on the rollout of *model*; raise what it raises."""
        while (running := self._running_tasks.get(model)) is not None:
            await asyncio.wait([running])
        await self._start_task(model, work, awaited=True)

    async def record_command(self, rollout: Rollout) -> None:
        """Save and publish what a command changed."""
        await self._save_checkpoint(rollout)
        self.wake.set()

    def _start_task(
        self, model: str, work: Coroutine[None, None, None], *, awaited: bool = False
    ) -> asyncio.Task[None]:
        """Start *work* as the model's task.

        awaited  the caller awaits the task and handles its error.
        """
        task = asyncio.ensure_future(work)
        self._running_tasks[model] = task

        def finish(ended: asyncio.Task[None]) -> None:
            self._running_tasks.pop(model, None)
            if not ended.cancelled() and (error := ended.exception()) is not None:
                self.fenced = self.fenced or isinstance(error, FencedError)
                if not awaited:
                    self._retry_at_monotonic_ns[model] = self._clock.now().monotonic_ns + RETRY_NS
                    self._handle_failure(model, error)
            self.wake.set()

        task.add_done_callback(finish)
        return task

    def _handle_failure(self, model: str, error: BaseException) -> None:
        """Log what the registry refused, which is tried again. Hold the rollout on other errors."""
        rollout = self._rollouts.get(model)
        if rollout is None or isinstance(error, RegistryError):
            log.error("rollout of %r: %s", model, error, exc_info=error)
            return
        with isolate_errors(rollout, self._notify_watchers):
            raise error

    def _notify_watchers(self) -> None:
        """Wake everything that waits for `status_changed`."""
        self.status_changed.set()
        self.status_changed = asyncio.Event()


def reason_prefix(spec: RolloutSpec) -> str:
    """Return how the reason of every deployment that this rollout writes begins."""
    return f"rollout {spec.rollout_id}: "
