"""Projects in the database: every revision that was applied, with its definitions."""

import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select

from features.canonical import canonical_json, sha256_hex
from protos import registry_pb2 as pb
from registry.rules.projects import (
    PROJECT_NAME,
    Definitions,
    ReadingVersion,
    check_owners,
    check_removed_views,
    check_rights,
    read_definitions,
)
from registry.rules.settings import ModelSettings
from registry.schedules.schedule import Schedule
from registry.storage import tables
from registry.storage.approvals import DIGEST
from registry.storage.ledger import LedgerChange
from registry.types import (
    BadRequestError,
    NotFoundError,
    RegistryFaultError,
    RevisionConflictError,
)
from registry.watching.policy import MonitoringPolicy

REVISIONS_SEARCHED = 50
"""Revisions that are looked at for how long a schedule is as it is now. A schedule that is older
counts from the oldest of them, and may miss a due time before it and no later one."""

_WITHOUT_DEFINITIONS = [
    column for column in tables.projects.columns if column.name != "definitions"
]


def write_revision(
    change: LedgerChange,
    request: pb.ApplyProjectRequest,
    definitions: Definitions,
    versions: Iterable[ReadingVersion],
    *,
    operator: bool,
) -> pb.ProjectRevision:
    """Write the next revision of a project by compare-and-set; return it without definitions.

    The same apply once more, by an actor who lost the reply, returns the revision that it wrote.

    definitions  those of the request, parsed.
    versions     every version that gateways may run; read only if a view is removed.
    operator     whether the actor is an operator.

    Raises RevisionConflictError when another revision is the newest, GateError for names of other
    projects and for a removed view that a version reads, NotAllowedError, BadRequestError.
    """
    # Compare: the plan must have been made from the newest revision.
    _check_request(request)
    newest = _newest_row(change.connection, request.name)
    revision = 0 if newest is None else newest.revision
    if newest is not None and _is_applied(newest, request, change.actor):
        return get_revision(change.connection, request.name, whole=False)
    if request.expected_revision != revision:
        by = "" if newest is None else f" (by {newest.author!r}: {newest.reason!r})"
        raise RevisionConflictError(
            f"project {request.name!r} is at revision {revision}{by}, and this plan was made from "
            f"revision {request.expected_revision}; make a new plan, read it, and apply that"
        )
    # Check what the revision changes.
    before = None if newest is None else _definitions(newest)
    check_rights(before, definitions, operator=operator)
    others = _newest_of_all(change.connection, without=request.name)
    check_owners(definitions, map(_definitions, others))
    check_removed_views(before, definitions, versions)
    # Set: write the row and its history entry.
    _insert(change, request, newest)
    return get_revision(change.connection, request.name, revision + 1, whole=False)


def _is_applied(newest: Row[Any], request: pb.ApplyProjectRequest, actor: str) -> bool:
    """Return True if the newest revision is what this very request wrote."""
    written = (newest.revision - 1, newest.plan_digest, newest.digest, newest.author)
    asked = (request.expected_revision, request.plan_digest, sha256_hex(request.definitions), actor)
    return written == asked


def _insert(change: LedgerChange, request: pb.ApplyProjectRequest, newest: Row[Any] | None) -> None:
    columns: dict[str, Any] = {
        "name": request.name,
        "revision": request.expected_revision + 1,
        "digest": sha256_hex(request.definitions),
        "plan_digest": request.plan_digest,
        "author": change.actor,
        "commit_id": request.commit,
        "dirty": request.dirty,
        "reason": request.reason,
        "applied_unix_ms": change.at_unix_ms,
    }
    compressed = zlib.compress(request.definitions)
    effects = [effect.text for effect in request.effects]
    # The table has effects as text, and the entry has the definitions by their digest.
    change.connection.execute(
        insert(tables.projects).values(
            **columns, definitions=compressed, effects=canonical_json(effects).decode()
        )
    )
    before = {} if newest is None else {"revision": newest.revision, "digest": newest.digest}
    change.record(
        "apply project",
        f"project/{request.name}",
        before=before,
        after={**columns, "effects": effects, "definitions_sha256": sha256_hex(compressed)},
        reason=request.reason,
    )


def _check_request(request: pb.ApplyProjectRequest) -> None:
    if not PROJECT_NAME.fullmatch(request.name):
        raise BadRequestError(
            f"project {request.name[:80]!r} does not match {PROJECT_NAME.pattern}"
        )
    if not DIGEST.fullmatch(request.plan_digest):
        raise BadRequestError(
            f"plan_digest {request.plan_digest[:80]!r} is not a SHA-256 in 64 hex digits"
        )


def get_revision(
    connection: Connection, name: str, revision: int = 0, *, whole: bool = True
) -> pb.ProjectRevision:
    """Return a revision of a project; 0: the newest. Raises NotFoundError.

    whole  with its definitions.
    """
    table = tables.projects
    statement = select(table).where(table.c.name == name).order_by(table.c.revision.desc())
    if revision:
        statement = statement.where(table.c.revision == revision)
    row = connection.execute(statement.limit(1)).first()
    if row is None:
        wanted = f"revision {revision} of project" if revision else "project"
        raise NotFoundError(f"there is no {wanted} {name[:80]!r}; turnout project history lists")
    message = _message(row)
    if whole:
        message.definitions = _content(row)
    return message


def list_newest(connection: Connection, after: str) -> Iterator[pb.ProjectRevision]:
    """Yield the newest revision of each project whose name comes after *after*, by name."""
    table = tables.projects
    newest = _newest_places().where(table.c.name > after)
    rows = connection.execute(
        select(*_WITHOUT_DEFINITIONS).where(table.c.place.in_(newest)).order_by(table.c.name)
    )
    yield from map(_message, rows)


def list_revisions(connection: Connection, name: str, before: int) -> Iterator[pb.ProjectRevision]:
    """Yield the revisions of a project, newest first; those before *before* unless it is 0."""
    table = tables.projects
    statement = select(*_WITHOUT_DEFINITIONS).where(table.c.name == name)
    if before:
        statement = statement.where(table.c.revision < before)
    yield from map(_message, connection.execute(statement.order_by(table.c.revision.desc())))


def settings_of(connection: Connection, model: str) -> ModelSettings | None:
    """Return the settings that a project gives to a model; None: no project has the model."""
    for definitions in map(_definitions, _newest_of_all(connection)):
        if model in definitions.settings:
            return definitions.settings[model]
    return None


def replay_days_of(connection: Connection, policy: str) -> float:
    """Return how old a replay may be that a policy or edition of a project asks for; 0: none.

    A policy that no project has is the controller's own. The controller knows what it asks for.
    """
    for definitions in map(_definitions, _newest_of_all(connection)):
        days = definitions.replay_days(policy)
        if days:
            return days
    return 0.0


def models_of_projects(connection: Connection) -> dict[str, pb.ProjectModel]:
    """Return model -> what its project says about it."""
    return {
        model: definitions.about(model)
        for definitions in map(_definitions, _newest_of_all(connection))
        for model in definitions.settings
    }


def monitoring_policy_of(connection: Connection, model: str) -> MonitoringPolicy:
    """Return how a model is watched; the defaults for a model of which no project says it."""
    for definitions in map(_definitions, _newest_of_all(connection)):
        if model in definitions.monitoring:
            return definitions.monitoring[model]
    return MonitoringPolicy()


def schedule_of_model(connection: Connection, model: str) -> tuple[str, Schedule] | None:
    """Return (project, schedule) of the model's first schedule by name, or None."""
    found = [
        (name, row.name, schedule)
        for row in _newest_of_all(connection)
        for name, schedule in _definitions(row).schedules.items()
        if schedule.model == model
    ]
    if not found:
        return None
    _, project, schedule = min(found, key=lambda item: item[:2])
    return project, schedule


@dataclass(frozen=True, slots=True)
class AppliedSchedule:
    """A schedule of the newest revision of a project."""

    project: str
    schedule: Schedule
    since_unix_ms: int
    """When it was applied as it is now."""


def applied_schedule(connection: Connection, named: str) -> Schedule | None:
    """Return the schedule "project/name" as applied now; None for an empty name.

    Raises NotFoundError when it is not applied any more.
    """
    if not named:
        return None
    project, _, name = named.partition("/")
    row = _newest_row(connection, project)
    schedules = {} if row is None else _definitions(row).schedules
    if name not in schedules:
        raise NotFoundError(f"there is no schedule {named[:160]!r}; turnout schedules list")
    return schedules[name]


def applied_schedules(
    connection: Connection, since_of: MutableMapping[tuple[str, int], Mapping[str, int]]
) -> Iterator[AppliedSchedule]:
    """Yield the schedules of the newest revision of each project.

    since_of  (project, revision) -> schedule -> when it was applied as it is in that revision. What
              is missing is searched and added, because the search reads many revisions.
    """
    for row in _newest_of_all(connection):
        schedules = _definitions(row).schedules
        revision = (row.name, row.revision)
        if revision not in since_of:
            since_of[revision] = _since(connection, row, schedules)
        for name, schedule in schedules.items():
            yield AppliedSchedule(row.name, schedule, since_of[revision][name])


def _since(
    connection: Connection, row: Row[Any], schedules: Mapping[str, Schedule]
) -> dict[str, int]:
    """Return schedule -> when it was applied as it is in *row*, Unix milliseconds."""
    since = dict.fromkeys(schedules, int(row.applied_unix_ms))
    # A schedule that an apply left alone goes on; revisions without it end the search.
    unchanged = dict(schedules)
    for earlier in _earlier_rows(connection, row) if unchanged else ():
        before = _definitions(earlier).schedules
        unchanged = {name: item for name, item in unchanged.items() if before.get(name) == item}
        if not unchanged:
            break
        since |= dict.fromkeys(unchanged, int(earlier.applied_unix_ms))
    return since


def _earlier_rows(connection: Connection, row: Row[Any]) -> Iterator[Row[Any]]:
    """Yield the revisions before *row*, newest first, at most REVISIONS_SEARCHED."""
    table = tables.projects
    yield from connection.execute(
        select(table)
        .where(table.c.name == row.name, table.c.revision < row.revision)
        .order_by(table.c.revision.desc())
        .limit(REVISIONS_SEARCHED)
    )


def _newest_row(connection: Connection, name: str) -> Row[Any] | None:
    table = tables.projects
    statement = select(table).where(table.c.name == name).order_by(table.c.revision.desc())
    return connection.execute(statement.limit(1)).first()


def _newest_of_all(connection: Connection, without: str = "") -> list[Row[Any]]:
    table = tables.projects
    statement = select(table).where(table.c.place.in_(_newest_places()), table.c.name != without)
    return list(connection.execute(statement.order_by(table.c.name)))


def _newest_places() -> Any:  # noqa: ANN401  the type of SQLAlchemy's select has its columns
    return select(func.max(tables.projects.c.place)).group_by(tables.projects.c.name)


def _content(row: Row[Any]) -> bytes:
    try:
        content = zlib.decompress(row.definitions)
    except (zlib.error, TypeError) as error:
        raise RegistryFaultError(_altered(row)) from error
    if sha256_hex(content) != row.digest:
        raise RegistryFaultError(_altered(row))
    return content


def _definitions(row: Row[Any]) -> Definitions:
    try:
        return _parsed(row.name, _content(row))
    except BadRequestError as error:
        raise RegistryFaultError(_altered(row)) from error


def _altered(row: Row[Any]) -> str:
    return (
        f"the stored definitions of project {row.name!r}, revision {row.revision}, were altered; "
        "run turnout audit verify, and restore the registry from a copy"
    )


@lru_cache(maxsize=8)
def _parsed(name: str, content: bytes) -> Definitions:
    return read_definitions(name, content)


def _message(row: Row[Any]) -> pb.ProjectRevision:
    return pb.ProjectRevision(
        name=row.name,
        revision=row.revision,
        digest=row.digest,
        plan_digest=row.plan_digest,
        effects=[pb.ProjectEffect(text=text) for text in json.loads(row.effects)],
        author=row.author,
        commit=row.commit_id,
        dirty=row.dirty,
        reason=row.reason,
        applied_unix_ms=row.applied_unix_ms,
    )
