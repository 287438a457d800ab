"""`turnout splits`: shows and changes which version answers which customers.

A change is a compare-and-set on the deployment's revision.
"""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import typer
from rich.text import Text

from protos import registry_pb2
from registry.types import (
    ALL_BP,
    Deployment,
    holdout_bucket,
    shadow_bucket,
    split_bucket,
    standing_approvals,
)
from turnout.cli import clients
from turnout.cli.arguments import Model, Reason
from turnout.cli.context import CommandContext
from turnout.cli.deployment_changes import parse_salt, with_changes, with_settings
from turnout.errors import OperatorError
from turnout.views.json_values import message_to_json
from turnout.views.reviews import overdue_lines
from turnout.views.terminal import named_values, terminal, text_table

app = typer.Typer(
    help="Show and change which version answers which customers.", no_args_is_help=True
)

Holdout = Annotated[float | None, typer.Option(help="Percent of customers in the control group.")]
ServingSetting = Annotated[
    list[str] | None,
    typer.Option(help="NAME=VALUE of the serving policy; docs/limits.md lists them."),
]
Revision = Annotated[
    int,
    typer.Option(
        min=0, help="Change this revision only; fail when another one is current. 0: the newest."
    ),
]


@app.command()
def show(ctx: typer.Context, model: Model) -> None:
    """Show a model's deployment: each version's role and share, and what workers do not accept."""
    context: CommandContext = ctx.obj
    deployment, alarms = asyncio.run(_deployment_and_alarms(context, model))
    _print_deployment(context, deployment, alarms)


@app.command("set")
def set_(
    ctx: typer.Context,
    model: Model,
    production: Annotated[
        str, typer.Option(help="Label of the new production version; it needs an approval.")
    ] = "",
    canary: Annotated[
        str, typer.Option(help="LABEL=PERCENT of the canary, such as 2=10, or none.")
    ] = "",
    standby: Annotated[str, typer.Option(help="LABEL=PERCENT of the standby, or none.")] = "",
    shadow: Annotated[
        list[str] | None,
        typer.Option(help="LABEL=PERCENT of copied calls, or none; may be repeated."),
    ] = None,
    holdout: Holdout = None,
    setting: ServingSetting = None,
    revision: Revision = 0,
    reason: Reason = "",
    break_glass: Annotated[
        bool,
        typer.Option(
            "--break-glass",
            help="Deploy without an approval. The history says so, and another person reviews it.",
        ),
    ] = False,
) -> None:
    """Change a model's deployment. Roles that are not given stay as they are."""
    context: CommandContext = ctx.obj

    # The deployment is read and changed here. The registry accepts it only if nothing else has
    # changed it in between, which its revision says.
    async def change() -> Deployment:
        current = await _deployment(context, model)
        settings = setting or []
        proposed = with_changes(
            current, production, canary, standby, shadow or [], holdout, settings
        )
        return await clients.deploy_approved(
            context, _at_revision(proposed, revision, reason), break_glass=break_glass
        )

    _print_deployment(context, asyncio.run(change()))
    # A broken glass is not forgotten: another person must look at it.
    if break_glass:
        review = asyncio.run(_newest_review(context, model))
        terminal(context.json).note(
            f"Review {review.id} is open: within 24 h another person than {review.opened_by} and "
            f"the author closes it with turnout audit close {review.id} --reason ..."
        )


@app.command()
def approve(
    ctx: typer.Context,
    model: Model,
    holdout: Holdout = None,
    setting: ServingSetting = None,
    split_salt: Annotated[str, typer.Option(help="32 hex digits of a new split salt.")] = "",
    reason: Reason = "",
) -> None:
    """Approve other settings of a model. Then another person sets them with `splits set`."""
    context: CommandContext = ctx.obj

    async def write() -> registry_pb2.SettingsApproval:
        current = await _deployment(context, model)
        proposed = with_settings(current, holdout, setting or [])
        async with clients.open_registry(context) as client:
            return await client.approve_settings(
                proposed, reason or "approved by hand", split_salt=parse_salt(split_salt)
            )

    approval = asyncio.run(write())
    terminal(context.json).result(
        message_to_json(approval),
        f"Approved: other settings of {model} ({approval.digest[:12]}), by {approval.approver}.",
    )


@app.command()
def preload(
    ctx: typer.Context,
    model: Model,
    versions: Annotated[
        list[str], typer.Argument(help="Labels. They replace the current preload list.")
    ],
    revision: Revision = 0,
    reason: Reason = "",
    wait: Annotated[
        bool, typer.Option(help="Wait until every live worker has loaded them.")
    ] = True,
) -> None:
    """Load and verify versions on every gateway worker, without giving them traffic."""
    context: CommandContext = ctx.obj

    async def change() -> Deployment:
        current = await _deployment(context, model)
        proposed = replace(current, preload=tuple(versions))
        return await clients.deploy_approved(context, _at_revision(proposed, revision, reason))

    deployed = asyncio.run(change())
    if wait and versions:
        asyncio.run(_wait_loaded(context, model, versions))
    _print_deployment(context, deployed)


async def _wait_loaded(context: CommandContext, model: str, versions: list[str]) -> None:
    from turnout.cli.readiness import wait_until_ready  # imports gRPC and numpy

    screen = terminal(context.json)
    with screen.progress() as progress:
        bar = progress.add_task(f"loading {model} {', '.join(versions)}", total=None, note="")

        def show(ready: int, workers: int, waiting: str) -> None:
            note = f"waiting for {waiting}" if waiting else "no worker is live" * (not workers)
            progress.update(bar, total=workers or None, completed=ready, note=note)

        async with clients.open_registry(context) as client:
            workers = await wait_until_ready(client, model, versions, show)
    screen.hint(
        f"Ready on {workers} workers."
        if workers
        else "No gateway runs; it loads them when it does."
    )


@app.command()
def republish(ctx: typer.Context, model: Model, reason: Reason = "") -> None:
    """Write the current deployment again, above the revisions that gateways have.

    This is the way out after the registry was restored from an older copy: its gateways serve a
    later revision, ignore what the registry has, and say so in `turnout splits show`.
    """
    context: CommandContext = ctx.obj

    async def change() -> Deployment:
        async with clients.open_registry(context) as client:
            current = await client.deployment(model)
            require_deployed(current)
            return await client.deploy(replace(current, why=reason or "published again"))

    _print_deployment(context, asyncio.run(change()))


@app.command()
def which(
    ctx: typer.Context,
    model: Model,
    key: Annotated[
        str, typer.Argument(help="The sticky key, which is the customer's id in most models.")
    ],
) -> None:
    """Show which version answers a customer, computed as every gateway computes it."""
    context: CommandContext = ctx.obj
    answer = explain_split(asyncio.run(_deployment(context, model)), key)
    terminal(context.json).result(answer, named_values(answer))


def explain_split(deployment: Deployment, key: str) -> dict[str, Any]:
    """Return which version answers *key* in *deployment*, and why.

    bucket   0 to 9,999: the hash of the key. The canary has the lowest buckets, the standby the
             highest ones, production those between.
    shadows  labels of the shadows that get a copy.
    """
    # The canary has the lowest buckets, the standby the highest, production those between.
    sticky = key.encode()
    bucket = split_bucket(deployment.split_salt, sticky)
    if deployment.canary and bucket < deployment.canary_bp:
        version, role = deployment.canary, "canary"
    elif deployment.standby and bucket >= ALL_BP - deployment.standby_bp:
        version, role = deployment.standby, "standby"
    else:
        version, role = deployment.production, "production"
    # Shadows and the holdout have draws of their own, independent of the split.
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


def _at_revision(deployment: Deployment, revision: int, reason: str) -> Deployment:
    return replace(deployment, revision=revision or deployment.revision, why=reason or "by hand")


async def _deployment(context: CommandContext, model: str) -> Deployment:
    async with clients.open_registry(context) as client:
        return await client.deployment(model)


async def _newest_review(context: CommandContext, model: str) -> registry_pb2.Review:
    async with clients.open_registry(context) as client:
        return (await client.reviews(model))[-1]


async def _deployment_and_alarms(
    context: CommandContext, model: str
) -> tuple[Deployment, list[str]]:
    """Return the deployment, and what a person must do about it."""
    async with clients.open_registry(context) as client:
        deployment = await client.deployment(model)
        alarms = overdue_lines(await client.reviews(model, open_only=True))
        if deployment.production:
            given = await client.approvals(model, deployment.production)
            alarms += _production_alarms(deployment, given)
        # What live workers do not accept, a line for each reason.
        workers: dict[str, list[str]] = {}
        async for state in client.states():
            for alarm in state.alarms:
                if alarm.model in ("", model):
                    workers.setdefault(alarm.reason, []).append(f"{state.gateway}/{state.slot}")
    alarms += [
        f"ALARM from {len(names)} {'worker' if len(names) == 1 else 'workers'} "
        f"({', '.join(sorted(names))}): {reason}"
        for reason, names in workers.items()
    ]
    return deployment, alarms


def _production_alarms(deployment: Deployment, given: Sequence[registry_pb2.Approval]) -> list[str]:
    """Return a line if no approval of the production version stands.

    given  all approvals and rejections of the production version, oldest first.
    """
    if standing_approvals(given):
        return []
    rejections = [f"by {item.approver}: {item.reason}" for item in given if item.rejected]
    why = f"IS REJECTED {rejections[-1]}" if rejections else "HAS NO APPROVAL: the glass was broken"
    return [
        f"PRODUCTION VERSION {deployment.production} {why}. Replace it: turnout rollout undo "
        f"{deployment.model} --to ..., or roll out another version."
    ]


def _print_deployment(
    context: CommandContext, deployment: Deployment, alarms: Sequence[str] = ()
) -> None:
    # A role without a version has no row, except production.
    rows = [("production", deployment.production or "-", _production_share(deployment))]
    if deployment.canary:
        rows.append(("canary", deployment.canary, f"{deployment.canary_bp / 100:g} %"))
    if deployment.standby:
        rows.append(("standby", deployment.standby, f"{deployment.standby_bp / 100:g} %"))
    rows += [("shadow", label, f"copies of {bp / 100:g} %") for label, bp in deployment.shadows]
    rows += [("preloaded", label, "-") for label in deployment.preload]
    if deployment.holdout_bp:
        rows.append(("holdout", "-", f"{deployment.holdout_bp / 100:g} % of customers"))
    # Settings of the serving policy that differ from their defaults.
    settings = [
        f"{field.name} = {json.dumps(value)}" for field, value in deployment.policy.ListFields()
    ]
    terminal(context.json).result(
        {**message_to_json(deployment.to_proto()), "alarms": list(alarms)},
        text_table(("role", "version", "share"), rows, title=f"{deployment.model}"),
        *([f"settings: {', '.join(settings)}"] if settings else []),
        f"revision {deployment.revision}, by {deployment.who or '-'}: {deployment.why or '-'}",
        *(Text(alarm, style="bold red") for alarm in alarms),
    )


def _production_share(deployment: Deployment) -> str:
    return f"{(ALL_BP - deployment.canary_bp - deployment.standby_bp) / 100:g} %"


def require_deployed(deployment: Deployment) -> None:
    """Raise OperatorError when the model has never been deployed."""
    if not deployment.revision:
        raise OperatorError(f"model {deployment.model!r} has never been deployed")
