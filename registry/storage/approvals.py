"""Approvals in the database: of one version, under one policy, by somebody else than its author."""

import json
import re
import secrets
from typing import Any

from sqlalchemy import Connection, Row, insert, select

from protos import registry_pb2 as pb
from registry.rules.gates import FIRST_POLICY
from registry.storage import tables
from registry.storage.ledger import LedgerChange
from registry.storage.versions import get_row
from registry.types import BadRequestError, GateError

DIGEST = re.compile(r"[0-9a-f]{64}")
POLICY_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}(@[a-z][a-z0-9_-]{0,63})?")
"""Its own name, or with a model's: the edition for that model."""


def write_approval(change: LedgerChange, request: pb.ApproveRequest) -> pb.Approval:
    """Write an approval, or a rejection. GateError for the version's own author."""
    _check_text(request)
    version = get_row(change.connection, request.model, request.version)
    if version.author == change.actor and not request.reject:
        raise GateError(
            f"version {version.label} of {request.model!r} is by {version.author!r}, who may not "
            "approve it as well: two people stand for every version. Ask somebody else"
        )
    if version.status == pb.ARCHIVED and not version.was_production and not request.reject:
        raise GateError(f"version {version.label} of {request.model!r} is archived")
    if not request.reject and request.policy_name != FIRST_POLICY:
        _check_shift(request.accepted_shift, version)
    approval = pb.Approval(
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
        rejected=request.reject,
    )
    fields = {field.name: getattr(approval, field.name) for field in approval.DESCRIPTOR.fields}
    change.connection.execute(insert(tables.approvals).values(**fields))
    change.record(
        "reject" if request.reject else "approve",
        f"model/{request.model}/approval/{approval.id}",
        before={},
        after=fields,
        reason=request.reason,
    )
    return approval


def _check_text(request: pb.ApproveRequest) -> None:
    if not POLICY_NAME.fullmatch(request.policy_name):
        raise BadRequestError(
            f"policy name {request.policy_name[:80]!r} does not match {POLICY_NAME.pattern}"
        )
    may_be_empty = request.policy_name == FIRST_POLICY or request.reject
    for what, digest, optional in (
        ("policy_digest", request.policy_digest, may_be_empty),
        ("accepted_shift", request.accepted_shift, True),
    ):
        if not DIGEST.fullmatch(digest) and not (optional and not digest):
            raise BadRequestError(f"{what} {digest[:80]!r} is not a SHA-256 in 64 hex digits")
    if not request.reason.strip() or len(request.reason) > 1_000:
        raise BadRequestError(
            f"an approval needs a reason of 1 to 1000 characters; this one has "
            f"{len(request.reason)}. The history keeps it"
        )


def _check_shift(accepted: str, version: Row[Any]) -> None:
    """The approver accepts what will change: the very shift that the version's card tells of."""
    shift = json.loads(version.card_json).get("expected_shift")
    expected = shift.get("digest", "") if isinstance(shift, dict) else ""
    if expected and accepted != expected:
        raise GateError(
            f"version {version.label} is expected to shift scores as {str(expected)[:16]!r} in its "
            f"card says, and accepted_shift is {accepted[:16] or 'empty'!r}; read the card, and "
            "approve with its digest"
        )


def read_approval(connection: Connection, approval_id: str) -> pb.Approval | None:
    """Return one approval, or None."""
    row = connection.execute(
        select(tables.approvals).where(tables.approvals.c.id == approval_id)
    ).first()
    return None if row is None else _message(row)


def is_revoked(connection: Connection, approval: pb.Approval) -> bool:
    """Whether the version was rejected after this approval, under its policy or under any."""
    rows = connection.execute(
        select(tables.approvals)
        .where(tables.approvals.c.version_digest == approval.version_digest)
        .order_by(tables.approvals.c.place)
    ).all()
    places = [row.place for row in rows if row.id == approval.id]
    return any(
        row.rejected
        and row.place > max(places, default=0)
        and row.policy_digest in (approval.policy_digest, "")
        for row in rows
    )


def list_approvals_of(connection: Connection, model: str, version: str) -> list[pb.Approval]:
    """Return a version's approvals and rejections, oldest first."""
    digest = get_row(connection, model, version).digest
    rows = connection.execute(
        select(tables.approvals)
        .where(tables.approvals.c.version_digest == digest)
        .order_by(tables.approvals.c.place)
    )
    return [_message(row) for row in rows]


def _message(row: Row[Any]) -> pb.Approval:
    return pb.Approval(
        **{field.name: getattr(row, field.name) for field in pb.Approval.DESCRIPTOR.fields}
    )
