"""From alarms to incidents: one incident a cause, with what else changed before it.

Alarms wait in the database until the registry has an incident for them, so an alarm is reported at
least once. The registry knows an open incident by its cause, so twice is once.

An incident is about one model, and a broken view is about several. The model with the most urgent
alarms gets the incident that people see. Each other model gets one of the lowest severity that
leads to it, because what follows an alarm is the policy of each model.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

from monitoring.jobs.grouping import (
    WINDOW_S,
    AlarmGroup,
    MonitoringAlarm,
    OtherChange,
    group_alarms,
)
from monitoring.jobs.severity import Severity
from monitoring.store.look_store import LookStore, StoredAlarm
from protos import registry_pb2

log = logging.getLogger(__name__)

ALARMS_SHOWN = 8
CHANGES_SHOWN = 8
STREAM_CHARACTERS = 120
"""Figures of an incident have 8 KiB at most."""
GROUPED_S = 2 * WINDOW_S
"""Alarms of this time before the newest are grouped with it."""

Incident = registry_pb2.Incident


class IncidentRegistry(Protocol):
    """The part of RegistryClient that opens incidents."""

    async def open_incident(
        self,
        model: str,
        kind: str,
        cause: str,
        *,
        severity: "registry_pb2.Incident.Severity",
        title: str,
        version: str = "",
        figures: object = None,
        since_unix_ms: int = 0,
        links: Sequence[tuple[str, str]] = (),
        automatic: bool = False,
    ) -> registry_pb2.OpenIncidentReply:
        """Open an incident, or raise the open one of this cause."""
        ...


class IncidentOpener:
    """Reports alarms to the registry.

    looks    where alarms wait.
    changes  returns what else changed since a Unix second, from the history and from gateways.
    """

    def __init__(
        self,
        looks: LookStore,
        registry: IncidentRegistry,
        changes: Callable[[int], Iterable[OtherChange]],
    ) -> None:
        self._looks = looks
        self._registry = registry
        self._changes = changes

    async def report(self) -> int:
        """Report the alarms that wait; return of how many incidents they are.

        Raises RegistryError.
        """
        waiting = await asyncio.to_thread(self._looks.unreported_alarms)
        if not waiting:
            return 0
        # Alarms of the days before belong to the same cause, though they are reported.
        oldest = min(item.alarm.at for item in waiting)
        newest = max(item.alarm.at for item in waiting)
        near = await asyncio.to_thread(self._looks.read_alarms, oldest - GROUPED_S, newest + 1)
        since = min(item.alarm.since for item in near) - WINDOW_S
        changes = [*self._changes(since)]
        # Each group with an alarm that waits.
        by_alarm: dict[MonitoringAlarm, list[StoredAlarm]] = {}
        for item in near:
            by_alarm.setdefault(item.alarm, []).append(item)
        numbers = {item.number for item in waiting}
        told = 0
        for group in group_alarms(by_alarm, changes):
            stored = [item for alarm in group.alarms for item in by_alarm[alarm]]
            own = [item.number for item in stored if item.number in numbers]
            if own:
                incident = await self._open(group, stored)
                await asyncio.to_thread(self._looks.note_incident, own, incident)
                told += 1
        return told

    async def _open(self, group: AlarmGroup, stored: Sequence[StoredAlarm]) -> str:
        """Open the incident of a group, and those of the other models; return its id."""
        # The incident that people see.
        first = group_model(group)
        figures = incident_figures(group, stored)
        reply = await self._registry.open_incident(
            first,
            group.kind,
            group.cause,
            severity=_severity(group.severity),
            title=incident_title(group),
            version=_version_of(group, first),
            figures=figures,
            since_unix_ms=group.since * 1_000,
            links=[("version", f"{model}/{label}") for model, label in _versions(group)],
            automatic=True,
        )
        incident = reply.incident.id
        # The other models, for what follows by their own policies.
        for model in group.models:
            if model != first:
                kinds = [alarm for alarm in group.alarms if alarm.model == model]
                urgent = max(kinds, key=lambda alarm: alarm.severity)
                await self._registry.open_incident(
                    model,
                    urgent.kind,
                    group.cause,
                    severity=Incident.REVIEW,
                    title=f"Part of incident {incident[:8]}: {incident_title(group)}"[:500],
                    version=_version_of(group, model),
                    since_unix_ms=group.since * 1_000,
                    links=[("incident", incident)],
                    automatic=True,
                )
        return incident


def group_model(group: AlarmGroup) -> str:
    """Return the model whose incident people see: that of the most urgent alarms."""
    return max(
        group.models,
        key=lambda model: (
            max(alarm.severity for alarm in group.alarms if alarm.model == model),
            sum(alarm.model == model for alarm in group.alarms),
        ),
    )


def incident_title(group: AlarmGroup) -> str:
    """Return what is wrong, where and since when, in one sentence."""
    streams = sorted({alarm.stream for alarm in group.alarms})
    shown = ", ".join(streams[:3]) + (f" and {len(streams) - 3} more" if len(streams) > 3 else "")
    what, _, where = group.cause.partition("/")
    since = datetime.fromtimestamp(group.since, UTC).strftime("%Y-%m-%d %H:%M UTC")
    place = f"{what} {where}" if what in ("view", "host") else ", ".join(group.models)
    return f"{_words(group.kind)} of {place} since {since}: {shown}"[:500]


def incident_figures(group: AlarmGroup, stored: Sequence[StoredAlarm]) -> dict[str, Any]:
    """Return what an incident shows of its alarms, and what else changed before."""
    details = {item.alarm: item.details for item in stored}
    alarms = [
        {
            "model": alarm.model,
            "version": alarm.version,
            "kind": alarm.kind,
            "stream": alarm.stream[:STREAM_CHARACTERS],
            "since": alarm.since,
            "at": alarm.at,
            **({"host": alarm.host} if alarm.host else {}),
            **_few(details.get(alarm, {})),
        }
        for alarm in group.alarms[:ALARMS_SHOWN]
    ]
    changes = [
        {"at": change.at, "kind": change.kind, "text": change.text[:STREAM_CHARACTERS]}
        for change in group.changes[:CHANGES_SHOWN]
    ]
    return {"alarms": alarms, "alarms_in_all": len(group.alarms), "changed_before": changes}


def _few(details: Any) -> dict[str, Any]:  # noqa: ANN401  JSON values
    """Return details that fit into the figures of an incident."""
    return {name: value for name, value in details.items() if len(str(value)) <= STREAM_CHARACTERS}


def _words(kind: str) -> str:
    words = {
        "quality": "Broken data",
        "silence": "Fewer calls",
        "coverage": "Unseen traffic",
        "score": "Scores moved",
        "features": "Features moved",
        "calibration": "Calibration is off",
        "risk": "Decisions cost more",
        "auc": "Customers are ordered worse",
        "fairness": "A group is treated otherwise",
        "outcomes": "Outcomes are not complete",
        "holdout": "The control group is not intact",
        "uplift": "Acting brings less",
    }
    return words.get(kind, kind)


def _severity(severity: Severity) -> "registry_pb2.Incident.Severity":
    return {
        Severity.REVIEW: Incident.REVIEW,
        Severity.WARNING: Incident.WARNING,
        Severity.PAGE: Incident.PAGE,
    }[severity]


def _version_of(group: AlarmGroup, model: str) -> str:
    """Return the one version of a model that a group is about; empty for several."""
    labels = {alarm.version for alarm in group.alarms if alarm.model == model}
    return labels.pop() if len(labels) == 1 else ""


def _versions(group: AlarmGroup) -> list[tuple[str, str]]:
    found = {(alarm.model, alarm.version) for alarm in group.alarms if alarm.version}
    return sorted(found)[:16]
