"""The gates: conditions that must hold before a deployment is written. No I/O.

`check_gates` lists them in the order in which they are checked. The message of each error says
which condition is not met and what to do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from protos import registry_pb2 as pb
from registry.rules.lifecycle import VersionFacts
from registry.types import BadRequestError, Deployment, GateError, NotFoundError

FIRST_POLICY = "initial"
"""Policy name of the approval with which a model's first version becomes production."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A proposed deployment, with everything that the gates look at."""

    current: Deployment
    proposed: Deployment
    versions: Mapping[str, VersionFacts]
    """Every version of the model, by label."""
    workers: Sequence[pb.GatewayState]
    """The states of the live gateway workers."""
    approval: pb.Approval | None
    """The approval that the deployment's approval_id names."""
    revoked: bool
    """True if the version was rejected under the same policy after the approval."""
    policy_digest: str
    rollback: bool
    break_glass: bool


def check_gates(proposal: Proposal) -> None:
    """Return if every gate is met; else raise GateError, NotFoundError or BadRequestError."""
    _check_versions_exist(proposal)
    _check_rollback(proposal)
    _check_staged(proposal)
    _check_standby(proposal)
    _check_same_contract(proposal)
    _check_ready(proposal)
    _check_approved(proposal)


def traffic_shares(deployment: Deployment) -> dict[str, int]:
    """Return label -> basis points of calls or shadow copies. Production has all 10,000."""
    shares = dict(deployment.shadows)
    if deployment.canary:
        shares[deployment.canary] = deployment.canary_bp
    if deployment.standby:
        shares[deployment.standby] = deployment.standby_bp
    if deployment.production:
        shares[deployment.production] = 10_000
    return shares


def _check_versions_exist(proposal: Proposal) -> None:
    for label in proposal.proposed.versions:
        if label not in proposal.versions:
            known = ", ".join(sorted(proposal.versions, key=int)[-5:]) or "none"
            raise NotFoundError(
                f"model {proposal.proposed.model!r} has no version {label!r}; its newest: {known}"
            )
    if proposal.current.production and not proposal.proposed.production:
        raise BadRequestError(
            f"version {proposal.current.production} of model {proposal.proposed.model!r} is in "
            "production; a deployment may replace it, not take it away"
        )


def _check_rollback(proposal: Proposal) -> None:
    if not proposal.rollback:
        return
    # A rollback may only bring back versions that were production.
    added = set(proposal.proposed.versions) - set(proposal.current.versions)
    new_versions = [label for label in added if not proposal.versions[label].was_production]
    production = proposal.proposed.production
    if not production or not proposal.versions[production].was_production:
        raise GateError(
            f"version {production or 'none'} was never production; a rollback goes back to a "
            "version that was. Deploy it under an approval instead"
        )
    if new_versions or _canary_grows(proposal):
        raise GateError(
            f"a rollback brings nothing new, and this one brings "
            f"{new_versions or ['a larger canary']}; deploy that separately, under an approval"
        )


def _canary_grows(proposal: Proposal) -> bool:
    current, proposed = proposal.current, proposal.proposed
    before = current.canary_bp if current.canary == proposed.canary else -1
    return bool(proposed.canary) and proposed.canary_bp > before


def _check_staged(proposal: Proposal) -> None:
    for label in traffic_shares(proposal.proposed):
        version = proposal.versions[label]
        if version.status == pb.DEVELOPMENT:
            raise GateError(
                f"version {label} is in development; deploy it as preload= first, which stages it "
                "and lets the gateways load it"
            )
        may_return = version.was_production and (
            proposal.rollback
            or proposal.break_glass
            or (proposal.approval is not None and proposal.approval.version == label)
        )
        if version.status == pb.ARCHIVED and not may_return:
            raise GateError(
                f"version {label} is archived; only a version that was production comes back, by a "
                "rollback or under its earlier approval"
            )


def _check_standby(proposal: Proposal) -> None:
    label = proposal.proposed.standby
    if label and not proposal.versions[label].was_production:
        raise GateError(
            f"version {label} was never production, so it cannot be the standby; name it as a "
            "canary, shadow or preload"
        )


def _check_same_contract(proposal: Proposal) -> None:
    """Refuse versions that need different calls, because one call must suit every version."""
    versions = [proposal.versions[label] for label in traffic_shares(proposal.proposed)]
    for version in versions[1:]:
        first = versions[0]
        for field, value, first_value in (
            ("input_contract", version.input_contract[:16], first.input_contract[:16]),
            ("entities", version.entities, first.entities),
            ("outputs", version.outputs, first.outputs),
        ):
            if value != first_value:
                raise GateError(
                    f"version {version.label} has {field} {value}, version {first.label} has "
                    f"{first_value}; versions that share a model's calls must agree on it"
                )


def _check_ready(proposal: Proposal) -> None:
    """Require that a worker has loaded each version that gets traffic or more traffic."""
    before = traffic_shares(proposal.current)
    for label, share in traffic_shares(proposal.proposed).items():
        # A version that had a role before and becomes production or standby is loaded already.
        may_grow = label == proposal.proposed.canary or label in dict(proposal.proposed.shadows)
        if label in before and not (may_grow and share > before[label]):
            continue
        digest = proposal.versions[label].digest
        loads = [
            (worker, load)
            for worker in proposal.workers
            for load in worker.loads
            if load.digest == digest
        ]
        # One worker that refuses the version is enough to stop it.
        for worker, load in loads:
            if load.state == pb.VersionLoad.REFUSED:
                raise GateError(
                    f"worker {worker.gateway}/{worker.slot} refuses version {label}: "
                    f"{load.reason or 'no reason given'}"
                )
        if not any(load.state == pb.VersionLoad.READY for _, load in loads):
            raise GateError(
                f"none of {len(proposal.workers)} live gateway workers has version {label} ready; "
                "deploy it as preload= first and wait until they report it"
            )


def _check_approved(proposal: Proposal) -> None:
    current, proposed = proposal.current, proposal.proposed
    unapproved = []
    if proposed.production != current.production and not proposal.rollback:
        unapproved.append(proposed.production)
    if _canary_grows(proposal):
        unapproved.append(proposed.canary)
    if proposal.break_glass:
        return
    for label in unapproved:
        _check_approval(proposal, label, first=not current.production)


def _check_approval(proposal: Proposal, label: str, *, first: bool) -> None:
    approval, version = proposal.approval, proposal.versions[label]
    policy = "policy 'initial'" if first else f"policy {proposal.policy_digest[:16] or 'none'!r}"
    # There must be an approval that was not revoked.
    if approval is None:
        raise GateError(
            f"version {label} has no approval under {policy} in this deployment; let another "
            f"person than its author {version.author!r} approve it and give approval_id"
        )
    if approval.rejected or proposal.revoked:
        raise GateError(
            f"approval {approval.id} is no longer valid: version {label} was rejected under its "
            "policy since; a new approval or a new version is needed"
        )
    # The approval must be for this version and this policy.
    if approval.version_digest != version.digest:
        raise GateError(
            f"approval {approval.id} is for version {approval.version}, not for version {label}"
        )
    if approval.policy_digest != proposal.policy_digest:
        raise GateError(
            f"approval {approval.id} is for version {label} under policy "
            f"{approval.policy_digest[:16]!r} ({approval.policy_name}); this deployment runs under "
            f"{proposal.policy_digest[:16]!r}"
        )
    if first != (approval.policy_name == FIRST_POLICY):
        raise GateError(
            f"approval {approval.id} is under policy {approval.policy_name!r}; a model's first "
            f"production version needs one under {FIRST_POLICY!r}, and every later version one "
            "under another policy"
        )
