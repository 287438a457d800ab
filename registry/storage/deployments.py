"""Deployments in the database.

`write_deployment` is one compare-and-set. Gates, version statuses and history entries are part of
the same transaction.
"""

import math
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from google.protobuf.json_format import MessageToDict
from sqlalchemy import Connection, func, insert, select, update

from access.bounds import cut_texts
from protos import registry_pb2 as pb
from registry.rules import gates
from registry.rules.lifecycle import VersionFacts, statuses_after
from registry.storage import approvals, controllers, tables, versions
from registry.storage.ledger import LedgerChange
from registry.types import (
    BadRequestError,
    Deployment,
    NotFoundError,
    RevisionConflictError,
)

NO_SALT = bytes(versions.SALT_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployCommand:
    """A Deploy request: the proposed deployment, the lease token, the policy and the flags."""

    deployment: Deployment
    lease_token: int
    policy_digest: str
    rollback: bool
    break_glass: bool

    @property
    def action(self) -> str:
        """The action in the history. Breaking the glass is in capitals, so that readers see it."""
        if self.break_glass:
            return "deploy BREAK GLASS"
        return "deploy rollback" if self.rollback else "deploy"


def current_deployment(connection: Connection, model: str) -> Deployment:
    """Return the model's deployment. Before the first it has revision 0 and the holdout salt.

    Raises NotFoundError when no version of the model was ever registered.
    """
    row = connection.execute(
        select(tables.deployments.c.message).where(tables.deployments.c.model == model)
    ).first()
    if row is not None:
        return Deployment.from_proto(pb.Deployment.FromString(row.message))
    salt = connection.execute(
        select(tables.models.c.holdout_salt).where(tables.models.c.model == model)
    ).scalar()
    if salt is None:
        raise NotFoundError(f"no version of a model {model[:80]!r} was ever registered")
    return Deployment(model=model, holdout_salt=salt)


def list_deployments(connection: Connection) -> list[Deployment]:
    """Return the deployments of all models that have one, ordered by model."""
    rows = connection.execute(select(tables.deployments).order_by(tables.deployments.c.model))
    return [Deployment.from_proto(pb.Deployment.FromString(row.message)) for row in rows]


def list_models(connection: Connection, after: str) -> Iterator[pb.ModelSummary]:
    """Yield the models whose names come after *after*, by name, each with its deployment."""
    counts = connection.execute(
        select(tables.versions.c.model, func.count())
        .where(tables.versions.c.model > after)
        .group_by(tables.versions.c.model)
        .order_by(tables.versions.c.model)
    )
    for model, count in counts.all():
        deployment = deployment_message(current_deployment(connection, model))
        yield pb.ModelSummary(model=model, versions=count, deployment=deployment)


def deployment_message(deployment: Deployment) -> pb.Deployment:
    """Return the message of a deployment, with texts that are older than the bounds cut."""
    message = deployment.to_proto()
    cut_texts(message)
    return message


def write_deployment(
    change: LedgerChange, command: DeployCommand, workers: Sequence[pb.GatewayState]
) -> Deployment:
    """Write the deployment if its revision is the newest and every gate is met; return it.

    Raises FencedError, RevisionConflictError, GateError, NotFoundError, BadRequestError.
    """
    # Compare: the command must know the newest revision, and come from the lease's holder.
    before = current_deployment(change.connection, command.deployment.model)
    if command.lease_token:
        controllers.check_lease(change, controllers.ROLLOUT_LEASE, command.lease_token)
    if command.deployment.revision != before.revision:
        raise RevisionConflictError(
            f"model {before.model!r} is at revision {before.revision} (by {before.who!r}: "
            f"{before.why!r}), and this change was made from revision "
            f"{command.deployment.revision}; read it again and decide anew"
        )
    # Check the gates.
    facts = versions.facts_of(change.connection, before.model)
    proposed = _with_salts(command.deployment, before)
    approval = approvals.read_approval(change.connection, proposed.approval_id)
    gates.check_gates(
        gates.Proposal(
            current=before,
            proposed=proposed,
            versions=facts,
            workers=workers,
            approval=approval,
            revoked=approval is not None and approvals.is_revoked(change.connection, approval),
            policy_digest=command.policy_digest,
            rollback=command.rollback,
            break_glass=command.break_glass,
        )
    )
    # Set: write the deployment with its history entry, and move the statuses of its versions.
    written = replace(
        proposed,
        revision=before.revision + 1,
        digests=tuple((label, facts[label].digest) for label in sorted(proposed.versions)),
        who=change.actor,
        at_unix_ns=change.at_unix_ns,
    )
    _write(change, written, first=before.revision == 0)
    change.record(
        command.action,
        f"model/{before.model}/deployment",
        before=deployment_json(before),
        after={**deployment_json(written), "policy_digest": command.policy_digest},
        reason=written.why,
    )
    _move_versions(change, before, written, facts)
    return written


def _with_salts(proposed: Deployment, before: Deployment) -> Deployment:
    """Fill in the salts. Refuse a changed holdout salt and numbers that are out of range."""
    if proposed.holdout_salt not in (NO_SALT, before.holdout_salt):
        raise BadRequestError(
            f"the holdout salt of model {before.model!r} is permanent, because another salt would "
            "reshuffle its control group; leave holdout_salt as it was read"
        )
    _check_policy(proposed.policy)
    split_salt = proposed.split_salt
    # A rollout keeps its split. Another rollout gets another salt.
    if split_salt == NO_SALT and proposed.rollout_id == before.rollout_id:
        split_salt = before.split_salt
    if split_salt == NO_SALT:
        split_salt = secrets.token_bytes(versions.SALT_BYTES)
    return replace(proposed, split_salt=split_salt, holdout_salt=before.holdout_salt)


def _check_policy(policy: pb.ServingPolicy) -> None:
    for name in ("default_score", "decision_threshold"):
        if not math.isfinite(getattr(policy, name)):
            raise BadRequestError(f"policy.{name} is {getattr(policy, name)}; it must be finite")
    for name in ("evidence_sampled_of_65536", "journal_sampled_of_65536"):
        if getattr(policy, name) > 65_536:
            raise BadRequestError(
                f"policy.{name} is {getattr(policy, name)}; the most is 65536, which takes all"
            )


def _write(change: LedgerChange, written: Deployment, *, first: bool) -> None:
    row: dict[str, Any] = {
        "model": written.model,
        "revision": written.revision,
        "message": written.to_proto().SerializeToString(deterministic=True),
    }
    if first:
        change.connection.execute(insert(tables.deployments).values(**row))
        return
    swapped = change.connection.execute(
        update(tables.deployments)
        .where(tables.deployments.c.model == written.model)
        .where(tables.deployments.c.revision == written.revision - 1)
        .values(**row)
    )
    # This happens only with a database that has two writers at once.
    if swapped.rowcount != 1:
        raise RevisionConflictError(
            f"model {written.model!r} moved past revision {written.revision - 1} meanwhile; read "
            "it again and decide anew"
        )


def _move_versions(
    change: LedgerChange, before: Deployment, written: Deployment, facts: dict[str, VersionFacts]
) -> None:
    for label, (status, standby) in statuses_after(before, written, facts).items():
        versions.write_status(
            change,
            written.model,
            facts[label],
            status,
            standby=standby,
            reason=f"deployment revision {written.revision}: {written.why}",
        )


def deployment_json(deployment: Deployment) -> dict[str, object]:
    """Return a deployment as JSON values for the history; an empty object before the first."""
    if deployment.revision == 0:
        return {}
    return {
        "revision": deployment.revision,
        "production": deployment.production,
        "standby": deployment.standby,
        "standby_bp": deployment.standby_bp,
        "canary": deployment.canary,
        "canary_bp": deployment.canary_bp,
        "shadows": [list(shadow) for shadow in deployment.shadows],
        "preload": list(deployment.preload),
        "holdout_bp": deployment.holdout_bp,
        "split_salt": deployment.split_salt.hex(),
        "holdout_salt": deployment.holdout_salt.hex(),
        "policy": MessageToDict(deployment.policy, preserving_proto_field_name=True),
        "approval_id": deployment.approval_id,
        "rollout_id": deployment.rollout_id,
        "digests": dict(deployment.digests),
    }
