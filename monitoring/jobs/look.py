"""One look at a version: from its counts to figures, alarms and the state for the next look.

A daily look and a weekly look compare scores and features with the accepted reference; a look every
five minutes compares shares of missing values, unknown categories and silent minutes. Everything is
a pure function of arrays and JSON values. A look that is repeated gives the same figures, no alarm
and the same state, so that a job may be killed anywhere and start again.

The reference of training is used, with a wide tolerance, until a person has accepted the first 14
days of production. A detector starts anew when its reference is another one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

import numpy as np
from numpy.typing import NDArray

from host.clock import DAY_S
from monitoring.jobs.grouping import MonitoringAlarm
from stats.alarms.budget import (
    ALARMS_A_QUARTER,
    GROUP_WEIGHTS,
    QUALITY,
    AlarmBudget,
    Cadence,
    DetectorSettings,
    plan_budget,
)
from stats.alarms.change_test import (
    DAILY,
    FIRST_DAYS,
    QUALITY_CLUSTER,
    WEEKLY,
    ChangeTest,
    ReferenceTooSmallError,
    histogram_test,
    share_test,
)
from stats.alarms.shiryaev_roberts import (
    AlarmState,
    look_at,
    start_detector,
    state_from_json,
)
from stats.alarms.weekdays import SettledReference
from stats.drift.figures import (
    DriftFigures,
    NoFigures,
    ValueCounts,
    ValueDrift,
    compare_counts,
    compare_values,
)

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]
LookState = dict[str, Any]
"""Cadence -> stream -> the state of its detector, as JSON values."""

COUNTED = "counted facts"
"""Alarms about facts that are counted, not tested, such as missing rows: none comes by chance."""
LOOK_S = 300


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class WatchedValue:
    """A score or a feature with what it is compared with, on J bins."""

    name: str
    group: str
    """SCORE or FEATURES."""
    reference: ValueCounts
    """The rows of training: the scores of held-out rows, the features of fitted ones."""
    reference_id: str
    """Changes whenever the counts that are compared with change, such as a digest of them."""
    settled: SettledReference | None = None
    """Days of production that a person accepted. None: there are none yet."""
    settled_weeks: Counts | None = None
    """(J,) the same days as person-looks of weeks."""
    view: str = ""
    importance: float = 1.0
    positions: Floats | None = None
    """(J,) a value of each bin in the unit of the feature."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedShare:
    """A share of rows, or of minutes, with its reference."""

    name: str
    kind: str
    """The kind of its alarms: quality or silence."""
    reference_hits: int
    reference_rows: int
    reference_id: str
    view: str = ""
    host: str = ""
    cluster: int = QUALITY_CLUSTER
    """Rows that may share one cause; 1 for silence, as minutes have no customer in common. The
    reference of silence is that of the hour of the week; its id stays while it is accepted."""


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class WatchedVersion:
    """A version in service, and all that is watched of it."""

    model: str
    version: str
    shadow: bool = False
    values: tuple[WatchedValue, ...] = ()
    shares: tuple[WatchedShare, ...] = ()
    alarms_a_quarter: float = ALARMS_A_QUARTER
    other_detectors: tuple[DetectorSettings, ...] = ()
    """Detectors of outcomes, fairness and uplift, which have a part of the same budget."""


@dataclass(frozen=True, slots=True)
class LookFigures:
    """How far the values of a look are from what they are compared with."""

    training: ValueDrift
    settled: DriftFigures | NoFigures | None
    """Against the accepted days of production. None: there are none yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LookResult:
    """What a look found."""

    alarms: tuple[MonitoringAlarm, ...]
    state: LookState
    figures: dict[str, LookFigures] = field(default_factory=dict)
    """Stream -> its figures."""
    unwatched: dict[str, str] = field(default_factory=dict)
    """Stream -> why it has no detector, such as "not enough data: 40 of 100 rows ..."."""


@dataclass(frozen=True, slots=True)
class BudgetLine:
    """One line of `turnout monitor budget`."""

    group: str
    detectors: int
    allowed: float
    """The group's part of the budget: false alarms a version a quarter."""
    bound: float
    """What its detectors may raise at most, on average."""
    seen: int
    """Alarms in the last quarter, true and false ones."""


def budget_of_version(version: WatchedVersion) -> AlarmBudget:
    """Return the thresholds of all detectors of *version*. Raises BudgetError."""
    settings = [
        DetectorSettings(value.name, value.group, cadence, value.importance)
        for value in version.values
        for cadence in (Cadence.DAILY, Cadence.WEEKLY)
    ]
    settings += [
        DetectorSettings(share.name, QUALITY, Cadence.FIVE_MINUTES) for share in version.shares
    ]
    return plan_budget([*settings, *version.other_detectors], version.alarms_a_quarter)


def budget_lines(version: WatchedVersion, seen: Mapping[str, int]) -> list[BudgetLine]:
    """Return a line for each source of alarms, and a last one for all together.

    seen  group -> alarms in the last quarter.
    """
    budget = budget_of_version(version)
    lines = []
    for group, weight in GROUP_WEIGHTS.items():
        members = [item for item in budget.detectors.values() if item.settings.group == group]
        bound = sum(item.alarms_max for item in members)
        allowed = weight * budget.alarms_a_quarter
        lines.append(BudgetLine(group, len(members), allowed, bound, seen.get(group, 0)))
    lines.append(BudgetLine(COUNTED, 0, 0.0, 0.0, seen.get(COUNTED, 0)))
    total = BudgetLine(
        "all", len(budget.detectors), budget.alarms_a_quarter, budget.bound, sum(seen.values())
    )
    return [*lines, total]


def daily_look(
    version: WatchedVersion, counts: Mapping[str, ValueCounts], day: date, state: LookState
) -> LookResult:
    """Look at the person-looks of one *day*: each customer once.

    counts  stream -> its values; a stream that is absent had no rows.
    """
    number = day.toordinal()
    return _look_at_values(version, counts, Cadence.DAILY, number, day, state)


def weekly_look(
    version: WatchedVersion, counts: Mapping[str, ValueCounts], sunday: date, state: LookState
) -> LookResult:
    """Look at the person-looks of the week that ends on *sunday*: each customer once.

    Raises ValueError for another weekday.
    """
    if sunday.isoweekday() != 7:
        raise ValueError(f"{sunday} is no Sunday; a weekly look is at Monday to Sunday")
    number = sunday.toordinal() // 7
    return _look_at_values(version, counts, Cadence.WEEKLY, number, sunday, state)


def _look_at_values(
    version: WatchedVersion,
    counts: Mapping[str, ValueCounts],
    cadence: Cadence,
    number: int,
    last_day: date,
    state: LookState,
) -> LookResult:
    budget = budget_of_version(version)
    saved: Mapping[str, Any] = state.get(cadence.name, {})
    result = LookResult(alarms=(), state={})
    states, alarms = {}, []
    for value in version.values:
        seen = counts.get(value.name, ValueCounts(np.zeros_like(value.reference.counts)))
        settled = _settled(value, cadence, last_day.weekday())
        result.figures[value.name] = LookFigures(
            compare_values(value.reference, seen, value.positions),
            None if settled is None else compare_counts(settled, seen.counts, value.positions),
        )
        # A stream without a sufficient reference has figures, as far as they go, and no detector.
        try:
            test = _test(value, settled, cadence)
        except ReferenceTooSmallError as error:
            result.unwatched[value.name] = str(error)
            continue
        reference = f"{value.reference_id}/{'training' if settled is None else 'settled'}"
        detector = _resume(saved.get(value.name), test, reference)
        limit = budget.detectors[value.name, cadence].log_threshold
        detector, found = look_at(test, detector, seen.counts, number, limit)
        states[value.name] = detector.to_json()
        # The change lies between the first and the last day of the looks with evidence.
        if found is not None:
            days = (found.look - found.since + 1) * (7 if cadence is Cadence.WEEKLY else 1)
            end = (last_day - date(1970, 1, 1)).days * DAY_S + DAY_S
            alarms.append(
                _alarm(version, value.group, value.name, end, end - days * DAY_S, value.view)
            )
    return replace(result, alarms=tuple(alarms), state={**state, cadence.name: states})


def quality_look(
    version: WatchedVersion, counts: Mapping[str, tuple[int, int]], unix_s: int, state: LookState
) -> LookResult:
    """Look at the five minutes that end at *unix_s*.

    counts  share -> (hits, rows), such as rows without a view among all rows, or minutes without a
            call among the minutes; a share that is absent had no rows.

    Raises ValueError for more hits than rows.
    """
    budget = budget_of_version(version)
    cadence = Cadence.FIVE_MINUTES
    saved: Mapping[str, Any] = state.get(cadence.name, {})
    states, alarms, unwatched = {}, [], {}
    for share in version.shares:
        # A share with a small reference has no detector.
        hits, rows = counts.get(share.name, (0, 0))
        try:
            test = share_test(share.reference_hits, share.reference_rows, cluster=share.cluster)
        except ReferenceTooSmallError as error:
            unwatched[share.name] = str(error)
            continue
        # Look with the saved state, and date an alarm by its first look with evidence.
        detector = _resume(saved.get(share.name), test, share.reference_id)
        limit = budget.detectors[share.name, cadence].log_threshold
        looked = np.array([rows - hits, hits], dtype=np.int64)
        detector, found = look_at(test, detector, looked, unix_s // LOOK_S, limit)
        states[share.name] = detector.to_json()
        if found is not None:
            since = unix_s - (found.look - found.since + 1) * LOOK_S
            alarms.append(
                _alarm(version, share.kind, share.name, unix_s, since, share.view, share.host)
            )
    return LookResult(
        alarms=tuple(alarms), state={**state, cadence.name: states}, unwatched=unwatched
    )


def _settled(value: WatchedValue, cadence: Cadence, weekday: int) -> Counts | None:
    """Return the (J,) accepted days that a look is compared with; None: there are none."""
    if cadence is Cadence.WEEKLY:
        return value.settled_weeks
    return None if value.settled is None else value.settled.of(weekday)


def _test(value: WatchedValue, settled: Counts | None, cadence: Cadence) -> ChangeTest:
    if settled is None:
        return histogram_test(value.reference.counts, FIRST_DAYS)
    return histogram_test(settled, DAILY if cadence is Cadence.DAILY else WEEKLY)


def _resume(saved: Mapping[str, Any] | None, test: ChangeTest, reference: str) -> AlarmState:
    """Return the saved state, or a new one where there is none or its reference was replaced."""
    if saved is None or saved.get("reference") != reference:
        return start_detector(test, reference)
    return state_from_json(saved, test, reference)


def _alarm(
    version: WatchedVersion,
    kind: str,
    stream: str,
    at: int,
    since: int,
    view: str,
    host: str = "",
) -> MonitoringAlarm:
    return MonitoringAlarm(
        model=version.model,
        version=version.version,
        kind=kind,
        stream=stream,
        at=at,
        since=since,
        view=view,
        host=host,
        shadow=version.shadow,
    )
