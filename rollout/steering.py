"""What people tell the controller: start, abort, promote, pause, resume. Each refuses in words."""

import secrets
from collections.abc import Sequence

from protos import registry_pb2, rollout_pb2
from registry.client import RegistryClient
from registry.types import Deployment, RevisionConflictError
from rollout.apply import Terms
from rollout.clock import Clock
from rollout.controller import Controller
from rollout.errors import NotLeadingError, RolloutRefusedError, UnknownRolloutError
from rollout.plan import Place, Stage, Verdict, next_place
from rollout.policy import Policy
from rollout.shift import approved_shift
from rollout.trial import Trial

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
        policy = self._controller.policies.get(asked.policy)
        if policy is None:
            raise UnknownRolloutError(
                f"there is no policy {asked.policy!r}; there are "
                f"{', '.join(sorted(self._controller.policies))}"
            )
        version = await self._registry.get_version(asked.model, asked.version)
        held = await self._registry.deployment(asked.model)
        check_free(held, version.label)
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

    async def abort(self, model: str, actor: str, reason: str) -> Trial:
        """Give all traffic back to the baseline."""
        return await self._step(model, Verdict.FAULTY, f"aborted by {actor}: {_said(reason)}")

    async def promote(self, model: str, actor: str, reason: str, *, full: bool) -> Trial:
        """Go one place on without waiting for the judge; *full*: straight to watched production."""
        why = f"promoted by {actor}: {_said(reason)}"
        return await self._step(model, Verdict.HEALTHY, why, full=full)

    async def pause(self, model: str, actor: str, reason: str, *, paused: bool) -> Trial:
        """Stay where it is (faults still roll back), or go on."""
        trial = self._under_way(model)
        trial.paused = paused
        trial.reason = f"{'paused' if paused else 'resumed'} by {actor}: {_said(reason)}"
        await self._controller.steered(trial)
        return trial

    async def _step(self, model: str, verdict: Verdict, why: str, *, full: bool = False) -> Trial:
        trial = self._under_way(model)
        to = next_place(trial.place, verdict, trial.terms.policy)
        if verdict == Verdict.FAULTY:
            to = Place(Stage.ROLLED_BACK)
        elif full and trial.place.stage != Stage.WATCH:
            to = Place(Stage.WATCH)
        trial.verdict = verdict
        before = trial.place
        await self._controller.alone(model, self._controller.go(trial, to, why))
        if trial.place == before:
            raise RolloutRefusedError(f"nothing was changed: {trial.reason}")
        return trial

    def _under_way(self, model: str) -> Trial:
        trial = self._controller.trial(model)
        if trial.ended:
            raise RolloutRefusedError(
                f"the newest rollout of {model!r} has ended ({trial.place.stage.name}): "
                f"{trial.reason}"
            )
        return trial


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
