"""Versions in the database: registering, finding, listing, and changing their status."""

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update

from access.bounds import CARD_BYTES_MAX
from features.canonical import canonical_json, sha256_hex
from protos import registry_pb2 as pb
from registry.bundle import Bundle
from registry.rules.lifecycle import VersionFacts, check_step_by_hand
from registry.storage import tables
from registry.storage.ledger import LedgerChange
from registry.types import (
    STATUS_NAMES,
    BadRequestError,
    Deployment,
    NotFoundError,
    rejection_in_force,
    standing_approvals,
)

SALT_BYTES = 16
_COLUMNS_WITHOUT_CARD = [column for column in tables.versions.columns if column.name != "card_json"]


def register_version(
    change: LedgerChange, bundle: Bundle, card_json: str, size_bytes: int
) -> pb.Version:
    """Insert a verified bundle as the model's next version, in development.

    If the version is registered already, return the stored version.
    """
    # A version that is registered already is returned as it is.
    known = find_version(change.connection, bundle.digest)
    if known is not None:
        return _message(known)
    # Insert it.
    contract = bundle.contract
    label, salt_fields = _next_label(change.connection, bundle.model)
    recorded_columns = {
        "digest": bundle.digest,
        "author": bundle.author,
        "created_unix_ms": bundle.manifest["created_unix_ms"],
        "model_contract": contract.model_contract,
        "input_contract": contract.input_contract,
        "outputs": len(contract.outputs),
        "size_bytes": size_bytes,
    }
    views = [[use.view.name, use.view.view_hash] for use in contract.views]
    change.connection.execute(
        insert(tables.versions).values(
            **recorded_columns,
            model=bundle.model,
            label=label,
            status=pb.DEVELOPMENT,
            standby=False,
            was_production=False,
            entities=canonical_json(contract.entities).decode(),
            views=canonical_json(views).decode(),
            card_json=card_json,
        )
    )
    # The entry has all columns, so that a replay can prove the row. The card may be long.
    change.record(
        "register",
        f"model/{bundle.model}/version/{label}",
        before={},
        after={
            **recorded_columns,
            **salt_fields,
            "status": "development",
            "entities": contract.entities,
            "views": views,
            "card_sha256": sha256_hex(card_json.encode()),
        },
        reason="",
    )
    return get_version(change.connection, bundle.model, str(label))


def _next_label(connection: Connection, model: str) -> tuple[int, dict[str, object]]:
    """Return the model's next label. A label is never used twice.

    For a new model, also return the field with which the history proves its holdout salt.
    """
    newest = connection.execute(
        select(tables.models.c.labels).where(tables.models.c.model == model)
    ).scalar()
    if newest is None:
        salt = secrets.token_bytes(SALT_BYTES)
        connection.execute(insert(tables.models).values(model=model, holdout_salt=salt, labels=1))
        return 1, {"holdout_salt_sha256": sha256_hex(salt)}
    connection.execute(
        update(tables.models).where(tables.models.c.model == model).values(labels=newest + 1)
    )
    return int(newest) + 1, {}


def find_version(connection: Connection, digest: str) -> Row[Any] | None:
    """Return the stored version with this id, or None."""
    return connection.execute(
        select(tables.versions).where(tables.versions.c.digest == digest)
    ).first()


def get_row(connection: Connection, model: str, version: str) -> Row[Any]:
    """Return the row of a version by label or id.

    Raises NotFoundError, which names the model's newest version, and BadRequestError when
    *version* is neither a label nor an id.
    """
    statement = select(tables.versions).where(tables.versions.c.model == model)
    if len(version) == 64:
        statement = statement.where(tables.versions.c.digest == version)
    elif version.isascii() and version.isdigit() and len(version) < 10:
        statement = statement.where(tables.versions.c.label == int(version))
    else:
        raise BadRequestError(
            f"version {version[:80]!r} is neither a label (a number) nor an id (64 hex digits)"
        )
    row = connection.execute(statement).first()
    if row is None:
        newest = connection.execute(
            select(func.max(tables.versions.c.label)).where(tables.versions.c.model == model)
        ).scalar()
        if newest is None:
            raise NotFoundError(f"no version of a model {model[:80]!r} was ever registered")
        raise NotFoundError(f"model {model!r} has no version {version!r}; its newest is {newest}")
    return row


def get_version(connection: Connection, model: str, version: str) -> pb.Version:
    """Return a version by label or id. Raises as `get_row` does."""
    return _message(get_row(connection, model, version))


def list_versions_of(connection: Connection, model: str, after: int) -> Iterator[pb.Version]:
    """Yield the versions of a model with a larger label than *after*, oldest first, no cards."""
    rows = connection.execute(
        select(*_COLUMNS_WITHOUT_CARD)
        .where(tables.versions.c.model == model, tables.versions.c.label > after)
        .order_by(tables.versions.c.label)
    )
    for row in rows:
        yield _message_without_card(row)


def versions_in_use(
    connection: Connection, deployed: Sequence[Deployment]
) -> Iterator[tuple[pb.Version, str]]:
    """Yield each version that gateways may run, without its card, and its role or else its status.

    These are the staged ones, those in production, and all that a deployment names.

    deployed  the deployments of all models.
    """
    roles: dict[str, str] = {}
    for deployment in deployed:
        named = dict.fromkeys(deployment.preload, "preload")
        named |= {label: "shadow" for label, _ in deployment.shadows}
        named |= {deployment.canary: "canary", deployment.standby: "standby"}
        named[deployment.production] = "production"
        roles |= {of: named[label] for label, of in deployment.digests if label in named}
    in_use = tables.versions.c.status.in_((pb.STAGING, pb.PRODUCTION_STATUS))
    rows = connection.execute(
        select(*_COLUMNS_WITHOUT_CARD)
        .where(in_use | tables.versions.c.digest.in_(roles))
        .order_by(tables.versions.c.model, tables.versions.c.label)
    )
    for row in rows:
        yield _message_without_card(row), roles.get(row.digest, STATUS_NAMES[row.status])


def facts_of(
    connection: Connection, model: str, approvals: Mapping[str, Sequence[pb.Approval]]
) -> dict[str, VersionFacts]:
    """Return the properties of each version of a model that the gates need, by label.

    approvals  version id -> approvals and rejections of the version, oldest first.
    """
    rows = connection.execute(
        select(*_COLUMNS_WITHOUT_CARD).where(tables.versions.c.model == model)
    )
    return {str(row.label): _facts(row, approvals.get(row.digest, ())) for row in rows}


def set_status_by_hand(
    change: LedgerChange,
    model: str,
    version: str,
    to: pb.VersionStatus,
    reason: str,
    current: Deployment,
) -> pb.Version:
    """Move a version to the status *to*; raise GateError if a person may not do that.

    current  the model's deployment. A version in it cannot be archived.
    """
    if not reason.strip():
        raise BadRequestError(
            f"the new status of version {version[:80]!r} needs a reason for the history"
        )
    row = get_row(change.connection, model, version)
    facts = _facts(row, ())
    if facts.status != to:
        check_step_by_hand(facts, to, deployed=facts.label in current.versions)
        write_status(change, model, facts, to, standby=False, reason=reason)
    return get_version(change.connection, model, facts.label)


def write_status(
    change: LedgerChange,
    model: str,
    version: VersionFacts,
    status: pb.VersionStatus,
    *,
    standby: bool,
    reason: str,
    production_approval: str = "",
) -> None:
    """Write the new status of a version, with its history entry.

    production_approval  id of the approval under which it becomes production; empty: it does not,
                         or without an approval, and the stored id stays.
    """
    # The approval is kept, so that a rollback may return to the version while it stands.
    approved = {"production_approval": production_approval} if production_approval else {}
    change.connection.execute(
        update(tables.versions)
        .where(tables.versions.c.digest == version.digest)
        .values(
            status=status,
            standby=standby,
            was_production=version.was_production or status == pb.PRODUCTION_STATUS,
            **approved,
        )
    )
    # The entry has all that changed.
    change.record(
        "status",
        f"model/{model}/version/{version.label}",
        before=_status_fields(version.status, standby=version.standby),
        after={**_status_fields(status, standby=standby), **approved},
        reason=reason,
    )


def _status_fields(status: pb.VersionStatus, *, standby: bool) -> Mapping[str, object]:
    return {"status": STATUS_NAMES[status], "standby": standby}


def _facts(row: Row[Any], approvals: Sequence[pb.Approval]) -> VersionFacts:
    standing = {approval.id for approval in standing_approvals(approvals)}
    return VersionFacts(
        label=str(row.label),
        digest=row.digest,
        author=row.author,
        status=row.status,
        standby=row.standby,
        was_production=row.was_production,
        returnable=row.was_production and row.production_approval in standing,
        rejected=rejection_in_force(approvals) is not None,
        input_contract=row.input_contract,
        entities=tuple(json.loads(row.entities)),
        outputs=row.outputs,
    )


def _message(row: Row[Any]) -> pb.Version:
    message, size = _message_without_card(row), len(row.card_json.encode())
    # A card of before CARD_BYTES_MAX stays where the version's other files are.
    if size > CARD_BYTES_MAX:
        message.card_bytes = size
    else:
        message.card_json = row.card_json
    return message


def _message_without_card(row: Row[Any]) -> pb.Version:
    return pb.Version(
        model=row.model,
        label=str(row.label),
        digest=row.digest,
        status=row.status,
        standby=row.standby,
        author=row.author,
        created_unix_ms=row.created_unix_ms,
        model_contract=row.model_contract,
        input_contract=row.input_contract,
        size_bytes=row.size_bytes,
        views=[pb.VersionView(name=name, hash=of) for name, of in json.loads(row.views or "[]")],
        views_unknown=not row.views,
    )
