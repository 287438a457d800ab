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
from rollout.controller.past_rollouts import bygone
from rollout.controller.recovery import end_unread
from rollout.controller.undo import undo
from rollout.errors import NotLeadingError, RolloutRefusedError, UnknownRolloutError
from rollout.evidence.approved_shift import approved_shift
from rollout.judge.forecast import reply
from rollout.lifecycle.clock import Clock
from rollout.lifecycle.deploy import Terms
from rollout.lifecycle.rollout import Trial
from rollout.policy.freeze import frozen
from rollout.policy.policy import Policy
from rollout.policy.stages import Place, Stage, Verdict, next_place

SALT_BYTES = 16


class Steering:
    """The verbs of turnout.v1.Rollouts. *actor*: who asks; stands in every reason."""

    def __init__(self, controller: Controller, registry: RegistryClient, clock: Clock) -> None:
        self._controller = controller
        self._registry = registry
        self._clock = clock

    async def start(self, asked: rollout_pb2.StartRolloutRequest, actor: str) -> Trial:
        """Begin a rollout with its preload; RolloutRefusedError says what must happen first."""
        if not self._controller.leading:
            raise NotLeadingError("this controller does not act now; ask again in a second")
        policy = self._policy(asked.policy, asked.model)
        version = await self._registry.get_version(asked.model, asked.version)
        held = self._freed(await self._registry.deployment(asked.model))
        check_free(held, version.label)
        self._check_frozen(policy)
        await self._check_alone(policy, version)
        approvals = await self._registry.approvals(asked.model, version.label)
        approval = find_approval(approvals, policy, version, asked.approval_id)
        baseline = await self._registry.get_version(held.model, held.production)
        trial = Trial(
            terms=Terms(
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
        why = f"started by {actor}: {asked.reason or 'no reason given'}"
        try:
            await self._controller.alone(held.model, self._controller.begin(trial, held, why))
        except RevisionConflictError as error:
            raise RolloutRefusedError(
                f"the deployment of {held.model!r} changed while the rollout began; look at it and "
                "start again"
            ) from error
        return trial

    async def who_is(self, credentials: Sequence[tuple[str, str]]) -> registry_pb2.Caller:
        """Return whom the registry knows by these credentials; UnknownActorError."""
        return await self._registry.who_is(credentials)

    async def rollouts(self, model: str) -> list[rollout_pb2.RolloutStatus]:
        """Return every rollout of *model*, or of all models, newest first."""
        trials = self._controller.trials(model)
        known = {trial.terms.rollout_id for trial in trials}
        told = [trial.status(intervals=True) for trial in trials]
        models = [model] if model else [one.model for one in await self._registry.list_models()]
        for one in models:
            told += await bygone(self._registry, one, known)
        return sorted(told, key=lambda status: status.started_unix_ms, reverse=True)

    def _check_frozen(self, policy: Policy) -> None:
        if window := frozen(policy.freeze, self._clock.now().unix_ns / 1e9):
            raise RolloutRefusedError(
                f"policy {policy.name!r} starts nothing in {window!r} (UTC); wait, or take another"
            )

    async def _check_alone(self, policy: Policy, version: registry_pb2.Version) -> None:
        """Refuse when another model rolls out over a view that the policy wants for itself."""
        for other in self._controller.trials() if policy.alone_on else ():
            if other.ended or other.terms.model == version.model:
                continue
            theirs = await self._registry.get_version(other.terms.model, other.terms.version)
            shared = views_of(version) & views_of(theirs)
            if "*" not in policy.alone_on:
                shared &= set(policy.alone_on)
            if shared:
                raise RolloutRefusedError(
                    f"rollout {other.terms.rollout_id} of {other.terms.model!r} is under way and "
                    f"reads {', '.join(sorted(shared))}, too; policy {policy.name!r} wants one at "
                    "a time"
                )

    async def abort(self, model: str, actor: str, reason: str) -> rollout_pb2.RolloutStatus:
        """Give all traffic back to the baseline; of a rollout nobody can go on with, too."""
        why = f"aborted by {actor}: {_said(reason)}"
        if model in self._controller.unread:
            return await self._end_unread(model, why)
        return (await self._step(model, Verdict.FAULTY, why)).status(intervals=True)

    async def _end_unread(self, model: str, why: str) -> rollout_pb2.RolloutStatus:
        ended = rollout_pb2.RolloutStatus()

        async def end() -> None:
            token = self._controller.lease_token
            written, status = await end_unread(self._registry, model, why, token)
            ended.CopyFrom(status)
            self._controller.unread.pop(model, None)
            self._controller.see_deployment(written)

        await self._controller.alone(model, end())
        return ended

    async def promote(self, model: str, actor: str, reason: str, *, full: bool) -> Trial:
        """Go one place on without waiting for the judge; *full*: straight to watched production."""
        why = f"promoted by {actor}: {_said(reason)}"
        return await self._step(model, Verdict.HEALTHY, why, full=full)

    async def pause(self, model: str, actor: str, reason: str, *, paused: bool) -> Trial:
        """Stay where it is (faults still roll back), or go on."""
        trial = self._under_way(model)
        trial.paused = paused
        trial.broken = trial.broken if paused else ""
        trial.reason = f"{'paused' if paused else 'resumed'} by {actor}: {_said(reason)}"
        await self._controller.steered(trial)
        return trial

    async def retry(self, model: str, actor: str, reason: str) -> Trial:
        """Roll the newest rollout's version out again, under the same policy and approval."""
        before = self._controller.trial(model)
        if not before.ended or before.place.stage == Stage.DONE:
            raise RolloutRefusedError(
                f"the newest rollout of {model!r} stands at {before.place.stage.name}; only one "
                "that was rolled back or refused is tried again"
            )
        again = rollout_pb2.StartRolloutRequest(
            model=model,
            version=before.terms.version,
            policy=before.terms.policy.name,
            reason=f"{_said(reason)} (again, after {before.terms.rollout_id})",
        )
        return await self.start(again, actor)

    async def set_weight(self, model: str, share: int, actor: str, reason: str) -> Trial:
        """Go to the policy's canary step of *share* basis points, up or down."""
        trial = self._under_way(model)
        shares = [step.share_bp for step in trial.terms.policy.canary]
        if share not in shares:
            raise RolloutRefusedError(
                f"{share} basis points are not a share of policy {trial.terms.policy.name!r}, "
                f"which was approved with {', '.join(map(str, shares))}; another share needs "
                "another policy and its approval"
            )
        if trial.place.stage not in (Stage.SHADOW, Stage.CANARY):
            raise RolloutRefusedError(
                f"the rollout of {model!r} stands at {trial.place.stage.name}, where the candidate "
                "has no canary share to set"
            )
        to = Place(Stage.CANARY, shares.index(share))
        if to == trial.place:
            raise RolloutRefusedError(f"the candidate has {share} basis points already")
        why = f"set to {share / 100:g} % by {actor}: {_said(reason)}"
        return await self._go(trial, to, why)

    async def undo(self, model: str, to: str, actor: str, reason: str) -> rollout_pb2.RolloutStatus:
        """Give all traffic back to *to*, a version that was production before; no approval.

        Loads it first where no gateway holds it any more. RolloutRefusedError while a rollout is
        under way, and when no gateway is ready within UNDO_S.
        """
        held = self._freed(await self._registry.deployment(model))
        if held.rollout_id:
            raise RolloutRefusedError(
                f"rollout {held.rollout_id} of {model!r} is under way; `turnout rollout abort "
                f"{model}` gives all traffic back to {held.standby or held.production}"
            )
        version = (await self._registry.get_version(model, to)).label
        if version == held.production:
            raise RolloutRefusedError(f"version {version} of {model!r} is production already")
        why = f"undo to {version} by {actor}: {_said(reason)}"
        await self._controller.alone(model, self._undo(held, version, why))
        return rollout_pb2.RolloutStatus(
            model=model,
            version=version,
            baseline=held.production,
            stage=rollout_pb2.DONE,
            share_bp=10_000,
            reason=why,
        )

    async def _undo(self, held: Deployment, version: str, why: str) -> None:
        fleet, clock = self._controller.fleet, self._clock
        written = await undo(
            self._registry,
            held,
            version,
            why,
            view=lambda: fleet.view(held.model, version, math.inf, clock.now().monotonic_ns),
            lease_token=self._controller.lease_token,
        )
        self._controller.see_deployment(written)

    def foretell(self, asked: rollout_pb2.ForetellRequest) -> rollout_pb2.ForetellReply:
        """Say how long the policy's steps would take *asked.model* at today's traffic."""
        policy = self._policy(asked.policy, asked.model)
        calls_a_second = self._controller.meter.calls_a_second(asked.model)
        return reply(policy, calls_a_second, asked.failure_rate)

    def _policy(self, name: str, model: str) -> Policy:
        """Return the policy of that name; the model's own edition of it goes first."""
        policies = self._controller.policies
        policy = policies.get(f"{name}@{model}", policies.get(name))
        if policy is None:
            raise UnknownRolloutError(
                f"there is no policy {name!r}; there are {', '.join(sorted(policies))}"
            )
        return policy

    async def _step(self, model: str, verdict: Verdict, why: str, *, full: bool = False) -> Trial:
        trial = self._under_way(model)
        to = next_place(trial.place, verdict, trial.terms.policy)
        if verdict == Verdict.FAULTY:
            to = Place(Stage.ROLLED_BACK)
        elif full and trial.place.stage != Stage.WATCH:
            to = Place(Stage.WATCH)
        trial.verdict = verdict
        return await self._go(trial, to, why)

    async def _go(self, trial: Trial, to: Place, why: str) -> Trial:
        before = trial.place
        await self._controller.alone(trial.terms.model, self._controller.go(trial, to, why))
        if trial.place == before:
            raise RolloutRefusedError(f"nothing was changed: {trial.reason}")
        return trial

    def _freed(self, held: Deployment) -> Deployment:
        """Return *held* without the name of a rollout that ended: a person's split may keep it."""
        over = any(
            trial.ended and trial.terms.rollout_id == held.rollout_id
            for trial in self._controller.trials(held.model)
        )
        return replace(held, rollout_id="") if over else held

    def _under_way(self, model: str) -> Trial:
        trial = self._controller.trial(model)
        if trial.ended:
            raise RolloutRefusedError(
                f"the newest rollout of {model!r} has ended ({trial.place.stage.name}): "
                f"{trial.reason}"
            )
        return trial


def views_of(version: registry_pb2.Version) -> set[str]:
    """Return the views a version reads, as its card names its columns (`view:feature`)."""
    names = json.loads(version.card_json or "{}").get("names", [])
    return {str(name).split(":")[0] for name in names if ":" in str(name)}


def check_free(held: Deployment, version: str) -> None:
    """Raise RolloutRefusedError unless *version* may begin a rollout from *held*."""
    if not held.production:
        raise RolloutRefusedError(
            f"model {held.model!r} has no production version yet, so there is nothing to compare "
            "with; deploy its first version by hand"
        )
    if held.rollout_id:
        raise RolloutRefusedError(
            f"rollout {held.rollout_id} of {held.model!r} is under way; wait for it or abort it"
        )
    if held.canary or held.standby:
        raise RolloutRefusedError(
            f"model {held.model!r} has a canary or standby set by hand ({held.why!r}); take it out "
            "first, the split belongs to one at a time"
        )
    if version in (held.production, *(one for one, _ in held.shadows)):
        raise RolloutRefusedError(
            f"version {version} of {held.model!r} is production or a shadow already; roll out "
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


def _said(reason: str) -> str:
    return reason or "no reason given"
