"""Figures and alarms of monitoring as tables and JSON."""

import datetime as dt
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType

from turnout.views.terminal import text_table

if TYPE_CHECKING:
    from protos import monitoring_pb2 as pb

SEVERITY_NAMES = {1: "review", 2: "warning", 3: "page"}


def day_text(unix_day: int) -> str:
    """Return a Unix day as a date, such as "2026-11-30"."""
    return (dt.date(1970, 1, 1) + dt.timedelta(days=unix_day)).isoformat()


def figure_json(figure: "pb.FigureOfPeriod") -> dict[str, Any]:
    """Return a figure as JSON values; null where there is no number, and `lacking` says why."""
    return {
        "model": figure.model,
        "version": figure.version,
        "kind": figure.kind,
        "name": figure.name,
        "segment": figure.segment,
        "last_day": day_text(figure.last_day),
        "days": figure.days,
        "value": figure.value if figure.HasField("value") else None,
        "low": figure.low if figure.HasField("low") else None,
        "high": figure.high if figure.HasField("high") else None,
        "n": figure.n,
        "lacking": figure.lacking,
        "details": json.loads(figure.details_json or "{}"),
    }


def figure_text(item: dict[str, Any]) -> str:
    """Return value and interval of a figure's JSON, or why there is none.

    >>> figure_text({"value": 0.71234, "low": 0.7, "high": 0.72, "lacking": ""})
    '0.7123 [0.7, 0.72]'
    """
    if item["value"] is None:
        return str(item["lacking"]) or "no number"
    shown = f"{item['value']:.4g}"
    if item["low"] is None or item["high"] is None:
        return shown
    return f"{shown} [{item['low']:.4g}, {item['high']:.4g}]"


def notes_of_figures(figures: Iterable[Mapping[str, Any]], notes_max: int) -> list[str]:
    """Return the sentences that belong to figures, each once and without its full stop.

    figures  as figure_json. An estimate says what it cannot see, and a cohort what it rests on.

    >>> blind = {"details": {"blind_spot": "It is blind.", "notes": ["few rows", 3]}}
    >>> notes_of_figures([blind, blind], 5)
    ['It is blind', 'few rows']
    """
    found: dict[str, None] = {}
    for figure in figures:
        details = figure["details"]
        notes = details.get("notes")
        for note in [details.get("blind_spot"), *(notes if isinstance(notes, list) else ())]:
            if isinstance(note, str) and note:
                found[note.rstrip(".")] = None
    return list(found)[:notes_max]


def figures_table(figures: "Sequence[pb.FigureOfPeriod]") -> RenderableType:
    """Return a row for each figure."""
    columns = ("until", "days", "version", "kind", "figure", "segment", "value", "n")
    rows = [
        (
            item["last_day"],
            item["days"],
            item["version"] or "-",
            item["kind"],
            item["name"],
            item["segment"] or "-",
            figure_text(item),
            f"{item['n']:,}",
        )
        for item in map(figure_json, figures)
    ]
    return text_table(columns, rows)


def alarm_json(alarm: "pb.RaisedAlarm") -> dict[str, Any]:
    """Return an alarm as JSON values."""
    return {
        "number": alarm.number,
        "model": alarm.model,
        "version": alarm.version,
        "kind": alarm.kind,
        "severity": SEVERITY_NAMES.get(alarm.severity, "?"),
        "stream": alarm.stream,
        "view": alarm.view,
        "host": alarm.host,
        "shadow": alarm.shadow,
        "at": _time(alarm.at_unix_s),
        "since": _time(alarm.since_unix_s),
        "incident": alarm.incident_id,
        "details": json.loads(alarm.details_json or "{}"),
    }


def alarms_table(alarms: "Sequence[pb.RaisedAlarm]") -> RenderableType:
    """Return a row for each alarm."""
    keys = ("at", "since", "severity", "model", "version", "kind", "stream", "host", "incident")
    rows = [[item[key] or "-" for key in keys] for item in map(alarm_json, alarms)]
    return text_table(keys, rows)


def _time(unix_s: int) -> str:
    """Return a time in UTC, to the second."""
    return dt.datetime.fromtimestamp(unix_s, dt.UTC).isoformat()
