"""What must hold before a deployment is written: every gate, in the order they are asked. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from protos import registry_pb2 as pb
from registry.rules.lifecycle import VersionFacts
from registry.types import BadRequestError, Deployment, GateError, NotFoundError

FIRST_POLICY = "initial"
"""The policy name of the approval under which a model's first version becomes production."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A deployment somebody wants, and all that the gates look at."""

    current: Deployment
    proposed: Deployment
    versions: Mapping[str, VersionFacts]
    """Every version of the model, by label."""
    workers: Sequence[pb.GatewayState]
    """The live ones."""
    approval: pb.Approval | None
    """The one named by approval_id."""
    revoked: bool
    """A rejection of the same version and policy is newer than the approval."""
    policy_digest: str
    rollback: bool
    break_glass: bool


def check_gates(proposal: Proposal) -> None:
    """Raise GateError (do this first), NotFoundError or BadRequestError; return when all hold."""
    _check_named(proposal)
    _check_rollback(proposal)
    _check_staged(proposal)
    _check_standby(proposal)
    _check_one_shape(proposal)
    _check_ready(proposal)
    _check_approved(proposal)


def traffic_shares(deployment: Deployment) -> dict[str, int]:
    """Label -> basis points of traffic or copies it gets; production counts as all."""
    taking_part = dict(deployment.shadows)
    if deployment.canary:
        taking_part[deployment.canary] = deployment.canary_bp
    if deployment.standby:
        taking_part[deployment.standby] = deployment.standby_bp
    if deployment.production:
        taking_part[deployment.production] = 10_000
    return taking_part


def _check_named(proposal: Proposal) -> None:
    for label in proposal.proposed.versions:
        if label not in proposal.versions:
            known = ", ".join(sorted(proposal.versions, key=int)[-5:]) or "none"
            raise NotFoundError(
                f"model {proposal.proposed.model!r} has no version {label!r}; its newest: {known}"
            )
    if proposal.current.production and not proposal.proposed.production:
        raise BadRequestError(
            f"model {proposal.proposed.model!r} is answered by version "
            f"{proposal.current.production}; a deployment may replace it, not take it away"
        )


def _check_rollback(proposal: Proposal) -> None:
    if not proposal.rollback:
        return
    new = set(proposal.proposed.versions) - set(proposal.current.versions)
    strangers = [label for label in new if not proposal.versions[label].was_production]
    production = proposal.proposed.production
    if not production or not proposal.versions[production].was_production:
        raise GateError(
            f"version {production or 'none'} was never production; a rollback goes back to one "
            "that was. Deploy it under an approval instead"
        )
    if strangers or _canary_grows(proposal):
        raise GateError(
            f"a rollback brings nothing new, and this one brings "
            f"{strangers or ['a larger canary']}; deploy that under an approval, apart"
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
        back = version.was_production and (
            proposal.rollback
            or proposal.break_glass
            or (proposal.approval is not None and proposal.approval.version == label)
        )
        if version.status == pb.ARCHIVED and not back:
            raise GateError(
                f"version {label} is archived; only one that was production comes back, by a "
                "rollback or under its earlier approval"
            )


def _check_standby(proposal: Proposal) -> None:
    label = proposal.proposed.standby
    if label and not proposal.versions[label].was_production:
        raise GateError(
            f"version {label} was never production, so it cannot stand by for it; name it as a "
            "canary, shadow or preload"
        )


def _check_one_shape(proposal: Proposal) -> None:
    named = [proposal.versions[label] for label in traffic_shares(proposal.proposed)]
    for version in named[1:]:
        for what, ours, theirs in (
            ("input_contract", version.input_contract[:16], named[0].input_contract[:16]),
            ("entities", version.entities, named[0].entities),
            ("outputs", version.outputs, named[0].outputs),
        ):
            if ours != theirs:
                raise GateError(
                    f"version {version.label} has {what} {ours}, version {named[0].label} has "
                    f"{theirs}; versions that share a model's calls must agree on it"
                )


def _check_ready(proposal: Proposal) -> None:
    """A version is new to traffic when it had no role, or had a smaller canary or shadow share."""
    before = traffic_shares(proposal.current)
    for label, share in traffic_shares(proposal.proposed).items():
        grows = label == proposal.proposed.canary or label in dict(proposal.proposed.shadows)
        if label in before and not (grows and share > before[label]):
            continue
        digest = proposal.versions[label].digest
        held = [
            (worker, version)
            for worker in proposal.workers
            for version in worker.loads
            if version.digest == digest
        ]
        for worker, version in held:
            if version.state == pb.VersionLoad.REFUSED:
                raise GateError(
                    f"worker {worker.gateway}/{worker.slot} refuses version {label}: "
                    f"{version.reason or 'no reason given'}"
                )
        if not any(version.state == pb.VersionLoad.READY for _, version in held):
            raise GateError(
                f"none of {len(proposal.workers)} live gateway workers has version {label} ready; "
                "deploy it as preload= first and wait until they report it"
            )


def _check_approved(proposal: Proposal) -> None:
    current, proposed = proposal.current, proposal.proposed
    needing = []
    if proposed.production != current.production and not proposal.rollback:
        needing.append(proposed.production)
    if _canary_grows(proposal):
        needing.append(proposed.canary)
    if proposal.break_glass:
        return
    for label in needing:
        _check_approval(proposal, label, first=not current.production)


def _check_approval(proposal: Proposal, label: str, *, first: bool) -> None:
    approval, version = proposal.approval, proposal.versions[label]
    under = "policy 'initial'" if first else f"policy {proposal.policy_digest[:16] or 'none'!r}"
    if approval is None:
        raise GateError(
            f"version {label} has no approval under {under} in this deployment; let somebody other "
            f"than its author {version.author!r} approve it and name that in approval_id"
        )
    if approval.rejected or proposal.revoked:
        raise GateError(
            f"approval {approval.id} does not stand: version {label} was rejected under its policy "
            "since; only a new approval, or a new version, changes that"
        )
    if approval.version_digest != version.digest:
        raise GateError(
            f"approval {approval.id} is of version {approval.version}, not of version {label}"
        )
    if approval.policy_digest != proposal.policy_digest:
        raise GateError(
            f"approval {approval.id} is of version {label} under policy "
            f"{approval.policy_digest[:16]!r} ({approval.policy_name}); this deployment runs under "
            f"{proposal.policy_digest[:16]!r}"
        )
    if first != (approval.policy_name == FIRST_POLICY):
        raise GateError(
            f"approval {approval.id} is under policy {approval.policy_name!r}; a model's first "
            f"production version needs one under {FIRST_POLICY!r}, and every later one another"
        )
