"""The tables of an export: their columns, and the rows from what monitoring and registry say."""

import datetime as dt
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from protos import registry_pb2 as pb
from protos.journal_pb2 import UNSEEN_SHADOW
from protos.predict_pb2 import Role
from turnout.views.figures import alarm_json, figure_json
from turnout.views.incidents import severity_word

if TYPE_CHECKING:
    from protos import monitoring_pb2 as mpb

Row = dict[str, Any]
TEXT, NUMBER, WHOLE, MOMENT = "VARCHAR", "DOUBLE", "BIGINT", "TIMESTAMP"
ROLE_NAMES = {number: name.lower() for name, number in Role.items()} | {UNSEEN_SHADOW: "shadow"}
FLAGS = ("missing", "stale", "defaulted", "degraded", "not_sticky")

TABLES: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "figures": {
        "model": (TEXT, "name of the model"),
        "version": (TEXT, "label of the version; empty: of the model"),
        "kind": (TEXT, "drift, quality, estimate, uplift, fairness, coverage or budget"),
        "name": (TEXT, "what was measured, such as `auc churned`"),
        "segment": (TEXT, "segment by the policy; empty: everybody"),
        "last_day": ("DATE", "day (UTC) at which the period ends"),
        "days": (WHOLE, "length of the period"),
        "value": (NUMBER, "the number; null: `lacking` says why there is none"),
        "low": (NUMBER, "low end of the 95 % interval"),
        "high": (NUMBER, "high end"),
        "n": (WHOLE, "rows, people or calls that it rests on"),
        "lacking": (TEXT, "why there is no number"),
        "details": (TEXT, "JSON that belongs to the figure"),
    },
    "alarms": {
        "number": (WHOLE, "number of the alarm"),
        "model": (TEXT, "name of the model"),
        "version": (TEXT, "label of the version"),
        "kind": (TEXT, "kind of an incident"),
        "severity": (TEXT, "review, warning or page"),
        "stream": (TEXT, "what was looked at: a feature, an output, a group"),
        "view": (TEXT, "feature view of the stream"),
        "host": (TEXT, "gateway host; empty: all"),
        "shadow": ("BOOLEAN", "whether the version answered no call"),
        "at": (MOMENT, "when it was raised, UTC"),
        "since": (MOMENT, "when the change may have begun, UTC"),
        "incident": (TEXT, "id of its incident; empty: none has it yet"),
        "details": (TEXT, "JSON that belongs to the alarm"),
    },
    "cells": {
        "model": (TEXT, "name of the model"),
        "version": (TEXT, "label of the version"),
        "role": (TEXT, "production, canary, pinned, fallback or shadow"),
        "holdout": ("BOOLEAN", "whether the customers are of the control group"),
        "segment": (TEXT, "such as tenure=new, which overlap; empty: all rows, once"),
        "begins": (MOMENT, "when the cell begins, UTC"),
        "hours": (WHOLE, "1, 24 or 168: older cells are rolled up"),
        "calls": (WHOLE, "calls"),
        "rows": (WHOLE, "rows"),
        **{flag: (WHOLE, f"rows with the flag {flag.upper()}") for flag in FLAGS},
    },
    "incidents": {
        "incident": (TEXT, "its id"),
        "model": (TEXT, "name of the model"),
        "version": (TEXT, "label of the version; empty: of the model"),
        "kind": (TEXT, "its kind, such as quality"),
        "cause": (TEXT, "what makes two alarms one incident"),
        "severity": (TEXT, "review, warning or page"),
        "state": (TEXT, "open, acknowledged, mitigated or closed"),
        "resolution": (TEXT, "real, false_alarm or expected; empty: it is not closed"),
        "title": (TEXT, "what is wrong"),
        "owner": (TEXT, "who works on it"),
        "act": (TEXT, "what followed: note, hold, rollback or retrain"),
        "raised": (WHOLE, "how often it was raised after its opening"),
        "since": (MOMENT, "when it began, UTC"),
        "opened": (MOMENT, "when it was opened, UTC"),
        "acknowledged": (MOMENT, "when a person had seen it"),
        "mitigated": (MOMENT, "when it did no more harm"),
        "closed": (MOMENT, "when it ended"),
        "figures": (TEXT, "JSON of what was measured"),
    },
}
"""Table -> column -> its type in DuckDB, and what it has. docs/review.md has the same."""


def figure_row(figure: "mpb.FigureOfPeriod") -> Row:
    """Return a row of `figures`."""
    return {**figure_json(figure), "details": figure.details_json}


def alarm_row(alarm: "mpb.RaisedAlarm") -> Row:
    """Return a row of `alarms`."""
    return {
        **alarm_json(alarm),
        "at": moment(alarm.at_unix_s * 1_000),
        "since": moment(alarm.since_unix_s * 1_000),
        "details": alarm.details_json,
    }


def cell_row(cell: "mpb.CellTotals") -> Row:
    """Return a row of `cells`."""
    return {
        "model": cell.model,
        "version": cell.version,
        "role": ROLE_NAMES.get(cell.role, str(cell.role)),
        "holdout": cell.holdout,
        "segment": cell.segment,
        "begins": moment(cell.hour * 3_600_000),
        "hours": cell.hours,
        "calls": cell.calls,
        "rows": cell.rows,
        **{flag: cell.row_flags.get(flag, 0) for flag in FLAGS},
    }


def incident_row(incident: pb.Incident) -> Row:
    """Return a row of `incidents`."""
    resolution = pb.Incident.Resolution.Name(incident.resolution).lower()
    return {
        "incident": incident.id,
        "model": incident.model,
        "version": incident.version,
        "kind": incident.kind,
        "cause": incident.cause,
        "severity": severity_word(incident),
        "state": pb.Incident.State.Name(incident.state).lower(),
        "resolution": resolution if incident.resolution else "",
        "title": incident.title,
        "owner": incident.owner,
        "act": incident.act,
        "raised": incident.raised,
        "since": moment(incident.since_unix_ms),
        "opened": moment(incident.opened_unix_ms),
        "acknowledged": moment(incident.acknowledged_unix_ms),
        "mitigated": moment(incident.mitigated_unix_ms),
        "closed": moment(incident.closed_unix_ms),
        "figures": incident.figures_json or "{}",
    }


def moment(unix_ms: int) -> str | None:
    """Return a time in UTC as DuckDB reads it; None: there is none."""
    if not unix_ms:
        return None
    return dt.datetime.fromtimestamp(unix_ms / 1_000, dt.UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
