"""`turnout features`: lists views, reads online rows, fills the offline and the online store.

DuckDB and redis-py take long to import, so each command imports what it needs by itself.
"""

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import TaskID

from host.clock import DAY_MS
from turnout.cli.clients import open_registry
from turnout.cli.context import CommandContext
from turnout.commands.features_replay import replay
from turnout.errors import OperatorError, UsageError
from turnout.forgetting.command import forget
from turnout.pushing.command import push, serve
from turnout.views.row_flags import row_flag_names
from turnout.views.terminal import Terminal, named_values, terminal, text_table

if TYPE_CHECKING:
    from features.materialise import MaterialisePlan, WriteSummary
    from features.offline import OfflineStore
    from features.views import View
    from features.writes.row_scripts import StoreClient

app = typer.Typer(help="Feature views, and their rows in the online store.", no_args_is_help=True)

app.command()(serve)
app.command()(push)
app.command()(forget)
app.command()(replay)

ViewName = Annotated[str, typer.Argument(help="Name of a view.")]
OfflineFolder = Annotated[
    Path | None,
    typer.Option(help="Folder of the offline store. Default: the environment's or the system's."),
]


@app.command()
def views(ctx: typer.Context) -> None:
    """List the views of the project, and those that deployed versions read.

    A view has several editions after a change: versions go on reading the edition that they were
    trained on.
    """
    from turnout.cli.known_views import known_views

    # One entry for each edition, deployed ones first.
    context: CommandContext = ctx.obj
    value: list[dict[str, Any]] = [
        {
            "view": item.view.name,
            "entities": list(item.view.entities),
            "features": [feature.name for feature in item.view.features],
            "ttl_days": item.view.ttl_ms / DAY_MS,
            "view_hash": item.view.view_hash,
            "in_project": item.in_project,
            "read_by": list(item.read_by),
        }
        for item in asyncio.run(known_views(context))
    ]
    rows = [
        (
            view["view"],
            ", ".join(view["entities"]),
            len(view["features"]),
            f"{view['ttl_days']:g} days",
            view["view_hash"][:16],
            ", ".join(view["read_by"]) or "no deployed version",
        )
        for view in value
    ]
    # People see the first digits of the hash, scripts all of it.
    columns = ("view", "entities", "features", "TTL", "hash", "read by")
    terminal(context.json).result(value, text_table(columns, rows))


@app.command()
def show(
    ctx: typer.Context,
    view: ViewName,
    keys: Annotated[
        list[str],
        typer.Argument(help="Id of each of the view's entities, in its order."),
    ],
    edition: Annotated[
        str, typer.Option(help="First digits of a hash. Default: the edition that is deployed.")
    ] = "",
) -> None:
    """Show the online row of an entity, as a gateway would read it now."""
    from features.entity_ids import SEPARATOR
    from features.online.store_users import READER
    from turnout.cli.known_views import editions_of
    from turnout.cli.online_rows import read_online_rows

    context: CommandContext = ctx.obj
    # The deployed edition comes first, because gateways read that one.
    editions = [
        item.view
        for item in asyncio.run(editions_of(context, view))
        if item.view.view_hash.startswith(edition)
    ]
    if not editions:
        raise UsageError(f"view {view!r} has no edition whose hash begins with {edition!r}")
    entities = editions[0].entities
    if len(keys) != len(entities):
        wanted = "its id" if len(entities) == 1 else f"{len(entities)} ids in this order"
        raise UsageError(
            f"view {view!r} is keyed by {', '.join(entities)}: give {wanted}; you gave {len(keys)}"
        )
    # The row is read and decoded as a gateway does it.
    chosen, key, now_ms = editions[0], SEPARATOR.decode().join(keys), time.time_ns() // 1_000_000
    rows = asyncio.run(read_online_rows(context.store_url(READER), chosen, [key], now_ms))
    named = zip((feature.name for feature in chosen.features), rows.values[0], strict=True)
    numbers = {name: float(number) for name, number in named}
    # JSON has no NaN.
    features = {name: None if math.isnan(item) else item for name, item in numbers.items()}
    flags = row_flag_names(int(rows.flags[0]))
    shown = {**numbers, "flags": ", ".join(flags) or "none: every feature is there and fresh"}
    value = {
        "key": keys[0] if len(keys) == 1 else keys,
        "view_hash": chosen.view_hash,
        "flags": flags,
        "features": features,
    }
    terminal(context.json).result(value, named_values(shown))


@app.command()
def ingest(
    ctx: typer.Context,
    view: ViewName,
    data: Annotated[
        Path | None,
        typer.Option(help="File or glob to read instead of the view's source."),
    ] = None,
    offline: OfflineFolder = None,
) -> None:
    """Run the view's transform over its source, and store the rows offline.

    Deployed versions read older editions after a change, so these are filled too.
    """
    from features.ingest.load import ingest as load
    from features.offline import OfflineStore
    from turnout.cli.known_views import editions_of

    # Every edition is filled from the source that the project names now.
    context: CommandContext = ctx.obj
    environment, screen = context.required_environment(), terminal(context.json)
    root = offline or context.offline_folder()
    editions = [item.view for item in asyncio.run(editions_of(context, view))]
    source = next((item.source for item in editions if item.source is not None), None)
    # A source in a database needs its address, which may be a secret.
    needs_address = source is not None and source.kind == "table" and data is None
    connections = environment.connections() if needs_address else {}
    summaries = [
        load(
            replace(edition, source=source, is_new=False),
            OfflineStore(root),
            None if data is None else data.absolute(),
            root=environment.project.root,
            connections=connections,
        )
        for edition in editions
    ]
    # What was noticed goes to people and scripts alike.
    value = [
        {"view_hash": edition.view_hash, **summary.to_json()}
        for edition, summary in zip(editions, summaries, strict=True)
    ]
    rows = [
        (edition.view_hash[:16], f"{summary.source_rows:,}", f"{summary.rows:,}")
        for edition, summary in zip(editions, summaries, strict=True)
    ]
    screen.result(value, text_table(("edition", "rows read", "rows stored"), rows))
    for summary in summaries:
        for warning in summary.warnings:
            screen.note(warning)


@app.command()
def materialise(
    ctx: typer.Context,
    view: ViewName,
    offline: OfflineFolder = None,
    full: Annotated[
        bool, typer.Option("--full", help="Write all rows, whatever was written before.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count rows and bytes, and write nothing.")
    ] = False,
    rows_per_second: Annotated[
        int | None, typer.Option(min=1, help="Rows a second, over all editions. Default: no bound.")
    ] = None,
) -> None:
    """Copy the newest offline row of every entity to the online store.

    Rows that came since the last time are copied, or all rows if the store has none of them. A copy
    that was killed is continued. Each edition that a deployed version reads is copied, and that of
    the project. Online rows that are newer stay as they are. A store that another system writes to
    is refused.
    """
    # DuckDB and redis-py are imported here because `turnout --help` does not need them.
    from features.materialise import plan_materialise
    from features.offline import OfflineStore
    from features.online.store_client import store_client
    from features.online.store_marker import check_store, claim_store, system_id
    from features.online.store_users import WRITER
    from turnout.cli.known_views import editions_of

    # The view and its offline rows must be there before the store is opened.
    context: CommandContext = ctx.obj
    screen = terminal(context.json)
    root = offline or context.offline_folder()
    if not root.is_dir():
        raise OperatorError(f"there is no offline store in {root}; name its folder with --offline")
    store = OfflineStore(root)
    known = [item.view for item in asyncio.run(editions_of(context, view))]
    editions = [edition for edition in known if store.folder(edition).is_dir()]
    if not editions:
        raise OperatorError(
            f"no row of {view!r} is stored in {root}; store some with `turnout features ingest`"
        )
    system = system_id(asyncio.run(_version_public_key(context)))
    # The store of another system is neither written nor counted for.
    began = time.monotonic()
    with store_client(context.store_url(WRITER)) as client:
        if dry_run:
            check_store(client, system)
            plans = [plan_materialise(store, edition, client, full=full) for edition in editions]
            _report_plans(screen, editions, plans)
            return
        claim_store(client, system)
        summaries = _write(screen, store, editions, client, full, rows_per_second)
    report_materialised(screen, view, editions, summaries, time.monotonic() - began)


def _write(
    screen: Terminal,
    store: "OfflineStore",
    editions: "Sequence[View]",
    client: "StoreClient",
    full: bool,
    rows_per_second: int | None,
) -> "list[WriteSummary]":
    """Write the editions one after the other, with a progress bar each and one pace for all."""
    from features.materialise import materialise as write_online
    from features.writes.row_pace import RowPace

    summaries, pace = [], RowPace(rows_per_second)
    with screen.progress() as progress:
        for edition in editions:
            bar = progress.add_task(f"materialising {edition.name}", total=None, note="")

            def show_progress(done: int, rows: int, bar: TaskID = bar) -> None:
                progress.update(bar, completed=done, total=rows, note=f"{done:,} of {rows:,}")

            summaries.append(
                write_online(store, edition, client, full=full, pace=pace, progress=show_progress)
            )
    return summaries


def _report_plans(
    screen: Terminal, editions: "Sequence[View]", plans: "Sequence[MaterialisePlan]"
) -> None:
    """Print what would be sent, an edition a row."""
    value = {
        "rows": sum(plan.rows for plan in plans),
        "bytes": sum(plan.bytes for plan in plans),
        "by_edition": [
            {
                "view_hash": edition.view_hash,
                "rows": plan.rows,
                "bytes": plan.bytes,
                "incremental": plan.is_incremental,
                "resumed": plan.is_resumed,
            }
            for edition, plan in zip(editions, plans, strict=True)
        ],
    }
    rows = [
        (
            edition.view_hash[:16],
            f"{plan.rows:,}",
            f"{plan.bytes:,}",
            _way(plan.is_incremental, plan.is_resumed),
        )
        for edition, plan in zip(editions, plans, strict=True)
    ]
    screen.result(value, text_table(("edition", "rows", "bytes", "which"), rows))
    screen.hint("Nothing was written. Without --dry-run these rows are sent to the online store.")


def _way(is_incremental: bool, is_resumed: bool) -> str:
    """Return which rows are sent, in words."""
    if is_resumed:
        return "the rest of one that did not end, and what came since"
    return "what came since the last one" if is_incremental else "all"


def report_materialised(
    screen: Terminal,
    view: str,
    editions: "Sequence[View]",
    summaries: "Sequence[WriteSummary]",
    took_s: float,
) -> None:
    """Print what was written. Raises OperatorError when no gateway would use a row of it."""
    # The totals come first; each edition follows with its hash.
    value: dict[str, Any] = {
        "written": sum(done.written for done in summaries),
        "older": sum(done.older_than_stored for done in summaries),
        "from_future": sum(done.from_future for done in summaries),
        "stale": sum(done.stale for done in summaries),
        "forgotten": sum(done.forgotten for done in summaries),
        "editions": [edition.view_hash for edition in editions],
        "incremental": [done.is_incremental for done in summaries],
        "resumed": [done.is_resumed for done in summaries],
    }
    ways = "; ".join(
        (f"{edition.view_hash[:16]}: {done.written:,}, " if len(summaries) > 1 else "")
        + _way(done.is_incremental, done.is_resumed)
        for edition, done in zip(editions, summaries, strict=True)
    )
    screen.result(value, f"{view}: {value['written']:,} rows in {took_s:.1f} s ({ways}).")
    if value["from_future"]:
        screen.note(
            f"{value['from_future']:,} offline rows are dated more than an hour in the future and "
            "were left out; event times are Unix milliseconds in UTC"
        )
    # Rows may be old already.
    days = f"{editions[0].ttl_ms / DAY_MS:g} days"
    old = (
        f"{value['stale']:,} rows are older than its TTL of {days} and "
        f"{value['forgotten']:,} older than two TTLs"
    )
    # Rows that no gateway would use are no success, whatever was written.
    if not any(done.is_readable for done in summaries):
        raise OperatorError(
            f"a gateway can use none of the rows of {view}: the newest is older than its TTL. Of "
            f"the rows of this time, {old}. Ingest newer rows, or correct their event times"
        )
    if value["stale"] + value["forgotten"]:
        screen.note(
            f"{old}; gateways answer these entities with defaults. Ingest newer rows, or set a "
            "longer ttl_ms"
        )


async def _version_public_key(context: CommandContext) -> bytes:
    async with open_registry(context) as client:
        return (await client.serving_keys()).version_public_key
