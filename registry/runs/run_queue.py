"""Runs that wait for a trainer: asked for by a person or a schedule, returned, cancelled.

A queued run is begun by its key as any other run is (run_rows.py), so whoever knows the key may be
its trainer, and only one of several is.
"""

import secrets
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, or_, select, update

from host.clock import DAY_MS
from protos import registry_pb2 as pb
from registry.runs import run_rows
from registry.schedules.bounds import PastRun, skip_reason
from registry.schedules.schedule import TRAINING_FAILED, Schedule
from registry.storage import controllers, tables
from registry.storage.ledger import LedgerChange
from registry.types import MODEL_NAME, BadRequestError, FencedError, GateError

FAILURES_MAX = 3
"""Attempts of a queued run that may fail. The last one ends the run and writes a finding."""
LOOK_BACK_DAYS = 31
NOT_COUNTED = (int(pb.Run.SKIPPED), int(pb.Run.CANCELLED))


def queue_run(
    change: LedgerChange, request: pb.QueueRunRequest, schedule: Schedule | None
) -> pb.Run:
    """Write a run that waits, or one that is skipped because a bound of its schedule says so.

    schedule  as applied now; None: a person asks, and no bound holds.

    Raises BadRequestError for names that are none.
    """
    # Check the request.
    if not MODEL_NAME.fullmatch(request.model) or not request.cause:
        raise BadRequestError(
            f"a run of model {request.model[:80]!r} for the cause {request.cause[:80]!r}: the "
            f"model must match {MODEL_NAME.pattern}, and a cause must be named"
        )
    # Decide here and now, in the transaction that writes it: nobody can ask in between.
    reason = ""
    if schedule is not None:
        past = _past_runs(change, request)
        reason = skip_reason(schedule, request.due_unix_ms, change.at_unix_ms, past)
    run_id = secrets.token_hex(16)
    fields: dict[str, Any] = {
        **run_rows.NEW_RUN,
        "id": run_id,
        "key": request.key or run_id,
        "model": request.model,
        "setting": request.setting,
        "cause": request.cause,
        "actor": change.actor,
        "attempt": 0,
        "state": int(pb.Run.SKIPPED if reason else pb.Run.QUEUED),
        "begun_unix_ms": 0,
        "ended_unix_ms": change.at_unix_ms if reason else 0,
        "error": reason,
        "schedule": request.schedule,
        "due_unix_ms": request.due_unix_ms,
        "queued_unix_ms": change.at_unix_ms,
    }
    run_rows.insert_run(change.connection, fields)
    return run_rows.record_run(change, "queue run", run_id, before={}, reason=request.cause)


def _past_runs(change: LedgerChange, request: pb.QueueRunRequest) -> Iterator[PastRun]:
    """Yield the runs of the same recipe that count for the bounds of a schedule."""
    table = tables.runs
    since_ms = change.at_unix_ms - LOOK_BACK_DAYS * DAY_MS
    rows = change.connection.execute(
        select(*run_rows.WITHOUT_CONTENT).where(
            table.c.model == request.model,
            table.c.setting == request.setting,
            table.c.state.not_in(NOT_COUNTED),
            or_(
                table.c.begun_unix_ms > since_ms,
                table.c.queued_unix_ms > since_ms,
                table.c.ended_unix_ms == 0,
            ),
        )
    )
    for row in rows:
        queued = row.state == pb.Run.QUEUED
        end_ms = row.ended_unix_ms or change.at_unix_ms
        yield PastRun(
            row.id,
            row.due_unix_ms or row.queued_unix_ms or row.begun_unix_ms,
            (end_ms - row.taken_unix_ms) / 1_000 if row.taken_unix_ms and not queued else 0.0,
            queued=queued,
            own=row.schedule == request.schedule,
        )


def return_run(change: LedgerChange, request: pb.EndRunRequest) -> pb.Run:
    """Let a queued run wait again after an attempt, or end it after too many failures.

    An attempt without `error` was interrupted and counts as no failure. Raises FencedError when
    another attempt has taken the run over, BadRequestError for a run that never waited.
    """
    row = run_rows.get_run_row(change.connection, request.id)
    run_rows.check_attempt(row, request.attempt, change.actor)
    if not row.queued_unix_ms:
        raise BadRequestError(f"run {row.id} was never queued, so it cannot wait again; end it")
    if row.state == pb.Run.QUEUED:
        return run_rows.get_run(change.connection, row.id)
    if row.ended_unix_ms:
        raise FencedError(f"run {row.id} has ended before; read it again")
    failures = row.failures + bool(request.error)
    if failures >= FAILURES_MAX:
        return end_after_failures(change, row.id, request.error)
    values = {"state": int(pb.Run.QUEUED), "failures": failures, "error": request.error}
    _update(change, row.id, values)
    return run_rows.record_run(
        change,
        "return run",
        row.id,
        before={"state": row.state},
        reason=request.error or "interrupted",
    )


def end_after_failures(change: LedgerChange, run_id: str, error: str) -> pb.Run:
    """End a run whose attempts have failed, and write the finding of it. *error*: of the last."""
    row = run_rows.get_run_row(change.connection, run_id)
    values = {
        "state": int(pb.Run.FAILED),
        "failures": row.failures + 1,
        "error": f"attempt {row.attempt} failed, and no other follows: {error}",
        "ended_unix_ms": change.at_unix_ms,
    }
    _update(change, run_id, values)
    run = run_rows.record_run(
        change, "end run", run_id, before={"state": row.state}, reason=values["error"]
    )
    write_incident(change, run)
    return run


def write_incident(change: LedgerChange, run: pb.Run) -> None:
    """Write the finding of a queued run that has failed for good, which no person watched."""
    controllers.write_finding(
        change,
        pb.Finding(
            model=run.model,
            kind=TRAINING_FAILED,
            text=f"run {run.id[:8]} ({run.cause}) made no version: {run.error}"[:4_000],
        ),
    )


def cancel_run(change: LedgerChange, run_id: str, reason: str) -> pb.Run:
    """End a run that waits or runs. Its trainer is fenced. Raises GateError if it has ended."""
    row = run_rows.get_run_row(change.connection, run_id)
    if row.ended_unix_ms:
        raise GateError(f"run {row.id[:8]} has ended ({pb.Run.State.Name(row.state).lower()})")
    values = {
        "state": int(pb.Run.CANCELLED),
        "error": f"cancelled by {change.actor}: {reason}",
        "ended_unix_ms": change.at_unix_ms,
    }
    _update(change, row.id, values)
    return run_rows.record_run(
        change, "cancel run", row.id, before={"state": row.state}, reason=reason
    )


def newest_of_schedule(connection: Connection, schedule: str, *, skipped: bool) -> pb.Run | None:
    """Return the newest run that a schedule asked for, or the newest that it was refused."""
    table = tables.runs
    is_skipped = table.c.state == int(pb.Run.SKIPPED)
    row = connection.execute(
        select(*run_rows.WITHOUT_CONTENT)
        .where(table.c.schedule == schedule, is_skipped if skipped else ~is_skipped)
        .order_by(table.c.place.desc())
        .limit(1)
    ).first()
    return None if row is None else run_rows.run_message(row)


def _update(change: LedgerChange, run_id: str, values: dict[str, Any]) -> None:
    change.connection.execute(
        update(tables.runs).where(tables.runs.c.id == run_id).values(**values)
    )
