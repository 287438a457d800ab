"""Replays the virtual year: pushes each day to a real store, and makes the looks by its clock.

The store, the looks and the opener of incidents are those of the component. A list stands for the
registry. Looks at shares and silence, which a component makes every five minutes, are made twice a
day; those at silence are made every five minutes around an event that needs it. Decisions stay in
the database, where looks find them too.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.year.planted_events import PlantedEvent, effects_of
from benchmarks.year.served_days import ServedDay, YearStore, serve_day
from benchmarks.year.year_calendar import FIRST_DAY, VersionCalendar
from benchmarks.year.year_models import YearModel
from benchmarks.year.year_outcomes import OutcomeClock
from benchmarks.year.year_people import DAY_NS, GROUPS, YearPeople
from host.clock import DAY_S
from monitoring.api.component import day_looks
from monitoring.cohorts.sensitive_attributes import SensitiveView
from monitoring.incidents.incident_opener import IncidentOpener
from monitoring.jobs.grouping import MonitoringAlarm, OtherChange
from monitoring.jobs.look import LOOK_S
from monitoring.looks.day_looks import SealedFacts
from monitoring.looks.uplift_look import ConfiguredHoldout
from monitoring.store.cell_rows import Retention
from monitoring.store.look_store import AcceptedReference, StoredFigure
from monitoring.watch.day_runner import DayRunner, KnownVersions, Version
from monitoring.watch.minute_look import MinuteLook
from protos import registry_pb2
from stats.fairness.groups import DeclaredAttribute

SLOT_HOURS = 8
RETENTION = Retention(hour_days=2)
"""Hours become days after two days and not after 35, since most of the time goes into cells."""
CLOSED_AFTER_DAYS = 7
"""Days without an alarm after which a person closes an incident."""


@dataclass(frozen=True, slots=True)
class OpenedIncident:
    """An incident as it was opened."""

    number: int
    model: str
    kind: str
    cause: str
    day: int
    """Day of the year at whose end, or on which, it was opened."""
    title: str


@dataclass(frozen=True, slots=True)
class SeenAlarm:
    """An alarm of the year with the incident that has it."""

    alarm: MonitoringAlarm
    incident: OpenedIncident

    @property
    def day(self) -> int:
        """The day of the year that was looked at."""
        return (self.alarm.at - 1) // DAY_S - FIRST_DAY


@dataclass(frozen=True, slots=True)
class YearResult:
    """What monitoring found in the days that were replayed."""

    days: int
    alarms: tuple[SeenAlarm, ...]
    figures: tuple[StoredFigure, ...]
    """Those of uplift and fairness."""
    looks: frozenset[str]
    """Names of the looks that this checkout has."""
    version_days: int
    """Days of versions in service, over all versions."""


@dataclass(slots=True)
class YearIncidents:
    """The incidents of the year, as the registry would have them (IncidentRegistry)."""

    opened: list[OpenedIncident] = field(default_factory=list)
    today: int = 0
    _open: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    """(model, cause) -> the number of the open incident, and the day of its newest alarm."""

    async def open_incident(
        self,
        model: str,
        kind: str,
        cause: str,
        *,
        severity: "registry_pb2.Incident.Severity",  # noqa: ARG002  as the registry takes it
        title: str,
        version: str = "",  # noqa: ARG002
        figures: object = None,  # noqa: ARG002
        since_unix_ms: int = 0,  # noqa: ARG002
        links: Sequence[tuple[str, str]] = (),  # noqa: ARG002
        automatic: bool = False,  # noqa: ARG002
    ) -> registry_pb2.OpenIncidentReply:
        """Open an incident, or find the open one of this cause."""
        number, newest = self._open.get((model, cause), (-1, -CLOSED_AFTER_DAYS - 1))
        if self.today - newest > CLOSED_AFTER_DAYS:
            number = len(self.opened)
            self.opened.append(OpenedIncident(number, model, kind, cause, self.today, title))
        self._open[model, cause] = number, self.today
        return registry_pb2.OpenIncidentReply(incident=registry_pb2.Incident(id=str(number)))


@dataclass(frozen=True, slots=True)
class YearAttributes:
    """The groups of people of each model, as an online store has them (AttributeSource)."""

    people: Mapping[str, YearPeople]

    def read_view(self, view: str, entity: str, customers: Sequence[str]) -> SensitiveView:  # noqa: ARG002
        """Return the group of each customer."""
        groups = [self.people[name.partition("-")[0]].group_of.get(name, -1) for name in customers]
        codes = np.array(groups, dtype=np.int64)
        return SensitiveView((DeclaredAttribute("group", codes, GROUPS),))


class YearReplay:
    """The days of some models, one after the other.

    folder  for the database and the files of decisions.
    """

    def __init__(
        self,
        folder: Path,
        models: Sequence[YearModel],
        events: tuple[PlantedEvent, ...],
        seed: int,
    ) -> None:
        self._events = events
        self._seed = seed
        self._people = {model.name: YearPeople(model, seed) for model in models}
        self._calendars = {
            name: VersionCalendar(people, events) for name, people in self._people.items()
        }
        self._clocks = {name: OutcomeClock(people, seed) for name, people in self._people.items()}
        # The real store with the real looks.
        self._store = YearStore(folder)
        made = day_looks(
            self._store.database,
            self._store.store,
            self._store.rows,
            self._holdout_of,
            YearAttributes(self._people),
        )
        self._looks = frozenset(look.name for look in made)
        self._runner = DayRunner(
            self._store.store,
            self._store.looks,
            self._store.rows,
            made,
            lambda: self._store.now_ms / 1_000,
        )
        self._minutes = MinuteLook(self._store.store, self._store.looks)
        # What the registry would know.
        self._facts: dict[Version, SealedFacts] = {}
        self._known = KnownVersions(self._facts, {item.name: item.policy for item in models})
        self._incidents = YearIncidents()
        self._opener = IncidentOpener(self._store.looks, self._incidents, self._changes)
        self._deployments: list[OtherChange] = []
        self._version_days = 0

    def run(self, days: int) -> YearResult:
        """Replay the first *days* days of the year, and return what was found."""
        for day in range(days):
            self.replay_day(day)
        looks, end = self._store.looks, FIRST_DAY + days
        alarms = [
            SeenAlarm(item.alarm, self._incidents.opened[int(item.incident_id)])
            for item in looks.read_alarms(0, (end + 1) * DAY_S)
        ]
        figures = [
            figure
            for kind in ("uplift", "fairness")
            for figure in looks.read_figures(FIRST_DAY, end, kind=kind)
        ]
        self._store.store.close()
        return YearResult(days, tuple(alarms), tuple(figures), self._looks, self._version_days)

    def replay_day(self, day: int) -> None:
        """Push one day of the year, and make the looks at it."""
        self._incidents.today = day
        self._accept_references(day)
        served = [self._serve(name, day) for name in self._people]
        self._version_days += sum(len(item.versions.all) for item in served)
        # The calls of the day, with the looks between them.
        self._store.push_windows(served)
        for start in range(SLOT_HOURS, 24, SLOT_HOURS):
            start_ns = (FIRST_DAY + day) * DAY_NS + start * DAY_NS // 24
            end_ns = start_ns + SLOT_HOURS * DAY_NS // 24
            self._store.push_calls(served, start_ns, end_ns)
            self._look_at_minutes(served, day, end_ns // 10**9)
        if any(item.effects.lost for item in served):
            self._store.push_damage(FIRST_DAY + day)
        # What is reported on the day, and the looks at the whole of it.
        self._store.push_reports(FIRST_DAY + day)
        while (due := self._runner.due_day()) is not None:
            served_versions = self._runner.versions_of(due, self._known.policies)
            if not self._runner.look_at(due, served_versions, self._known):
                raise RuntimeError(f"a look at day {due - FIRST_DAY} failed; the log says why")
        asyncio.run(self._opener.report())
        self._store.store.roll_up((FIRST_DAY + day + 1) * 24, RETENTION)

    def _serve(self, name: str, day: int) -> ServedDay:
        people, calendar = self._people[name], self._calendars[name]
        effects = effects_of(self._events, name, day)
        versions = calendar.serving(day)
        for version in versions.all:
            if (name, version.label) not in self._facts:
                self._facts[name, version.label] = version.facts
                self._store.save_version(version)
        if (label := calendar.deployed_on(day)) is not None:
            at = (FIRST_DAY + day) * DAY_S
            text = f"version {label} of {name} became production"
            self._deployments.append(OtherChange(at=at, kind="deployment", subject=name, text=text))
        rng = np.random.default_rng([self._seed, day, len(name)])
        served = serve_day(rng, people.day(FIRST_DAY + day, effects), versions, effects)
        for report in self._clocks[name].pass_day(FIRST_DAY + day, served):
            self._store.plan_report(report)
        return served

    def _accept_references(self, day: int) -> None:
        for name, calendar in self._calendars.items():
            accepted = calendar.accepted_on(day)
            if accepted is not None:
                label, first, last = accepted
                self._store.looks.accept_reference(
                    AcceptedReference(name, label, day, FIRST_DAY + first, FIRST_DAY + last)
                )

    def _look_at_minutes(self, served: Sequence[ServedDay], day: int, end_s: int) -> None:
        """Look at shares and silence at the end of a slot."""
        self._minutes.look_at_shares(self._store.counts.take_shares(), self._known, end_s)
        production = {
            item.versions.production.model.name: item.versions.production.label for item in served
        }
        fine = any(event.fine and abs(day - event.first_day) <= 1 for event in self._events)
        step = LOOK_S if fine else SLOT_HOURS * 3_600
        for unix_s in range(end_s - SLOT_HOURS * 3_600 + step, end_s + 1, step):
            self._minutes.look_at_silence(production, self._known, unix_s)

    def _holdout_of(self, model: str, _first: int, _last: int) -> ConfiguredHoldout | None:
        share = self._people[model].model.holdout
        return ConfiguredHoldout(share) if share else None

    def _changes(self, since_s: int) -> Iterable[OtherChange]:
        return [change for change in self._deployments if change.at >= since_s]
