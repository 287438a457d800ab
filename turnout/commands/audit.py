"""`turnout audit`: the history of every change, and the proof that nobody rewrote it."""

import asyncio
import datetime as dt
from collections import deque
from typing import Annotated

import typer
from rich.text import Text

from protos import registry_pb2
from registry.types import BrokenEntry
from turnout.cli import clients
from turnout.cli.context import CommandContext
from turnout.errors import UsageError
from turnout.views.json_values import message_to_json
from turnout.views.terminal import terminal, text_table

app = typer.Typer(help="The hash-chained history: read it, prove it.", no_args_is_help=True)


@app.command("list")
def list_(
    ctx: typer.Context,
    after: Annotated[int, typer.Option(help="Only entries with a larger number.")] = 0,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest.")] = 50,
    about: Annotated[str, typer.Option("--object", help="Prefix, such as model/churn.")] = "",
) -> None:
    """Show who changed what, when and why."""
    asked: CommandContext = ctx.obj
    entries = asyncio.run(_newest_entries(asked, after, limit, about))
    rows = [(e.seq, _when(e.at_unix_ms), e.actor, e.action, e.object, e.reason) for e in entries]
    columns = ("seq", "when", "who", "did", "to", "because")
    terminal(asked.json).result(
        [message_to_json(entry) for entry in entries], text_table(columns, rows)
    )


@app.command()
def verify(
    ctx: typer.Context,
    key: Annotated[
        str, typer.Option(help="The registry's public key, 64 hex digits, as you know it.")
    ] = "",
) -> None:
    """Prove the history from its first entry to its signed head; name the first broken one."""
    asked: CommandContext = ctx.obj
    screen = terminal(asked.json)
    try:
        known = bytes.fromhex(key) or None
    except ValueError as error:
        raise UsageError(f"--key {key!r} is not hex digits") from error
    head, broken = asyncio.run(_verify_history(asked, known))
    value = {
        "entries": head.seq,
        "whole": broken is None,
        "broken_seq": broken.seq if broken else None,
        "broken": broken.problem if broken else None,
        "public_key": head.public_key.hex(),
    }
    if broken is not None:
        screen.result(
            value, Text(f"Broken: entry {broken.seq} {broken.problem}.", style="bold red")
        )
        raise typer.Exit(1)
    said = f"Whole: {head.seq} entries, each naming the one before; the head is signed by its key."
    screen.result(value, Text(said, style="green"))
    if known is None:
        screen.hint(
            f"To prove who signed too: turnout audit verify --key {head.public_key.hex()}, with "
            "the key as you wrote it down when the registry was made."
        )


async def _newest_entries(
    context: CommandContext, after: int, limit: int, about: str
) -> list[registry_pb2.HistoryEntry]:
    newest: deque[registry_pb2.HistoryEntry] = deque(maxlen=limit)
    async with clients.open_registry(context) as client:
        while page := (await client.history(after=after, object_prefix=about)).entries:
            newest.extend(page)
            after = page[-1].seq
    return list(newest)


async def _verify_history(
    context: CommandContext, key: bytes | None
) -> tuple[registry_pb2.SignedHead, BrokenEntry | None]:
    async with clients.open_registry(context) as client:
        return await client.audit(key)


def _when(unix_ms: int) -> str:
    return dt.datetime.fromtimestamp(unix_ms / 1000).astimezone().strftime("%Y-%m-%d %H:%M:%S")
