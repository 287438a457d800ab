"""Approvals in the database. An approval is for one version under one policy.

The approver is another person than the version's author.
"""

import json
import re
import secrets
from collections.abc import Iterator
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
"""A policy's name. With "@" and a model's name, it is the edition of the policy for that model."""


def write_approval(change: LedgerChange, request: pb.ApproveRequest) -> pb.Approval:
    """Write an approval or a rejection, and return it.

    Raises GateError when the actor is the version's author, the version is archived, or the
    accepted shift is not the one in the version's card; NotFoundError; BadRequestError.
    """
    # A rejection is always possible. An approval must meet three conditions.
    _check_request(request)
    version = get_row(change.connection, request.model, request.version)
    if version.author == change.actor and not request.reject:
        raise GateError(
            f"version {version.label} of {request.model!r} is by {version.author!r}, who may not "
            "approve it as well: two people stand for every version. Ask another person"
        )
    if version.status == pb.ARCHIVED and not version.was_production and not request.reject:
        raise GateError(
            f"version {version.label} of {request.model!r} is archived and was never production; "
            "approve another version"
        )
    if not request.reject and request.policy_name != FIRST_POLICY:
        _check_shift(request.accepted_shift, version)
    # Write it with its history entry.
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
    # The table's columns have the names of the message's fields.
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


def _check_request(request: pb.ApproveRequest) -> None:
    if not POLICY_NAME.fullmatch(request.policy_name):
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
    """Require that the approver accepts the expected shift in the version's card, by its digest."""
    shift = json.loads(version.card_json).get("expected_shift")
    expected = shift.get("digest", "") if isinstance(shift, dict) else ""
    if expected and accepted != expected:
        raise GateError(
            f"version {version.label} is expected to shift scores by {str(expected)[:16]!r} in its "
            f"card, and accepted_shift is {accepted[:16] or 'empty'!r}; read the card, and approve "
            "with the digest of its shift"
        )


def read_approval(connection: Connection, approval_id: str) -> pb.Approval | None:
    """Return the approval with this id, or None."""
    row = connection.execute(
        select(tables.approvals).where(tables.approvals.c.id == approval_id)
    ).first()
    return None if row is None else _message(row)


def is_revoked(connection: Connection, approval: pb.Approval) -> bool:
    """Return True if the version was rejected later, under this policy or under every policy."""
    rows = connection.execute(
        select(tables.approvals)
        .where(tables.approvals.c.version_digest == approval.version_digest)
        .order_by(tables.approvals.c.place)
    ).all()
    approval_place = max((row.place for row in rows if row.id == approval.id), default=0)
    return any(
        row.rejected
        and row.place > approval_place
        and row.policy_digest in (approval.policy_digest, "")
        for row in rows
    )


def list_approvals_of(
    connection: Connection, model: str, version: str, after: str
) -> Iterator[pb.Approval]:
    """Yield the approvals and rejections of a version after the one with id *after*, in order."""
    digest = get_row(connection, model, version).digest
    rows = connection.execute(
        select(tables.approvals)
        .where(tables.approvals.c.version_digest == digest)
        .order_by(tables.approvals.c.place)
    )
    seen = not after
    for row in rows:
        if seen:
            yield _message(row)
        seen = seen or row.id == after


def _message(row: Row[Any]) -> pb.Approval:
    return pb.Approval(
        **{field.name: getattr(row, field.name) for field in pb.Approval.DESCRIPTOR.fields}
    )
