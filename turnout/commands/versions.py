"""`turnout versions`: register, show, approve, archive."""

import asyncio
import datetime as dt
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.text import Text

from protos import registry_pb2
from turnout.cli import clients
from turnout.cli.context import CommandContext
from turnout.errors import OperatorError
from turnout.views.cards import card_of, change_summary, shift_digest
from turnout.views.json_values import message_to_json
from turnout.views.terminal import named_values, terminal, text_table

app = typer.Typer(
    help="Versions: what was registered, by whom, approved by whom.", no_args_is_help=True
)

Model = Annotated[str, typer.Argument(help="The model's name.")]
Version = Annotated[str, typer.Argument(help="A label (7), or an id of 64 hex digits.")]
Reason = Annotated[str, typer.Option("--reason", "-r", help="Why; kept in the history.")]

STATUS_BY_PROTO = {
    registry_pb2.DEVELOPMENT: "development",
    registry_pb2.STAGING: "staging",
    registry_pb2.PRODUCTION_STATUS: "production",
    registry_pb2.ARCHIVED: "archived",
}


@app.command("list")
def list_(ctx: typer.Context, model: Model) -> None:
    """List a model's versions."""
    asked: CommandContext = ctx.obj
    found = asyncio.run(_list_versions(asked, model))
    rows = [
        (
            one.label,
            status_name(one),
            one.author,
            dt.datetime.fromtimestamp(one.created_unix_ms / 1000).strftime("%Y-%m-%d %H:%M"),  # noqa: DTZ006
            one.digest[:12],
            f"{one.size_bytes / 1024:,.0f} kB",
        )
        for one in found
    ]
    columns = ("version", "status", "author", "created", "id", "size")
    terminal(asked.json).result([message_to_json(one) for one in found], text_table(columns, rows))


@app.command()
def show(ctx: typer.Context, model: Model, version: Version) -> None:
    """Show one version: its card, its contract, what it would change, who approved it."""
    asked: CommandContext = ctx.obj
    found, approvals = asyncio.run(_find_version(asked, model, version))
    card = card_of(found)
    value: dict[str, Any] = {
        **message_to_json(found),
        "card": card,
        "approvals": [message_to_json(one) for one in approvals],
    }
    value.pop("card_json")
    terminal(asked.json).result(
        value,
        named_values(
            {
                "version": f"{found.model} {found.label} ({status_name(found)})",
                "id": found.digest,
                "author": found.author,
                "model contract": found.model_contract,
                "input contract": found.input_contract,
            }
        ),
        change_summary(card),
        _approvals_table(approvals),
    )


@app.command()
def register(
    ctx: typer.Context,
    model: Model,
    folder: Annotated[Path, typer.Argument(help="With model.onnx, contract.json, ...")],
) -> None:
    """Register a folder of version files; --as names the author."""
    asked: CommandContext = ctx.obj
    found = asyncio.run(_register(asked, model, folder))
    screen = terminal(asked.json)
    screen.result(
        message_to_json(found), f"Registered {found.model} {found.label} ({found.digest[:12]})."
    )
    screen.hint(
        f"Next, somebody else: turnout versions approve {model} {found.label} --policy standard"
    )


@app.command()
def approve(
    ctx: typer.Context,
    model: Model,
    version: Version,
    policy: Annotated[
        str, typer.Option(help="The rollout policy it may run under; initial: a model's first.")
    ] = "standard",
    reason: Reason = "",
    reject: Annotated[bool, typer.Option("--reject", help="Say no instead.")] = False,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Accept what changes without being asked.")
    ] = False,
) -> None:
    """Approve (version, policy), having seen what will change. Never by the author."""
    asked: CommandContext = ctx.obj
    screen = terminal(asked.json)
    found, _ = asyncio.run(_find_version(asked, model, version))
    if not (yes or reject):
        if asked.json:
            raise OperatorError("with --json nobody can be asked: say --yes to accept the change")
        screen.result(None, change_summary(card_of(found)))
        typer.confirm(f"Accept this change of {model} under policy {policy}?", abort=True, err=True)
    given = asyncio.run(_approve(asked, found, policy, reason, reject))
    said = "Rejected" if reject else "Approved"
    screen.result(
        message_to_json(given),
        f"{said}: {model} {given.version} under {policy}, by {given.approver}.",
    )
    if not reject:
        next_step = (
            f"turnout splits set {model} --production {given.version}"
            if policy == "initial"
            else f"turnout rollout start {model} {given.version} --policy {policy}"
        )
        screen.hint(f"Next: {next_step}")


@app.command()
def archive(ctx: typer.Context, model: Model, version: Version, reason: Reason = "") -> None:
    """Archive a version that nothing names any more."""
    _set_status(ctx, model, version, registry_pb2.ARCHIVED, reason)


@app.command()
def stage(ctx: typer.Context, model: Model, version: Version, reason: Reason = "") -> None:
    """Move a version from development to staging."""
    _set_status(ctx, model, version, registry_pb2.STAGING, reason)


def status_name(version: registry_pb2.Version) -> str:
    """Return the status as people say it."""
    words = STATUS_BY_PROTO.get(version.status, "unknown")
    return f"{words}, standby" if version.standby else words


def _set_status(
    ctx: typer.Context,
    model: str,
    version: str,
    status: registry_pb2.VersionStatus,
    reason: str,
) -> None:
    asked: CommandContext = ctx.obj

    async def change() -> registry_pb2.Version:
        async with clients.open_registry(asked) as client:
            return await client.set_status(model, version, status, reason or "by hand")

    changed = asyncio.run(change())
    terminal(asked.json).result(
        message_to_json(changed), f"{model} {changed.label} is {status_name(changed)} now."
    )


def _approvals_table(approvals: list[registry_pb2.Approval]) -> RenderableType:
    if not approvals:
        return Text("Nobody has approved it yet.", style="dim")
    rows = [
        (
            "rejected" if one.rejected else "approved",
            one.policy_name,
            one.approver,
            dt.datetime.fromtimestamp(one.at_unix_ms / 1000).strftime("%Y-%m-%d %H:%M"),  # noqa: DTZ006
            one.reason,
        )
        for one in approvals
    ]
    return text_table(("", "policy", "by", "when", "because"), rows)


async def _list_versions(context: CommandContext, model: str) -> list[registry_pb2.Version]:
    async with clients.open_registry(context) as client:
        return list(await client.list_versions(model))


async def _find_version(
    context: CommandContext, model: str, version: str
) -> tuple[registry_pb2.Version, list[registry_pb2.Approval]]:
    async with clients.open_registry(context) as client:
        found = await client.get_version(model, version)
        return found, list(await client.approvals(model, found.label))


async def _register(context: CommandContext, model: str, folder: Path) -> registry_pb2.Version:
    from registry import bundle  # loads ONNX Runtime, which no other command here needs

    files = bundle.read_version_folder(folder)
    async with clients.open_registry(context) as client:
        return await client.register(model, files)


async def _approve(
    context: CommandContext, version: registry_pb2.Version, policy: str, reason: str, reject: bool
) -> registry_pb2.Approval:
    digest = await clients.policy_digest(context, policy)
    async with clients.open_registry(context) as client:
        return await client.approve(
            version.model,
            version.label,
            policy,
            digest,
            shift_digest(card_of(version)),
            reason or "approved by hand",
            reject=reject,
        )
