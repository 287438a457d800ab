"""The look at drift: scores and inputs of a day against training and the accepted days.

Figures are stored by stream and day: psi with the distances of Jensen-Shannon and Wasserstein in
its details, and the shares of missing values and unknown categories. Against last week is the same
weekday seven days before. On Sundays the week is looked at too.
"""

from collections.abc import Mapping
from datetime import date
from typing import Any

from monitoring.jobs.grouping import MonitoringAlarm
from monitoring.jobs.look import LookResult, WatchedVersion, daily_look, weekly_look
from monitoring.looks.day_looks import DayOfVersion
from monitoring.looks.watched_version import values_of_looks, watched_version
from monitoring.store.look_store import LookOutcome, LookStore, PersonLooks, StoredFigure
from stats.drift.figures import DriftFigures, NoFigures, ValueCounts, ValueDrift, compare_counts
from stats.drift.shares import ShareFigure
from stats.figure import Figure, Z, no_figure

DRIFT = "drift"
WEEK_DAYS = 7
UNWATCHED = "unwatched"
"""Entry of the state: stream -> why it has no detector."""
SHOWN_SHARES = ("missing", "unknown")
Drift = DriftFigures | NoFigures | None


class DriftLook:
    """Looks at the person-looks of a day, and on Sundays at those of the week."""

    name = DRIFT
    after_service = False

    def __init__(self, looks: LookStore) -> None:
        self._looks = looks

    def look(self, day: DayOfVersion, state: Mapping[str, Any]) -> LookOutcome:
        """Return the figures and alarms of a day, and of the week that ends with it."""
        version = self._watched(day)
        at = _date(day.day)
        # The day.
        counted = self._counted(day, day.day, 1)
        result = daily_look(version, counted, at, dict(state))
        last_week = self._counted(day, day.day - WEEK_DAYS, 1)
        figures = _figures(day, result, counted, last_week, 1)
        alarms, details = [*result.alarms], _details(result)
        unwatched = result.unwatched
        # The week, on its last day.
        if at.isoweekday() == WEEK_DAYS:
            counted = self._counted(day, day.day, WEEK_DAYS)
            result = weekly_look(version, counted, at, result.state)
            last_week = self._counted(day, day.day - WEEK_DAYS, WEEK_DAYS)
            figures += _figures(day, result, counted, last_week, WEEK_DAYS)
            alarms += result.alarms
            details |= _details(result)
        return LookOutcome(
            figures=tuple(figures),
            alarms=tuple(alarms),
            state={**result.state, UNWATCHED: unwatched},
            details=details,
        )

    def _watched(self, day: DayOfVersion) -> WatchedVersion:
        """Return the version with the days that a person accepted, if there are any."""
        for accepted in self._looks.accepted_references():
            if (accepted.model, accepted.version) == (day.facts.model, day.facts.version):
                days, weeks = (
                    self._read(day, accepted.first_day, accepted.last_day, length)
                    for length in (1, WEEK_DAYS)
                )
                return watched_version(day, days, weeks)
        return watched_version(day)

    def _counted(self, day: DayOfVersion, last_day: int, days: int) -> dict[str, ValueCounts]:
        """Return stream -> its values in one period; empty: nobody was counted."""
        found = self._read(day, last_day, last_day, days)
        return values_of_looks(day.facts, found[0]) if found else {}

    def _read(self, day: DayOfVersion, first: int, last: int, days: int) -> list[PersonLooks]:
        facts = day.facts
        return self._looks.read_person_looks(
            facts.model, facts.version, first, last, days, shadow=day.shadow
        )


def _figures(
    day: DayOfVersion,
    result: LookResult,
    counted: Mapping[str, ValueCounts],
    last_week: Mapping[str, ValueCounts],
    days: int,
) -> list[StoredFigure]:
    """Return the figures of all streams of one period."""
    found: list[StoredFigure] = []
    for stream, look in result.figures.items():
        # The distances from training, from the accepted days and from last week.
        compared: dict[str, Drift] = {
            "training": look.training.figures,
            "accepted days": look.settled,
            "last week": _against(counted.get(stream), last_week.get(stream)),
        }
        for against, drift in compared.items():
            if drift is not None:
                name = f"psi {stream} against {against}"
                figure, details = _psi(drift)
                shown = {"stream": stream, "against": against, **details}
                found.append(_stored(day, name, figure, days, shown))
        # The shares of rows that have no value, or a value of no dictionary.
        for share in SHOWN_SHARES:
            figure = _share(getattr(look.training, share))
            shown = {"stream": stream, "training": _training_share(look.training, share)}
            found.append(_stored(day, f"{share} {stream}", figure, days, shown))
    return found


def _against(live: ValueCounts | None, before: ValueCounts | None) -> Drift:
    if live is None or before is None:
        return None
    return compare_counts(before.counts, live.counts)


def _psi(drift: DriftFigures | NoFigures) -> tuple[Figure, dict[str, Any]]:
    """Return the psi with its interval, and the other distances."""
    if isinstance(drift, NoFigures):
        return no_figure(drift.rows, str(drift)), {}
    half = Z * drift.psi.standard_error
    figure = Figure(
        drift.psi.value, drift.psi.value - half, drift.psi.value + half, drift.live_rows
    )
    return figure, {
        "size": str(drift.size),
        "jensen_shannon_distance": drift.jensen_shannon_distance,
        "rank_distance": drift.rank_distance.value,
        "rank_distance_error": drift.rank_distance.standard_error,
    }


def _share(share: ShareFigure) -> Figure:
    if not share.rows:
        return no_figure(0, "not enough data: 0 of 1 rows")
    return Figure(share.share, share.low, share.high, share.rows)


def _training_share(drift: ValueDrift, share: str) -> float | None:
    """Return the share in training; None: training has no rows of this stream."""
    reference: ShareFigure = getattr(drift, f"{share}_reference")
    return reference.share if reference.rows else None


def _stored(
    day: DayOfVersion, name: str, figure: Figure, days: int, details: Mapping[str, Any]
) -> StoredFigure:
    return StoredFigure(
        model=day.facts.model,
        version=day.facts.version,
        kind=DRIFT,
        name=name,
        last_day=day.day,
        days=days,
        figure=figure,
        details=details,
    )


def _details(result: LookResult) -> dict[MonitoringAlarm, Mapping[str, Any]]:
    """Return what the incident of each alarm shows."""
    details: dict[MonitoringAlarm, Mapping[str, Any]] = {}
    for alarm in result.alarms:
        look = result.figures[alarm.stream]
        drift = look.training.figures if look.settled is None else look.settled
        figure, distances = _psi(drift)
        against = "training" if look.settled is None else "accepted days"
        details[alarm] = {"psi": figure.definition(), "against": against, **distances}
    return details


def _date(unix_day: int) -> date:
    return date.fromordinal(date(1970, 1, 1).toordinal() + unix_day)
