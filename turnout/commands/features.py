"""`turnout features`: the declared views, and filling the online store from the offline one.

The rooms behind it are imported by the command that needs them: DuckDB and redis-py take a while
to load, and `turnout --help` needs neither.
"""

import asyncio
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from turnout.cli.context import CommandContext
from turnout.errors import OperatorError
from turnout.views.row_flags import row_flag_names
from turnout.views.terminal import named_values, terminal, text_table

app = typer.Typer(help="Declared views, offline and online.", no_args_is_help=True)

ViewName = Annotated[str, typer.Argument(help="A declared view.")]


@app.command()
def views(ctx: typer.Context) -> None:
    """List the declared views."""
    from turnout.cli.online_rows import DAY_MS, DECLARED_VIEWS

    asked: CommandContext = ctx.obj
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
            one["view"],
            ", ".join(one["entities"]),
            len(one["features"]),
            f"{one['ttl_days']:g} days",
            one["view_hash"][:16],
        )
        for one in value
    ]
    columns = ("view", "entities", "features", "TTL", "hash")
    terminal(asked.json).result(value, text_table(columns, rows))


@app.command()
def show(
    ctx: typer.Context,
    view: ViewName,
    key: Annotated[str, typer.Argument(help="An entity's id.")],
) -> None:
    """Show an entity's online row, as a gateway would read it now."""
    from turnout.cli.online_rows import declared_view, read_online_rows

    asked: CommandContext = ctx.obj
    chosen = declared_view(view)
    now_ms = time.time_ns() // 1_000_000
    rows = asyncio.run(read_online_rows(asked.store_url(), chosen, [key], now_ms))
    named = zip((feature.name for feature in chosen.features), rows.values[0], strict=True)
    features = {name: float(number) for name, number in named}
    flags = row_flag_names(int(rows.flags[0]))
    shown = {**features, "flags": ", ".join(flags) or "none: fresh and whole"}
    value = {"key": key, "flags": flags, "features": features}
    terminal(asked.json).result(value, named_values(shown))


@app.command()
def materialise(
    ctx: typer.Context,
    view: ViewName,
    offline: Annotated[
        Path | None, typer.Option(help="The offline store; empty: the state folder's.")
    ] = None,
) -> None:
    """Write every entity's newest offline row online; newer rows there are left alone."""
    from features.materialise import materialise as write_online
    from features.offline import OfflineStore
    from features.online.store_client import store_client
    from turnout.cli.online_rows import declared_view

    asked: CommandContext = ctx.obj
    chosen, screen = declared_view(view), terminal(asked.json)
    root = offline or asked.running_folder() / "offline"
    if not root.is_dir():
        raise OperatorError(f"there is no offline store in {root}; say where with --offline")
    began = time.monotonic()
    with screen.progress() as progress, store_client(asked.store_url()) as client:
        bar = progress.add_task(f"materialising {view}", total=None, note="")

        def told(done: int, rows: int) -> None:
            progress.update(bar, completed=done, total=rows, note=f"{done:,} of {rows:,}")

        done = write_online(OfflineStore(root), chosen, client, progress=told)
    took_s = time.monotonic() - began
    value: dict[str, Any] = {"written": done.written, "older": done.older_than_stored}
    screen.result(value, f"{view}: {done.written:,} rows in {took_s:.1f} s.")
