"""E-detectors: e-values are fair, alarms are as few as bound, and a state survives a crash."""

import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import norm

from stats.alarms.change_test import (
    DAILY,
    FIRST_DAYS,
    REFERENCE_ERROR,
    WEEKLY,
    ChangeTest,
    ReferenceTooSmallError,
    Tolerance,
    histogram_test,
    location_scores,
    share_test,
    shift_bound,
)
from stats.alarms.shiryaev_roberts import (
    AlarmState,
    AlarmStateError,
    advance,
    look_at,
    mean_evidence,
    start_detector,
    state_from_json,
)
from stats.drift.shares import upper_share
from tests.property_examples import examples

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

EDGES = norm.ppf(np.arange(1, 10) / 10)
REFERENCE = np.full(10, 2_000)
LOG_THRESHOLD = math.log(58_240)
"""The threshold of one of 20 features that is looked at daily and weekly, at .25 a quarter."""


SHARE_TEST = share_test(2_000, 100_000)


def deciles(shift: float = 0.0) -> Floats:
    """Return the shares of ten bins of normal values that moved by *shift* deviations."""
    return np.diff(np.concatenate([[0.0], norm.cdf(EDGES - shift), [1.0]]))


def mean_gains(test: ChangeTest, shares: Floats) -> Floats:
    """Return (G,) E[e] of one person-look that falls into bins with these shares."""
    return np.asarray(np.exp(test.log_gains) @ shares)


def is_tolerated(reference: Counts, tolerance: Tolerance, shares: Floats) -> bool:
    """Tell from the definition of the null hypothesis whether (J,) shares lie in it."""
    rows = int(reference.sum())
    upper = upper_share(reference, rows, REFERENCE_ERROR / len(reference))
    shift = abs(float(location_scores(reference) @ shares))
    return bool(
        np.all(shares <= tolerance.share_ratio * upper) and shift <= shift_bound(tolerance, rows)
    )


@examples(60)
@given(
    st.lists(st.integers(0, 900), min_size=1, max_size=12).filter(lambda item: sum(item) >= 100),
    st.lists(st.floats(0.0, 1.0), min_size=12, max_size=12),
    st.sampled_from([DAILY, WEEKLY, FIRST_DAYS]),
    st.integers(1, 5),
)
def test_change_test_is_fair_for_tolerated_shares(
    counts: list[int], tilts: list[float], tolerance: Tolerance, cluster: int
) -> None:
    """The mean e-value of a person-look is at most 1, for every alternative."""
    reference = np.array(counts)
    shares = reference * np.exp(np.array(tilts[: len(counts)]) / 2) + 1e-12
    shares /= shares.sum()
    assume(is_tolerated(reference, tolerance, shares))
    test = histogram_test(reference, tolerance, cluster)
    assert np.all(mean_gains(test, shares) <= 1 + 1e-9)
    assert np.exp(test.log_weights).sum() == pytest.approx(1.0)


def test_change_test_is_exactly_fair_at_the_edge_and_wins_beyond() -> None:
    """Where a bin holds its bound, bets on it have the mean 1, and above it more than 1."""
    test = histogram_test(REFERENCE, DAILY)
    bound = DAILY.share_ratio * upper_share(REFERENCE, 20_000, REFERENCE_ERROR / 10)[0]
    for share, fair in ((bound, 1.0), (bound * 1.3, None)):
        shares = np.append(share, np.full(9, (1 - share) / 9))
        gains = mean_gains(test, shares)[:4]
        assert gains == pytest.approx(1.0) if fair else np.all(gains > 1.0)
    scores = location_scores(REFERENCE)
    edge = shift_bound(DAILY, 20_000)
    shares = 0.1 + 0.1 * scores * edge / (0.1 * scores @ scores)
    assert shares.min() > 0
    assert mean_gains(test, shares)[40:44] == pytest.approx(1.0)


@pytest.mark.parametrize("cluster", [1, 3])
def test_mean_e_value_is_at_most_one_by_enumeration(cluster: int) -> None:
    """All samples of five person-looks: first independent ones, then clusters that are equal."""
    reference = np.array([60, 30, 10])
    test = histogram_test(reference, DAILY, cluster)
    shares = np.array([0.55, 0.34, 0.11])
    assert is_tolerated(reference, DAILY, shares)
    mean, chance = 0.0, 0.0
    for sample in itertools.product(range(3), repeat=5):
        counts = np.bincount(np.array(sample), minlength=3) * cluster
        probability = float(np.prod(shares[list(sample)]))
        mean += probability * float(np.exp(test.gains(counts) + test.log_weights).sum())
        chance += probability
    assert chance == pytest.approx(1.0)
    assert mean <= 1 + 1e-12


def test_mean_e_value_is_above_one_for_clusters_that_were_not_declared() -> None:
    """The test above could fail: three equal rows, counted as independent, are no e-value."""
    bound = DAILY.share_ratio * upper_share(np.array([50, 50]), 100, REFERENCE_ERROR / 2)[1]
    test = share_test(5, 100)
    share = 2 * upper_share(np.array([5]), 100, REFERENCE_ERROR)[0]
    fair = np.exp(test.log_gains) @ np.array([1 - share, share])
    tripled = np.exp(3 * test.log_gains) @ np.array([1 - share, share])
    declared = np.exp(3 * share_test(5, 100, cluster=3).log_gains) @ np.array([1 - share, share])
    assert bound > 0.5
    assert np.all(fair <= 1 + 1e-9)
    assert tripled.max() > 1.05
    assert np.all(declared <= 1 + 1e-9)


@examples(60)
@given(st.integers(1, 5_000), st.floats(0, 1))
def test_single_look_raises_nothing_at_or_below_the_bounds(rows: int, part: float) -> None:
    """Whatever the rows have in common: counts within every bound have e < 1 in that look."""
    test = SHARE_TEST
    bound = 2 * float(upper_share(np.array([2_000]), 100_000, REFERENCE_ERROR)[0])
    hits = int(part * bound * rows)
    log_e = mean_evidence(test.gains(np.array([rows - hits, hits])), test.log_weights)
    assert log_e < 0


def test_constant_reference_is_watched_by_its_bins() -> None:
    """It has no location. Live rows in other bins are found nevertheless."""
    reference = np.array([0, 5_000, 0])
    test = histogram_test(reference, DAILY)
    assert not location_scores(reference).any()
    state = start_detector(test, "constant")
    state, alarm = look_at(test, state, np.array([0, 1_000, 0]), 1, LOG_THRESHOLD)
    assert alarm is None
    _, alarm = look_at(test, state, np.array([30, 970, 0]), 2, LOG_THRESHOLD)
    assert alarm is not None


@pytest.mark.parametrize("reference", [np.zeros(10, dtype=np.int64), np.full(10, 9)])
def test_small_reference_is_not_enough_data(reference: Counts) -> None:
    """A test against 90 rows would be a test of their chance."""
    with pytest.raises(ReferenceTooSmallError, match=r"not enough data: \d+ of 100 rows"):
        histogram_test(reference, DAILY)
    with pytest.raises(ReferenceTooSmallError, match="not enough data"):
        share_test(0, 40)


@pytest.mark.parametrize(
    ("tolerance", "cluster"),
    [(Tolerance(1.0, 0.2), 1), (Tolerance(1.5, -0.1), 1), (Tolerance(1.5, 0.2), 0)],
)
def test_tolerance_that_tolerates_nothing_is_refused(tolerance: Tolerance, cluster: int) -> None:
    """A ratio of 1 would call each wiggle a change."""
    with pytest.raises(ValueError, match="ratio"):
        histogram_test(REFERENCE, tolerance, cluster)


# The detector


def run_looks(
    test: ChangeTest, looks: list[Counts], state: AlarmState | None = None, first: int = 0
) -> tuple[AlarmState, list[int]]:
    """Return the state after all *looks*, and the numbers of those with an alarm."""
    state = state or start_detector(test, "r")
    alarms = []
    for number, counts in enumerate(looks, start=first):
        state, alarm = look_at(test, state, counts, number, LOG_THRESHOLD)
        alarms += [alarm.look] if alarm else []
    return state, alarms


def test_detector_finds_a_shift_dates_it_and_starts_again() -> None:
    """.5 deviations from day 20 on are found on day 20. Tolerated shifts are not found at all."""
    rng = np.random.default_rng(1)
    test = histogram_test(REFERENCE, DAILY)
    quiet = [rng.multinomial(2_000, deciles(0.15)) for _ in range(20)]
    state, alarms = run_looks(test, quiet)
    assert not alarms
    state, alarm = look_at(test, state, rng.multinomial(2_000, deciles(0.5)), 20, LOG_THRESHOLD)
    assert alarm is not None
    assert (alarm.look, alarm.since) == (20, 20)
    assert alarm.log_m >= alarm.log_threshold
    assert state == replace(start_detector(test, "r"), look=20, alarms=1)


def test_detector_dates_a_change_before_its_alarm() -> None:
    """A small shift needs days, and the alarm says since when there was evidence."""
    rng = np.random.default_rng(3)
    test = histogram_test(REFERENCE, DAILY)
    looks = [rng.multinomial(500, deciles(0.0 if day < 30 else 0.35)) for day in range(90)]
    state = start_detector(test, "r")
    for day, counts in enumerate(looks):
        state, alarm = look_at(test, state, counts, day, LOG_THRESHOLD)
        if alarm is not None:
            break
    assert alarm is not None
    assert alarm.look > alarm.since
    assert 28 <= alarm.since <= 34


daily_looks = st.lists(
    st.lists(st.integers(0, 400), min_size=10, max_size=10), min_size=1, max_size=12
)


@examples(60)
@given(daily_looks, st.integers(0, 12))
def test_detector_state_is_exact_in_json_and_ignores_repeated_looks(
    looks: list[list[int]], cut: int
) -> None:
    """A job that is killed anywhere and repeats looks ends with the same state, bit for bit."""
    test = histogram_test(REFERENCE, DAILY)
    counts = [np.array(look) for look in looks]
    straight, alarms = run_looks(test, counts)
    state, first_alarms = run_looks(test, counts[:cut])
    saved = json.loads(json.dumps(state.to_json(), allow_nan=False))
    resumed = state_from_json(saved, test, "r")
    assert resumed == state
    again, none = run_looks(test, counts[:cut], resumed)
    assert (again, none) == (state, [])
    final, later_alarms = run_looks(test, counts[cut:], again, first=cut)
    assert final == straight
    assert first_alarms + later_alarms == alarms


def test_look_without_rows_is_none() -> None:
    """The evidence stays as it is, and only the number of the look moves on."""
    test = histogram_test(REFERENCE, DAILY)
    state, _ = run_looks(test, [np.full(10, 30)])
    after, alarm = look_at(test, state, np.zeros(10, dtype=np.int64), 5, LOG_THRESHOLD)
    assert after == replace(state, look=5)
    assert alarm is None


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"log_m": 3},
        {"log_m": [1.0], "reference": "r", "look": 1, "since": None, "alarms": 0},
        {"log_m": [math.nan] * 48, "reference": "r", "look": 1, "since": None, "alarms": 0},
        {"log_m": [0.0] * 48, "reference": "older", "look": 1, "since": None, "alarms": 0},
    ],
)
def test_damaged_or_foreign_state_is_a_named_error(broken: dict[str, object]) -> None:
    """A state of another reference would be evidence about something else."""
    with pytest.raises(AlarmStateError):
        state_from_json(broken, histogram_test(REFERENCE, DAILY), "r")


def test_look_of_other_bins_is_refused() -> None:
    """Counts of another table, or negative ones, never reach the evidence."""
    test = histogram_test(REFERENCE, DAILY)
    for counts in (np.ones(9, dtype=np.int64), np.full(10, -1)):
        with pytest.raises(ValueError, match="10 bins"):
            look_at(test, start_detector(test, "r"), counts, 1, LOG_THRESHOLD)


@examples(40)
@given(st.integers(0, 10**6), st.sampled_from([3.0, 10.0, 40.0]))
def test_detector_alarms_at_most_as_its_bound_says(seed: int, threshold: float) -> None:
    """E[A N + M] = T for e-values with mean 1 that depend on all before, at any restart.

    Each look's e-values bet on the state itself: the higher M, the wilder the bet.
    """
    rng = np.random.default_rng(seed)
    worlds, looks = 4_000, 30
    log_m = np.full((worlds, 1), -np.inf)
    alarms = np.zeros(worlds)
    for _ in range(looks):
        chance = 0.2 + 0.6 / (1 + np.exp(-log_m[:, 0]))
        wins = rng.random(worlds) < chance
        log_e = np.where(wins, -np.log(2 * chance), -np.log(2 * (1 - chance)))
        log_m = advance(log_m, log_e[:, None])
        alarmed = mean_evidence(log_m, np.zeros(1)) >= math.log(threshold)
        alarms += alarmed
        log_m[alarmed] = -np.inf
    spent = threshold * alarms + np.exp(log_m[:, 0])
    error = 4 * spent.std() / math.sqrt(worlds)
    assert spent.mean() <= looks + error
    assert alarms.mean() <= looks / threshold + error / threshold


@pytest.mark.walk
@pytest.mark.parametrize("cluster", [1, 4])
def test_budget_holds_for_sticky_and_clustered_customers(cluster: int) -> None:
    """200 quarters: the same 3,000 customers, at the edge of the tolerance, households of four.

    The population is what the null hypothesis is about: its shares are tolerated, and each look
    draws from it without putting back, by household.
    """
    rng = np.random.default_rng(cluster)
    reference = REFERENCE
    test = histogram_test(reference, DAILY, cluster)
    shift = shift_bound(DAILY, 20_000)
    scores = location_scores(reference)
    threshold = 20.0
    alarms, quarters = 0, 200
    for _ in range(quarters):
        values = rng.normal(0, 1, 3_000 // cluster) + 2 * shift
        # The population is moved down until it is just tolerated.
        while scores[np.searchsorted(EDGES, values)].mean() > shift:
            values -= 0.005
        bins = np.searchsorted(EDGES, values)
        state = start_detector(test, "r")
        for day in range(91):
            seen = rng.random(len(bins)) < 0.3
            counts = np.bincount(bins[seen], minlength=10) * cluster
            state, alarm = look_at(test, state, counts, day, math.log(threshold))
            alarms += alarm is not None
    assert alarms / quarters <= 91 / threshold
