"""`turnout audit`: the history of every change, and the proof that nobody rewrote it."""

import asyncio
import datetime as dt
from collections import deque
from typing import Annotated

import typer
from rich.text import Text

from protos import registry_pb2
from registry.types import Broken
from turnout.cli import clients
from turnout.cli.context import Asked
from turnout.errors import UsageError
from turnout.views.json_values import plain
from turnout.views.terminal import table, terminal

app = typer.Typer(help="The hash-chained history: read it, prove it.", no_args_is_help=True)


@app.command("list")
def list_(
    ctx: typer.Context,
    after: Annotated[int, typer.Option(help="Only entries with a larger number.")] = 0,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest.")] = 50,
    about: Annotated[str, typer.Option("--object", help="Prefix, such as model/churn.")] = "",
) -> None:
    """Show who changed what, when and why."""
    asked: Asked = ctx.obj
    entries = asyncio.run(_newest(asked, after, limit, about))
    rows = [(e.seq, _when(e.at_unix_ms), e.actor, e.action, e.object, e.reason) for e in entries]
    columns = ("seq", "when", "who", "did", "to", "because")
    terminal(asked.json).result([plain(entry) for entry in entries], table(columns, rows))


@app.command()
def verify(
    ctx: typer.Context,
    key: Annotated[
        str, typer.Option(help="The registry's public key, 64 hex digits, as you know it.")
    ] = "",
) -> None:
    """Prove the history from its first entry to its signed head; name the first broken one."""
    asked: Asked = ctx.obj
    screen = terminal(asked.json)
    try:
        known = bytes.fromhex(key) or None
    except ValueError as error:
        raise UsageError(f"--key {key!r} is not hex digits") from error
    head, broken = asyncio.run(_audit(asked, known))
    value = {
        "entries": head.seq,
        "whole": broken is None,
        "broken_seq": broken.seq if broken else None,
        "broken": broken.what if broken else None,
        "public_key": head.public_key.hex(),
    }
    if broken is not None:
        screen.result(value, Text(f"Broken: entry {broken.seq} {broken.what}.", style="bold red"))
        raise typer.Exit(1)
    said = f"Whole: {head.seq} entries, each naming the one before; the head is signed by its key."
    screen.result(value, Text(said, style="green"))
    if known is None:
        screen.hint(
            f"To prove who signed too: turnout audit verify --key {head.public_key.hex()}, with "
            "the key as you wrote it down when the registry was made."
        )


async def _newest(
    asked: Asked, after: int, limit: int, about: str
) -> list[registry_pb2.HistoryEntry]:
    newest: deque[registry_pb2.HistoryEntry] = deque(maxlen=limit)
    async with clients.registry(asked) as client:
        while page := (await client.history(after=after, object_prefix=about)).entries:
            newest.extend(page)
            after = page[-1].seq
    return list(newest)


async def _audit(asked: Asked, key: bytes | None) -> tuple[registry_pb2.SignedHead, Broken | None]:
    async with clients.registry(asked) as client:
        return await client.audit(key)


def _when(unix_ms: int) -> str:
    return dt.datetime.fromtimestamp(unix_ms / 1000).astimezone().strftime("%Y-%m-%d %H:%M:%S")
