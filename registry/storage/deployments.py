"""Deployments in the database.

`write_deployment` is one compare-and-set. Gates, version statuses and history entries are part of
the same transaction.
"""

import secrets
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError
from sqlalchemy import Connection, func, insert, select, update

from access.bounds import cut_texts
from features.canonical import sha256_hex
from protos import registry_pb2 as pb
from registry.rules import gates
from registry.rules.lifecycle import VersionFacts, statuses_after
from registry.rules.settings import (
    ModelSettings,
    check_serving_policy,
    settings_change,
    with_project_settings,
)
from registry.storage import approvals, controllers, projects, reviews, tables, versions
from registry.storage.ledger import LedgerChange
from registry.types import (
    BadRequestError,
    Deployment,
    DeploymentError,
    NotFoundError,
    RegistryFaultError,
    RevisionConflictError,
)

NO_SALT = bytes(versions.SALT_BYTES)
REASON_MAX = 4_000
REVISION_LEAD_MAX = 1_000_000
"""A worker that claims a revision further ahead than this is not believed: it would use up the
numbers, and no registry that was restored from a copy is so far behind."""
SHADOWS_MAX = 16
PRELOADS_MAX = 16


def current_deployment(connection: Connection, model: str) -> Deployment:
    """Return the model's deployment. Before the first it has revision 0, salt and settings.

    Raises NotFoundError when no version of the model was ever registered.
    """
    row = connection.execute(
        select(tables.deployments.c.message).where(tables.deployments.c.model == model)
    ).first()
    if row is not None:
        return _read_message(model, row.message)
    salt = connection.execute(
        select(tables.models.c.holdout_salt).where(tables.models.c.model == model)
    ).scalar()
    if salt is None:
        raise NotFoundError(f"no version of a model {model[:80]!r} was ever registered")
    # Its first deployment begins with the settings of its project.
    empty = Deployment(model=model, holdout_salt=salt)
    settings = projects.settings_of(connection, model)
    return empty if settings is None else with_project_settings(empty, settings)


def list_deployments(connection: Connection, without: Collection[str]) -> list[Deployment]:
    """Return the deployments of all models that have one, ordered by model.

    without  models to leave out.
    """
    statement = select(tables.deployments).order_by(tables.deployments.c.model)
    rows = connection.execute(statement.where(tables.deployments.c.model.not_in(without)))
    return [_read_message(row.model, row.message) for row in rows]


def _read_message(model: str, message: bytes) -> Deployment:
    """Parse a stored message. Raises RegistryFaultError when it was altered beyond reading."""
    try:
        return Deployment.from_proto(pb.Deployment.FromString(message))
    except (DecodeError, DeploymentError, TypeError) as error:
        raise RegistryFaultError(
            f"the stored deployment of model {model!r} cannot be read ({error}); run turnout audit "
            "verify, and restore the registry from a copy"
        ) from error


def list_models(connection: Connection, after: str) -> Iterator[pb.ModelSummary]:
    """Yield the models whose names come after *after*, by name, each with its deployment."""
    counts = connection.execute(
        select(tables.versions.c.model, func.count())
        .where(tables.versions.c.model > after)
        .group_by(tables.versions.c.model)
        .order_by(tables.versions.c.model)
    )
    about = projects.models_of_projects(connection)
    for model, count in counts.all():
        deployment = deployment_message(current_deployment(connection, model))
        yield pb.ModelSummary(
            model=model, versions=count, deployment=deployment, about=about.get(model)
        )


def deployment_message(deployment: Deployment) -> pb.Deployment:
    """Return the message of a deployment, with texts that are older than the bounds cut."""
    message = deployment.to_proto()
    cut_texts(message)
    return message


def write_deployment(
    change: LedgerChange, command: gates.DeployCommand, workers: Sequence[pb.GatewayState]
) -> Deployment:
    """Write the deployment if its revision is the newest and every gate is met; return it.

    Its new revision is above those that live workers know. If this database was restored from an
    older copy, they know later ones, and would ignore a rollback under an earlier number.

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
    if command.finding:
        controllers.check_rollback_finding(change, command.finding, before)
    # Check the gates.
    facts = facts_of_model(change.connection, before.model)
    proposal = _proposal(change, command, before, facts, workers)
    gates.check_gates(proposal)
    # Set: write the deployment with its history entry, and move the statuses of its versions.
    approval, settings_approval = proposal.approval, proposal.settings_approval
    named = approval is not None and not command.rollback and not command.break_glass
    written = set_deployment(
        change,
        before,
        proposal.proposed,
        facts,
        action=command.action,
        details={
            "policy_digest": command.policy_digest,
            **({"settings_approval": settings_approval.id} if settings_approval else {}),
            **({"finding": command.finding} if command.finding else {}),
        },
        production_approval=approval.id if approval and named else "",
        workers=workers,
    )
    # Another person looks at what was done without an approval.
    if command.break_glass:
        grown = gates.grown_versions(before, written)
        authors = sorted({facts[label].author for label in grown})
        reviews.open_review(change, written, authors)
    return written


def _proposal(
    change: LedgerChange,
    command: gates.DeployCommand,
    before: Deployment,
    facts: dict[str, VersionFacts],
    workers: Sequence[pb.GatewayState],
) -> gates.Proposal:
    """Return the command with everything that the gates look at."""
    # The approval that the deployment names, and whether it still stands.
    under_lease = bool(command.lease_token)
    proposed = _with_salts(command.deployment, before)
    approval = approvals.read_approval(change.connection, proposed.approval_id)
    # Changed settings are those of the command, before the registry draws a split salt.
    changed = settings_change(before, command.deployment, under_lease=under_lease)
    settings_approval = None
    if changed is not None:
        settings_approval = approvals.find_settings_approval(
            change, before, command.deployment, under_lease=under_lease
        )
    return gates.Proposal(
        actor=change.actor,
        current=before,
        proposed=proposed,
        versions=facts,
        workers=workers,
        approval=approval,
        revoked=approval is not None and approvals.is_revoked(change.connection, approval),
        settings_change=changed,
        settings_approval=settings_approval,
        overdue_review=reviews.overdue_review(change, before.model),
        policy_digest=command.policy_digest,
        under_lease=under_lease,
        rollback=command.rollback,
        break_glass=command.break_glass,
    )


def facts_of_model(connection: Connection, model: str) -> dict[str, VersionFacts]:
    """Return what the gates need to know of each version of a model, by label."""
    given = approvals.approvals_by_digest(connection, model)
    return versions.facts_of(connection, model, given)


def set_deployment(
    change: LedgerChange,
    before: Deployment,
    proposed: Deployment,
    facts: dict[str, VersionFacts],
    *,
    action: str,
    details: Mapping[str, object],
    production_approval: str = "",
    workers: Sequence[pb.GatewayState] = (),
) -> Deployment:
    """Write *proposed* as the next revision, with history entries and statuses; return it.

    No gate is checked here.

    details              further fields of the history entry.
    production_approval  id of the approval of a new production version, if it has one.
    workers              states of the live workers: the revision goes past theirs.
    """
    # The registry says who and when, and names each version by its id.
    written = replace(
        proposed,
        revision=_revision_after(before, workers),
        digests=tuple((label, facts[label].digest) for label in sorted(proposed.versions)),
        who=change.actor,
        at_unix_ns=change.at_unix_ns,
    )
    # The deployment and its entry have the same content.
    message = written.to_proto().SerializeToString(deterministic=True)
    _write(change, written, message, before.revision)
    change.record(
        action,
        f"model/{before.model}/deployment",
        before=deployment_json(before),
        after={
            **deployment_json(written),
            **details,
            "message_sha256": sha256_hex(message),  # `registry.history.replay` proves the row by it
        },
        reason=written.why,
    )
    # The statuses of the versions follow.
    for label, (status, standby) in statuses_after(before, written, facts).items():
        new_production = label == written.production != before.production
        versions.write_status(
            change,
            written.model,
            facts[label],
            status,
            standby=standby,
            reason=f"deployment revision {written.revision}: {written.why}"[:REASON_MAX],
            production_approval=production_approval if new_production else "",
        )
    return written


def write_project_settings(
    change: LedgerChange,
    revision: pb.ProjectRevision,
    settings: Mapping[str, ModelSettings],
    workers: Sequence[pb.GatewayState],
) -> list[Deployment]:
    """Give deployed models the settings of their project; return the deployments that changed.

    settings  model -> its settings in the new revision.
    workers   as for `set_deployment`.

    Raises GateError when another person has not approved the settings of a model with production.
    """
    written = []
    deployed = select(tables.deployments.c.model).where(tables.deployments.c.model.in_(settings))
    for model in sorted(change.connection.execute(deployed).scalars().all()):
        # Compare the settings that the model has with those that it should have.
        before = current_deployment(change.connection, model)
        why = f"project {revision.name}, revision {revision.revision}: {revision.reason}"
        proposed = replace(with_project_settings(before, settings[model]), why=why[:REASON_MAX])
        changed = settings_change(before, proposed, under_lease=False)
        if changed is None:
            continue
        approval = approvals.find_settings_approval(change, before, proposed, under_lease=False)
        gates.check_settings_approved(before, changed, approval, change.actor)
        # Write them. Versions and shares stay as they are.
        details: dict[str, object] = {
            "project": revision.name,
            "project_revision": revision.revision,
            **({} if approval is None else {"settings_approval": approval.id}),
        }
        facts = facts_of_model(change.connection, model)
        written.append(
            set_deployment(
                change,
                before,
                proposed,
                facts,
                action="deploy project",
                details=details,
                workers=workers,
            )
        )
    return written


def _with_salts(proposed: Deployment, before: Deployment) -> Deployment:
    """Fill in the salts. Refuse a changed holdout salt and numbers that are out of range."""
    if proposed.holdout_salt not in (NO_SALT, before.holdout_salt):
        raise BadRequestError(
            f"the holdout salt of model {before.model!r} is permanent, because another salt would "
            "reshuffle its control group; leave holdout_salt as it was read"
        )
    check_serving_policy(proposed.policy)
    split_salt = proposed.split_salt
    # A rollout keeps its split. Another rollout gets another salt.
    if split_salt == NO_SALT and proposed.rollout_id == before.rollout_id:
        split_salt = before.split_salt
    if split_salt == NO_SALT:
        split_salt = secrets.token_bytes(versions.SALT_BYTES)
    return replace(proposed, split_salt=split_salt, holdout_salt=before.holdout_salt)


def _revision_after(before: Deployment, workers: Sequence[pb.GatewayState]) -> int:
    """Return the revision after *before* and after every believable one of *workers*."""
    known = [worker.applied.get(before.model, 0) for worker in workers]
    known += [
        alarm.revision
        for worker in workers
        for alarm in worker.alarms
        if alarm.model == before.model
    ]
    believable = [number for number in known if number <= before.revision + REVISION_LEAD_MAX]
    return max(before.revision, *believable, 0) + 1


def _write(change: LedgerChange, written: Deployment, message: bytes, revision_before: int) -> None:
    row: dict[str, Any] = {
        "model": written.model,
        "revision": written.revision,
        "message": message,
    }
    if revision_before == 0:
        change.connection.execute(insert(tables.deployments).values(**row))
        return
    swapped = change.connection.execute(
        update(tables.deployments)
        .where(tables.deployments.c.model == written.model)
        .where(tables.deployments.c.revision == revision_before)
        .values(**row)
    )
    # This happens only with a database that has two writers at once.
    if swapped.rowcount != 1:
        raise RevisionConflictError(
            f"model {written.model!r} moved past revision {revision_before} meanwhile; read it "
            "again and decide anew"
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
