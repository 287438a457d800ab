"""`turnout versions`: registers, shows, exports, approves, rejects and archives versions."""

import asyncio
import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import RenderableType
from rich.text import Text

from protos import registry_pb2
from registry.types import VersionRefusedError, standing_approvals
from turnout.adoption.export_command import export
from turnout.cli import clients
from turnout.cli.arguments import Model, Reason
from turnout.cli.context import CommandContext
from turnout.cli.isolation import WithoutSandbox, chosen_isolation
from turnout.errors import OperatorError
from turnout.training_runs.waiting_runs import waiting_runs
from turnout.views.cards import INITIAL, card_of, change_summary, shift_digest
from turnout.views.golden_evidence import golden_evidence
from turnout.views.json_values import message_to_json
from turnout.views.proposals import proposal_json, step_after_approval
from turnout.views.terminal import named_values, terminal, text_table

if TYPE_CHECKING:
    from registry.bundle import Bundle

REQUIRED = ("model.onnx", "contract.json", "golden.npz", "reference.json", "card.json")
"""Files of a version that is not sealed yet, as registry.manifest asks for them."""

app = typer.Typer(
    help="Register, list, show, export, approve, reject and archive versions.", no_args_is_help=True
)

app.command()(export)

Version = Annotated[
    str, typer.Argument(help="The version's label, such as 7, or its id (64 hex digits).")
]

STATUS_BY_PROTO = {
    registry_pb2.DEVELOPMENT: "development",
    registry_pb2.STAGING: "staging",
    registry_pb2.PRODUCTION_STATUS: "production",
    registry_pb2.ARCHIVED: "archived",
}


@app.command("list")
def list_(ctx: typer.Context, model: Model) -> None:
    """List a model's versions, and which of them a training run proposes."""
    context: CommandContext = ctx.obj
    versions, waiting = asyncio.run(_list_versions(context, model))
    proposals = {run.version: proposal_json(run) for run in waiting}
    rows = [
        (
            version.label,
            status_name(version),
            version.author,
            _local_time(version.created_unix_ms),
            version.digest[:12],
            f"{version.size_bytes / 1024:,.0f} kB",
            proposals[version.label]["trigger"] if version.label in proposals else "",
        )
        for version in versions
    ]
    columns = ("version", "status", "author", "created", "id", "size", "proposed by")
    value = [
        {**message_to_json(version), "proposal": proposals.get(version.label)}
        for version in versions
    ]
    terminal(context.json).result(value, text_table(columns, rows))


@app.command()
def show(ctx: typer.Context, model: Model, version: Version) -> None:
    """Show one version: its card, its contract, what it changes, who approved it."""
    context: CommandContext = ctx.obj
    found, approvals = asyncio.run(_find_version(context, model, version))
    about = asyncio.run(_project_model(context, model))
    card = card_of(found)
    # Scripts get every field, people what an approver reads.
    value: dict[str, Any] = {
        **message_to_json(found),
        "card": card,
        "evidence": golden_evidence(card),
        "about": message_to_json(about),
        "approvals": [message_to_json(approval) for approval in approvals],
    }
    # The card is there as JSON already.
    value.pop("card_json")
    terminal(context.json).result(
        value,
        named_values(
            {
                "version": f"{found.model} {found.label} ({status_name(found)})",
                "id": found.digest,
                "author": found.author,
                "model contract": found.model_contract,
                "input contract": found.input_contract,
                "task": task_text(found),
                "views": ", ".join(f"{view.name} {view.hash[:12]}" for view in found.views) or "-",
                **_about_model(about),
            }
        ),
        change_summary(card),
        _approvals_table(approvals),
    )


@app.command()
def register(
    ctx: typer.Context,
    model: Model,
    folder: Annotated[Path, typer.Argument(help="Folder with model.onnx, contract.json, ...")],
) -> None:
    """Register a folder of files as a new version; you (--as) are its author."""
    context: CommandContext = ctx.obj
    found = asyncio.run(_register(context, model, folder))
    screen = terminal(context.json)
    screen.result(
        message_to_json(found), f"Registered {found.model} {found.label} ({found.digest[:12]})."
    )
    screen.hint(f"Next, by another person: turnout versions approve {model} {found.label}")


@app.command()
def certify(
    ctx: typer.Context,
    model: Model,
    version: Version,
    journal: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a gateway, or of its journals. Default: the running system's."
        ),
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="Compare at most so many entities.")] = 20_000,
    without_sandbox: WithoutSandbox = False,
) -> None:
    """Register a version again with its difference from production, for an approver to accept.

    Both score the rows that gateways have served, in a sandbox. Versions of `turnout train` have
    the difference from their training.
    """
    from journal.served import read_served_batches
    from training.certify import certified_files, measure_shift, rows_to_certify_on

    context: CommandContext = ctx.obj
    isolation = chosen_isolation(without_sandbox=without_sandbox)
    folder = journal or context.running_folder()
    if not folder.is_dir():
        raise OperatorError(f"there is no folder {folder}; name another with --journal")
    # Compare the version with production, on the newest row of each entity.
    files, candidate, production = asyncio.run(_fetch_both(context, model, version))
    batches = read_served_batches(folder)
    served = rows_to_certify_on(batches, production, rows_max=rows)
    shift = measure_shift(candidate, production, served, isolation=isolation)
    # A version never changes, so the certificate is in a new one.
    found = asyncio.run(_register_files(context, model, certified_files(files, shift)))
    screen = terminal(context.json)
    screen.result(
        message_to_json(found),
        f"Registered {model} {found.label}: version {version} with its difference from production "
        f"on {shift.rows:,} rows.",
    )
    screen.hint(f"Next, by another person: turnout versions approve {model} {found.label}")


@app.command()
def approve(
    ctx: typer.Context,
    model: Model,
    version: Version,
    policy: Annotated[
        str,
        typer.Option(
            help="Rollout policy that it may run under; initial for a model's first version. "
            "Default: the model's default policy in its project, or else standard."
        ),
    ] = "",
    reason: Reason = "",
    direct: Annotated[
        bool,
        typer.Option(
            "--direct", help="It may also become production at once, without a rollout's steps."
        ),
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Accept the change without a question.")
    ] = False,
) -> None:
    """Approve a version for a policy, after a look at what changes. Authors may not."""
    context: CommandContext = ctx.obj
    screen = terminal(context.json)
    # Without a policy the approval is for the one under which a rollout would start.
    found, _ = asyncio.run(_find_version(context, model, version))
    policy = policy or asyncio.run(clients.default_policy(context, model))
    # An approver must have seen what the version changes, so it is shown before the question.
    if not yes:
        if context.json:
            raise OperatorError("--json asks no question: accept the change with --yes")
        about = asyncio.run(_project_model(context, model))
        task = {"task": task_text(found)}
        screen.result(
            None, named_values({**_about_model(about), **task}), change_summary(card_of(found))
        )
        typer.confirm(f"Accept this change of {model} under policy {policy}?", abort=True, err=True)
    # The approval names the policy's digest and the shift's digest: neither can change later.
    approval = asyncio.run(_approve(context, found, policy, reason, direct))
    covers = ", also for production at once" if approval.direct and policy != INITIAL else ""
    screen.result(
        {**message_to_json(approval), "evidence": golden_evidence(card_of(found))},
        f"Approved: {model} {approval.version} under {policy}{covers}, by {approval.approver}.",
    )
    screen.hint(f"Next: {step_after_approval(model, approval, policy)}")


@app.command()
def reject(
    ctx: typer.Context,
    model: Model,
    version: Version,
    policy: Annotated[
        str,
        typer.Option(help="Reject it under this rollout policy only. Default: under every one."),
    ] = "",
    reason: Reason = "",
) -> None:
    """Reject a version: its approvals end, and it leaves the deployment and its rollout."""
    context: CommandContext = ctx.obj
    screen = terminal(context.json)
    rejection, production = asyncio.run(_reject(context, model, version, policy, reason))
    # Say what the rejection ended, what it stopped, and what it could not stop.
    ended = ", ".join(rejection.ended) or "none, because none stood"
    under = f"policy {policy}" if policy else "every policy"
    stopped = (
        f"Revision {rejection.stopped_revision} took it out of the deployment."
        if rejection.stopped_revision
        else "The deployment did not change."
    )
    screen.result(
        message_to_json(rejection),
        f"Rejected: {model} {rejection.version} under {under}, by {rejection.approver}.",
        f"Approvals that it ended: {ended}. {stopped}",
    )
    # Without a good standby the registry cannot take production away.
    if production == rejection.version:
        screen.note(
            f"{model} {rejection.version} IS STILL PRODUCTION: turnout splits show {model} says "
            "what to do."
        )


@app.command()
def archive(ctx: typer.Context, model: Model, version: Version, reason: Reason = "") -> None:
    """Archive a version that is not in use."""
    _set_status(ctx, model, version, registry_pb2.ARCHIVED, reason)


@app.command()
def stage(ctx: typer.Context, model: Model, version: Version, reason: Reason = "") -> None:
    """Move a version from development to staging."""
    _set_status(ctx, model, version, registry_pb2.STAGING, reason)


def status_name(version: registry_pb2.Version) -> str:
    """Return the status of *version* for display, such as `production, standby`."""
    name = STATUS_BY_PROTO.get(version.status, "unknown")
    return f"{name}, standby" if version.standby else name


def task_text(version: registry_pb2.Version) -> str:
    """Return the task of *version* and its outputs, for example `regression: spend (spread 9)`."""
    outputs = [
        output.name if output.spread == 1.0 else f"{output.name} (spread {output.spread:,.6g})"
        for output in version.outputs
    ]
    return f"{version.task}: {', '.join(outputs)}" if version.task else "-"


def _set_status(
    ctx: typer.Context,
    model: str,
    version: str,
    status: registry_pb2.VersionStatus,
    reason: str,
) -> None:
    context: CommandContext = ctx.obj

    async def change() -> registry_pb2.Version:
        async with clients.open_registry(context) as client:
            return await client.set_status(model, version, status, reason or "by hand")

    changed = asyncio.run(change())
    terminal(context.json).result(
        message_to_json(changed), f"{model} {changed.label} is now {status_name(changed)}."
    )


def _approvals_table(approvals: list[registry_pb2.Approval]) -> RenderableType:
    if not approvals:
        return Text("It has no approval yet.", style="dim")
    standing = [approval.id for approval in standing_approvals(approvals)]
    rows = [
        (
            _decision(approval, stands=approval.id in standing),
            approval.policy_name or "every policy",
            approval.approver,
            _local_time(approval.at_unix_ms),
            approval.reason,
        )
        for approval in approvals
    ]
    return text_table(("", "policy", "by", "when", "reason"), rows)


def _decision(approval: registry_pb2.Approval, *, stands: bool) -> str:
    if approval.rejected:
        return "rejected"
    decision = "approved" if stands else "approved, ended since"
    return f"{decision}, direct" if approval.direct else decision


def _local_time(unix_ms: int) -> str:
    return dt.datetime.fromtimestamp(unix_ms / 1000).strftime("%Y-%m-%d %H:%M")  # noqa: DTZ006


async def _list_versions(
    context: CommandContext, model: str
) -> tuple[list[registry_pb2.Version], list[registry_pb2.Run]]:
    """Return a model's versions, and the runs whose versions wait for a decision."""
    async with clients.open_registry(context) as client:
        return list(await client.list_versions(model)), await waiting_runs(client, model)


async def _find_version(
    context: CommandContext, model: str, version: str
) -> tuple[registry_pb2.Version, list[registry_pb2.Approval]]:
    async with clients.open_registry(context) as client:
        found = await client.get_version(model, version)
        return found, list(await client.approvals(model, found.label))


async def _project_model(context: CommandContext, model: str) -> registry_pb2.ProjectModel:
    """Return what the model's project says about it; empty if no project has it."""
    async with clients.open_registry(context) as client:
        known = {summary.model: summary.about for summary in await client.list_models()}
    return known.get(model, registry_pb2.ProjectModel())


def _about_model(about: registry_pb2.ProjectModel) -> dict[str, object]:
    if not about.project:
        return {}
    return {
        "project": about.project,
        "owner": about.owner or "-",
        "purpose": about.purpose or "-",
        "meaning of the score": about.score_meaning or "-",
    }


async def _register(context: CommandContext, model: str, folder: Path) -> registry_pb2.Version:
    from registry import bundle  # numpy takes long to import

    try:
        files = bundle.read_version_folder(folder)
    except VersionRefusedError as error:
        raise OperatorError(f"{error}. {_next_step(model, folder)}") from error
    missing = [name for name in REQUIRED if name not in files]
    if missing:
        raise OperatorError(
            f"{folder} has {sorted(files)}, and a version also needs {missing}. "
            f"{_next_step(model, folder)}"
        )
    return await _register_files(context, model, files)


async def _register_files(
    context: CommandContext, model: str, files: dict[str, bytes]
) -> registry_pb2.Version:
    async with clients.open_registry(context) as client:
        return await client.register(model, files)


async def _fetch_both(
    context: CommandContext, model: str, version: str
) -> "tuple[dict[str, bytes], Bundle, Bundle]":
    """Return the files of *version*, its bundle, and that of production."""
    from training.champion import fetch_production, fetch_registered

    async with clients.open_registry(context) as client:
        production = await fetch_production(client, model)
        if production is None:
            raise OperatorError(f"{model} has no production version to certify against")
        candidate = await fetch_registered(client, model, version)
        return await client.fetch(model, version), candidate, production


def _next_step(model: str, folder: Path) -> str:
    """Return how the files in *folder* become a version."""
    # A model of another tool: the file, the one ONNX file of the folder, or a folder of MLflow.
    graphs = sorted(folder.glob("*.onnx")) if folder.is_dir() else []
    foreign = graphs[0] if len(graphs) == 1 and not (folder / "MLmodel").exists() else folder
    if not folder.exists():
        return "Name the folder that `turnout train --out` or `turnout adopt --out` wrote"
    if folder.is_file() or graphs or (folder / "MLmodel").exists():
        return f"For a model of another tool: turnout adopt {model} {foreign}"
    return (
        "Delete what does not belong to it, or let `turnout train --out` or `turnout adopt --out` "
        "write the folder"
    )


async def _approve(
    context: CommandContext, version: registry_pb2.Version, policy: str, reason: str, direct: bool
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
            direct=direct,
        )


async def _reject(
    context: CommandContext, model: str, version: str, policy: str, reason: str
) -> tuple[registry_pb2.Approval, str]:
    """Reject a version; return the rejection, and the label of production after it."""
    async with clients.open_registry(context) as client:
        rejection = await client.reject(model, version, reason or "rejected by hand", policy)
        return rejection, (await client.deployment(model)).production
