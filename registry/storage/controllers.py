"""Leases, checkpoints and findings of controllers, in the database."""

import json
import re
import secrets
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from features.errors import ReplayRecordError
from features.replay.record import REPLAY, check_record
from protos import registry_pb2 as pb
from registry.storage import tables
from registry.storage.ledger import LedgerChange
from registry.storage.versions import get_row
from registry.types import (
    TOKEN_SECRET_BITS,
    BadRequestError,
    Deployment,
    FencedError,
    GateError,
    NotFoundError,
    RevisionConflictError,
    lease_number,
)

ROLLOUT_LEASE = "rollout"
LEASE_S_MAX = 3_600
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./:-]{0,63}")
FINDING_KIND = re.compile(r"[a-z][a-z0-9_-]{0,63}")
FINDINGS_PER_READ = 1_000
ROLLBACK = "rollback"
"""Kind of a finding that asks for a rollback of the version that it names."""
FINDING_ROLLBACK_MS = 24 * 3_600 * 1_000
"""Time after a rollback by a finding in which no other finding rolls the model back."""
FINDING_ACTS_MS = 3_600 * 1_000
"""Time after which a finding asks for nothing any more: a person decides then."""


def acquire_lease(change: LedgerChange, request: pb.LeaseRequest) -> pb.Lease:
    """Take or renew a lease. A new holder gets a larger token.

    Renewals leave no entry in the history, because the holder stays the same. The entry of a new
    holder has the number of the lease and neither its token nor the holder's name, because every
    role may read the history. The caller seals the row.
    Raises FencedError while another holder has the lease, BadRequestError for bad names or times.
    """
    # Check the request.
    if not NAME.fullmatch(request.name) or not request.holder or len(request.holder) > 64:
        raise BadRequestError(
            f"lease {request.name[:80]!r} for holder {request.holder[:80]!r}: both need 1 to 64 "
            "characters"
        )
    if not 0 < request.seconds <= LEASE_S_MAX:
        raise BadRequestError(
            f"a lease was requested for {request.seconds} s; it lasts 1 to {LEASE_S_MAX} s"
        )
    # Only its token proves a holder. A name proves nothing, because anybody can give it.
    row = _read_lease(change.connection, request.name)
    now = change.at_unix_ms
    until = now + request.seconds * 1_000
    if request.token:
        check_lease(change, request.name, request.token)
        # A renewal leaves no entry in the history, so it may not change the holder.
        if row is not None and row.holder != request.holder:
            raise FencedError(
                f"lease {request.name!r} is {row.holder!r}'s, and {request.holder!r} sent its "
                "token; take a new lease when this one has ended"
            )
        token = request.token
    elif row is not None and row.until_unix_ms > now:
        raise FencedError(
            f"lease {request.name!r} is {row.holder!r}'s for another {row.until_unix_ms - now} ms; "
            "wait and try again, or renew it with its token"
        )
    else:
        token = _next_token(0 if row is None else row.token)
    # Write it.
    lease = pb.Lease(name=request.name, holder=request.holder, token=token, until_unix_ms=until)
    fields = {"holder": request.holder, "token": token, "until_unix_ms": until}
    if row is None:
        change.connection.execute(insert(tables.leases).values(name=request.name, **fields))
    else:
        change.connection.execute(
            update(tables.leases).where(tables.leases.c.name == request.name).values(**fields)
        )
    if not request.token:
        change.record(
            "lease",
            f"lease/{request.name}",
            before={} if row is None else {"number": lease_number(row.token)},
            after={"number": lease_number(token)},
            reason="",
        )
    return lease


def _next_token(token: int) -> int:
    """Return a token above *token* that nobody can guess: the lease's number, then random bits."""
    return (lease_number(token) + 1 << TOKEN_SECRET_BITS) | secrets.randbits(TOKEN_SECRET_BITS)


def check_lease(change: LedgerChange, name: str, token: int) -> None:
    """Raise FencedError unless *token* is the newest token of the lease and has not expired."""
    row = _read_lease(change.connection, name)
    if row is None or row.token != token:
        raise FencedError(
            f"lease {name!r} is {'free' if row is None else 'of another holder'}, and the token "
            "that came is fenced off. Stop acting, read everything again, and take a new lease"
        )
    if row.until_unix_ms <= change.at_unix_ms:
        raise FencedError(
            f"lease {name!r} expired {change.at_unix_ms - row.until_unix_ms} ms ago, so its token "
            "is no longer valid. Take a new lease"
        )


def _read_lease(connection: Connection, name: str) -> Row[Any] | None:
    return connection.execute(select(tables.leases).where(tables.leases.c.name == name)).first()


def save_checkpoint(change: LedgerChange, checkpoint: pb.Checkpoint) -> None:
    """Store the newest checkpoint of a rollout.

    Checkpoints come several times a second, so they leave no entry in the history. The caller seals
    the row.
    Raises RevisionConflictError for an older sequence than the stored one, FencedError without the
    newest lease token, BadRequestError for a bad id.
    """
    # Only the holder of the lease has rollouts, so only it has checkpoints.
    if not NAME.fullmatch(checkpoint.rollout_id):
        raise BadRequestError(f"rollout id {checkpoint.rollout_id[:80]!r} is not a plain name")
    check_lease(change, ROLLOUT_LEASE, checkpoint.lease_token)
    # Insert the first checkpoint of a rollout, or replace an older one.
    table = tables.checkpoints
    stored = change.connection.execute(
        select(table.c.sequence).where(table.c.rollout_id == checkpoint.rollout_id)
    ).scalar()
    fields = {
        "sequence": checkpoint.sequence,
        "state": checkpoint.state,
        "lease_token": 0,  # a reader of the checkpoint must not get the token
    }
    if stored is None:
        change.connection.execute(insert(table).values(rollout_id=checkpoint.rollout_id, **fields))
    elif checkpoint.sequence < stored:
        raise RevisionConflictError(
            f"rollout {checkpoint.rollout_id!r} has checkpoint {stored}; number "
            f"{checkpoint.sequence} is older and was not stored"
        )
    else:
        change.connection.execute(
            update(table).where(table.c.rollout_id == checkpoint.rollout_id).values(**fields)
        )


def load_checkpoint(connection: Connection, rollout_id: str) -> pb.Checkpoint:
    """Return the newest checkpoint of a rollout; raise NotFoundError if there is none."""
    row = connection.execute(
        select(tables.checkpoints).where(tables.checkpoints.c.rollout_id == rollout_id)
    ).first()
    if row is None:
        raise NotFoundError(f"rollout {rollout_id[:80]!r} has no checkpoint")
    return pb.Checkpoint(rollout_id=row.rollout_id, sequence=row.sequence, state=row.state)


def write_finding(change: LedgerChange, finding: pb.Finding) -> pb.Finding:
    """Write a finding and return it with its sequence number.

    Raises BadRequestError for a bad kind, no model, a too long text, or a replay that is not of
    the version that it names; NotFoundError for such a version; FencedError for an old lease token.
    """
    if not FINDING_KIND.fullmatch(finding.kind) or not 0 < len(finding.model) <= 64:
        raise BadRequestError(
            f"finding of kind {finding.kind[:80]!r} about model {finding.model[:80]!r}: the kind "
            f"must match {FINDING_KIND.pattern}, and a model must be named"
        )
    if len(finding.text) > 4_000 or len(finding.version) > 64:
        raise BadRequestError(
            f"the finding has {len(finding.text)} characters; the most is 4000, and 64 for its "
            "version"
        )
    if finding.kind == ROLLBACK and not finding.version:
        raise BadRequestError("a finding of kind 'rollback' names the version to leave")
    if finding.lease_token:
        check_lease(change, ROLLOUT_LEASE, finding.lease_token)
    if finding.kind == REPLAY:
        _check_replay(change, finding)
    # Write it with its history entry. The database gives the sequence number.
    fields: dict[str, Any] = {
        "model": finding.model,
        "version": finding.version,
        "kind": finding.kind,
        "text": finding.text,
        "who": change.actor,
        "at_unix_ms": change.at_unix_ms,
    }
    # The primary key is the sequence.
    key = change.connection.execute(insert(tables.findings).values(**fields)).inserted_primary_key
    sequence = int(key[0]) if key is not None else 0
    change.record(
        "finding",
        f"model/{finding.model}/finding/{sequence}",
        before={},
        after=fields,
        reason=finding.text,
    )
    return pb.Finding(sequence=sequence, **fields)


def _check_replay(change: LedgerChange, finding: pb.Finding) -> None:
    """Require that a replay is of the registered version that it names, as policies ask for it."""
    version = get_row(change.connection, finding.model, finding.version)
    try:
        check_record(
            finding,
            label=str(version.label),
            version_digest=version.digest,
            model_contract=version.model_contract,
            now_ms=change.at_unix_ms,
        )
    except ReplayRecordError as error:
        raise BadRequestError(str(error)) from error


def findings_after(connection: Connection, after: int) -> list[pb.Finding]:
    """Return up to 1,000 findings with a larger sequence than *after*, oldest first."""
    rows = connection.execute(
        select(tables.findings)
        .where(tables.findings.c.sequence > after)
        .order_by(tables.findings.c.sequence)
        .limit(FINDINGS_PER_READ)
    )
    return [pb.Finding(**row._mapping) for row in rows]


def newest_finding(
    connection: Connection, model: str, version: str, kind: str
) -> pb.Finding | None:
    """Return the newest finding of a kind about the version with the label *version*, or None."""
    table = tables.findings
    row = connection.execute(
        select(table)
        .where(table.c.model == model, table.c.version == version, table.c.kind == kind)
        .order_by(table.c.sequence.desc())
        .limit(1)
    ).first()
    return None if row is None else pb.Finding(**row._mapping)


def check_rollback_finding(change: LedgerChange, sequence: int, before: Deployment) -> None:
    """Require that a finding asks for a rollback from what production is, and that it may.

    Raises GateError when it is of another kind, model or version, when it is too old, and when
    another finding has rolled the model back within FINDING_ROLLBACK_MS.
    """
    # The finding must mean this version of this model, now.
    table = tables.findings
    row = change.connection.execute(select(table).where(table.c.sequence == sequence)).first()
    wanted = (before.model, before.production, ROLLBACK)
    if row is None or (row.model, row.version, row.kind) != wanted:
        raise GateError(
            f"finding {sequence} does not ask for a rollback of version {before.production} of "
            f"{before.model!r}, which is production now; nothing was moved"
        )
    if change.at_unix_ms - row.at_unix_ms > FINDING_ACTS_MS:
        raise GateError(
            f"finding {sequence} is older than an hour, so it moves no traffic any more; a person "
            f"decides: turnout rollout undo {before.model}"
        )
    # One finding a day: a second one would mean that the first rollback did not help.
    history = tables.history
    others = change.connection.execute(
        select(history.c.seq, history.c.after).where(
            history.c.object == f"model/{before.model}/deployment",
            history.c.action == "deploy finding",
            history.c.at_unix_ms > change.at_unix_ms - FINDING_ROLLBACK_MS,
        )
    )
    for seq, after in others:
        if json.loads(after).get("finding") != sequence:
            raise GateError(
                f"model {before.model!r} was rolled back by a finding within the last day (history "
                f"entry {seq}), and findings roll a model back at most once a day; a person "
                f"decides: turnout rollout undo {before.model}"
            )
