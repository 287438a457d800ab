"""The gates: conditions that must hold before a deployment is written. No I/O.

`check_gates` lists them in the order in which they are checked. The message of each error says
which condition is not met and what to do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from protos import registry_pb2 as pb
from registry.rules.lifecycle import VersionFacts
from registry.rules.settings import SettingsChange
from registry.types import (
    FIRST_POLICY,
    BadRequestError,
    Deployment,
    GateError,
    NotFoundError,
    same_person,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployCommand:
    """A Deploy request: the proposed deployment, the lease token, the policy and the flags."""

    deployment: Deployment
    lease_token: int
    policy_digest: str
    rollback: bool
    break_glass: bool
    finding: int = 0
    """The finding that asks for this rollback; 0: none does."""

    @property
    def action(self) -> str:
        """The action in the history. Breaking the glass is in capitals, so that readers see it."""
        if self.break_glass:
            return "deploy BREAK GLASS"
        if self.finding:
            return "deploy finding"
        return "deploy rollback" if self.rollback else "deploy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A proposed deployment, with everything that the gates look at."""

    actor: str
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
    settings_change: SettingsChange | None
    settings_approval: pb.SettingsApproval | None
    """Another person's approval of the proposed settings in place of the current ones."""
    overdue_review: str
    """The id of a review of this model that was not closed in time; empty if there is none."""
    policy_digest: str
    under_lease: bool
    """True if the proposal has the newest lease token: the controller makes it."""
    rollback: bool
    break_glass: bool


def check_gates(proposal: Proposal) -> None:
    """Return if every gate is met; else raise GateError, NotFoundError or BadRequestError."""
    _check_versions_exist(proposal)
    _check_not_rejected(proposal)
    _check_rollback(proposal)
    _check_staged(proposal)
    _check_standby(proposal)
    _check_same_contract(proposal)
    _check_ready(proposal)
    _check_approved(proposal)
    _check_settings(proposal)
    _check_glass(proposal)


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


def _check_not_rejected(proposal: Proposal) -> None:
    """Refuse a rejected version that the deployment does not have, or that would get more."""
    before, after = traffic_shares(proposal.current), traffic_shares(proposal.proposed)
    for label in proposal.proposed.versions:
        if not proposal.versions[label].rejected:
            continue
        # A rejected version may only be what production is, or what it leaves as its standby.
        kept = label in proposal.current.versions and after.get(label, 0) <= before.get(label, 0)
        if not kept and not (proposal.rollback and label == proposal.current.standby):
            raise GateError(
                f"version {label} was rejected under every policy, so it may run nowhere; deploy "
                "another version, or let another person than its author approve it anew"
            )


def rollback_targets(current: Deployment, versions: Mapping[str, VersionFacts]) -> list[str]:
    """Return the labels to which a rollback may go back, the newest first.

    These are the standby, and the older versions that were production under a standing approval.
    """
    older = [
        label
        for label, facts in versions.items()
        if facts.returnable and current.production and int(label) < int(current.production)
    ]
    standby = [current.standby] if current.standby else []
    return list(dict.fromkeys([*standby, *sorted(older, key=int, reverse=True)]))


def _check_rollback(proposal: Proposal) -> None:
    if not proposal.rollback:
        return
    current, proposed = proposal.current, proposal.proposed
    targets = rollback_targets(current, proposal.versions)
    # Production goes back, or stays.
    target = proposed.production
    if not target or target not in (current.production, *targets):
        raise GateError(
            f"version {target or 'none'} {_why_no_target(proposal, target)}; a rollback goes back "
            "to the standby, or to an older version that was production under an approval that "
            f"stands: {', '.join(targets[:5]) or 'there is none'}. Deploy another version under an "
            "approval"
        )
    # Nothing else is new.
    added = set(proposed.versions) - set(current.versions)
    new_versions = sorted(label for label in added if label not in targets)
    if new_versions or _canary_grows(proposal):
        raise GateError(
            f"a rollback brings nothing new, and this one brings "
            f"{new_versions or ['a larger canary']}; deploy that separately, under an approval. "
            f"Back go: {', '.join(targets[:5]) or 'none'}"
        )


def _why_no_target(proposal: Proposal, label: str) -> str:
    facts = proposal.versions.get(label)
    if facts is None or not facts.was_production:
        return "was never production"
    if facts.rejected:
        return "was rejected since it was production"
    if not facts.returnable:
        return "was production under no approval that stands: by breaking the glass, or rejected"
    return f"is newer than version {proposal.current.production}, which it would replace"


def _canary_grows(proposal: Proposal) -> bool:
    current, proposed = proposal.current, proposal.proposed
    before = current.canary_bp if current.canary == proposed.canary else -1
    return bool(proposed.canary) and proposed.canary_bp > before


def _check_staged(proposal: Proposal) -> None:
    for label in traffic_shares(proposal.proposed):
        version = proposal.versions[label]
        if version.status == pb.DEVELOPMENT:
            raise GateError(
                f"version {label} is in development; turnout splits preload "
                f"{proposal.proposed.model} {label} stages it and lets the gateways load it"
            )
        may_return = version.was_production and (
            (proposal.rollback and version.returnable)
            or proposal.break_glass
            or (proposal.approval is not None and proposal.approval.version == label)
        )
        if version.status == pb.ARCHIVED and not may_return:
            raise GateError(
                f"version {label} is archived; only a version that was production comes back, by a "
                "rollback or under its earlier approval"
            )


def _check_standby(proposal: Proposal) -> None:
    label, current = proposal.proposed.standby, proposal.current
    if label in ("", current.production, current.standby) or proposal.break_glass:
        return
    # A rollback needs no approval to return to the standby, so the standby must deserve it.
    if not proposal.versions[label].returnable:
        raise GateError(
            f"version {label} {_why_no_target(proposal, label)}, so it cannot be the standby; "
            "name it as a canary, shadow or preload"
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
                f"turnout splits preload {proposal.proposed.model} {label} loads it, and waits "
                "until they report it"
            )


def _check_approved(proposal: Proposal) -> None:
    """Require an approval of a new production version, a new or larger canary, and a rollout."""
    current, proposed = proposal.current, proposal.proposed
    if proposal.break_glass or proposal.rollback:
        return
    if proposed.production != current.production:
        _check_approval(proposal, proposed.production, first=not current.production)
        _check_direct(proposal, proposed.production)
    if _canary_grows(proposal):
        _check_approval(proposal, proposed.canary, first=not current.production)
    # A rollout begins with a preload, and must not begin under an approval that has ended.
    if proposed.approval_id not in ("", current.approval_id):
        _check_stands(proposal, proposal.approval)


def _check_direct(proposal: Proposal, label: str) -> None:
    """Require the end of a rollout's steps, or an approval that covers production at once."""
    current, approval = proposal.current, proposal.approval
    promoted = proposal.under_lease and bool(current.rollout_id) and current.canary == label
    if approval is None or promoted or approval.policy_name == FIRST_POLICY:
        return
    if not approval.direct:
        raise GateError(
            f"approval {approval.id} lets version {label} take the steps of rollout policy "
            f"{approval.policy_name!r}, and this makes it production at once; start a rollout, or "
            f"let another person than its author approve that: turnout versions approve "
            f"{proposal.proposed.model} {label} --policy {approval.policy_name} --direct"
        )


def _check_stands(proposal: Proposal, approval: pb.Approval | None) -> None:
    if approval is None:
        raise GateError(
            f"there is no approval {proposal.proposed.approval_id[:32]!r}; give the id of an "
            "approval that stands, or leave it out"
        )
    if approval.rejected or proposal.revoked:
        raise GateError(
            f"approval {approval.id} is no longer valid: version {approval.version} was rejected "
            "under its policy since; a new approval or a new version is needed"
        )


def _check_approval(proposal: Proposal, label: str, *, first: bool) -> None:
    approval, version = proposal.approval, proposal.versions[label]
    policy = "policy 'initial'" if first else f"policy {proposal.policy_digest[:16] or 'none'!r}"
    # There must be an approval that was not revoked.
    if approval is None:
        raise GateError(
            f"version {label} has no approval under {policy} in this deployment; let another "
            f"person than its author {version.author!r} approve it and give approval_id"
        )
    _check_stands(proposal, approval)
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


def _check_settings(proposal: Proposal) -> None:
    """Require another person's approval of changed settings, once the model has production."""
    if not proposal.break_glass:
        check_settings_approved(
            proposal.current, proposal.settings_change, proposal.settings_approval, proposal.actor
        )


def check_settings_approved(
    current: Deployment,
    change: SettingsChange | None,
    approval: pb.SettingsApproval | None,
    actor: str,
) -> None:
    """Raise GateError unless *actor* may make this change of a model's settings."""
    if change is None or not current.production:
        return
    if approval is None or same_person(approval.approver, actor):
        raise GateError(
            f"this changes the settings of model {current.model!r} ({change.text}), which another "
            f"person than {actor!r} must approve: turnout splits approve "
            f"{current.model} {change.options}. Then do this again"
        )


def _check_glass(proposal: Proposal) -> None:
    """Refuse to break the glass for one's own version, and while a review is overdue."""
    if not proposal.break_glass:
        return
    for label in grown_versions(proposal.current, proposal.proposed):
        if same_person(proposal.versions[label].author, proposal.actor):
            raise GateError(
                f"version {label} is by {proposal.versions[label].author!r}, who may not break the "
                "glass for it; let another operator do it"
            )
    if proposal.overdue_review:
        raise GateError(
            f"review {proposal.overdue_review} of an earlier broken glass of model "
            f"{proposal.current.model!r} is overdue; another person closes it first: turnout audit "
            f"close {proposal.overdue_review} --reason ..."
        )


def grown_versions(current: Deployment, proposed: Deployment) -> list[str]:
    """Return the labels that get more calls or copies in *proposed* than they have."""
    before = traffic_shares(current)
    return [
        label
        for label, share in traffic_shares(proposed).items()
        if label not in before or share > before[label]
    ]
