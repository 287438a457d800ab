"""`turnout features`: lists the declared views, reads online rows, fills the online store.

DuckDB and redis-py take long to import, so each command imports what it needs by itself.
"""

import asyncio
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from turnout.cli.clients import open_registry
from turnout.cli.context import CommandContext
from turnout.commands.features_replay import replay
from turnout.errors import OperatorError
from turnout.views.row_flags import row_flag_names
from turnout.views.terminal import named_values, terminal, text_table

app = typer.Typer(help="Feature views, and their rows in the online store.", no_args_is_help=True)

app.command()(replay)

ViewName = Annotated[str, typer.Argument(help="Name of a declared view.")]


@app.command()
def views(ctx: typer.Context) -> None:
    """List the declared feature views."""
    from turnout.cli.online_rows import DAY_MS, DECLARED_VIEWS

    context: CommandContext = ctx.obj
    value: list[dict[str, Any]] = [
        {
            "view": view.name,
            "entities": list(view.entities),
            "features": [feature.name for feature in view.features],
            "ttl_days": view.ttl_ms / DAY_MS,
            "view_hash": view.view_hash,
        }
        for view in DECLARED_VIEWS
    ]
    rows = [
        (
            view["view"],
            ", ".join(view["entities"]),
            len(view["features"]),
            f"{view['ttl_days']:g} days",
            view["view_hash"][:16],
        )
        for view in value
    ]
    columns = ("view", "entities", "features", "TTL", "hash")
    terminal(context.json).result(value, text_table(columns, rows))


@app.command()
def show(
    ctx: typer.Context,
    view: ViewName,
    key: Annotated[str, typer.Argument(help="Id of one entity, such as a customer.")],
) -> None:
    """Show the online row of an entity, as a gateway would read it now."""
    from features.online.store_users import READER
    from turnout.cli.online_rows import declared_view, read_online_rows

    context: CommandContext = ctx.obj
    chosen = declared_view(view)
    now_ms = time.time_ns() // 1_000_000
    rows = asyncio.run(read_online_rows(context.store_url(READER), chosen, [key], now_ms))
    named = zip((feature.name for feature in chosen.features), rows.values[0], strict=True)
    features = {name: float(number) for name, number in named}
    flags = row_flag_names(int(rows.flags[0]))
    shown = {**features, "flags": ", ".join(flags) or "none: every feature is there and fresh"}
    value = {"key": key, "flags": flags, "features": features}
    terminal(context.json).result(value, named_values(shown))


@app.command()
def materialise(
    ctx: typer.Context,
    view: ViewName,
    offline: Annotated[
        Path | None,
        typer.Option(help="Folder of the offline store. Default: the running system's."),
    ] = None,
) -> None:
    """Copy the newest offline row of every entity to the online store.

    Online rows that are newer stay as they are. A store that another system writes to is refused.
    """
    # DuckDB and redis-py are imported here because `turnout --help` does not need them.
    from features.materialise import materialise as write_online
    from features.offline import OfflineStore
    from features.online.store_client import store_client
    from features.online.store_marker import claim_store, system_id
    from features.online.store_users import WRITER
    from turnout.cli.online_rows import declared_view

    # The view and its offline rows must be there before the store is opened.
    context: CommandContext = ctx.obj
    chosen, screen = declared_view(view), terminal(context.json)
    root = offline or context.running_folder() / "offline"
    if not root.is_dir():
        raise OperatorError(f"there is no offline store in {root}; name its folder with --offline")
    system = system_id(asyncio.run(_version_public_key(context)))
    # Rows are written in batches, and each batch moves the progress bar.
    began = time.monotonic()
    with screen.progress() as progress, store_client(context.store_url(WRITER)) as client:
        claim_store(client, system)
        bar = progress.add_task(f"materialising {view}", total=None, note="")

        def show_progress(done: int, rows: int) -> None:
            progress.update(bar, completed=done, total=rows, note=f"{done:,} of {rows:,}")

        done = write_online(OfflineStore(root), chosen, client, progress=show_progress)
    # Rows of the future are named, because they show that event times are wrong.
    took_s = time.monotonic() - began
    value: dict[str, Any] = {
        "written": done.written,
        "older": done.older_than_stored,
        "from_future": done.from_future,
        "stale": done.stale,
        "forgotten": done.forgotten,
    }
    screen.result(value, f"{view}: {done.written:,} rows in {took_s:.1f} s.")
    if done.from_future:
        screen.note(
            f"{done.from_future:,} offline rows are dated more than an hour in the future and were "
            "left out; event times are Unix milliseconds in UTC"
        )
    # Rows that no gateway would use are no success, whatever was written.
    if not done.is_readable:
        raise OperatorError(
            f"a gateway can use none of the rows of {view}: {done.stale:,} are older than its TTL "
            f"and {done.forgotten:,} older than two TTLs. Ingest newer rows, or correct their "
            "event times"
        )


async def _version_public_key(context: CommandContext) -> bytes:
    async with open_registry(context) as client:
        return (await client.serving_keys()).version_public_key
