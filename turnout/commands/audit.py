"""`turnout audit`: lists and verifies the history of changes, and the reviews that are open."""

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
from turnout.views.reviews import overdue_lines, reviews_table
from turnout.views.terminal import terminal, text_table

app = typer.Typer(
    help="List and verify the hash-chained history of all changes; close reviews.",
    no_args_is_help=True,
)


@app.command("list")
def list_(
    ctx: typer.Context,
    after: Annotated[int, typer.Option(help="Only entries with a number larger than this.")] = 0,
    limit: Annotated[
        int, typer.Option(min=1, help="Show at most this many entries, the newest ones.")
    ] = 50,
    about: Annotated[
        str,
        typer.Option("--object", help="Only objects that begin with this, such as model/churn."),
    ] = "",
) -> None:
    """List changes: who changed what, when and why."""
    context: CommandContext = ctx.obj
    entries = asyncio.run(_newest_entries(context, after, limit, about))
    rows = [(e.seq, _when(e.at_unix_ms), e.actor, e.action, e.object, e.reason) for e in entries]
    columns = ("seq", "when", "actor", "action", "object", "reason")
    terminal(context.json).result(
        [message_to_json(entry) for entry in entries], text_table(columns, rows)
    )


@app.command()
def verify(
    ctx: typer.Context,
    key: Annotated[
        str,
        typer.Option(
            help="The registry's public key (64 hex digits) from your own records. Without it, the "
            "key that the registry names is used."
        ),
    ] = "",
) -> None:
    """Verify the history from its first entry to its signed head; name the first broken entry."""
    context: CommandContext = ctx.obj
    screen = terminal(context.json)
    try:
        trusted_key = bytes.fromhex(key) or None
    except ValueError as error:
        raise UsageError(f"--key {key!r}: a key has hex digits only") from error
    # The client verifies every entry and the signed head by itself; the registry is not trusted.
    head, broken = asyncio.run(_verify_history(context, trusted_key))
    for line in overdue_lines(asyncio.run(_reviews(context))):
        screen.note(line)
    value = {
        "entries": head.seq,
        "intact": broken is None,
        "broken_seq": broken.seq if broken else None,
        "broken": broken.problem if broken else None,
        "public_key": head.public_key.hex(),
    }
    # A broken entry is the answer "no": exit code 1.
    if broken is not None:
        screen.result(
            value, Text(f"Broken: entry {broken.seq} {broken.problem}.", style="bold red")
        )
        raise typer.Exit(1)
    summary = (
        f"Intact: {head.seq} entries, each with the hash of the one before; the head is signed."
    )
    screen.result(value, Text(summary, style="green"))
    if trusted_key is None:
        screen.hint(
            f"To verify the signer too: turnout audit verify --key {head.public_key.hex()}. Take "
            "the key from your own records of when the registry was made."
        )


@app.command()
def reviews(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(help="Only reviews of this model.")] = "",
    every: Annotated[bool, typer.Option("--all", help="Closed reviews as well.")] = False,
) -> None:
    """List the reviews that are open: each broken glass is looked at by another person."""
    context: CommandContext = ctx.obj
    found = asyncio.run(_reviews(context, model, open_only=not every))
    terminal(context.json).result(
        [message_to_json(review) for review in found], reviews_table(found)
    )


@app.command()
def close(
    ctx: typer.Context,
    review: Annotated[str, typer.Argument(help="The review's id.")],
    reason: Annotated[str, typer.Option("--reason", "-r", help="What you found.")],
) -> None:
    """Close a review of a broken glass. Neither who broke it nor the author may."""
    context: CommandContext = ctx.obj

    async def write() -> registry_pb2.Review:
        async with clients.open_registry(context) as client:
            return await client.close_review(review, reason)

    closed = asyncio.run(write())
    terminal(context.json).result(
        message_to_json(closed), f"Closed: review {closed.id} of {closed.model}."
    )


async def _reviews(
    context: CommandContext, model: str = "", *, open_only: bool = True
) -> list[registry_pb2.Review]:
    async with clients.open_registry(context) as client:
        return await client.reviews(model, open_only=open_only)


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
