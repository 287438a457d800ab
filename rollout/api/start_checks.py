"""Conditions of a rollout's start that the deployment and the approvals decide. No I/O."""

from collections.abc import Sequence

from protos import registry_pb2
from registry.types import Deployment, rejection_in_force, standing_approvals
from rollout.errors import RolloutRefusedError
from rollout.policy.policy import Policy


def check_startable(deployment: Deployment, version: str) -> None:
    """Raise RolloutRefusedError unless a rollout of *version* can begin from *deployment*."""
    model = deployment.model
    if not deployment.production:
        raise RolloutRefusedError(
            f"model {model!r} has no production version yet, so there is nothing to compare with; "
            "deploy its first version by hand"
        )
    if deployment.rollout_id:
        raise RolloutRefusedError(
            f"rollout {deployment.rollout_id} of {model!r} is under way; wait for it or abort it"
        )
    if deployment.canary or deployment.standby:
        raise RolloutRefusedError(
            f"model {model!r} has a canary or standby set by hand ({deployment.why!r}); take it "
            "out first, the split belongs to one at a time"
        )
    if version in (deployment.production, *(shadow for shadow, _ in deployment.shadows)):
        raise RolloutRefusedError(
            f"version {version} of {model!r} is production or a shadow already; roll out another "
            "one"
        )


def find_approval(
    approvals: Sequence[registry_pb2.Approval],
    policy: Policy,
    version: registry_pb2.Version,
    approval_id: str,
) -> registry_pb2.Approval:
    """Return the newest approval of *version* under *policy*, or the one with *approval_id*.

    approvals  all approvals and rejections of the version, oldest first.

    Raises RolloutRefusedError if there is none that stands.
    """
    # A rejection under every policy counts whatever the policy file says today.
    rejection = rejection_in_force(approvals)
    if rejection is not None:
        raise RolloutRefusedError(
            f"version {version.label} of {version.model!r} was rejected by {rejection.approver!r} "
            f"under every policy ({rejection.reason}), so it may run nowhere; roll out another "
            f"version, or let a person other than {version.author!r} approve it anew"
        )
    # Of the approvals under this very policy the newest that stands counts.
    named = [
        approval
        for approval in approvals
        if approval.policy_digest == policy.digest and approval_id in ("", approval.id)
    ]
    standing = [approval for approval in standing_approvals(approvals) if approval in named]
    if not standing:
        why = "was rejected" if named else "has no approval"
        raise RolloutRefusedError(
            f"version {version.label} of {version.model!r} {why} under policy {policy.name!r} "
            f"({policy.digest[:12]}); a person other than {version.author!r} must approve it: "
            f"turnout versions approve {version.model} {version.label} --policy {policy.name}"
        )
    return standing[-1]
