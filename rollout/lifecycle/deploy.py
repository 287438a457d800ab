"""Translates a position of a rollout into a deployment, and back.

The registry's deployment is the truth. A controller reads its position from there.
"""

from collections.abc import Awaitable
from dataclasses import dataclass, replace
from typing import Protocol

from registry.types import Deployment, RevisionConflictError
from rollout.errors import SupersededError
from rollout.evidence.approved_shift import ApprovedShift
from rollout.policy.policy import Policy
from rollout.policy.stages import FINAL_STAGES, Stage, StagePosition, share_bp_at

CONFLICTS_MAX = 20
"""Lost compare-and-sets after which a rollback is left to the controller's next tick."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutSpec:
    """Everything that is fixed when a rollout starts."""

    rollout_id: str
    model: str
    version: str
    baseline: str
    """The production version when the rollout started."""
    policy: Policy
    approval_id: str
    split_salt: bytes
    """16 random bytes, so that each rollout has a sample of customers of its own."""
    shift: ApprovedShift | None = None
    """How scores were approved to differ from the baseline's; None: no difference was approved."""


class Deployer(Protocol):
    """The part of RegistryClient that moves traffic."""

    async def deployment(self, model: str) -> Deployment:
        """Return the model's newest deployment."""
        ...

    def deploy(
        self,
        deployment: Deployment,
        *,
        lease_token: int = 0,
        policy_digest: str = "",
        rollback: bool = False,
        finding: int = 0,
    ) -> Awaitable[Deployment]:
        """Write *deployment* if its revision is still the newest. Raises RevisionConflictError."""
        ...


def without_candidate(current: Deployment, version: str, baseline: str) -> Deployment:
    """Return *current* without the candidate *version*: all traffic to *baseline*, no rollout."""
    return replace(
        current,
        preload=tuple(preloaded for preloaded in current.preload if preloaded != version),
        shadows=tuple(shadow for shadow in current.shadows if shadow[0] != version),
        canary="",
        canary_bp=0,
        standby="",
        standby_bp=0,
        production=baseline,
        approval_id="",
        rollout_id="",
    )


def deployment_at(
    position: StagePosition, current: Deployment, spec: RolloutSpec, why: str
) -> Deployment:
    """Return *current* with the split and versions of *position*.

    The revision stays that of *current*, for compare-and-set. *why* becomes its reason.
    """
    # Every position is built on a deployment without the candidate.
    bare = replace(
        without_candidate(current, spec.version, spec.baseline),
        approval_id=spec.approval_id,
        rollout_id="" if position.stage in FINAL_STAGES else spec.rollout_id,
        split_salt=spec.split_salt,
        why=why,
    )
    # Add what the position means.
    match position.stage:
        case Stage.PRELOAD:
            return replace(bare, preload=(*bare.preload, spec.version))
        case Stage.SHADOW:
            assert spec.policy.shadow is not None
            sample = (spec.version, spec.policy.shadow.sample_bp)
            return replace(bare, shadows=(*bare.shadows, sample))
        case Stage.CANARY:
            return replace(bare, canary=spec.version, canary_bp=share_bp_at(position, spec.policy))
        case Stage.WATCH:
            return replace(
                bare,
                production=spec.version,
                standby=spec.baseline,
                standby_bp=spec.policy.standby_bp,
            )
        case Stage.DONE:
            return replace(bare, production=spec.version)
        case _:
            return replace(bare, approval_id="")


def position_of(current: Deployment, spec: RolloutSpec) -> StagePosition | None:
    """Return the position of the rollout that *current* shows; None if it shows none.

    So a controller that crashed between a deployment and its checkpoint goes on correctly, and a
    change by a person is noticed.
    """
    policy, version = spec.policy, spec.version
    if current.rollout_id != spec.rollout_id or current.canary not in ("", version):
        return None
    if current.production == version:
        watched = (current.standby, current.standby_bp) == (spec.baseline, policy.standby_bp)
        return StagePosition(Stage.WATCH) if watched else None
    if current.production != spec.baseline or current.standby:
        return None
    if current.canary:
        shares = [step.share_bp for step in policy.canary]
        known = current.canary_bp in shares
        return StagePosition(Stage.CANARY, shares.index(current.canary_bp)) if known else None
    if policy.shadow is not None and (version, policy.shadow.sample_bp) in current.shadows:
        return StagePosition(Stage.SHADOW)
    return StagePosition(Stage.PRELOAD) if version in current.preload else None


async def deploy_position(
    registry: Deployer,
    spec: RolloutSpec,
    *,
    expected: StagePosition,
    revision: int,
    target: StagePosition,
    why: str,
    lease_token: int,
) -> Deployment | None:
    """Write the deployment of *target* if the rollout still stands at *expected*.

    A step forward is written only over the *revision* that was judged. A step back is written over
    any revision at which the rollout still stands, because a change of another field must not keep
    a faulty version in traffic.

    Returns None if another revision was written meanwhile: the rollout must be judged anew. Raises
    SupersededError if the deployment is no longer the rollout's, and RegistryError.
    """
    back = target.stage in (Stage.ROLLED_BACK, Stage.REFUSED)
    for _ in range(CONFLICTS_MAX):
        # Read the deployment, and see whether it is still the rollout's.
        current = await registry.deployment(spec.model)
        if position_of(current, spec) != expected:
            raise SupersededError(
                f"revision {current.revision} of {spec.model!r}, by {current.who!r} "
                f"({current.why!r}), is not where this rollout stood; it ends and leaves it so"
            )
        if not back and current.revision != revision:
            return None
        # Write over exactly that revision. A step back is tried again if another write was faster.
        try:
            return await registry.deploy(
                deployment_at(target, current, spec, why),
                lease_token=lease_token,
                policy_digest=spec.policy.digest,
                rollback=back,
            )
        except RevisionConflictError:
            if not back:
                return None
    return None
