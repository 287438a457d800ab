"""The sections of the week's state: what is red, stale, waiting, decided and done. No I/O."""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from host.clock import DAY_MS
from protos import monitoring_pb2 as mpb
from protos import registry_pb2 as pb
from turnout.review.figure_sections import figure_sections
from turnout.review.inputs import ModelInService, ReviewInputs, WeekEntry
from turnout.review.section import ReviewSection
from turnout.views.figures import SEVERITY_NAMES
from turnout.views.incidents import figures_of, severity_word, state_word
from turnout.views.reviews import finding_sentence
from turnout.views.runs import state_name

REFERENCE_DAYS = 14
"""Days in production after which a person accepts them as the reference."""
FIGURES_SHOWN = 3
REASON_CHARS = 120
ANYBODY = {"approve": "an approver", "train": "a trainer", "accept": "an operator"}


def review_sections(inputs: ReviewInputs) -> list[ReviewSection]:
    """Return all sections in the order of the page."""
    return [
        red_section(inputs),
        *figure_sections(inputs),
        coverage_section(inputs),
        stale_section(inputs),
        waiting_section(inputs),
        decisions_section(inputs),
        actions_section(inputs),
    ]


def red_section(inputs: ReviewInputs) -> ReviewSection:
    """Return what is red and why: open incidents, and alarms of the week that none of them has."""
    incidents = sorted(inputs.incidents, key=lambda item: (-item.severity, item.opened_unix_ms))
    rows = [_incident_row(incident) for incident in incidents]
    rows += [_alarm_row(alarm) for alarm in inputs.monitoring.alarms if not alarm.incident_id]
    columns = ("severity", "model", "version", "what", "why", "state", "owner", "since", "incident")
    alarms = len(inputs.monitoring.alarms)
    problem = inputs.monitoring.problem
    seen = problem or f"alarms raised in this week: {alarms}"
    return ReviewSection(
        "red",
        "What is red, and why",
        columns,
        tuple(rows),
        "no incident is open, and no alarm of this week waits for one",
        (seen,),
    )


def _incident_row(incident: pb.Incident) -> dict[str, Any]:
    measured = list(figures_of(incident).items())[:FIGURES_SHOWN]
    shown = ", ".join(f"{name} {value}" for name, value in measured)
    return {
        "severity": severity_word(incident),
        "model": incident.model,
        "version": incident.version,
        "what": incident.title,
        "why": f"{incident.cause}: {shown}" if shown else incident.cause,
        "state": state_word(incident),
        "owner": incident.owner or "nobody",
        "since": _date(incident.since_unix_ms),
        "incident": incident.id,
        "kind": incident.kind,
        "act": incident.act,
    }


def _alarm_row(alarm: mpb.RaisedAlarm) -> dict[str, Any]:
    return {
        "severity": SEVERITY_NAMES.get(alarm.severity, "?"),
        "model": alarm.model,
        "version": alarm.version,
        "what": f"{alarm.kind}: {alarm.stream} changed",
        "why": "an alarm that no incident has yet",
        "state": "raised",
        "owner": "nobody",
        "since": _date(alarm.since_unix_s * 1_000),
        "incident": None,
        "kind": alarm.kind,
    }


def coverage_section(inputs: ReviewInputs) -> ReviewSection:
    """Return which share of the week's traffic monitoring has seen."""
    rows = [
        {
            "model": item.model,
            "version": item.version,
            "rows": item.rows,
            "scored": item.window_rows,
            "share": f"{item.rows / item.window_rows:.1%}" if item.window_rows else None,
            "outcomes": item.outcomes,
        }
        for item in inputs.monitoring.coverage
    ]
    empty = inputs.monitoring.problem or "not enough data: no row was counted in this week"
    columns = ("model", "version", "rows", "scored", "share", "outcomes")
    return ReviewSection("coverage", "What monitoring has seen", columns, tuple(rows), empty)


def stale_section(inputs: ReviewInputs) -> ReviewSection:
    """Return how old versions, their training data and their views are, the oldest first."""
    rows = [_stale_row(model, inputs) for model in inputs.models if model.version is not None]
    rows.sort(key=lambda row: -(row["data_days"] or row["version_days"] or 0))
    days = ("version_days", "data_days", "production_days")
    columns = ("model", "version", "owner", *days, "state", "views")
    notes = (f"Ages of views: {inputs.views_unknown}",) if inputs.views_unknown else ()
    return ReviewSection(
        "stale", "Ages of models", columns, tuple(rows), "no model is in production", notes
    )


def _stale_row(item: ModelInService, inputs: ReviewInputs) -> dict[str, Any]:
    assert item.version is not None
    return {
        "model": item.model,
        "version": item.version.label,
        "owner": item.owner,
        "version_days": _days(item.version.created_unix_ms, inputs.now_ms),
        "data_days": _days(_newest_label_ms(item.card), inputs.now_ms),
        "production_days": _days(item.production_unix_ms, inputs.now_ms),
        "state": "old views" if any(view.is_old for view in item.views) else "",
        "views": ", ".join(view.shown for view in item.views),
        "old_views": [view.view for view in item.views if view.is_old],
    }


def _newest_label_ms(card: Mapping[str, Any]) -> int:
    """Return the newest instant of the training rows, as a card has it; 0: it has none."""
    match card:
        case {"data": {"as_of_ms": [int(), int() as newest]}}:
            return newest
    return 0


def waiting_section(inputs: ReviewInputs) -> ReviewSection:
    """Return what waits for whom: approvals, glasses, runs, incidents and references."""
    rows = [
        *(_waits("approval", run.model, run.version, ANYBODY["approve"], run.ended_unix_ms)
          for run in inputs.proposals),
        *(_waits("broken glass", item.model, item.reason, "another person", item.opened_unix_ms)
          for item in inputs.broken_glasses),
        *(_waits(f"{state_name(run)} run", run.model, run.id[:8], ANYBODY["train"],
                 run.queued_unix_ms or run.begun_unix_ms) for run in inputs.runs),
        *(_waits("incident", item.model, item.id, item.owner or "nobody", item.opened_unix_ms)
          for item in inputs.incidents),
        *_references(inputs),
    ]  # fmt: skip
    rows.sort(key=lambda row: (row["who"], row["since"]))
    columns = ("who", "what", "model", "about", "since")
    return ReviewSection("waiting", "What waits for whom", columns, tuple(rows), "nothing waits")


def _waits(what: str, model: str, about: str, who: str, since_ms: int) -> dict[str, Any]:
    return {"who": who, "what": what, "model": model, "about": about, "since": _date(since_ms)}


def _references(inputs: ReviewInputs) -> list[dict[str, Any]]:
    """Return the versions that were in production for two weeks and have no reference yet."""
    if inputs.monitoring.problem:
        return []
    waiting = []
    for item in inputs.models:
        if item.version is None or not item.production_unix_ms:
            continue
        key = item.model, item.version.label
        served_ms = inputs.now_ms - item.production_unix_ms
        if key not in inputs.monitoring.references and served_ms >= REFERENCE_DAYS * DAY_MS:
            about = f"version {item.version.label}: turnout monitor accept"
            ready_ms = item.production_unix_ms + REFERENCE_DAYS * DAY_MS
            waiting.append(
                _waits("reference to accept", item.model, about, ANYBODY["accept"], ready_ms)
            )
    return waiting


def decisions_section(inputs: ReviewInputs) -> ReviewSection:
    """Return the decisions that are open, and those that were done in the week."""
    today = dt.datetime.fromtimestamp(inputs.now_ms / 1_000, dt.UTC).date()
    rows = [
        item.to_json(today)
        for item in inputs.decisions
        if not item.done_by or inputs.period.has(item.done_unix_ms)
    ]
    for row in rows:
        row["state"] = "done" if row["done_by"] else "OVERDUE" if row["overdue"] else "open"
        row["decided"] = _date(row["decided_unix_ms"])
    rows.sort(key=lambda row: (row["state"] == "done", row["due"]))
    columns = ("id", "state", "model", "decision", "owner", "due", "decided", "outcome")
    return ReviewSection(
        "decisions", "Decisions, carried over until done", columns, tuple(rows), "none is open"
    )


def actions_section(inputs: ReviewInputs) -> ReviewSection:
    """Return what people and the controller did in the week, newest first."""
    rows = [_action_row(entry) for entry in reversed(inputs.entries)]
    columns = ("when", "who", "what", "object", "reason")
    return ReviewSection(
        "actions", "What was done", columns, tuple(rows), "nothing was done in this week"
    )


def _action_row(entry: WeekEntry) -> dict[str, Any]:
    what, reason = entry.action, entry.reason
    if entry.action == "finding":
        what = f"finding: {entry.after.get('kind', '')}"
        reason = finding_sentence(reason)
    elif entry.action == "change incident":
        what = "close incident"
    return {
        "when": _moment(entry.at_unix_ms),
        "who": entry.actor,
        "what": what,
        "object": entry.object,
        "reason": reason if len(reason) <= REASON_CHARS else f"{reason[:REASON_CHARS]} ...",
    }


def summary_lines(sections: Sequence[ReviewSection]) -> list[str]:
    """Return the head of the page: the numbers that a reader wants first."""
    by_key = {section.key: section for section in sections}
    red = [row["severity"] for row in by_key["red"].rows]
    counts = [f"{red.count(name)} {name}" for name in ("page", "warning", "review")]
    decisions = [row["state"] for row in by_key["decisions"].rows]
    return [
        f"Red: {', '.join(counts)}",
        f"Waiting: {len(by_key['waiting'].rows)}",
        f"Decisions: {len(decisions) - decisions.count('done')} open, "
        f"{decisions.count('OVERDUE')} overdue, {decisions.count('done')} done",
    ]


def _days(unix_ms: int, now_ms: int) -> int | None:
    """Return the whole days since an instant; None: it is not known."""
    return max(0, (now_ms - unix_ms) // DAY_MS) if unix_ms else None


def _date(unix_ms: int) -> str:
    return _moment(unix_ms)[:10] if unix_ms else ""


def _moment(unix_ms: int) -> str:
    """Return a time in UTC, to the minute."""
    return dt.datetime.fromtimestamp(unix_ms / 1_000, dt.UTC).strftime("%Y-%m-%d %H:%M")
