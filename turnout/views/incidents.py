"""Incidents as tables, as JSON, and what a person does next."""

import datetime as dt
import json
import time
from collections.abc import Sequence
from typing import Any

from rich.console import RenderableType

from protos import registry_pb2 as pb
from turnout.views.json_values import message_to_json
from turnout.views.terminal import named_values, text_table


def incident_json(incident: pb.Incident) -> dict[str, Any]:
    """Return every field, with the figures as JSON and the words of the enums."""
    value = message_to_json(incident)
    value["figures"] = figures_of(incident)
    del value["figures_json"]
    return value


def figures_of(incident: pb.Incident) -> dict[str, Any]:
    """Return the figures of an incident; empty where they cannot be read."""
    try:
        value = json.loads(incident.figures_json or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def incidents_table(incidents: Sequence[pb.Incident]) -> RenderableType:
    """Return one row an incident."""
    columns = ("incident", "severity", "state", "model", "kind", "title", "owner", "act", "age")
    rows = [
        (
            incident.id,
            severity_word(incident),
            state_word(incident),
            f"{incident.model} {incident.version}".strip(),
            incident.kind,
            incident.title,
            incident.owner or "-",
            incident.act,
            age(incident),
        )
        for incident in incidents
    ]
    return text_table(columns, rows)


def incident_details(incident: pb.Incident) -> list[RenderableType]:
    """Return an incident with its figures, times and notes."""
    # What it is, who has it, and what was done.
    who = {
        "opened": (incident.opened_by, incident.opened_unix_ms),
        "acknowledged": (incident.acknowledged_by, incident.acknowledged_unix_ms),
        "mitigated": (incident.mitigated_by, incident.mitigated_unix_ms),
        "closed": (incident.closed_by, incident.closed_unix_ms),
    }
    values: dict[str, object] = {
        "incident": f"{incident.id}, {severity_word(incident)}, {state_word(incident)}",
        "model": f"{incident.model} {incident.version}".strip(),
        "what": f"{incident.title} ({incident.kind})",
        "cause": incident.cause,
        "owner": incident.owner or "nobody; assign it",
        "since": when(incident.since_unix_ms),
        **{name: f"{when(ms)} by {by}" for name, (by, ms) in who.items() if ms},
        "what followed": _what_followed(incident),
    }
    details: list[RenderableType] = [named_values(values)]
    # What was measured, and what people and the controller wrote.
    figures = figures_of(incident)
    if figures:
        details.append(text_table(("figure", "value"), list(figures.items())))
    if incident.notes:
        notes = [(when(note.at_unix_ms), note.who, note.kind, note.text) for note in incident.notes]
        details.append(text_table(("when", "who", "note", "text"), notes))
    return details


def incident_hint(incident: pb.Incident) -> str:
    """Return what a person does next; empty for a closed incident."""
    if incident.state == pb.Incident.CLOSED:
        return ""
    if incident.state == pb.Incident.OPEN:
        return f"Next: turnout incidents ack {incident.id}"
    close = f"turnout incidents close {incident.id} --resolution real --reason ..."
    if incident.state == pb.Incident.ACKNOWLEDGED:
        return f"Next: turnout incidents mitigate {incident.id} --reason ..., then {close}"
    return f"Next: {close}"


def _what_followed(incident: pb.Incident) -> str:
    parts = [incident.act]
    if incident.finding:
        parts.append(f"finding {incident.finding}")
    if incident.run:
        parts.append(f"run {incident.run[:8]}")
    return ", ".join(parts)


def severity_word(incident: pb.Incident) -> str:
    """Return the severity as a word."""
    return pb.Incident.Severity.Name(incident.severity).lower()


def state_word(incident: pb.Incident) -> str:
    """Return the state as a word, with the resolution of a closed incident."""
    word = pb.Incident.State.Name(incident.state).lower()
    if incident.resolution:
        resolution = pb.Incident.Resolution.Name(incident.resolution)
        word = f"{word}, {resolution.lower().replace('_', ' ')}"
    return word


def age(incident: pb.Incident) -> str:
    """Return how long it is open, or was."""
    end_ms = incident.closed_unix_ms or time.time_ns() // 1_000_000
    return duration_text((end_ms - incident.opened_unix_ms) / 1_000)


def duration_text(seconds: float) -> str:
    """Return a time in its largest unit, such as "3.5 h"."""
    for unit, size in (("d", 86_400.0), ("h", 3_600.0), ("min", 60.0)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{max(0.0, seconds):.1f} s"


def when(unix_ms: int) -> str:
    """Return a local time to the minute."""
    return dt.datetime.fromtimestamp(unix_ms / 1000).astimezone().strftime("%Y-%m-%d %H:%M")
