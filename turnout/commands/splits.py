"""`turnout splits`: who answers whom; written by compare-and-set on the revision."""

import asyncio
from dataclasses import replace
from typing import Annotated, Any

import typer

from registry.types import (
    ALL_BP,
    Deployment,
    holdout_bucket,
    shadow_bucket,
    split_bucket,
)
from turnout.cli import clients
from turnout.cli.context import CommandContext
from turnout.errors import OperatorError, UsageError
from turnout.views.json_values import message_to_json
from turnout.views.terminal import named_values, terminal, text_table

app = typer.Typer(help="Who answers whom: show it, change it.", no_args_is_help=True)

Model = Annotated[str, typer.Argument(help="The model's name.")]
Why = Annotated[str, typer.Option("--why", help="Kept in the history.")]
Revision = Annotated[
    int, typer.Option(help="The revision you looked at; it fails when another one is in force.")
]


@app.command()
def show(ctx: typer.Context, model: Model) -> None:
    """Show a model's deployment."""
    asked: CommandContext = ctx.obj
    deployment = asyncio.run(_deployment(asked, model))
    _print_deployment(asked, deployment)


@app.command("set")
def set_(
    ctx: typer.Context,
    model: Model,
    production: Annotated[str, typer.Option(help="Label; needs an approval.")] = "",
    canary: Annotated[str, typer.Option(help="LABEL=PERCENT, or none.")] = "",
    standby: Annotated[str, typer.Option(help="LABEL=PERCENT, or none.")] = "",
    shadow: Annotated[list[str] | None, typer.Option(help="LABEL=PERCENT, or none; many.")] = None,
    holdout: Annotated[float | None, typer.Option(help="Percent in the control group.")] = None,
    revision: Revision = 0,
    why: Why = "",
    break_glass: Annotated[
        bool, typer.Option("--break-glass", help="Without approval; loud in the history.")
    ] = False,
) -> None:
    """Change a model's deployment: what is left out stays as it is."""
    asked: CommandContext = ctx.obj

    async def change() -> Deployment:
        held = await _deployment(asked, model)
        proposed = with_changes(held, production, canary, standby, shadow or [], holdout)
        return await clients.deploy_approved(
            asked, _at_revision(proposed, revision, why), break_glass=break_glass
        )

    _print_deployment(asked, asyncio.run(change()))


@app.command()
def preload(
    ctx: typer.Context,
    model: Model,
    versions: Annotated[list[str], typer.Argument(help="Labels; replaces the list.")],
    revision: Revision = 0,
    why: Why = "",
    wait: Annotated[bool, typer.Option(help="Until every live worker has loaded them.")] = True,
) -> None:
    """Have every gateway worker load, verify and golden-test versions; no traffic yet."""
    asked: CommandContext = ctx.obj

    async def change() -> Deployment:
        held = await _deployment(asked, model)
        proposed = replace(held, preload=tuple(versions))
        return await clients.deploy_approved(asked, _at_revision(proposed, revision, why))

    deployed = asyncio.run(change())
    if wait and versions:
        asyncio.run(_wait_loaded(asked, model, versions))
    _print_deployment(asked, deployed)


async def _wait_loaded(context: CommandContext, model: str, versions: list[str]) -> None:
    from turnout.cli.readiness import wait_until_ready  # gRPC and numpy

    screen = terminal(context.json)
    with screen.progress() as progress:
        bar = progress.add_task(f"loading {model} {', '.join(versions)}", total=None, note="")

        def show(ready: int, workers: int, waiting: str) -> None:
            note = f"waits for {waiting}" if waiting else "no worker is live" * (not workers)
            progress.update(bar, total=workers or None, completed=ready, note=note)

        async with clients.open_registry(context) as client:
            workers = await wait_until_ready(client, model, versions, show)
    words = f"ready on {workers} workers" if workers else "no gateway is live: it loads them later"
    screen.hint(words)


@app.command()
def which(
    ctx: typer.Context,
    model: Model,
    key: Annotated[str, typer.Argument(help="A sticky key: mostly the customer's id.")],
) -> None:
    """Say which version answers a customer, and why: computed here as every gateway does."""
    asked: CommandContext = ctx.obj
    answer = explain_split(asyncio.run(_deployment(asked, model)), key)
    terminal(asked.json).result(answer, named_values(answer))


def explain_split(deployment: Deployment, key: str) -> dict[str, Any]:
    """Return where *key* falls in every draw of *deployment*."""
    sticky = key.encode()
    bucket = split_bucket(deployment.split_salt, sticky)
    if deployment.canary and bucket < deployment.canary_bp:
        version, role = deployment.canary, "canary"
    elif deployment.standby and bucket >= ALL_BP - deployment.standby_bp:
        version, role = deployment.standby, "standby"
    else:
        version, role = deployment.production, "production"
    copies = [
        label
        for label, sample_bp in deployment.shadows
        if shadow_bucket(deployment.split_salt, bytes.fromhex(deployment.digest(label)), sticky)
        < sample_bp
    ]
    held_out = holdout_bucket(deployment.holdout_salt, sticky) < deployment.holdout_bp
    return {
        "key": key,
        "version": version,
        "role": role,
        "bucket": bucket,
        "shadows": copies,
        "holdout": held_out,
        "revision": deployment.revision,
    }


def with_changes(
    current: Deployment,
    production: str,
    canary: str,
    standby: str,
    shadows: list[str],
    holdout: float | None,
) -> Deployment:
    """Return *held* with the options' words put in; UsageError for one that cannot be read."""
    proposed: dict[str, Any] = {}
    if production:
        proposed["production"] = production
    if canary:
        proposed["canary"], proposed["canary_bp"] = parse_share(canary)
    if standby:
        proposed["standby"], proposed["standby_bp"] = parse_share(standby)
    if shadows:
        proposed["shadows"] = tuple(parse_share(text) for text in shadows if text != "none")
    if holdout is not None:
        proposed["holdout_bp"] = round(holdout * 100)
    if not proposed:
        raise UsageError("nothing to change: give --production, --canary, --standby, ...")
    made = replace(current, **proposed)
    if made.canary or made.standby or not (production or canary or standby):
        return made
    return replace(made, rollout_id="")  # what it was about was taken away


def parse_share(text: str) -> tuple[str, int]:
    """Read LABEL=PERCENT as (label, basis points); `none` is ("", 0)."""
    if text == "none":
        return "", 0
    label, _, percent = text.partition("=")
    try:
        return label, round(float(percent) * 100)
    except ValueError as error:
        raise UsageError(f"{text!r} is not LABEL=PERCENT, such as 2=10") from error


def _at_revision(deployment: Deployment, revision: int, why: str) -> Deployment:
    return replace(deployment, revision=revision or deployment.revision, why=why or "by hand")


async def _deployment(context: CommandContext, model: str) -> Deployment:
    async with clients.open_registry(context) as client:
        return await client.deployment(model)


def _print_deployment(context: CommandContext, deployment: Deployment) -> None:
    rows = [("production", deployment.production or "-", _production_share(deployment))]
    if deployment.canary:
        rows.append(("canary", deployment.canary, f"{deployment.canary_bp / 100:g} %"))
    if deployment.standby:
        rows.append(("standby", deployment.standby, f"{deployment.standby_bp / 100:g} %"))
    rows += [("shadow", label, f"copies of {bp / 100:g} %") for label, bp in deployment.shadows]
    rows += [("preloaded", label, "-") for label in deployment.preload]
    if deployment.holdout_bp:
        rows.append(("holdout", "-", f"{deployment.holdout_bp / 100:g} % of customers"))
    terminal(context.json).result(
        message_to_json(deployment.to_proto()),
        text_table(("role", "version", "share"), rows, title=f"{deployment.model}"),
        f"revision {deployment.revision}, by {deployment.who or '-'}: {deployment.why or '-'}",
    )


def _production_share(deployment: Deployment) -> str:
    return f"{(ALL_BP - deployment.canary_bp - deployment.standby_bp) / 100:g} %"


def require_deployed(deployment: Deployment) -> None:
    """OperatorError when the model has no deployment at all."""
    if not deployment.revision:
        raise OperatorError(f"model {deployment.model!r} has never been deployed")
