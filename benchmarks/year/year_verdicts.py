"""Compares what monitoring found in the virtual year with what was planted.

An alarm belongs to an event when it is of one of its models and kinds, and comes in its days or in
the days after them in which its outcomes mature. Every other alarm is a false one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from benchmarks.year.planted_events import PlantedEvent
from benchmarks.year.replay import SeenAlarm, YearResult

ALARMS_A_QUARTER = 0.25
"""Promised false alarms of one version in a quarter."""
DAYS_A_QUARTER = 91


class Outcome(Enum):
    """What became of an event."""

    FOUND = "found"
    SILENT = "silent, as it should"
    MISSED = "missed"
    LATE = "found too late"
    WRONG_CAUSE = "another cause is named"
    ALARMED = "should be silent"
    NO_LOOK = "look not there"
    NOT_REPLAYED = "not in these days"


RIGHT = frozenset({Outcome.FOUND, Outcome.SILENT, Outcome.NO_LOOK, Outcome.NOT_REPLAYED})


@dataclass(frozen=True, slots=True)
class EventVerdict:
    """What monitoring said of one event."""

    event: PlantedEvent
    outcome: Outcome
    first: SeenAlarm | None = None
    """The alarm that found it, or that should not have come."""

    @property
    def right(self) -> bool:
        """Whether it is as listed."""
        return self.outcome in RIGHT

    @property
    def latency_days(self) -> int | None:
        """Days from its first day to the end of the day that found it; None: nothing did."""
        return None if self.first is None else self.first.day + 1 - self.event.first_day


@dataclass(frozen=True, slots=True)
class YearVerdict:
    """The verdicts on all events, and the alarms that no event explains."""

    events: tuple[EventVerdict, ...]
    false_alarms: tuple[SeenAlarm, ...]
    promised_false_alarms: float
    """Expected ones of all versions together, at most."""

    @property
    def right(self) -> bool:
        """Whether each event is as listed, and false alarms are within their budget."""
        return (
            all(verdict.right for verdict in self.events)
            and len(self.false_alarms) <= self.promised_false_alarms
        )


def judge_year(
    events: Sequence[PlantedEvent], models: Sequence[str], result: YearResult
) -> YearVerdict:
    """Return what became of each event in the days and models that were replayed."""
    unexplained = [seen for seen in result.alarms if not _explaining(events, seen)]
    verdicts = tuple(_judge(event, models, result, unexplained) for event in events)
    promised = ALARMS_A_QUARTER * result.version_days / DAYS_A_QUARTER
    return YearVerdict(verdicts, tuple(unexplained), promised)


def _judge(
    event: PlantedEvent,
    models: Sequence[str],
    result: YearResult,
    unexplained: Sequence[SeenAlarm],
) -> EventVerdict:
    # Was there a chance to see it?
    if event.look and event.look not in result.looks:
        return EventVerdict(event, Outcome.NO_LOOK)
    replayed = event.first_day + (1 if event.silent else event.found_within) <= result.days
    if not replayed or not set(event.models) & set(models):
        return EventVerdict(event, Outcome.NOT_REPLAYED)
    # What must be silent has no alarm of its own.
    if event.silent:
        loud = [seen for seen in unexplained if _is_about(event, seen)]
        return EventVerdict(event, Outcome.ALARMED if loud else Outcome.SILENT, *loud[:1])
    # What must be found has its kind, stream and host, in time, in an incident of its cause.
    found = [
        seen
        for seen in result.alarms
        if event.explains(seen.alarm.model, seen.alarm.kind, seen.day)
        and seen.alarm.kind in event.kinds
        and event.stream in seen.alarm.stream
        and event.host in ("", seen.alarm.host)
        and not seen.alarm.shadow
    ]
    if not found:
        return EventVerdict(event, Outcome.MISSED)
    first = min(found, key=lambda seen: seen.alarm.at)
    if first.day + 1 - event.first_day > event.found_within:
        return EventVerdict(event, Outcome.LATE, first)
    named = any(
        seen.incident.cause.startswith(event.cause) for seen in found if seen.day <= first.day + 1
    )
    return EventVerdict(event, Outcome.FOUND if named else Outcome.WRONG_CAUSE, first)


def _explaining(events: Sequence[PlantedEvent], seen: SeenAlarm) -> list[PlantedEvent]:
    alarm = seen.alarm
    return [event for event in events if event.explains(alarm.model, alarm.kind, seen.day)]


def _is_about(event: PlantedEvent, seen: SeenAlarm) -> bool:
    """Whether an alarm is about what an event changes, on one of its days."""
    return (
        seen.alarm.model in event.models
        and event.first_day <= seen.day <= event.last_day
        and event.stream in seen.alarm.stream
    )
