"""From a place in the plan to a deployment, and back: the registry holds the truth."""

from collections.abc import Awaitable
from dataclasses import dataclass, replace
from typing import Protocol

from registry.types import Deployment, RevisionConflictError
from rollout.errors import SupersededError
from rollout.evidence.approved_shift import Shift
from rollout.policy.policy import Policy
from rollout.policy.stages import ENDS, Place, Stage, share_bp

RACES_MAX = 20
"""Lost compare-and-sets after which a rollback gives the next tick a chance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What is fixed when a rollout starts."""

    rollout_id: str
    model: str
    version: str
    baseline: str
    """Production when it started."""
    policy: Policy
    approval_id: str
    split_salt: bytes
    """16 random bytes: each rollout draws its own sample of the customers."""
    shift: Shift | None = None
    """How scores were approved to differ from the baseline's; None: not at all."""


class Deployer(Protocol):
    """The part of RegistryClient that moves traffic."""

    async def deployment(self, model: str) -> Deployment:
        """Return the newest."""
        ...

    def deploy(
        self,
        deployment: Deployment,
        *,
        lease_token: int = 0,
        policy_digest: str = "",
        rollback: bool = False,
    ) -> Awaitable[Deployment]:
        """Compare-and-set on revision; RevisionConflictError for the loser."""
        ...


def given_back(held: Deployment, version: str, baseline: str) -> Deployment:
    """Return *held* without the candidate *version*, all traffic to *baseline*, no rollout."""
    return replace(
        held,
        preload=tuple(one for one in held.preload if one != version),
        shadows=tuple(one for one in held.shadows if one[0] != version),
        canary="",
        canary_bp=0,
        standby="",
        standby_bp=0,
        production=baseline,
        approval_id="",
        rollout_id="",
    )


def deployment_at(place: Place, held: Deployment, terms: Terms, why: str) -> Deployment:
    """Return *held* changed to what *place* means; revision stays that of *held*."""
    bare = replace(
        given_back(held, terms.version, terms.baseline),
        approval_id=terms.approval_id,
        rollout_id="" if place.stage in ENDS else terms.rollout_id,
        split_salt=terms.split_salt,
        why=why,
    )
    match place.stage:
        case Stage.PRELOAD:
            return replace(bare, preload=(*bare.preload, terms.version))
        case Stage.SHADOW:
            assert terms.policy.shadow is not None
            sample = (terms.version, terms.policy.shadow.sample_bp)
            return replace(bare, shadows=(*bare.shadows, sample))
        case Stage.CANARY:
            return replace(bare, canary=terms.version, canary_bp=share_bp(place, terms.policy))
        case Stage.WATCH:
            return replace(
                bare,
                production=terms.version,
                standby=terms.baseline,
                standby_bp=terms.policy.standby_bp,
            )
        case Stage.DONE:
            return replace(bare, production=terms.version)
        case _:
            return replace(bare, approval_id="")


def place_of(held: Deployment, terms: Terms) -> Place | None:
    """Return which place of the rollout *held* is; None when it is none of them.

    Reads the place back from what is deployed, so that a controller that died between deploying
    and remembering goes on rightly, and a change by hand is noticed.
    """
    policy, version = terms.policy, terms.version
    if held.rollout_id != terms.rollout_id or held.canary not in ("", version):
        return None
    if held.production == version:
        watched = (held.standby, held.standby_bp) == (terms.baseline, policy.standby_bp)
        return Place(Stage.WATCH) if watched else None
    if held.production != terms.baseline or held.standby:
        return None
    if held.canary:
        shares = [step.share_bp for step in policy.canary]
        known = held.canary_bp in shares
        return Place(Stage.CANARY, shares.index(held.canary_bp)) if known else None
    if policy.shadow is not None and (version, policy.shadow.sample_bp) in held.shadows:
        return Place(Stage.SHADOW)
    return Place(Stage.PRELOAD) if version in held.preload else None


async def move(
    registry: Deployer,
    terms: Terms,
    *,
    at: Place,
    revision: int,
    to: Place,
    why: str,
    lease_token: int,
) -> Deployment | None:
    """Write what *to* means if the rollout still stands at *at*; None: judge anew.

    Growth is only written over the very *revision* that was judged. A step back is written over
    any revision at which the rollout still stands, as often as it takes: someone else's change of
    another field must not keep a faulty version in traffic.
    Raises SupersededError when the deployment is no longer the rollout's.
    """
    back = to.stage in (Stage.ROLLED_BACK, Stage.REFUSED)
    for _ in range(RACES_MAX):
        held = await registry.deployment(terms.model)
        if place_of(held, terms) != at:
            raise SupersededError(
                f"revision {held.revision} of {terms.model!r}, by {held.who!r} "
                f"({held.why!r}), is not where this rollout stood; it ends and leaves it so"
            )
        if not back and held.revision != revision:
            return None
        try:
            return await registry.deploy(
                deployment_at(to, held, terms, why),
                lease_token=lease_token,
                policy_digest=terms.policy.digest,
                rollback=back,
            )
        except RevisionConflictError:
            if not back:
                return None
    return None
