"""Tries everything that an environment names, and says what is wrong. Nothing is changed."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from features.errors import SourceError
from features.online.reader import OnlineReader, OnlineSettings
from features.online.store_users import READER
from features.source import Source
from project.definitions import ProjectDefinitions
from project.environment import Environment, production_problems
from registry.client import RegistryClient
from registry.types import NotFoundError, RegistryError, UnknownActorError
from turnout.cli import clients
from turnout.cli.context import CommandContext
from turnout.errors import NotReachableError

SECONDS_MAX = 10.0
"""All checks together take no longer."""
STORE_READ_S = 2.0


@dataclass(frozen=True, slots=True)
class EnvironmentCheck:
    """What one try found."""

    part: str
    """Such as "registry" or "view usage"."""
    passed: bool
    text: str


async def check_environment(
    context: CommandContext, definitions: ProjectDefinitions | None
) -> list[EnvironmentCheck]:
    """Try addresses, token, sources and folders, all at once; what is late has failed.

    definitions  what the files declare; None: they cannot be loaded, so no source is tried.
    """
    environment = context.required_environment()
    tries: dict[str, Callable[[], Awaitable[str]]] = {
        "registry": lambda: _try_registry(context),
        "online store": lambda: _try_store(context),
        "gateway": lambda: _try_gateway(context),
        "offline store": lambda: asyncio.to_thread(_try_offline, context),
    }
    if environment.is_production:
        tries["identities"] = lambda: _try_anonymous(context)
    if definitions is not None:
        tries |= _source_tries(environment, definitions)
    # The rules of production need no connection.
    rules = [
        EnvironmentCheck("production rules", False, str(problem))
        for problem in production_problems(environment)
    ]
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(_outcome(part, trial)) for part, trial in tries.items()]
    return [*rules, *(task.result() for task in running)]


def _source_tries(
    environment: Environment, definitions: ProjectDefinitions
) -> dict[str, Callable[[], Awaitable[str]]]:
    """Return one try for each source of a view or of labels. A frame cannot be tried."""
    sources = {
        **{f"source of view {name}": item["source"] for name, item in definitions.views.items()},
        **{f"source of {name}": item["source"] for name, item in definitions.labels.items()},
    }
    return {
        part: partial(asyncio.to_thread, _try_source, environment, Source.from_definition(source))
        for part, source in sources.items()
        if source is not None and source["kind"] != "frame"
    }


def _try_source(environment: Environment, source: Source) -> str:
    """Look at the columns of a source without reading its rows."""
    if source.kind == "table":
        columns = _table_columns(environment, source)
    else:
        # DuckDB is no dependency of a host that only operates.
        from features.ingest.columns import described
        from features.ingest.files import files_of, files_sql
        from features.storage.database import open_duckdb

        files = files_of(source, environment.project.root)
        with open_duckdb() as connection:
            columns = list(described(connection, files_sql(connection, source, files, ())))
    # The time is what every row needs.
    if source.time is not None and source.time.lower() not in {name.lower() for name in columns}:
        raise SourceError(
            f"{source.location} has no column {source.time!r}; it has {', '.join(columns)}"
        )
    return f"{source.location} has {len(columns)} columns"


def _table_columns(environment: Environment, source: Source) -> list[str]:
    """Return the columns of a PostgreSQL table. Raises SourceError when it cannot be read."""
    import psycopg
    from psycopg import sql

    address = environment.connection(source.connection)
    try:
        with psycopg.connect(address, connect_timeout=int(SECONDS_MAX / 2)) as database:
            table = sql.Identifier(*source.location.split("."))
            cursor = database.execute(sql.SQL("SELECT * FROM {} LIMIT 0").format(table))
            return [column.name for column in cursor.description or []]
    except psycopg.Error as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise SourceError(f"table {source.location!r} cannot be read: {lines[0]}") from error


async def _outcome(part: str, trial: Callable[[], Awaitable[str]]) -> EnvironmentCheck:
    """Return what *trial* says; whatever it raises is the reason of a failure."""
    try:
        async with asyncio.timeout(SECONDS_MAX):
            return EnvironmentCheck(part, True, await trial())
    except TimeoutError:
        return EnvironmentCheck(part, False, f"no answer within {SECONDS_MAX:g} s")
    except Exception as error:  # noqa: BLE001  the check of any part may fail in any way
        return EnvironmentCheck(part, False, str(error) or type(error).__name__)


async def _try_registry(context: CommandContext) -> str:
    async with clients.open_registry(context) as client:
        models = await client.list_models()
    who = "your token" if context.bearer_token() else repr(context.actor)
    return f"{context.registry_address()} answers {who}; it has {len(models)} models"


async def _try_anonymous(context: CommandContext) -> str:
    """Raise RegistryError when the registry believes a caller without a token.

    The change is of a review that does not exist, so a registry that takes it says so.
    """
    certificate = context.certificate()
    try:
        async with RegistryClient(
            context.registry_address(), "nobody", None, certificate=certificate
        ) as client:
            await client.close_review("no-such-review", "turnout env check")
    except UnknownActorError:
        return "the registry refuses a change without a token"
    except NotFoundError as error:
        raise RegistryError(
            "the registry takes a change of anybody without a token; start it with --identities"
        ) from error
    raise RegistryError("the registry closed a review that does not exist")


async def _try_store(context: CommandContext) -> str:
    settings = OnlineSettings(connect_timeout_ms=round(STORE_READ_S * 1_000))
    reader = OnlineReader(context.store_url(READER), settings=settings)
    await reader.start()
    try:
        await reader.mget([b"{turnout}:env_check@0000000000000000"], STORE_READ_S)
    finally:
        await reader.close()
    return "it answers a read"


async def _try_gateway(context: CommandContext) -> str:
    address = context.gateway_address()
    host, _, port = address.rpartition(":")
    try:
        _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except OSError as error:
        raise NotReachableError(
            f"{address} accepts no connection: {error.strerror or error}"
        ) from error
    writer.close()
    return f"{address} accepts a connection"


def _try_offline(context: CommandContext) -> str:
    folder = context.offline_folder()
    existing = next(path for path in (folder, *folder.resolve().parents) if path.exists())
    if not os.access(existing, os.W_OK):
        raise PermissionError(f"{existing} cannot be written")
    return f"{folder} can be written" if folder.exists() else f"{folder} will be made"
