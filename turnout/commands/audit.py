"""`turnout audit`: lists and verifies the history, notes its head, closes reviews."""

import asyncio
import datetime as dt
import json
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer
from rich.text import Text

from protos import registry_pb2
from registry.types import AuditReport, VersionRefusedError
from turnout.cli import clients
from turnout.cli.context import CommandContext
from turnout.errors import OperatorError, UsageError
from turnout.views.json_values import message_to_json
from turnout.views.reviews import finding_sentence, overdue_lines, reviews_table
from turnout.views.terminal import Terminal, terminal, text_table

if TYPE_CHECKING:
    from registry.client import RegistryClient

WEBHOOK_S = 10.0
"""Timeout of each step of the POST of a head."""

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
        typer.Option(
            "--object",
            help="Only this object and what is below it, such as model/churn; with a star at the "
            "end, such as 'model/churn*', all objects that begin with it.",
        ),
    ] = "",
) -> None:
    """List changes: who changed what, when and why."""
    context: CommandContext = ctx.obj
    entries = asyncio.run(_newest_entries(context, after, limit, about))
    rows = [_row(entry) for entry in entries]
    columns = ("seq", "when", "actor", "action", "object", "reason")
    terminal(context.json).result(
        [message_to_json(entry) for entry in entries], text_table(columns, rows)
    )


def _row(entry: registry_pb2.HistoryEntry) -> tuple[object, ...]:
    """Return the cells of an entry. A finding is a sentence; --json has it as it was written."""
    reason = finding_sentence(entry.reason) if entry.action == "finding" else entry.reason
    when = _when(entry.at_unix_ms)
    return entry.seq, when, entry.actor, entry.action, entry.object, reason


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
    head: Annotated[
        list[Path] | None,
        typer.Option(
            help="File with heads that `turnout audit head` noted. Each must be in the history."
        ),
    ] = None,
    files: Annotated[
        bool, typer.Option("--files", help="Also fetch and verify the files of every version.")
    ] = False,
) -> None:
    """Verify the history, and that every row is as it says; name the first difference."""
    context: CommandContext = ctx.obj
    screen = terminal(context.json)
    try:
        trusted_key = bytes.fromhex(key) or None
    except ValueError as error:
        raise UsageError(f"--key {key!r}: a key has hex digits only") from error
    noted_heads = _read_noted_heads(head or [])
    # The client verifies entries, head and rows by itself; the registry is not trusted.
    report = asyncio.run(_verify_registry(context, trusted_key, noted_heads, files=files))
    _print_report(screen, report)
    for line in overdue_lines(asyncio.run(_reviews(context))):
        screen.note(line)
    if trusted_key is None and report.intact:
        screen.hint(
            f"To verify the signer too: turnout audit verify --key {report.head.public_key.hex()}. "
            "Take the key from your own records of when the registry was made."
        )
    # A difference is the answer "no".
    if not report.intact:
        raise typer.Exit(1)


def _print_report(screen: Terminal, report: AuditReport) -> None:
    value = {
        "entries": report.head.seq,
        "intact": report.intact,
        "problem": report.problem or None,
        "broken_seq": report.broken.seq if report.broken else None,
        "broken": report.broken.problem if report.broken else None,
        "stopped": report.stopped or None,
        "unproven": list(report.unproven),
        "public_key": report.head.public_key.hex(),
    }
    # What is wrong, and what the registry says about itself.
    if not report.intact:
        problem = report.problem and f"Broken: {report.problem}."
        stopped = (
            report.stopped and f"Stopped: the registry writes nothing because {report.stopped}."
        )
        lines = "\n".join(line for line in (problem, stopped) if line)
        screen.result(value, Text(lines, style="bold red"))
        return
    # What was proven, and what was not.
    summary = (
        f"Intact: {report.head.seq} entries, each with the hash of the one before; the head is "
        "signed; every row of the tables is what they say."
    )
    screen.result(value, Text(summary, style="green"))
    for line in report.unproven:
        screen.hint(f"Not proven. {line}")


@app.command("head")
def note_head(
    ctx: typer.Context,
    file: Annotated[
        Path | None, typer.Option(help="Append the head to this file, a line of JSON.")
    ] = None,
    webhook: Annotated[
        str, typer.Option(help="POST the head as JSON to this http or https address.")
    ] = "",
) -> None:
    """Print the signed head of the history, to note it where the registry cannot write.

    A registry that is replaced by an older copy, or by another one, contradicts a noted head:
    `turnout audit verify --head FILE` finds that.
    """
    # Check the address before anything is sent.
    context: CommandContext = ctx.obj
    if webhook and urlsplit(webhook).scheme not in ("http", "https"):
        raise UsageError(f"--webhook {webhook!r}: the address begins with http:// or https://")
    signed_head = asyncio.run(_read_head(context))
    value = {
        "seq": signed_head.seq,
        "digest": signed_head.digest.hex(),
        "signature": signed_head.signature.hex(),
        "public_key": signed_head.public_key.hex(),
    }
    # Note it.
    if file is not None:
        try:
            with file.open("a", encoding="ascii") as stream:
                stream.write(json.dumps(value) + "\n")
        except OSError as error:
            raise OperatorError(f"the head was not noted in {file}: {error.strerror}") from error
    if webhook:
        _post(webhook, json.dumps(value).encode())
    text = f"Entry {signed_head.seq}, SHA-256 {value['digest']}, signed by {value['public_key']}."
    terminal(context.json).result(value, Text(text))


def _post(webhook: str, body: bytes) -> None:
    """POST *body*. Raises OperatorError unless the answer is 2xx within WEBHOOK_S."""
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(webhook, body, headers, method="POST")  # noqa: S310  checked
    try:
        with urllib.request.urlopen(request, timeout=WEBHOOK_S):  # noqa: S310  scheme is checked
            pass
    except urllib.error.HTTPError as error:
        error.close()
        raise OperatorError(f"{webhook} refused the head: status {error.code}") from error
    except OSError as error:
        raise OperatorError(f"{webhook} did not take the head: {error}") from error


def _read_noted_heads(files: list[Path]) -> dict[str, registry_pb2.SignedHead]:
    """Return "file, line n" -> the head there. Raises UsageError for anything else in a file."""
    heads = {}
    for file in files:
        try:
            for number, line in enumerate(file.read_text(encoding="ascii").splitlines(), start=1):
                value = json.loads(line)
                heads[f"{file}, line {number}"] = registry_pb2.SignedHead(
                    seq=value["seq"],
                    digest=bytes.fromhex(value["digest"]),
                    signature=bytes.fromhex(value["signature"]),
                    public_key=bytes.fromhex(value["public_key"]),
                )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"--head {file}: it must have lines of JSON that `turnout audit head` wrote "
                f"({error!r})"
            ) from error
    return heads


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
    prefix = about.removesuffix("*")
    async with clients.open_registry(context) as client:
        while page := (await client.history(after=after, object_prefix=prefix)).entries:
            newest.extend(entry for entry in page if is_about(entry.object, about))
            after = page[-1].seq
    return list(newest)


def is_about(name: str, about: str) -> bool:
    """Return whether the object *name* is what `--object` *about* asks for.

    model/churn asks for model/churn and model/churn/..., and not for model/churn_b2b. model/churn*
    asks for all that begin with model/churn. An empty text asks for all.
    """
    if not about or about.endswith("*"):
        return name.startswith(about.removesuffix("*"))
    return name == about or name.startswith(about.removesuffix("/") + "/")


async def _verify_registry(
    context: CommandContext,
    key: bytes | None,
    noted_heads: Mapping[str, registry_pb2.SignedHead],
    *,
    files: bool,
) -> AuditReport:
    async with clients.open_registry(context) as client:
        report = await client.audit(key, noted_heads)
        if not files:
            left_out = "Files of versions: they were not fetched, which --files does."
            return replace(report, unproven=(*report.unproven, left_out))
        # The files come last, because the history says which there must be.
        signer = key or report.head.public_key
        problem = report.problem or await _find_altered_files(client, signer)
        return replace(report, problem=problem)


async def _find_altered_files(client: "RegistryClient", key: bytes) -> str:
    """Fetch all versions, and return which one's files are not what its id says; else ""."""
    # It imports ONNX Runtime, which takes long.
    from registry.bundle import verify_bundle

    for model in await client.list_models():
        for version in await client.list_versions(model.model):
            try:
                files = await client.fetch(model.model, version.digest)
                verify_bundle(files, trusted_key=key, expected_digest=version.digest)
            except VersionRefusedError as error:
                return f"the files of version {version.label} of {model.model!r}: {error}"
    return ""


async def _read_head(context: CommandContext) -> registry_pb2.SignedHead:
    async with clients.open_registry(context) as client:
        return await client.signed_head()


def _when(unix_ms: int) -> str:
    return dt.datetime.fromtimestamp(unix_ms / 1000).astimezone().strftime("%Y-%m-%d %H:%M:%S")
