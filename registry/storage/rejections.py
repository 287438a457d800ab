"""A rejection in the database: it ends approvals, and stops what runs under them.

Both are one transaction, so a rejected version never goes on because a second step was lost.
"""

from dataclasses import dataclass, replace

from protos import registry_pb2 as pb
from registry.rules.gates import rollback_targets
from registry.rules.lifecycle import VersionFacts
from registry.storage import approvals, controllers, deployments, versions
from registry.storage.ledger import LedgerChange
from registry.types import Deployment, rejects_every_policy

REJECTED = "rejected"
"""The kind of the finding about a rejected version that is still production."""


@dataclass(frozen=True, slots=True)
class WrittenRejection:
    """A rejection, and what it changed besides."""

    rejection: pb.Approval
    deployment: Deployment | None
    """The deployment without the version; None if nothing ran."""
    finding: pb.Finding | None
    """Says that the version is still production, because nothing can replace it."""


def write_rejection(change: LedgerChange, request: pb.ApproveRequest) -> WrittenRejection:
    """Write a rejection, and take the version out of the deployment if it runs there.

    Raises NotFoundError, BadRequestError.
    """
    rejection = approvals.new_rejection(change, request)
    current = deployments.current_deployment(change.connection, request.model)
    facts = deployments.facts_of_model(change.connection, request.model)
    stopped = current
    if _runs_under_ended_approval(change, rejection, current):
        approval = approvals.read_approval(change.connection, current.approval_id)
        own = approval is not None and approval.version_digest == rejection.version_digest
        stopped = _without_version(current, facts, rejection.version, own_rollout=own)
    # The rejection comes first in the history, and names the revision that follows.
    if stopped != current:
        rejection.stopped_revision = current.revision + 1
    approvals.insert_approval(change, rejection)
    deployment = None
    if stopped != current:
        why = f"version {rejection.version} was rejected by {change.actor}: {rejection.reason}"
        deployment = deployments.set_deployment(
            change,
            current,
            replace(stopped, why=why[: deployments.REASON_MAX]),
            facts,
            action="deploy rejection",
            details={"rejection": rejection.id},
        )
    return WrittenRejection(rejection, deployment, _finding(change, rejection, stopped, facts))


def _runs_under_ended_approval(
    change: LedgerChange, rejection: pb.Approval, current: Deployment
) -> bool:
    """Whether what the version does in the deployment has no approval any more."""
    if rejection.version not in current.versions:
        return False
    if rejects_every_policy(rejection):
        return True
    # Production and standby run under the approval that made them production.
    if rejection.version in (current.production, current.standby):
        row = versions.get_row(change.connection, rejection.model, rejection.version)
        return row.production_approval in rejection.ended
    return current.approval_id in rejection.ended


def _without_version(
    current: Deployment, facts: dict[str, VersionFacts], label: str, *, own_rollout: bool
) -> Deployment:
    """Return *current* without a version. Production stays if nothing may replace it.

    own_rollout  the deployment's approval is of this version, and so is its rollout.
    """
    stopped = replace(
        current,
        preload=tuple(preloaded for preloaded in current.preload if preloaded != label),
        shadows=tuple(shadow for shadow in current.shadows if shadow[0] != label),
    )
    # A rollout of this version has ended, and one whose split it leaves as well.
    ended = replace(stopped, rollout_id="", approval_id="")
    standby = current.standby
    if label == current.canary:
        return replace(ended, canary="", canary_bp=0)
    if label == standby:
        return replace(ended, standby="", standby_bp=0)
    if label == current.production and standby and facts[standby].returnable:
        return replace(ended, production=standby, standby="", standby_bp=0)
    return ended if own_rollout and stopped != current else stopped


def _finding(
    change: LedgerChange,
    rejection: pb.Approval,
    deployment: Deployment,
    facts: dict[str, VersionFacts],
) -> pb.Finding | None:
    """Write a finding if the version is still production although its approval has ended."""
    if deployment.production != rejection.version or not (
        _runs_under_ended_approval(change, rejection, deployment)
    ):
        return None
    targets = [
        label for label in rollback_targets(deployment, facts) if label != deployment.standby
    ]
    ways = "roll out another version under an approval"
    if targets:
        ways = f"turnout rollout undo {deployment.model} --to {targets[0]}, or {ways}"
    text = (
        f"version {rejection.version} was rejected by {change.actor} and is still production, "
        f"because there is no standby under an approval that stands; {ways}"
    )
    return controllers.write_finding(
        change,
        pb.Finding(model=deployment.model, version=rejection.version, kind=REJECTED, text=text),
    )
