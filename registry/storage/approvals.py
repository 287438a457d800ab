"""Approvals in the database: of one version under one policy, and of a model's serving settings.

The approver of a version is another person than its author. The approver of settings is another
person than the one who deploys them.
"""

import json
import re
import secrets
from typing import Any

from sqlalchemy import Connection, Row, insert, select

from features.canonical import canonical_json, sha256_hex
from protos import registry_pb2 as pb
from registry.rules.settings import current_digest, proposed_digest, settings_digest
from registry.storage import tables
from registry.storage.ledger import LedgerChange
from registry.storage.versions import get_row
from registry.types import (
    FIRST_POLICY,
    BadRequestError,
    Deployment,
    GateError,
    rejection_ends,
    same_person,
    standing_approvals,
)

DIGEST = re.compile(r"[0-9a-f]{64}")
POLICY_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}(@[a-z][a-z0-9_-]{0,63})?")
"""A policy's name. With "@" and a model's name, it is the edition of the policy for that model."""


def write_approval(change: LedgerChange, request: pb.ApproveRequest) -> pb.Approval:
    """Write an approval, and return it.

    Raises GateError when the actor is the version's author, the version is archived, or the
    accepted shift is not the one in the version's card; NotFoundError; BadRequestError.
    """
    # An approval must meet three conditions.
    _check_request(request)
    version = get_row(change.connection, request.model, request.version)
    if same_person(version.author, change.actor):
        raise GateError(
            f"version {version.label} of {request.model!r} is by {version.author!r}, who may not "
            "approve it as well: two people stand for every version. Ask another person"
        )
    if version.status == pb.ARCHIVED and not version.was_production:
        raise GateError(
            f"version {version.label} of {request.model!r} is archived and was never production; "
            "approve another version"
        )
    first = request.policy_name == FIRST_POLICY
    if not first:
        _check_shift(request.accepted_shift, version)
    # The first production version has no rollout, so its approval is a direct one.
    approval = _new_approval(change, request, version)
    approval.direct = first or request.direct
    insert_approval(change, approval)
    return approval


def new_rejection(change: LedgerChange, request: pb.ApproveRequest) -> pb.Approval:
    """Return a rejection with the ids of the approvals that it ends. `insert_approval` writes it.

    A rejection is always possible. Raises NotFoundError, BadRequestError.
    """
    _check_request(request)
    version = get_row(change.connection, request.model, request.version)
    rejection = _new_approval(change, request, version)
    rejection.rejected = True
    earlier = list_approvals_of(change.connection, request.model, str(version.label))
    rejection.ended.extend(
        approval.id
        for approval in standing_approvals(earlier)
        if rejection_ends(rejection, approval)
    )
    return rejection


def _new_approval(
    change: LedgerChange, request: pb.ApproveRequest, version: Row[Any]
) -> pb.Approval:
    return pb.Approval(
        id=secrets.token_hex(8),
        model=request.model,
        version=str(version.label),
        version_digest=version.digest,
        policy_name=request.policy_name,
        policy_digest=request.policy_digest,
        accepted_shift=request.accepted_shift,
        approver=change.actor,
        reason=request.reason,
        at_unix_ms=change.at_unix_ms,
    )


def insert_approval(change: LedgerChange, approval: pb.Approval) -> None:
    """Write an approval or a rejection with its history entry."""
    # The table's columns have the names of the message's fields.
    fields = {field.name: getattr(approval, field.name) for field in approval.DESCRIPTOR.fields}
    fields["ended"] = list(approval.ended)
    change.connection.execute(
        insert(tables.approvals).values(
            **{**fields, "ended": canonical_json(fields["ended"]).decode()}
        )
    )
    change.record(
        "reject" if approval.rejected else "approve",
        f"model/{approval.model}/approval/{approval.id}",
        before={},
        after=fields,
        reason=approval.reason,
    )


def _check_request(request: pb.ApproveRequest) -> None:
    every_policy = request.reject and not request.policy_name
    if not every_policy and not POLICY_NAME.fullmatch(request.policy_name):
        raise BadRequestError(
            f"policy name {request.policy_name[:80]!r} does not match {POLICY_NAME.pattern}"
        )
    may_be_empty = request.policy_name == FIRST_POLICY or request.reject
    for field, digest, optional in (
        ("policy_digest", request.policy_digest, may_be_empty),
        ("accepted_shift", request.accepted_shift, True),
    ):
        if not DIGEST.fullmatch(digest) and not (optional and not digest):
            raise BadRequestError(f"{field} {digest[:80]!r} is not a SHA-256 in 64 hex digits")


def _check_shift(accepted: str, version: Row[Any]) -> None:
    """Require that the approver accepts the expected shift in the version's card, by its digest.

    Each section of the card that the shift names by digest must have that digest.
    """
    card = json.loads(version.card_json)
    shift = card.get("expected_shift")
    shift = shift if isinstance(shift, dict) else {}
    expected = shift.get("digest", "")
    if expected and accepted != expected:
        raise GateError(
            f"version {version.label} is expected to shift scores by {str(expected)[:16]!r} in its "
            f"card, and accepted_shift is {accepted[:16] or 'empty'!r}; read the card, and approve "
            "with the digest of its shift"
        )
    sections = shift.get("sections")
    for section, digest in (sections if isinstance(sections, dict) else {}).items():
        if sha256_hex(canonical_json(card.get(section))) != digest:
            raise GateError(
                f"{str(section)[:80]!r} in the card of version {version.label} is not what the "
                "digest of its expected shift was made of; train the version again"
            )


def read_approval(connection: Connection, approval_id: str) -> pb.Approval | None:
    """Return the approval with this id, or None."""
    row = connection.execute(
        select(tables.approvals).where(tables.approvals.c.id == approval_id)
    ).first()
    return None if row is None else _message(row)


def is_revoked(connection: Connection, approval: pb.Approval) -> bool:
    """Return True if a later rejection of the version ended the approval."""
    given = list_approvals_of(connection, approval.model, approval.version)
    return approval.id not in {standing.id for standing in standing_approvals(given)}


def list_approvals_of(
    connection: Connection, model: str, version: str, after: str = ""
) -> list[pb.Approval]:
    """Return the approvals and rejections of a version, oldest first.

    after  only those after the one with this id.
    """
    digest = get_row(connection, model, version).digest
    given = approvals_by_digest(connection, model).get(digest, [])
    ids = [approval.id for approval in given]
    return given[ids.index(after) + 1 :] if after in ids else given


def approvals_by_digest(connection: Connection, model: str) -> dict[str, list[pb.Approval]]:
    """Return version id -> approvals and rejections of the version, oldest first."""
    rows = connection.execute(
        select(tables.approvals)
        .where(tables.approvals.c.model == model)
        .order_by(tables.approvals.c.place)
    )
    given: dict[str, list[pb.Approval]] = {}
    for row in rows:
        given.setdefault(row.version_digest, []).append(_message(row))
    return given


def _message(row: Row[Any]) -> pb.Approval:
    fields = {field.name: getattr(row, field.name) for field in pb.Approval.DESCRIPTOR.fields}
    return pb.Approval(**{**fields, "ended": json.loads(row.ended)})


# Settings


def write_settings_approval(
    change: LedgerChange, request: pb.SettingsRequest, current: Deployment
) -> pb.SettingsApproval:
    """Write an approval of the requested settings in place of the current ones, and return it.

    Raises BadRequestError for a missing reason, a bad salt, or settings that change nothing.
    """
    # Check the request. An approval of what is there already would be a mistake.
    if not request.reason.strip() or len(request.reason) > 1_000:
        raise BadRequestError(
            f"an approval needs a reason of 1 to 1000 characters for the history; this reason has "
            f"{len(request.reason)}"
        )
    if len(request.split_salt) not in (0, 16):
        raise BadRequestError(f"split_salt has {len(request.split_salt)} bytes; a salt has 16")
    digest = settings_digest(request.model, request.holdout_bp, request.policy, request.split_salt)
    if digest == current_digest(current):
        raise BadRequestError(
            f"model {request.model!r} has these settings already; name what is to change"
        )
    # Write it with its history entry.
    fields: dict[str, Any] = {
        "id": secrets.token_hex(8),
        "model": request.model,
        "digest": digest,
        "replaces": current_digest(current),
        "approver": change.actor,
        "reason": request.reason,
        "at_unix_ms": change.at_unix_ms,
    }
    change.connection.execute(insert(tables.settings_approvals).values(**fields))
    change.record(
        "approve settings",
        f"model/{request.model}/settings/{fields['id']}",
        before={},
        after=fields,
        reason=request.reason,
    )
    return pb.SettingsApproval(**fields)


def find_settings_approval(
    change: LedgerChange, current: Deployment, proposed: Deployment, *, under_lease: bool
) -> pb.SettingsApproval | None:
    """Return the newest approval of the settings of *proposed* in place of the current ones.

    An approval by the actor of the change counts for nothing.
    """
    table = tables.settings_approvals
    rows = change.connection.execute(
        select(table)
        .where(table.c.model == current.model)
        .where(table.c.digest == proposed_digest(current, proposed, under_lease=under_lease))
        .where(table.c.replaces == current_digest(current))
        .order_by(table.c.place.desc())
    )
    row = next((row for row in rows if not same_person(row.approver, change.actor)), None)
    if row is None:
        return None
    fields = pb.SettingsApproval.DESCRIPTOR.fields
    return pb.SettingsApproval(**{field.name: getattr(row, field.name) for field in fields})
