"""Tests of pairs by betting, and the detector of a rate that exceeds its bound."""

import math
import random

import numpy as np
import pytest

from stats.betting import Wealth, bet, log_e_above
from stats.detector import Detector, update_detector


@pytest.mark.parametrize(("rate", "truth", "pairs"), [(0.01, 0.05, 250), (0.01, 0.2, 30)])
def test_log_e_above_finds_a_larger_rate_in_few_pairs(
    rate: float, truth: float, pairs: int
) -> None:
    """Five times the allowed rate needs about 130 pairs, twenty times about 13 (medians)."""
    needed = []
    for seed in range(21):
        rng, hits, pairs_seen = random.Random(seed), 0, 0
        while log_e_above(rate, hits, pairs_seen - hits) < math.log(100):
            hits += rng.random() < truth
            pairs_seen += 1
        needed.append(pairs_seen)
    assert sorted(needed)[10] <= pairs


@pytest.mark.walk
def test_log_e_above_seldom_fires_at_the_allowed_rate() -> None:
    """At the bound, at most 1 % of 200 shadows with 2,000 pairs ever reach e = 100."""
    hits = np.random.default_rng(0).binomial(20, 0.05, (200, 100)).cumsum(axis=1).tolist()
    highest = [
        max(
            log_e_above(0.05, hits_so_far, 20 * look - hits_so_far)
            for look, hits_so_far in enumerate(hits_by_look, start=1)
        )
        for hits_by_look in hits
    ]
    fired = sum(high >= math.log(100) for high in highest)
    assert fired <= 4


@pytest.mark.walk
def test_bet_wins_only_for_a_mean_beyond_its_bound() -> None:
    """At the bound .45 % fire. Twice the bound is found in tens of pairs."""
    fired, needed = 0, []
    for seed in range(200):
        rng, wealth = random.Random(seed), Wealth()
        for _ in range(300):
            wealth = bet(wealth, 0.1, min(1.0, rng.expovariate(10.0)))
        fired += wealth.log_e_max >= math.log(100)
        wealth = Wealth()
        while wealth.log_e_max < math.log(100):
            wealth = bet(wealth, 0.1, min(1.0, rng.expovariate(5.0)))
        needed.append(wealth.looks)
    assert fired <= 4
    assert sorted(needed)[100] <= 100


@pytest.mark.parametrize("wrong", [(0.0, 1, 1), (1.0, 1, 1), (0.5, -1, 1)])
def test_betting_refuses_impossible_numbers(wrong: tuple[float, int, int]) -> None:
    """The error comes before a logarithm fails."""
    with pytest.raises(ValueError, match="rate"):
        log_e_above(*wrong)
    with pytest.raises(ValueError, match="lie between"):
        bet(Wealth(), 0.5, 1.5)


def test_detector_notices_a_rate_that_rises_late() -> None:
    """An hour at .1 % under a bound of .5 % gives no alarm. At 5 % the alarm comes in seconds."""
    rng, detector = random.Random(2), Detector()
    for _ in range(3_600):
        detector = update_detector(
            detector, 0.005, sum(rng.random() < 0.001 for _ in range(20)), 20
        )
        assert detector.log_m < math.log(1e6)
    seconds = 0
    while detector.log_m < math.log(1e6):
        detector = update_detector(detector, 0.005, sum(rng.random() < 0.05 for _ in range(20)), 20)
        seconds += 1
    assert seconds < 60
    with pytest.raises(ValueError, match="no such window"):
        update_detector(detector, 0.5, 3, 2)
