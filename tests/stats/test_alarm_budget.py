"""The budget of alarms adds up, and references settle by weekday where weekdays differ."""

import math
from dataclasses import replace

import numpy as np
import pytest

from stats.alarms.budget import (
    FEATURES,
    GROUP_WEIGHTS,
    QUALITY,
    SCORE,
    BudgetError,
    Cadence,
    DetectorSettings,
    plan_budget,
)
from stats.alarms.weekdays import SETTLING_DAYS, UnsettledError, settle_reference
from tests.stats.test_alarms import deciles


def settings_of(names: int, group: str, *cadences: Cadence) -> list[DetectorSettings]:
    """Return detectors of a group, each at all cadences, of importance 1, 2, 3 ..."""
    return [
        DetectorSettings(f"{group} {index}", group, cadence, float(index + 1))
        for index in range(names)
        for cadence in cadences
    ]


def test_budget_adds_up_to_what_was_allowed() -> None:
    """All groups present: the bound is the budget, and each threshold is T / (B w)."""
    both = (Cadence.DAILY, Cadence.WEEKLY)
    detectors = [
        item
        for group in GROUP_WEIGHTS
        for item in settings_of(5, group, *((Cadence.FIVE_MINUTES,) if group == QUALITY else both))
    ]
    budget = plan_budget(detectors)
    assert budget.bound == pytest.approx(0.25)
    by_looks = sum(
        item.settings.cadence.value / math.exp(item.log_threshold)
        for item in budget.detectors.values()
    )
    assert by_looks == pytest.approx(0.25)
    parts = [budget.detectors[f"features {index}", Cadence.DAILY].alarms_max for index in (0, 4)]
    assert parts[1] == pytest.approx(5 * parts[0])


def test_budget_of_absent_groups_is_not_spent() -> None:
    """Thresholds of a feature do not move when fairness is added later."""
    only = plan_budget(settings_of(20, FEATURES, Cadence.DAILY))
    more = plan_budget(
        settings_of(20, FEATURES, Cadence.DAILY) + settings_of(1, SCORE, Cadence.DAILY)
    )
    assert only.bound == pytest.approx(0.25 * 0.25)
    assert more.bound == pytest.approx(0.25 * 0.40)
    name = ("features 3", Cadence.DAILY)
    assert only.detectors[name] == more.detectors[name]


def test_budget_gives_a_feature_without_importance_a_threshold() -> None:
    """It is high and finite, also if no feature has any importance."""
    zero = [replace(item, importance=0.0) for item in settings_of(3, FEATURES, Cadence.DAILY)]
    budget = plan_budget([*zero, DetectorSettings("used", FEATURES, Cadence.DAILY, 2.0)])
    assert budget.detectors["features 0", Cadence.DAILY].alarms_max > 0
    assert plan_budget(zero).bound == pytest.approx(0.0625)


@pytest.mark.parametrize(
    ("detectors", "budget", "weights"),
    [
        (settings_of(1, "weather", Cadence.DAILY), 0.25, GROUP_WEIGHTS),
        (settings_of(1, SCORE, Cadence.DAILY, Cadence.DAILY), 0.25, GROUP_WEIGHTS),
        (settings_of(1, SCORE, Cadence.DAILY), 0.0, GROUP_WEIGHTS),
        (settings_of(1, SCORE, Cadence.DAILY), math.nan, GROUP_WEIGHTS),
        (settings_of(1, SCORE, Cadence.DAILY), 0.25, {SCORE: 0.7, FEATURES: 0.4}),
        (settings_of(1, SCORE, Cadence.DAILY), 0.25, {SCORE: 0.0}),
        ([DetectorSettings("x", SCORE, Cadence.DAILY, -1.0)], 0.25, GROUP_WEIGHTS),
        ([DetectorSettings("x", SCORE, Cadence.DAILY, math.nan)], 0.25, GROUP_WEIGHTS),
    ],
)
def test_budget_that_cannot_be_kept_is_refused(
    detectors: list[DetectorSettings], budget: float, weights: dict[str, float]
) -> None:
    """Weights above 1 would promise more than the budget has."""
    with pytest.raises(BudgetError):
        plan_budget(detectors, budget, weights)


def test_reference_is_by_weekday_where_weekends_differ() -> None:
    """.5 deviations on Saturdays and Sundays: each weekday is compared with its own days."""
    rng = np.random.default_rng(5)
    weekdays = [day % 7 for day in range(SETTLING_DAYS)]
    alike = np.array([rng.multinomial(3_000, deciles()) for _ in weekdays])
    assert not settle_reference(alike, weekdays).by_weekday
    season = np.array([rng.multinomial(3_000, deciles(0.5 * (day >= 5))) for day in weekdays])
    settled = settle_reference(season, weekdays)
    assert settled.by_weekday
    assert np.array_equal(settled.of(6), season[6] + season[13])


def test_reference_needs_two_weeks() -> None:
    """13 days, a day without rows, or two weeks without a Sunday are not enough data."""
    days = np.full((14, 10), 50)
    weekdays = [day % 7 for day in range(14)]
    empty = days.copy()
    empty[3] = 0
    for counts, names in ((days[:13], weekdays[:13]), (empty, weekdays), (days, [0] * 14)):
        with pytest.raises(UnsettledError, match="not enough data"):
            settle_reference(counts, names)
