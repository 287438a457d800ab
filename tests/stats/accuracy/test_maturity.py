"""Outcomes that are not complete yet, and reports that count for nothing."""

import numpy as np
import pytest

from host.clock import DAY_MS
from stats.accuracy.labelled_bins import LabelledBins
from stats.accuracy.maturity import (
    OUTCOME_KINDS,
    Delays,
    Maturity,
    MaturityPolicy,
    OutcomeReports,
    count_kinds,
    delay_days,
    delays_of_elapsed,
    outcome_kinds,
    provisional_bins,
    provisional_rate,
)

POLICY = MaturityPolicy(horizon_days=30, grace_days=5)


def test_cohort_is_final_at_horizon_and_grace() -> None:
    """The age counts from the end of the cohort's day."""
    assert POLICY.maturity(34) is Maturity.PROVISIONAL
    assert POLICY.maturity(35) is Maturity.FINAL
    with pytest.raises(ValueError, match="at least one day"):
        MaturityPolicy(horizon_days=0)


def test_provisional_rate_covers_the_final_one() -> None:
    """At least 93 % of 300 cohorts at a third of their time, with delays that are estimated."""
    generator = np.random.default_rng(2)
    covered = 0
    for _ in range(300):
        delays = Delays(
            np.bincount(generator.geometric(0.08, 800), minlength=40).astype(np.float64)
        )
        happened = generator.random(3_000) < 0.1
        seen = happened & (generator.geometric(0.08, 3_000) <= 10)
        _, low, high = provisional_rate(int(seen.sum()), 3_000, delays, 10).bounds()
        covered += low <= 0.1 <= high
    assert covered >= 279


def test_provisional_figures_say_what_they_lack() -> None:
    """Too few delays, too young a cohort and an empty one have no rate."""
    few = Delays(np.array([3.0, 4.0]))
    lacking = "not enough data: 7 of 100 outcomes of final cohorts needed"
    assert provisional_rate(1, 10, few, 3).lacking == lacking
    late = Delays(np.array([1.0, 0.0, 0.0, 200.0]))
    assert "are due" in provisional_rate(1, 10, late, 1).lacking
    assert provisional_rate(0, 0, late, 9).lacking == "not enough data: 0 of 1 rows needed"
    bins = provisional_bins(LabelledBins(np.array([0.5]), np.array([20.0]), np.array([80.0])), 0.5)
    assert (bins.positives[0], bins.negatives[0]) == (40.0, 60.0)
    with pytest.raises(ValueError, match="above 0"):
        provisional_bins(bins, 0.0)


def test_each_report_is_counted_once_or_named() -> None:
    """Every kind occurs, and a repeated report changes nothing."""
    hour = DAY_MS // 24
    table = [
        # prediction, key, value, happened after, arrived after, kind
        (0, 7, 1.0, hour, 2 * hour, "counted"),
        (0, 7, 1.0, hour, 3 * hour, "duplicate"),
        (0, -1, 1.0, hour, 3 * hour, "duplicate"),
        (0, 8, 0.0, hour, 4 * hour, "corrected"),
        (0, 9, 0.0, hour, 4 * hour, "duplicate"),
        (1, -1, 1.0, 29 * DAY_MS, 40 * DAY_MS, "late"),
        (2, -1, 1.0, 31 * DAY_MS, 31 * DAY_MS, "beyond the horizon"),
        (-1, -1, 1.0, hour, hour, "orphan"),
        (3, -1, 1.0, -hour, hour, "before prediction"),
        (3, -1, 1.0, 5 * hour, hour, "in the future"),
        (3, -1, np.nan, hour, hour, "not a number"),
        (3, -1, 1.0, hour, hour, "counted"),
    ]
    predictions, keys, values, happened, arrived, kinds = zip(*table, strict=True)
    # All predictions were made at the same instant.
    start = 20_000 * DAY_MS
    reports = OutcomeReports(
        np.array(predictions),
        np.array(keys),
        np.array(values),
        np.full(len(table), start),
        start + np.array(happened),
        start + np.array(arrived),
    )
    found = outcome_kinds(reports, POLICY)
    assert [OUTCOME_KINDS[kind] for kind in found] == list(kinds)
    assert set(kinds) == set(OUTCOME_KINDS)
    counts = count_kinds(found)
    assert sum(counts.values()) == len(table)
    assert (counts["counted"], counts["duplicate"]) == (2, 3)


def test_delay_is_the_age_of_the_cohort_that_has_the_outcome() -> None:
    """A report just after midnight belongs to the first day after."""
    midnight = 20_000 * DAY_MS
    predicted = np.array([midnight - 1, midnight, midnight])
    arrived = np.array([midnight, midnight + 5, midnight - 5])
    assert delay_days(predicted, arrived).tolist() == [1, 0, 0]


def test_delays_by_elapsed_time_become_those_of_cohorts() -> None:
    """Both ways of counting 200,000 outcomes give about the same shares."""
    generator = np.random.default_rng(3)
    predicted = 20_000 * DAY_MS + generator.integers(0, DAY_MS, 200_000)
    arrived = predicted + (generator.exponential(6.0, 200_000) * DAY_MS).astype(np.int64)
    exact = np.bincount(delay_days(predicted, arrived)).astype(np.float64)
    elapsed = delays_of_elapsed(np.bincount((arrived - predicted) // DAY_MS))
    for age in (0, 3, 10):
        found = elapsed.part_seen(age).value
        assert found == pytest.approx(Delays(exact).part_seen(age).value, abs=0.015)
    with pytest.raises(ValueError, match="none is negative"):
        Delays(np.array([-1.0]))
