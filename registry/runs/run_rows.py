"""Training runs in the database: what each was made from, and what came of it.

A run is begun before its first step and ended once. Each of both is an entry of the history.
Before that it may wait in the queue (run_queue.py). The
log and the last sign of life are files (run_logs.py), because no decision depends on them.
"""

import secrets
from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update

from features.canonical import sha256_hex
from protos import registry_pb2 as pb
from registry.manifest import read_json
from registry.storage import tables
from registry.storage.ledger import LedgerChange
from registry.storage.versions import get_row
from registry.types import (
    MODEL_NAME,
    BadRequestError,
    FencedError,
    NotFoundError,
    VersionRefusedError,
)

ENDED = (pb.Run.REGISTERED, pb.Run.WRITTEN, pb.Run.CHAMPION_KEPT, pb.Run.GATE_FAILED, pb.Run.FAILED)
_CONTENT = ("inputs_json", "result_json")
WITHOUT_CONTENT = [column for column in tables.runs.columns if column.name not in _CONTENT]
NEW_RUN: Mapping[str, Any] = {
    "ended_unix_ms": 0,
    "version": "",
    "version_digest": "",
    "error": "",
    "inputs_json": "{}",
    "result_json": "{}",
    "schedule": "",
    "due_unix_ms": 0,
    "queued_unix_ms": 0,
    "taken_unix_ms": 0,
    "failures": 0,
}
"""What a run has before anything came of it."""


def find_by_key(connection: Connection, model: str, key: str) -> pb.Run | None:
    """Return the run of a model with a key, or None. An empty key is no run's."""
    table = tables.runs
    row = connection.execute(
        select(table).where(table.c.model == model, table.c.key == key)
    ).first()
    return None if row is None or not key else run_message(row)


def begin_run(change: LedgerChange, request: pb.BeginRunRequest, found: pb.Run | None) -> pb.Run:
    """Write a new run, or the next attempt of *found*, and return it.

    found  a run that waits for its trainer, or that fell silent.

    Raises BadRequestError for names or inputs that are none.
    """
    # Check the request.
    if not MODEL_NAME.fullmatch(request.model) or not request.cause:
        raise BadRequestError(
            f"a run of model {request.model[:80]!r} for the cause {request.cause[:80]!r}: the "
            f"model must match {MODEL_NAME.pattern}, and a cause must be named"
        )
    _check_object("inputs_json", request.inputs_json)
    # An attempt keeps who asked for the run, and everything else is new.
    begun: dict[str, Any] = {
        "setting": request.setting,
        "actor": change.actor,
        "attempt": found.attempt + 1 if found else 1,
        "state": int(pb.Run.RUNNING),
        # Versions are sealed with this instant, so each attempt of a run makes the same version.
        "begun_unix_ms": (found.begun_unix_ms if found else 0) or change.at_unix_ms,
        "taken_unix_ms": change.at_unix_ms,
        "error": "",
        "inputs_json": request.inputs_json.decode(),
    }
    if found:
        run_id = found.id
        # A trainer of a queued run that fell silent has failed.
        fell_silent = found.queued_unix_ms and found.state == pb.Run.RUNNING
        begun["failures"] = found.failures + bool(fell_silent)
        if not found.queued_unix_ms:
            begun["cause"] = request.cause
        change.connection.execute(
            update(tables.runs).where(tables.runs.c.id == run_id).values(**begun)
        )
    else:
        run_id = secrets.token_hex(16)
        named = {"id": run_id, "key": request.key or run_id, "model": request.model}
        insert_run(change.connection, {**NEW_RUN, **named, **begun, "cause": request.cause})
    return record_run(
        change,
        "begin run",
        run_id,
        before={} if found is None else {"attempt": found.attempt},
        reason=request.cause,
    )


def insert_run(connection: Connection, fields: Mapping[str, Any]) -> None:
    """Insert a row. Its place orders the runs in lists."""
    table = tables.runs
    place = (connection.execute(select(func.max(table.c.place))).scalar() or 0) + 1
    connection.execute(insert(table).values(**fields, place=place))


def record_run(
    change: LedgerChange, action: str, run_id: str, *, before: Mapping[str, Any], reason: str
) -> pb.Run:
    """Write the history entry of a run that was written, and return the run."""
    row = get_run_row(change.connection, run_id)
    change.record(action, _object_name(row), before=before, after=_entry_fields(row), reason=reason)
    return run_message(row)


def end_run(change: LedgerChange, request: pb.EndRunRequest) -> tuple[pb.Run, bool]:
    """Write the end of a run; return it, and whether it was written now.

    The same end once more changes nothing.

    Raises FencedError when another attempt has taken the run over, or it has another end;
    NotFoundError for the run or its version; BadRequestError.
    """
    # Only the newest attempt of the actor that began it may end the run.
    row = get_run_row(change.connection, request.id)
    check_attempt(row, request.attempt, change.actor)
    if request.state not in ENDED:
        raise BadRequestError(
            f"run {row.id} cannot end in state {request.state}; the states of its end are "
            f"{', '.join(pb.Run.State.Name(state) for state in ENDED)}"
        )
    _check_object("result_json", request.result_json)
    digest = request.version_digest
    if request.state == pb.Run.REGISTERED:
        digest = get_row(change.connection, row.model, request.version).digest
    ending = {
        "state": int(request.state),
        "version": request.version,
        "version_digest": digest,
        "error": request.error,
        "result_json": request.result_json.decode(),
    }
    # The end may have been written before.
    if row.state == pb.Run.QUEUED:
        raise FencedError(f"run {row.id} waits for another attempt; this one is over")
    if row.ended_unix_ms:
        if any(getattr(row, name) != value for name, value in ending.items()):
            raise FencedError(f"run {row.id} has ended before, otherwise; read it again")
        return run_message(row), False
    # Write it with its history entry.
    ending["ended_unix_ms"] = change.at_unix_ms
    change.connection.execute(
        update(tables.runs).where(tables.runs.c.id == row.id).values(**ending)
    )
    run = record_run(
        change,
        "end run",
        row.id,
        before={"state": row.state},
        reason=request.error or pb.Run.State.Name(request.state).lower(),
    )
    return run, True


def get_run_row(connection: Connection, run_id: str) -> Row[Any]:
    """Return the row of a run by its id, or the first eight or more digits. NotFoundError."""
    table = tables.runs
    rows = []
    if len(run_id) >= 8:
        rows = list(
            connection.execute(
                select(table).where(table.c.id.startswith(run_id, autoescape=True)).limit(2)
            )
        )
    if len(rows) != 1:
        raise NotFoundError(
            f"{'several runs begin' if rows else 'there is no run that begins'} with "
            f"{run_id[:40]!r} (at least 8 digits); turnout runs list shows the ids"
        )
    return rows[0]


def check_attempt(row: Row[Any], attempt: int, actor: str) -> None:
    """Raise FencedError unless *actor* began the run and this is its newest attempt."""
    if row.actor != actor or row.attempt != attempt:
        raise FencedError(
            f"run {row.id} is attempt {row.attempt} by {row.actor!r}, and attempt {attempt} by "
            f"{actor!r} wants to write; stop this trainer, another one has taken the run over"
        )


def get_run(connection: Connection, run_id: str) -> pb.Run:
    """Return a run with its inputs and its result. Raises NotFoundError."""
    return run_message(get_run_row(connection, run_id))


def list_runs(
    connection: Connection, model: str, before: int, *, open_only: bool = False
) -> Iterator[tuple[int, pb.Run]]:
    """Yield (place, run) newest first, without inputs and results.

    model      empty: of all models.
    before     only runs with a smaller place; 0: from the newest.
    open_only  only runs that have not ended.
    """
    table = tables.runs
    statement = select(*WITHOUT_CONTENT).order_by(table.c.place.desc())
    if model:
        statement = statement.where(table.c.model == model)
    if before:
        statement = statement.where(table.c.place < before)
    if open_only:
        statement = statement.where(table.c.ended_unix_ms == 0)
    for row in connection.execute(statement):
        yield row.place, run_message(row)


def _object_name(row: Row[Any]) -> str:
    return f"model/{row.model}/run/{row.id}"


def _entry_fields(row: Row[Any]) -> dict[str, Any]:
    """Return the columns for an entry. Inputs and result may be large, so it has their digests."""
    fields = dict(row._mapping)
    for name in _CONTENT:
        content = fields.pop(name)
        fields[f"{name.removesuffix('_json')}_sha256"] = sha256_hex(content.encode())
    return fields


def _check_object(name: str, content: bytes) -> None:
    try:
        value = read_json(name, content)
    except VersionRefusedError as error:
        raise BadRequestError(str(error)) from error
    if not isinstance(value, dict):
        raise BadRequestError(f"{name} is no JSON object")


def run_message(row: Row[Any]) -> pb.Run:
    """Return the message of a row."""
    fields = {name: value for name, value in row._mapping.items() if name != "place"}
    for name in _CONTENT:
        if name in fields:
            fields[name] = fields[name].encode()
    return pb.Run(**fields)
