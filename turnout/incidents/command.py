"""`turnout incidents`: lists, shows, opens and changes incidents."""

import asyncio
import json
import os
import time
from contextlib import suppress
from enum import StrEnum
from typing import Annotated, Any

import typer

from access.bounds import cut_text
from protos import registry_pb2 as pb
from registry.watching.incidents import LINK_KINDS, MANUAL, OPEN_STATES
from registry.watching.policy import KINDS
from turnout.cli import clients
from turnout.cli.arguments import Model
from turnout.cli.context import CommandContext, context_from_options
from turnout.errors import OperatorError, UsageError
from turnout.views.incidents import (
    incident_details,
    incident_hint,
    incident_json,
    incidents_table,
    state_word,
)
from turnout.views.terminal import terminal, text_table

Change = pb.ChangeIncidentRequest
CAUSE_BYTES_MAX = 128
COMPLETE_S = 1.0
"""Time in which a shell gets the ids that complete a word."""

app = typer.Typer(
    help="List, show and work on incidents: what monitoring or a person found wrong.",
    no_args_is_help=True,
)


class SeverityOption(StrEnum):
    """How soon a person must look."""

    REVIEW = "review"
    WARNING = "warning"
    PAGE = "page"


SEVERITIES = {
    SeverityOption.REVIEW: pb.Incident.REVIEW,
    SeverityOption.WARNING: pb.Incident.WARNING,
    SeverityOption.PAGE: pb.Incident.PAGE,
}


class ResolutionOption(StrEnum):
    """What an incident was."""

    REAL = "real"
    FALSE_ALARM = "false-alarm"
    EXPECTED = "expected"


def complete_incident(incomplete: str) -> list[tuple[str, str]]:
    """Return the ids of open incidents with their titles, for a shell; none if nothing answers."""
    with suppress(Exception):
        context = context_from_options("", "", "", "", False, os.environ)

        async def read() -> list[pb.Incident]:
            async with asyncio.timeout(COMPLETE_S), clients.open_registry(context) as client:
                return await client.list_incidents(open_only=True)

        return [
            (incident.id, f"{incident.model}: {incident.title}")
            for incident in asyncio.run(read())
            if incident.id.startswith(incomplete)
        ]
    return []


def _complete_kind(incomplete: str) -> list[str]:
    return [kind for kind in (MANUAL, *KINDS) if kind.startswith(incomplete)]


def _complete_link(incomplete: str) -> list[str]:
    return [f"{kind}=" for kind in LINK_KINDS if kind.startswith(incomplete)]


IncidentId = Annotated[
    str,
    typer.Argument(
        metavar="INCIDENT",
        help="The incident's id, or 4 digits of it.",
        autocompletion=complete_incident,
    ),
]
ReasonText = Annotated[str, typer.Option("--reason", "-r", help="Why, for the history.")]


@app.command("list")
def list_(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(help="Only incidents of this model.")] = "",
    every: Annotated[bool, typer.Option("--all", help="Closed incidents as well.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="Most incidents that are listed.")] = 50,
) -> None:
    """List the open incidents, newest first. Exit code 1 while one of them is a page."""
    context: CommandContext = ctx.obj

    async def read() -> list[pb.Incident]:
        async with clients.open_registry(context) as client:
            return await client.list_incidents(model, limit, open_only=not every)

    incidents = asyncio.run(read())
    screen = terminal(context.json)
    screen.result([incident_json(item) for item in incidents], incidents_table(incidents))
    open_ones = [item for item in incidents if item.state in OPEN_STATES]
    if not open_ones:
        screen.hint("No incident is open.")
        return
    # The most urgent one that was not seen comes first, then the oldest.
    first = max(open_ones, key=lambda item: (item.state == pb.Incident.OPEN, item.severity))
    screen.hint(incident_hint(first))
    if any(
        item.severity == pb.Incident.PAGE and item.state == pb.Incident.OPEN for item in open_ones
    ):
        raise typer.Exit(1)


@app.command()
def show(ctx: typer.Context, incident: IncidentId) -> None:
    """Show an incident: what was measured, what followed, who did what."""
    context: CommandContext = ctx.obj

    async def read() -> pb.Incident:
        async with clients.open_registry(context) as client:
            return await client.get_incident(incident)

    _print(context, asyncio.run(read()))


@app.command("open")
def open_(
    ctx: typer.Context,
    model: Model,
    title: Annotated[str, typer.Option(help="What is wrong, in a sentence.")],
    kind: Annotated[
        str, typer.Option(help="What it is about.", autocompletion=_complete_kind)
    ] = MANUAL,
    cause: Annotated[
        str, typer.Option(help="The same cause opens no second one. Default: the title.")
    ] = "",
    version: Annotated[str, typer.Option(help="The version that it is about.")] = "",
    severity: Annotated[
        SeverityOption, typer.Option(help="How soon a person must look.")
    ] = SeverityOption.WARNING,
    owner: Annotated[str, typer.Option(help="Who works on it. Default: as the policy says.")] = "",
    figures: Annotated[str, typer.Option(help="What was measured, as a JSON object.")] = "",
) -> None:
    """Open an incident by hand. Nothing is held or rolled back by it."""
    # What was measured is optional.
    context: CommandContext = ctx.obj
    if not title.strip():
        raise UsageError("--title is empty; say in a sentence what is wrong")
    try:
        measured = json.loads(figures) if figures else None
    except ValueError as error:
        raise UsageError(f"--figures {figures!r} is no JSON: {error}") from error

    # The title is the cause where no other is given.
    async def write() -> pb.OpenIncidentReply:
        async with clients.open_registry(context) as client:
            await clients.require_model(client, model)
            return await client.open_incident(
                model,
                kind,
                cause or cut_text(title, CAUSE_BYTES_MAX),
                severity=SEVERITIES[severity],
                title=title,
                version=version,
                owner=owner,
                figures=measured,
            )

    # One with this cause may be open already.
    reply = asyncio.run(write())
    screen = terminal(context.json)
    word = "Opened" if reply.opened else "Open already"
    screen.result(
        {**incident_json(reply.incident), "opened": reply.opened},
        f"{word}: incident {reply.incident.id} of {reply.incident.model}.",
    )
    screen.hint(incident_hint(reply.incident))


@app.command()
def notify(
    ctx: typer.Context,
    test: Annotated[
        bool, typer.Option("--test", help="Send a test notice to each target of the environment.")
    ] = False,
) -> None:
    """Send a test notice from here. Notices of incidents are sent by the control process.

    Exit code 1 if a target does not take it.
    """
    from turnout.notices.messages import TEST_INCIDENT, notice_of
    from turnout.notices.post import NoticeError, post_notice

    # The targets are those of the environment, with their secrets.
    context: CommandContext = ctx.obj
    targets = context.required_environment().notice_targets()
    if not test:
        raise UsageError("notices are sent by themselves; turnout incidents notify --test tries it")
    if not targets:
        raise OperatorError(
            f"{context.required_environment().shown} has no [notices.NAME] with a url; add one"
        )

    # One after the other: each has its own answer.
    async def send() -> list[tuple[str, str]]:
        results = []
        for target in targets:
            try:
                await post_notice(notice_of(target, TEST_INCIDENT, time.time()))
                results.append((target.name, ""))
            except NoticeError as error:
                results.append((target.name, str(error)))
        return results

    results = asyncio.run(send())
    rows = [(name, problem or "taken") for name, problem in results]
    value = [
        {"target": name, "taken": not problem, "problem": problem} for name, problem in results
    ]
    terminal(context.json).result(value, text_table(("target", "test notice"), rows))
    if any(problem for _, problem in results):
        raise typer.Exit(1)


@app.command()
def ack(ctx: typer.Context, incident: IncidentId, reason: ReasonText = "") -> None:
    """Acknowledge an incident: you have seen it. Without an owner it becomes yours."""
    _change(ctx.obj, incident, Change.ACKNOWLEDGE, text=reason)


@app.command()
def assign(
    ctx: typer.Context,
    incident: IncidentId,
    owner: Annotated[str, typer.Argument(help="Who works on it.")],
    reason: ReasonText = "",
) -> None:
    """Give an incident to a person or a team."""
    _change(ctx.obj, incident, Change.ASSIGN, owner=owner, text=reason)


@app.command()
def mitigate(
    ctx: typer.Context,
    incident: IncidentId,
    reason: Annotated[str, typer.Option("--reason", "-r", help="What ended the harm.")],
) -> None:
    """Say that an incident does no more harm. Its cause may still be there."""
    _change(ctx.obj, incident, Change.MITIGATE, text=reason)


@app.command()
def close(
    ctx: typer.Context,
    incident: IncidentId,
    resolution: Annotated[ResolutionOption, typer.Option(help="What it was.")],
    reason: Annotated[str, typer.Option("--reason", "-r", help="What it was and what was done.")],
) -> None:
    """Close an incident. A hold that it caused ends; the same cause opens a new one."""
    value = pb.Incident.Resolution.Value(resolution.name)
    _change(ctx.obj, incident, Change.CLOSE, resolution=value, text=reason)


@app.command()
def comment(
    ctx: typer.Context,
    incident: IncidentId,
    text: Annotated[str, typer.Argument(help="The comment.")],
) -> None:
    """Add a comment to an incident, open or closed."""
    _change(ctx.obj, incident, Change.COMMENT, text=text)


@app.command()
def link(
    ctx: typer.Context,
    incident: IncidentId,
    to: Annotated[
        str,
        typer.Argument(help="Such as run=4f2a91c0 or rollout=r19b.", autocompletion=_complete_link),
    ],
) -> None:
    """Link an incident to a rollout, run, finding, version, deployment, incident or url."""
    kind, found, text = to.partition("=")
    if not found or kind not in LINK_KINDS:
        raise UsageError(f"{to!r}: a link is KIND=ID, with KIND one of {', '.join(LINK_KINDS)}")
    _change(ctx.obj, incident, Change.LINK, link=pb.IncidentNote(kind=kind, text=text))


def _change(
    context: CommandContext,
    incident_id: str,
    change: "pb.ChangeIncidentRequest.Change",
    **fields: Any,  # noqa: ANN401  fields of the request
) -> None:
    """Read an incident, write the change to what was read, and print the result."""

    async def write() -> pb.Incident:
        async with clients.open_registry(context) as client:
            read = await client.get_incident(incident_id)
            request = Change(id=read.id, revision=read.revision, change=change, **fields)
            return await client.change_incident(request)

    changed = asyncio.run(write())
    screen = terminal(context.json)
    screen.result(
        incident_json(changed),
        f"Incident {changed.id} of {changed.model} is {state_word(changed)}, owner "
        f"{changed.owner or 'nobody'}.",
    )
    if hint := incident_hint(changed):
        screen.hint(hint)


def _print(context: CommandContext, incident: pb.Incident) -> None:
    screen = terminal(context.json)
    screen.result(incident_json(incident), *incident_details(incident))
    if hint := incident_hint(incident):
        screen.hint(hint)
