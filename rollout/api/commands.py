"""The commands that people give to a rollout. Each is carried out, or refused with the reason."""

import math
import secrets
from dataclasses import replace

from access.bounds import PAGE_BYTES_MAX
from features.replay.record import replay_refusal
from host.freeze_windows import active_freeze
from protos import registry_pb2, rollout_pb2
from registry.client import RegistryClient
from registry.types import (
    Deployment,
    RevisionConflictError,
)
from rollout.api.start_checks import check_startable, find_approval
from rollout.controller.controller import Controller
from rollout.controller.past_rollouts import PastRollout, last_status, past_rollouts
from rollout.controller.recovery import end_unreadable
from rollout.controller.undo import deploy_earlier_version
from rollout.errors import NotLeadingError, RolloutRefusedError, UnknownRolloutError
from rollout.evidence.approved_shift import approved_shift
from rollout.judge.forecast import forecast_reply
from rollout.lifecycle.clock import ControllerClock
from rollout.lifecycle.deploy import RolloutSpec
from rollout.lifecycle.rollout import Rollout
from rollout.policy.policy import STANDARD, Policy
from rollout.policy.stages import Stage, StagePosition, Verdict, next_position

SALT_BYTES = 16
DEFAULT_POLICY = STANDARD.name
"""The policy of a rollout that names none, of a model whose project names none."""


class RolloutCommands:
    """The commands of turnout.v1.Rollouts.

    Every command raises NotLeadingError when another controller leads, UnknownRolloutError for a
    model without a rollout, RolloutRefusedError when it does not fit, and RegistryError.

    actor   the person or program that gives the command; it is part of every reason.
    reason  why, for the history.
    """

    def __init__(
        self, controller: Controller, registry: RegistryClient, clock: ControllerClock
    ) -> None:
        self._controller = controller
        self._registry = registry
        self._clock = clock

    async def start(self, request: rollout_pb2.StartRolloutRequest, actor: str) -> Rollout:
        """Begin a rollout with its preload."""
        if not self._controller.leading:
            raise NotLeadingError("this controller does not act now; ask again in a second")
        # Check everything that must hold before a rollout starts.
        policy = await self._policy(request.policy, request.model)
        version = await self._registry.get_version(request.model, request.version)
        current = self._without_ended_rollout(await self._registry.deployment(request.model))
        check_startable(current, version.label)
        self._check_freeze(policy)
        await self._check_exclusive_views(policy, version)
        approvals = await self._registry.approvals(request.model, version.label)
        approval = find_approval(approvals, policy, version, request.approval_id)
        baseline = await self._registry.get_version(current.model, current.production)
        await self._check_replay(policy, baseline)
        # Make the rollout.
        started_unix_ms = self._clock.now().unix_ns // 1_000_000
        rollout = Rollout(
            spec=RolloutSpec(
                rollout_id=f"r{started_unix_ms:x}-{secrets.token_hex(4)}",
                model=current.model,
                version=version.label,
                baseline=current.production,
                policy=policy,
                approval_id=approval.id,
                split_salt=secrets.token_bytes(SALT_BYTES),
                shift=approved_shift(version, baseline, approval),
            ),
            started_unix_ms=started_unix_ms,
        )
        # Deploy its preload over the very deployment that was checked.
        why = f"started by {actor}: {_reason_or_default(request.reason)}"
        try:
            await self._controller.run_exclusively(
                current.model, self._controller.begin_rollout(rollout, current, why)
            )
        except RevisionConflictError as error:
            raise RolloutRefusedError(
                f"the deployment of {current.model!r} changed while the rollout began; look at it "
                "and start again"
            ) from error
        return rollout

    async def list_rollouts(
        self, model: str, after: str = ""
    ) -> tuple[list[rollout_pb2.RolloutStatus], bool]:
        """Return a page of the rollouts of *model*, or of all models; and whether more follow.

        They come newest first. *after* is the id of the last rollout of the page before.
        """
        # Only the ids are needed of those that other pages have.
        known = {rollout.spec.rollout_id: rollout for rollout in self._controller.rollouts(model)}
        models = (
            [model] if model else [summary.model for summary in await self._registry.list_models()]
        )
        past: dict[str, PastRollout] = {}
        for listed in models:
            past |= await past_rollouts(self._registry, listed)
        started = {name: rollout.started_unix_ms for name, rollout in past.items()}
        started |= {name: rollout.started_unix_ms for name, rollout in known.items()}
        ids = sorted(started, key=lambda rollout_id: started[rollout_id], reverse=True)
        if after and after not in started:
            raise UnknownRolloutError(f"there is no rollout {after!r} to go on after")
        # Fill the page.
        page: list[rollout_pb2.RolloutStatus] = []
        for rollout_id in ids[ids.index(after) + 1 if after else 0 :]:
            if sum(status.ByteSize() for status in page) >= PAGE_BYTES_MAX:
                return page, True
            if rollout_id in known:
                page.append(known[rollout_id].status(intervals=True))
            elif (status := await last_status(self._registry, past[rollout_id])) is not None:
                page.append(status)
        return page, False

    def _check_freeze(self, policy: Policy) -> None:
        if window := active_freeze(policy.freeze, self._clock.now().unix_ns / 1e9):
            raise RolloutRefusedError(
                f"policy {policy.name!r} starts nothing in {window!r} (UTC); wait, or take another"
            )

    async def _check_replay(self, policy: Policy, baseline: registry_pb2.Version) -> None:
        """Refuse if the policy asks for a replay of production that there is not."""
        if not policy.replay_days:
            return
        # The watch may be a moment behind a replay that was recorded just now.
        findings = self._controller.findings
        await findings.load_all(self._registry)
        newest = findings.newest_replay(baseline.model, baseline.label)
        now_ms = self._clock.now().unix_ns // 1_000_000
        refusal = replay_refusal(policy.name, policy.replay_days, baseline, newest, now_ms)
        if refusal:
            raise RolloutRefusedError(refusal)

    async def _check_exclusive_views(self, policy: Policy, version: registry_pb2.Version) -> None:
        """Refuse if another model rolls out over a view that the policy wants exclusively."""
        read = {view.name for view in version.views}
        for other in self._controller.rollouts() if policy.exclusive_views else ():
            if other.ended or other.spec.model == version.model:
                continue
            other_version = await self._registry.get_version(other.spec.model, other.spec.version)
            shared = read & {view.name for view in other_version.views}
            if "*" not in policy.exclusive_views:
                shared &= set(policy.exclusive_views)
            if shared:
                raise RolloutRefusedError(
                    f"rollout {other.spec.rollout_id} of {other.spec.model!r} is under way and "
                    f"reads {', '.join(sorted(shared))}, too; policy {policy.name!r} wants one at "
                    "a time"
                )

    async def abort(self, model: str, actor: str, reason: str) -> rollout_pb2.RolloutStatus:
        """Give all traffic back to the baseline. This works for unreadable rollouts too."""
        why = f"aborted by {actor}: {_reason_or_default(reason)}"
        if model in self._controller.unreadable_rollouts:
            return await self._end_unreadable(model, why)
        return (await self._apply_verdict(model, Verdict.FAULTY, why)).status(intervals=True)

    async def _end_unreadable(self, model: str, why: str) -> rollout_pb2.RolloutStatus:
        ended = rollout_pb2.RolloutStatus()

        async def end() -> None:
            token = self._controller.lease_token
            written, status = await end_unreadable(self._registry, model, why, token)
            ended.CopyFrom(status)
            self._controller.unreadable_rollouts.pop(model, None)
            self._controller.see_deployment(written)

        await self._controller.run_exclusively(model, end())
        return ended

    async def promote(self, model: str, actor: str, reason: str, *, full: bool) -> Rollout:
        """Move to the next position without a verdict of the judge.

        full  move to the watch at once and skip the remaining steps. The approval must cover that.
        """
        rollout = self._active_rollout(model)
        following = next_position(rollout.position, Verdict.HEALTHY, rollout.spec.policy)
        if full and following.stage in (Stage.SHADOW, Stage.CANARY):
            await self._check_direct(rollout.spec)
        why = f"promoted by {actor}: {_reason_or_default(reason)}"
        return await self._apply_verdict(model, Verdict.HEALTHY, why, full=full)

    async def _check_direct(self, spec: RolloutSpec) -> None:
        """Refuse to skip steps unless the rollout's approval covers a direct deployment."""
        approvals = await self._registry.approvals(spec.model, spec.version)
        if not any(given.id == spec.approval_id and given.direct for given in approvals):
            raise RolloutRefusedError(
                f"the approval of version {spec.version} is for the steps of policy "
                f"{spec.policy.name!r}, so none is skipped; promote it step by step, or let a "
                f"person other than its author approve more: turnout versions approve {spec.model} "
                f"{spec.version} --policy {spec.policy.name} --direct, and start anew"
            )

    async def pause(self, model: str, actor: str, reason: str, *, paused: bool) -> Rollout:
        """Stay at the position, although faults still roll back; or go on, if *paused* is False."""
        rollout = self._active_rollout(model)
        rollout.paused = paused
        rollout.judging_error = rollout.judging_error if paused else ""
        rollout.reason = (
            f"{'paused' if paused else 'resumed'} by {actor}: {_reason_or_default(reason)}"
        )
        await self._controller.record_command(rollout)
        return rollout

    async def retry(self, model: str, actor: str, reason: str) -> Rollout:
        """Start a rollout of the version that was rolled back or refused, under its policy."""
        earlier = self._controller.rollout(model)
        if not earlier.ended or earlier.position.stage == Stage.DONE:
            raise RolloutRefusedError(
                f"the newest rollout of {model!r} stands at {earlier.position.stage.name}; only "
                "one that was rolled back or refused is tried again"
            )
        request = rollout_pb2.StartRolloutRequest(
            model=model,
            version=earlier.spec.version,
            policy=earlier.spec.policy.name,
            reason=f"{_reason_or_default(reason)} (again, after {earlier.spec.rollout_id})",
        )
        return await self.start(request, actor)

    async def set_weight(self, model: str, share: int, actor: str, reason: str) -> Rollout:
        """Move up or down to the policy's canary step with *share* basis points."""
        rollout = self._active_rollout(model)
        policy, stage = rollout.spec.policy, rollout.position.stage
        shares = [step.share_bp for step in policy.canary]
        if share not in shares:
            raise RolloutRefusedError(
                f"{share} basis points are not a share of policy {policy.name!r}, "
                f"which was approved with {', '.join(map(str, shares))}; another share needs "
                "another policy and its approval"
            )
        if stage not in (Stage.SHADOW, Stage.CANARY):
            raise RolloutRefusedError(
                f"the rollout of {model!r} stands at {stage.name}, where the candidate has no "
                "canary share to set"
            )
        target = StagePosition(Stage.CANARY, shares.index(share))
        if target == rollout.position:
            raise RolloutRefusedError(f"the candidate has {share} basis points already")
        why = f"set to {share / 100:g} % by {actor}: {_reason_or_default(reason)}"
        return await self._move_to(rollout, target, why)

    async def undo(
        self, model: str, to_version: str, actor: str, reason: str
    ) -> rollout_pb2.RolloutStatus:
        """Give all traffic to *to_version*, an earlier production version, without an approval.

        The gateways load it first, if they no longer have it. Refused while a rollout is under way
        and when the gateways are not ready within UNDO_TIMEOUT_S.
        """
        current = self._without_ended_rollout(await self._registry.deployment(model))
        if current.rollout_id:
            raise RolloutRefusedError(
                f"rollout {current.rollout_id} of {model!r} is under way; `turnout rollout abort "
                f"{model}` gives all traffic back to {current.standby or current.production}"
            )
        version = (await self._registry.get_version(model, to_version)).label
        if version == current.production:
            raise RolloutRefusedError(f"version {version} of {model!r} is production already")
        why = f"undo to {version} by {actor}: {_reason_or_default(reason)}"
        await self._controller.run_exclusively(model, self._undo(current, version, why))
        return rollout_pb2.RolloutStatus(
            model=model,
            version=version,
            baseline=current.production,
            stage=rollout_pb2.DONE,
            share_bp=10_000,
            reason=why,
        )

    async def _undo(self, deployment: Deployment, version: str, why: str) -> None:
        fleet, clock = self._controller.fleet, self._clock
        written = await deploy_earlier_version(
            self._registry,
            deployment,
            version,
            why,
            fleet_view=lambda: fleet.view(
                deployment.model, version, math.inf, clock.now().monotonic_ns
            ),
            lease_token=self._controller.lease_token,
        )
        self._controller.see_deployment(written)

    async def forecast(self, request: rollout_pb2.ForecastRequest) -> rollout_pb2.ForecastReply:
        """Return how long each step of a policy takes at today's traffic of a model."""
        policy = await self._policy(request.policy, request.model)
        calls_a_second = self._controller.traffic_rate.calls_a_second(request.model)
        return forecast_reply(policy, calls_a_second, request.failure_rate)

    async def _policy(self, name: str, model: str) -> Policy:
        """Return the policy of that name, in the model's edition if there is one.

        name  empty: the model's default policy in its project, or else DEFAULT_POLICY.
        """
        book = await self._controller.refresh_policies()
        name = name or book.defaults.get(model, DEFAULT_POLICY)
        policies = book.policies
        policy = policies.get(f"{name}@{model}", policies.get(name))
        if policy is None:
            problems = [f": {item.problem}" for item in book.unusable if item.name == name]
            raise UnknownRolloutError(
                f"there is no policy {name!r} that can be used{''.join(problems)}; there are "
                f"{', '.join(sorted(policies))}"
            )
        return policy

    async def _apply_verdict(
        self, model: str, verdict: Verdict, why: str, *, full: bool = False
    ) -> Rollout:
        """Move the active rollout to where *verdict* leads, in place of the judge's verdict."""
        rollout = self._active_rollout(model)
        target = next_position(rollout.position, verdict, rollout.spec.policy)
        if verdict == Verdict.FAULTY:
            target = StagePosition(Stage.ROLLED_BACK)
        elif full and rollout.position.stage != Stage.WATCH:
            target = StagePosition(Stage.WATCH)
        rollout.verdict = verdict
        return await self._move_to(rollout, target, why)

    async def _move_to(self, rollout: Rollout, target: StagePosition, why: str) -> Rollout:
        before = rollout.position
        await self._controller.run_exclusively(
            rollout.spec.model, self._controller.move_to(rollout, target, why)
        )
        if rollout.position == before:
            raise RolloutRefusedError(f"nothing was changed: {rollout.reason}")
        return rollout

    def _without_ended_rollout(self, deployment: Deployment) -> Deployment:
        """Return *deployment* without a rollout id whose rollout has ended.

        A split that a person wrote later can still have the id.
        """
        ended = any(
            rollout.ended and rollout.spec.rollout_id == deployment.rollout_id
            for rollout in self._controller.rollouts(deployment.model)
        )
        return replace(deployment, rollout_id="") if ended else deployment

    def _active_rollout(self, model: str) -> Rollout:
        rollout = self._controller.rollout(model)
        if rollout.ended:
            raise RolloutRefusedError(
                f"the newest rollout of {model!r} has ended ({rollout.position.stage.name}): "
                f"{rollout.reason}"
            )
        return rollout


def _reason_or_default(reason: str) -> str:
    return reason or "no reason given"
