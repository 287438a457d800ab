"""What a review is made from: the registry's rows and history, and what monitoring has found."""

import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from protos import monitoring_pb2 as mpb
from protos import registry_pb2 as pb
from registry.types import Deployment
from turnout.cli import clients
from turnout.cli.context import CommandContext
from turnout.cli.view_ages import ViewAge, read_view_ages
from turnout.report.facts import history_facts
from turnout.review.decisions import ReviewDecision, decisions_of
from turnout.review.section import FigureLine, ReviewSection, drawn_rows, figure_line
from turnout.review.week import ReviewPeriod
from turnout.training_runs.waiting_runs import waiting_runs
from turnout.views.cards import card_of
from turnout.views.figures import figure_json

if TYPE_CHECKING:
    import grpc

    from registry.client import RegistryClient

ACTIONS = frozenset(
    {
        "register",
        "approve",
        "reject",
        "approve settings",
        "apply project",
        "open review",
        "close review",
        "open incident",
        "finding",
        "add outside model",
    }
)
"""Entries of the history that are actions of the week, beside all that deploy."""
ENDS = frozenset({"change incident"})
INCIDENTS_MAX = 1_000
LINE_DAYS = 91
LATE_KINDS = ("quality", "uplift", "fairness")
"""Kinds of figures that wait for outcomes."""
LATE_DAYS = 400
HOURS_A_DAY = 24


@dataclass(frozen=True, slots=True)
class WeekEntry:
    """One entry of the history within the period."""

    at_unix_ms: int
    actor: str
    action: str
    object: str
    reason: str
    after: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ModelInService:
    """A model with the version that is in production."""

    model: str
    owner: str
    version: pb.Version | None
    production_unix_ms: int
    """When this version became production; 0: no entry says it."""
    views: tuple[ViewAge, ...]
    card: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class MonitoringInputs:
    """What monitoring says of the week. Figures are as turnout.views.figures.figure_json."""

    problem: str = ""
    """Why monitoring says nothing; then the rest is empty."""
    figures: tuple[dict[str, Any], ...] = ()
    alarms: tuple[mpb.RaisedAlarm, ...] = ()
    coverage: tuple[mpb.VersionCoverage, ...] = ()
    references: frozenset[tuple[str, str]] = frozenset()
    """(model, version) whose reference a person accepted."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReviewInputs:
    """All that a review is made from."""

    period: ReviewPeriod
    now_ms: int
    incidents: tuple[pb.Incident, ...] = ()
    """Those that are open, newest first."""
    models: tuple[ModelInService, ...] = ()
    views_unknown: str = ""
    """Why nobody knows how old the rows of views are; empty: it is known."""
    proposals: tuple[pb.Run, ...] = ()
    runs: tuple[pb.Run, ...] = ()
    """Queued, running and silent."""
    broken_glasses: tuple[pb.Review, ...] = ()
    entries: tuple[WeekEntry, ...] = ()
    decisions: tuple[ReviewDecision, ...] = ()
    monitoring: MonitoringInputs = field(default_factory=MonitoringInputs)


async def read_review_inputs(
    context: CommandContext, period: ReviewPeriod, monitoring: str
) -> ReviewInputs:
    """Read the registry and monitoring. Without monitoring the inputs say why.

    monitoring  host:port; empty: the registry's.

    Raises RegistryError.
    """
    async with clients.open_registry(context) as client:
        # The present state, which is what people must act on.
        summaries = await client.list_models()
        ages, unknown = await read_view_ages(context, client, summaries)
        incidents = await client.list_incidents(limit=INCIDENTS_MAX, open_only=True)
        runs = await client.list_runs(open_only=True)
        proposals = await waiting_runs(client)
        glasses = await client.reviews(open_only=True)
        decisions = decisions_of([finding async for finding in client.findings()])
        # The history has what was done, and since when a version is production.
        entries, productions = await _read_history(client, period)
        models = [
            await _model_in_service(client, summary, productions, ages.get(summary.model, []))
            for summary in summaries
        ]
    served = [
        (summary.model, label)
        for summary in summaries
        for label in Deployment.from_proto(summary.deployment).versions
    ]
    return ReviewInputs(
        period=period,
        now_ms=time.time_ns() // 1_000_000,
        incidents=tuple(incidents),
        models=tuple(models),
        views_unknown=unknown,
        proposals=tuple(proposals),
        runs=tuple(runs),
        broken_glasses=tuple(glasses),
        entries=tuple(entries),
        decisions=tuple(decisions),
        monitoring=await _read_monitoring(context, period, monitoring, served),
    )


async def _read_history(
    client: "RegistryClient", period: ReviewPeriod
) -> tuple[list[WeekEntry], dict[tuple[str, str], int]]:
    """Return the actions of the period, and (model, version) -> when it became production."""
    entries: list[WeekEntry] = []
    productions: dict[tuple[str, str], int] = {}
    last: dict[str, str] = {}
    async with aclosing(client.read_history()) as blocks:
        async for block, _ in blocks:
            contents = {fact.seq: fact for fact in history_facts(block)}
            for entry in block:
                fact = contents.get(entry.seq)
                if fact is None:
                    continue
                found = WeekEntry(
                    entry.at_unix_ms,
                    entry.actor,
                    entry.action,
                    entry.object,
                    entry.reason,
                    fact.after,
                )
                # A version counts from its newest turn in production.
                label = str(fact.after.get("production", ""))
                if entry.action.startswith("deploy") and last.get(fact.model, "") != label:
                    last[fact.model] = label
                    productions[fact.model, label] = entry.at_unix_ms
                if period.has(found.at_unix_ms) and _is_action(found):
                    entries.append(found)
    return entries, productions


def _is_action(entry: WeekEntry) -> bool:
    closed = entry.action in ENDS and bool(entry.after.get("closed_unix_ms"))
    return closed or entry.action in ACTIONS or entry.action.startswith("deploy")


async def _model_in_service(
    client: "RegistryClient",
    summary: pb.ModelSummary,
    productions: Mapping[tuple[str, str], int],
    ages: Sequence[ViewAge],
) -> ModelInService:
    label = summary.deployment.production
    version = await client.get_version(summary.model, label) if label else None
    return ModelInService(
        model=summary.model,
        owner=summary.about.owner,
        version=version,
        production_unix_ms=productions.get((summary.model, label), 0),
        views=tuple(ages),
        card=card_of(version) if version is not None else {},
    )


async def _read_monitoring(
    context: CommandContext,
    period: ReviewPeriod,
    address: str,
    served: Sequence[tuple[str, str]],
) -> MonitoringInputs:
    """Return what monitoring says, or why it says nothing.

    served  (model, version) of all that is deployed.
    """
    import grpc

    # The week in the units of each list.
    hours = period.first_day * HOURS_A_DAY, (period.last_day + 1) * HOURS_A_DAY
    seconds = period.begin_ms // 1_000, period.end_ms // 1_000
    try:
        async with clients.open_monitoring(context, address) as client:
            looks = await client.looks()
            found = await client.figures(period.first_day, period.last_day + 1)
            # Outcomes take long, so final figures of this week may be of a period before it.
            seen = (await client.status(*hours)).versions
            watched = {*served, *((item.model, item.version) for item in seen)}
            for model, version in sorted(watched):
                for kind in LATE_KINDS:
                    found += await client.figures(
                        period.first_day - LATE_DAYS,
                        period.first_day,
                        model=model,
                        version=version,
                        kind=kind,
                        newest=True,
                    )
            return MonitoringInputs(
                figures=tuple(map(figure_json, found)),
                alarms=tuple(await client.alarms(*seconds)),
                coverage=tuple(seen),
                references=frozenset((item.model, item.version) for item in looks.references),
                notes=tuple(client.notes),
            )
    except grpc.aio.AioRpcError as error:
        return MonitoringInputs(problem=_silence(error))


def _silence(error: "grpc.aio.AioRpcError") -> str:
    """Return why monitoring said nothing, in words for the page."""
    import grpc

    code, elsewhere = error.code(), "where it runs alone, name it with --monitoring HOST:PORT"
    if code == grpc.StatusCode.UNAVAILABLE:
        return f"monitoring cannot be reached; {elsewhere}"
    if code == grpc.StatusCode.UNIMPLEMENTED:
        return f"there is no monitoring at this address; {elsewhere}"
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        return "monitoring did not answer in time; try again"
    return f"monitoring refuses: {error.details() or 'it gives no reason'}"


async def read_lines(
    context: CommandContext,
    period: ReviewPeriod,
    monitoring: str,
    sections: Sequence[ReviewSection],
) -> dict[str, list[FigureLine]]:
    """Return key of a section -> its most telling figures of the last 13 weeks.

    Monitoring that does not answer any more gives no line.
    """
    import grpc

    lines: dict[str, list[FigureLine]] = {}
    since = period.last_day - LINE_DAYS + 1
    try:
        async with clients.open_monitoring(context, monitoring) as client:
            # A section has few lines, so each is asked for by its name.
            for section in sections:
                for row in drawn_rows(section):
                    named = {"model": row["model"], "kind": section.key, "name": row["figure"]}
                    found = [
                        item
                        for item in await client.figures(since, period.last_day + 1, **named)
                        if (item.version, item.segment, item.days)
                        == (row["version"], row["segment"], row["days"])
                    ]
                    # One number makes no line.
                    line = figure_line(found)
                    if line is not None:
                        lines.setdefault(section.key, []).append(line)
    except grpc.aio.AioRpcError:
        return {}
    return lines
