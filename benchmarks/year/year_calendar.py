"""Which versions of each model serve on each day of the year, and when people accept references."""

from dataclasses import dataclass
from datetime import date

from benchmarks.year.planted_events import PlantedEvent, effects_of
from benchmarks.year.served_days import ServedVersions
from benchmarks.year.year_people import YearPeople
from benchmarks.year.year_versions import VersionBias, YearVersion, fit_version

FIRST_DAY = date(2025, 1, 6).toordinal() - date(1970, 1, 1).toordinal()
"""Unix day of the year's first day, a Monday."""
SHADOW_DAYS = 7
CANARY_DAYS = 7
SETTLING_DAYS = 14
"""Days of production after which a person accepts them as the reference."""


@dataclass(frozen=True, slots=True)
class PlannedVersion:
    """A version that becomes production on a day of the year.

    It is fitted two weeks before, serves a week as a shadow, and a week as a canary.
    """

    label: str
    production_day: int
    bias: VersionBias | None = None

    @property
    def fitted_day(self) -> int:
        """The day of the year on which it is fitted."""
        return max(0, self.production_day - SHADOW_DAYS - CANARY_DAYS)


PLANNED_VERSIONS = {
    "churn": (PlannedVersion("1", 0), PlannedVersion("2", 147), PlannedVersion("3", 259)),
    "fraud": (PlannedVersion("1", 0), PlannedVersion("2", 126), PlannedVersion("3", 245)),
    "propensity": (PlannedVersion("1", 0), PlannedVersion("2", 175)),
    "credit": (
        PlannedVersion("1", 0, VersionBias("rare", 0.7)),
        PlannedVersion("2", 119, VersionBias("b", 0.8)),
        PlannedVersion("3", 203),
    ),
}
"""Model -> its versions, in the order of their days."""


class VersionCalendar:
    """The versions of one model over the year. They are fitted when their day comes."""

    def __init__(self, people: YearPeople, events: tuple[PlantedEvent, ...]) -> None:
        self._people = people
        self._events = events
        self._planned = PLANNED_VERSIONS[people.model.name]
        self._fitted: dict[str, YearVersion] = {}

    def serving(self, day: int) -> ServedVersions:
        """Return the versions that serve on a day of the year."""
        production = max(
            (planned for planned in self._planned if planned.production_day <= day),
            key=lambda planned: planned.production_day,
        )
        shadow = canary = None
        for planned in self._planned:
            before = planned.production_day - day
            if 0 < before <= CANARY_DAYS:
                canary = self._version(planned)
            elif CANARY_DAYS < before <= CANARY_DAYS + SHADOW_DAYS:
                shadow = self._version(planned)
        return ServedVersions(self._version(production), canary, shadow)

    def accepted_on(self, day: int) -> tuple[str, int, int] | None:
        """Return (label, first day, last day) of the reference that is accepted on a day, if any.

        It is accepted in the morning, when the last of its days was looked at.
        """
        for planned in self._planned:
            if day == planned.production_day + SETTLING_DAYS:
                return planned.label, planned.production_day, day - 1
        return None

    def deployed_on(self, day: int) -> str | None:
        """Return the label of the version that becomes production on a day, if any."""
        for planned in self._planned:
            if day == planned.production_day and day > 0:
                return planned.label
        return None

    def _version(self, planned: PlannedVersion) -> YearVersion:
        if planned.label not in self._fitted:
            day = planned.fitted_day
            effects = effects_of(self._events, self._people.model.name, day, lasting=True)
            self._fitted[planned.label] = fit_version(
                self._people, planned.label, FIRST_DAY + day, effects, bias=planned.bias
            )
        return self._fitted[planned.label]
