"""Groups alarms into incidents: one cause is one incident.

A broken view alarms in each of its features, in every version that reads it, and in their scores.
People need to hear of it once. Alarms are grouped in this order, and each is in one group:

    1. the view or host that most streams have in common, of two or more; then the next one
    2. other alarms of a version of such a group, within 48 hours: its score moves with its features
    3. alarms of one version
    4. groups of step 3 that began on one calendar day, of two models or more: the day is the cause

Broken data names its view even when there is one alarm only. What else changed within the 48 hours
before is listed, what has to do with the alarms first. It is a hint and no proof.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from monitoring.jobs.severity import Severity, severity_of

WINDOW_S = 48 * 3_600
"""Alarms of one cause lie closer together than this, and changes before it are listed."""
SHARED_MIN = 2
"""Alarms that a view or a host must explain to be the cause."""
MODELS_A_DAY_MIN = 2
"""Models that must alarm on one day for the day to be the cause."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitoringAlarm:
    """One alarm of one stream of a version. Times are Unix seconds."""

    model: str
    version: str
    """Its label, for example "7"."""
    kind: str
    """One of monitoring.jobs.severity.SEVERITIES."""
    stream: str
    """What was looked at: a feature, an output, a group of people."""
    at: int
    since: int
    """When the change may have begun."""
    view: str = ""
    """The feature view of the stream; empty: none, as for a score."""
    host: str = ""
    """The gateway host, for streams that are counted by host; empty: all hosts together."""
    shadow: bool = False

    @property
    def severity(self) -> Severity:
        """How urgent this alarm is."""
        return severity_of(self.kind, shadow=self.shadow)


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherChange:
    """What happened elsewhere, from the history: a deployment, an edition of a view, a restart."""

    at: int
    """Unix seconds of the change."""
    kind: str
    subject: str
    """The model, view or host that was changed."""
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AlarmGroup:
    """Alarms that have one cause: what becomes one incident."""

    cause: str
    """Such as "view/usage", "host/gw-1", "version/churn/7" or "day/2026-11-30". The registry opens
    no second incident with the cause of an open one."""
    kind: str
    """The kind of its most urgent alarm."""
    severity: Severity
    alarms: tuple[MonitoringAlarm, ...]
    """In the order of their beginnings."""
    changes: tuple[OtherChange, ...]
    """What else changed in the 48 hours before and until the last alarm, related changes first."""

    @property
    def since(self) -> int:
        """Unix seconds at which the earliest of its changes may have begun."""
        return min(alarm.since for alarm in self.alarms)

    @property
    def models(self) -> tuple[str, ...]:
        """All models that it is about."""
        return tuple(sorted({alarm.model for alarm in self.alarms}))


def group_alarms(
    alarms: Iterable[MonitoringAlarm], changes: Sequence[OtherChange] = ()
) -> list[AlarmGroup]:
    """Return the groups of *alarms*, the most urgent first.

    changes  what the history has of deployments, views and hosts; those that matter are selected.

    The order of *alarms* and *changes* does not matter.
    """
    left = sorted(set(alarms), key=_order)
    grouped: list[tuple[str, list[MonitoringAlarm]]] = []
    # Views and hosts, the one that explains most first.
    while left and (cause := _common_cause(left)):
        members = [alarm for alarm in left if cause in _causes(alarm)]
        grouped += [(cause, cluster) for cluster in _close_in_time(members)]
        left = [alarm for alarm in left if alarm not in set(members)]
    # What else alarms in their versions is a consequence.
    versions: dict[str, list[MonitoringAlarm]] = defaultdict(list)
    for alarm in left:
        home = next((group for _, group in grouped if _follows(alarm, group)), None)
        (versions[_version(alarm)] if home is None else home).append(alarm)
    # The rest by version, and versions of different models by day.
    by_version = [
        (f"version/{version}", cluster)
        for version, members in versions.items()
        for cluster in _close_in_time(members)
    ]
    groups = [_group(cause, members, changes) for cause, members in grouped + _by_day(by_version)]
    return sorted(groups, key=lambda group: (-group.severity, group.since, group.cause))


def _common_cause(alarms: Sequence[MonitoringAlarm]) -> str:
    """Return the view or host of most of *alarms*, or an empty text if no two share one."""
    # A stream that alarms on two days is still one stream, and shares nothing with another.
    streams = {
        (cause, alarm.model, alarm.version, alarm.kind, alarm.stream)
        for alarm in alarms
        for cause in _causes(alarm)
    }
    counts = Counter(cause for cause, *_ in streams)
    # One alarm of broken data is enough to name its view.
    broken = {f"view/{alarm.view}" for alarm in alarms if alarm.kind == "quality" and alarm.view}
    possible = [
        (-count, cause.startswith("host/"), cause)
        for cause, count in counts.items()
        if count >= SHARED_MIN or cause in broken
    ]
    return min(possible)[2] if possible else ""


def _causes(alarm: MonitoringAlarm) -> list[str]:
    named = (("view", alarm.view), ("host", alarm.host))
    return [f"{kind}/{name}" for kind, name in named if name]


def _follows(alarm: MonitoringAlarm, group: Sequence[MonitoringAlarm]) -> bool:
    return any(
        _version(alarm) == _version(member) and abs(alarm.since - member.since) <= WINDOW_S
        for member in group
    )


def _by_day(
    groups: list[tuple[str, list[MonitoringAlarm]]],
) -> list[tuple[str, list[MonitoringAlarm]]]:
    """Join groups of different models that began on one calendar day (UTC)."""
    by_day: dict[str, list[tuple[str, list[MonitoringAlarm]]]] = defaultdict(list)
    for cause, members in groups:
        by_day[_day(min(alarm.since for alarm in members))].append((cause, members))
    joined = []
    for day, same_day in by_day.items():
        models = {alarm.model for _, members in same_day for alarm in members}
        if len(models) >= MODELS_A_DAY_MIN:
            joined.append((f"day/{day}", [alarm for _, members in same_day for alarm in members]))
        else:
            joined += same_day
    return joined


def _close_in_time(alarms: Sequence[MonitoringAlarm]) -> list[list[MonitoringAlarm]]:
    """Split alarms where WINDOW_S or more lies between one and the next."""
    clusters: list[list[MonitoringAlarm]] = []
    for alarm in sorted(alarms, key=lambda item: (item.at, _order(item))):
        if clusters and alarm.at - clusters[-1][-1].at < WINDOW_S:
            clusters[-1].append(alarm)
        else:
            clusters.append([alarm])
    return clusters


def _group(
    cause: str, members: Sequence[MonitoringAlarm], changes: Sequence[OtherChange]
) -> AlarmGroup:
    alarms = tuple(sorted(members, key=_order))
    urgent = max(alarms, key=lambda alarm: alarm.severity)
    first, last = alarms[0].since, max(alarm.at for alarm in alarms)
    related = {name for alarm in alarms for name in (alarm.model, alarm.view, alarm.host)}
    near = [change for change in changes if first - WINDOW_S <= change.at <= last]
    near.sort(key=lambda change: (change.subject not in related, -change.at, change.text))
    return AlarmGroup(
        cause=cause,
        kind=urgent.kind,
        severity=urgent.severity,
        alarms=alarms,
        changes=tuple(near),
    )


def _version(alarm: MonitoringAlarm) -> str:
    return f"{alarm.model}/{alarm.version}"


def _day(unix_s: int) -> str:
    return datetime.fromtimestamp(unix_s, UTC).date().isoformat()


def _order(alarm: MonitoringAlarm) -> tuple[int, str, str, str, str, str]:
    return (alarm.since, alarm.model, alarm.version, alarm.kind, alarm.stream, alarm.host)
