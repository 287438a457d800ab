"""What people tell the controller: the verbs of a rollout. Each refuses in words."""

import json
import math
import secrets
from collections.abc import Sequence
from dataclasses import replace

from protos import registry_pb2, rollout_pb2
from registry.client import RegistryClient
from registry.types import Deployment, RevisionConflictError
from rollout.controller.controller import Controller
from rollout.controller.past_rollouts import past_rollouts
from rollout.controller.recovery import end_unreadable
from rollout.controller.undo import deploy_earlier_version
from rollout.errors import NotLeadingError, RolloutRefusedError, UnknownRolloutError
from rollout.evidence.approved_shift import approved_shift
from rollout.judge.forecast import forecast_reply
from rollout.lifecycle.clock import ControllerClock
from rollout.lifecycle.deploy import RolloutSpec
from rollout.lifecycle.rollout import Rollout
from rollout.policy.freeze import active_freeze
from rollout.policy.policy import Policy
from rollout.policy.stages import Stage, StagePosition, Verdict, next_position

SALT_BYTES = 16


class RolloutCommands:
    """The verbs of turnout.v1.Rollouts. *actor*: who asks; stands in every reason."""

    def __init__(
        self, controller: Controller, registry: RegistryClient, clock: ControllerClock
    ) -> None:
        self._controller = controller
        self._registry = registry
        self._clock = clock

    async def start(self, request: rollout_pb2.StartRolloutRequest, actor: str) -> Rollout:
        """Begin a rollout with its preload; RolloutRefusedError says what must happen first."""
        if not self._controller.leading:
            raise NotLeadingError("this controller does not act now; ask again in a second")
        policy = self._policy(request.policy, request.model)
        version = await self._registry.get_version(request.model, request.version)
        held = self._without_ended_rollout(await self._registry.deployment(request.model))
        check_startable(held, version.label)
        self._check_freeze(policy)
        await self._check_exclusive_views(policy, version)
        approvals = await self._registry.approvals(request.model, version.label)
        approval = find_approval(approvals, policy, version, request.approval_id)
        baseline = await self._registry.get_version(held.model, held.production)
        trial = Rollout(
            spec=RolloutSpec(
                rollout_id=f"r{self._clock.now().unix_ns // 1_000_000:x}-{secrets.token_hex(4)}",
                model=held.model,
                version=version.label,
                baseline=held.production,
                policy=policy,
                approval_id=approval.id,
                split_salt=secrets.token_bytes(SALT_BYTES),
                shift=approved_shift(version, baseline, approval),
            ),
            started_unix_ms=self._clock.now().unix_ns // 1_000_000,
        )
        why = f"started by {actor}: {request.reason or 'no reason given'}"
        try:
            await self._controller.run_exclusively(
                held.model, self._controller.begin_rollout(trial, held, why)
            )
        except RevisionConflictError as error:
            raise RolloutRefusedError(
                f"the deployment of {held.model!r} changed while the rollout began; look at it and "
                "start again"
            ) from error
        return trial

    async def who_is(self, credentials: Sequence[tuple[str, str]]) -> registry_pb2.Caller:
        """Return whom the registry knows by these credentials; UnknownActorError."""
        return await self._registry.identify(credentials)

    async def list_rollouts(self, model: str) -> list[rollout_pb2.RolloutStatus]:
        """Return every rollout of *model*, or of all models, newest first."""
        trials = self._controller.rollouts(model)
        known = {trial.spec.rollout_id for trial in trials}
        told = [trial.status(intervals=True) for trial in trials]
        models = [model] if model else [one.model for one in await self._registry.list_models()]
        for one in models:
            told += await past_rollouts(self._registry, one, known)
        return sorted(told, key=lambda status: status.started_unix_ms, reverse=True)

    def _check_freeze(self, policy: Policy) -> None:
        if window := active_freeze(policy.freeze, self._clock.now().unix_ns / 1e9):
            raise RolloutRefusedError(
                f"policy {policy.name!r} starts nothing in {window!r} (UTC); wait, or take another"
            )

    async def _check_exclusive_views(self, policy: Policy, version: registry_pb2.Version) -> None:
        """Refuse when another model rolls out over a view that the policy wants for itself."""
        for other in self._controller.rollouts() if policy.exclusive_views else ():
            if other.ended or other.spec.model == version.model:
                continue
            theirs = await self._registry.get_version(other.spec.model, other.spec.version)
            shared = views_read_by(version) & views_read_by(theirs)
            if "*" not in policy.exclusive_views:
                shared &= set(policy.exclusive_views)
            if shared:
                raise RolloutRefusedError(
                    f"rollout {other.spec.rollout_id} of {other.spec.model!r} is under way and "
                    f"reads {', '.join(sorted(shared))}, too; policy {policy.name!r} wants one at "
                    "a time"
                )

    async def abort(self, model: str, actor: str, reason: str) -> rollout_pb2.RolloutStatus:
        """Give all traffic back to the baseline; of a rollout nobody can go on with, too."""
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
        """Go one place on without waiting for the judge; *full*: straight to watched production."""
        why = f"promoted by {actor}: {_reason_or_default(reason)}"
        return await self._apply_verdict(model, Verdict.HEALTHY, why, full=full)

    async def pause(self, model: str, actor: str, reason: str, *, paused: bool) -> Rollout:
        """Stay where it is (faults still roll back), or go on."""
        trial = self._active_rollout(model)
        trial.paused = paused
        trial.judging_error = trial.judging_error if paused else ""
        trial.reason = (
            f"{'paused' if paused else 'resumed'} by {actor}: {_reason_or_default(reason)}"
        )
        await self._controller.record_command(trial)
        return trial

    async def retry(self, model: str, actor: str, reason: str) -> Rollout:
        """Roll the newest rollout's version out again, under the same policy and approval."""
        before = self._controller.rollout(model)
        if not before.ended or before.position.stage == Stage.DONE:
            raise RolloutRefusedError(
                f"the newest rollout of {model!r} stands at {before.position.stage.name}; only one "
                "that was rolled back or refused is tried again"
            )
        again = rollout_pb2.StartRolloutRequest(
            model=model,
            version=before.spec.version,
            policy=before.spec.policy.name,
            reason=f"{_reason_or_default(reason)} (again, after {before.spec.rollout_id})",
        )
        return await self.start(again, actor)

    async def set_weight(self, model: str, share: int, actor: str, reason: str) -> Rollout:
        """Go to the policy's canary step of *share* basis points, up or down."""
        trial = self._active_rollout(model)
        shares = [step.share_bp for step in trial.spec.policy.canary]
        if share not in shares:
            raise RolloutRefusedError(
                f"{share} basis points are not a share of policy {trial.spec.policy.name!r}, "
                f"which was approved with {', '.join(map(str, shares))}; another share needs "
                "another policy and its approval"
            )
        if trial.position.stage not in (Stage.SHADOW, Stage.CANARY):
            raise RolloutRefusedError(
                f"the rollout of {model!r} stands at {trial.position.stage.name}, where the "
                "candidate "
                "has no canary share to set"
            )
        to = StagePosition(Stage.CANARY, shares.index(share))
        if to == trial.position:
            raise RolloutRefusedError(f"the candidate has {share} basis points already")
        why = f"set to {share / 100:g} % by {actor}: {_reason_or_default(reason)}"
        return await self._move_to(trial, to, why)

    async def undo(
        self, model: str, to_version: str, actor: str, reason: str
    ) -> rollout_pb2.RolloutStatus:
        """Give all traffic back to *to*, a version that was production before; no approval.

        Loads it first where no gateway holds it any more. RolloutRefusedError while a rollout is
        under way, and when no gateway is ready within UNDO_TIMEOUT_S.
        """
        held = self._without_ended_rollout(await self._registry.deployment(model))
        if held.rollout_id:
            raise RolloutRefusedError(
                f"rollout {held.rollout_id} of {model!r} is under way; `turnout rollout abort "
                f"{model}` gives all traffic back to {held.standby or held.production}"
            )
        version = (await self._registry.get_version(model, to_version)).label
        if version == held.production:
            raise RolloutRefusedError(f"version {version} of {model!r} is production already")
        why = f"undo to {version} by {actor}: {_reason_or_default(reason)}"
        await self._controller.run_exclusively(model, self._undo(held, version, why))
        return rollout_pb2.RolloutStatus(
            model=model,
            version=version,
            baseline=held.production,
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

    def forecast(self, request: rollout_pb2.ForecastRequest) -> rollout_pb2.ForecastReply:
        """Say how long the policy's steps would take *asked.model* at today's traffic."""
        policy = self._policy(request.policy, request.model)
        calls_a_second = self._controller.traffic_rate.calls_a_second(request.model)
        return forecast_reply(policy, calls_a_second, request.failure_rate)

    def _policy(self, name: str, model: str) -> Policy:
        """Return the policy of that name; the model's own edition of it goes first."""
        policies = self._controller.policies
        policy = policies.get(f"{name}@{model}", policies.get(name))
        if policy is None:
            raise UnknownRolloutError(
                f"there is no policy {name!r}; there are {', '.join(sorted(policies))}"
            )
        return policy

    async def _apply_verdict(
        self, model: str, verdict: Verdict, why: str, *, full: bool = False
    ) -> Rollout:
        trial = self._active_rollout(model)
        to = next_position(trial.position, verdict, trial.spec.policy)
        if verdict == Verdict.FAULTY:
            to = StagePosition(Stage.ROLLED_BACK)
        elif full and trial.position.stage != Stage.WATCH:
            to = StagePosition(Stage.WATCH)
        trial.verdict = verdict
        return await self._move_to(trial, to, why)

    async def _move_to(self, rollout: Rollout, to: StagePosition, why: str) -> Rollout:
        before = rollout.position
        await self._controller.run_exclusively(
            rollout.spec.model, self._controller.move_to(rollout, to, why)
        )
        if rollout.position == before:
            raise RolloutRefusedError(f"nothing was changed: {rollout.reason}")
        return rollout

    def _without_ended_rollout(self, deployment: Deployment) -> Deployment:
        """Return *held* without the name of a rollout that ended: a person's split may keep it."""
        over = any(
            trial.ended and trial.spec.rollout_id == deployment.rollout_id
            for trial in self._controller.rollouts(deployment.model)
        )
        return replace(deployment, rollout_id="") if over else deployment

    def _active_rollout(self, model: str) -> Rollout:
        trial = self._controller.rollout(model)
        if trial.ended:
            raise RolloutRefusedError(
                f"the newest rollout of {model!r} has ended ({trial.position.stage.name}): "
                f"{trial.reason}"
            )
        return trial


def views_read_by(version: registry_pb2.Version) -> set[str]:
    """Return the views a version reads, as its card names its columns (`view:feature`)."""
    names = json.loads(version.card_json or "{}").get("names", [])
    return {str(name).split(":")[0] for name in names if ":" in str(name)}


def check_startable(deployment: Deployment, version: str) -> None:
    """Raise RolloutRefusedError unless *version* may begin a rollout from *held*."""
    if not deployment.production:
        raise RolloutRefusedError(
            f"model {deployment.model!r} has no production version yet, so there is nothing to "
            "compare "
            "with; deploy its first version by hand"
        )
    if deployment.rollout_id:
        raise RolloutRefusedError(
            f"rollout {deployment.rollout_id} of {deployment.model!r} is under way; wait for it "
            "or abort it"
        )
    if deployment.canary or deployment.standby:
        raise RolloutRefusedError(
            f"model {deployment.model!r} has a canary or standby set by hand "
            f"({deployment.why!r}); take it out "
            "first, the split belongs to one at a time"
        )
    if version in (deployment.production, *(one for one, _ in deployment.shadows)):
        raise RolloutRefusedError(
            f"version {version} of {deployment.model!r} is production or a shadow already; roll "
            "out "
            "another one"
        )


def find_approval(
    approvals: Sequence[registry_pb2.Approval],
    policy: Policy,
    version: registry_pb2.Version,
    approval_id: str,
) -> registry_pb2.Approval:
    """Return the approval to act under; RolloutRefusedError when there is none that stands."""
    of_policy = [one for one in approvals if one.policy_digest == policy.digest]
    named = [one for one in of_policy if approval_id in ("", one.id)]
    if not named or of_policy[-1].rejected or named[-1].rejected:
        why = "was rejected" if named else "has no approval"
        raise RolloutRefusedError(
            f"version {version.label} of {version.model!r} {why} under policy {policy.name!r} "
            f"({policy.digest[:12]}); somebody other than {version.author!r} must approve it: "
            f"turnout versions approve {version.model} {version.label} --policy {policy.name}"
        )
    return named[-1]


def _reason_or_default(reason: str) -> str:
    return reason or "no reason given"
