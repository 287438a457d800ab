"""Approvals of serving settings in the database."""

import secrets
from typing import Any

from sqlalchemy import insert, select

from protos import registry_pb2 as pb
from registry.rules.settings import current_digest, proposed_digest, settings_digest
from registry.storage import tables
from registry.storage.ledger import LedgerChange
from registry.types import BadRequestError, Deployment, same_person


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
