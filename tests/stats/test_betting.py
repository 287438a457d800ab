"""Bets on a shadow's pairs, and the detector of a rate that left its bound."""

import math
import random

import numpy as np
import pytest

from stats.betting import Wealth, bet, log_e_above
from stats.detector import Detector, update_detector


@pytest.mark.parametrize(("rate", "truth", "pairs"), [(0.01, 0.05, 250), (0.01, 0.2, 30)])
def test_more_disagreement_is_found_in_few_pairs(rate: float, truth: float, pairs: int) -> None:
    """Five times the allowed rate in about 130 pairs, twenty times in about 13 (medians)."""
    needed = []
    for seed in range(21):
        draw, hits, seen = random.Random(seed), 0, 0
        while log_e_above(rate, hits, seen - hits) < math.log(100):
            hits += draw.random() < truth
            seen += 1
        needed.append(seen)
    assert sorted(needed)[10] <= pairs


def test_the_allowed_rate_is_left_alone() -> None:
    """At the bound itself, 200 shadows of 2,000 pairs: at most 1 % ever reach e = 100."""
    hits = np.random.default_rng(0).binomial(20, 0.05, (200, 100)).cumsum(axis=1).tolist()
    highest = [
        max(log_e_above(0.05, seen, 20 * look - seen) for look, seen in enumerate(told, start=1))
        for told in hits
    ]
    fired = sum(high >= math.log(100) for high in highest)
    assert fired <= 4


def test_a_mean_at_its_bound_wins_nothing_and_one_beyond_it_does() -> None:
    """Betting on scores' mean difference: .45 % at the bound, twice the bound in tens of pairs."""
    fired, needed = 0, []
    for seed in range(200):
        draw, wealth = random.Random(seed), Wealth()
        for _ in range(300):
            wealth = bet(wealth, 0.1, min(1.0, draw.expovariate(10.0)))
        fired += wealth.log_e_max >= math.log(100)
        wealth = Wealth()
        while wealth.log_e_max < math.log(100):
            wealth = bet(wealth, 0.1, min(1.0, draw.expovariate(5.0)))
        needed.append(wealth.looks)
    assert fired <= 4
    assert sorted(needed)[100] <= 100


@pytest.mark.parametrize("wrong", [(0.0, 1, 1), (1.0, 1, 1), (0.5, -1, 1)])
def test_a_rate_that_cannot_be_is_refused(wrong: tuple[float, int, int]) -> None:
    """In words, before a logarithm fails."""
    with pytest.raises(ValueError, match="rate"):
        log_e_above(*wrong)
    with pytest.raises(ValueError, match="lie between"):
        bet(Wealth(), 0.5, 1.5)


def test_a_rate_that_rises_late_is_noticed_within_seconds() -> None:
    """An hour at .1 % under a bound of .5 % is silent; at 5 % the alarm comes in seconds."""
    draw, detector = random.Random(2), Detector()
    for _ in range(3_600):
        detector = update_detector(
            detector, 0.005, sum(draw.random() < 0.001 for _ in range(20)), 20
        )
        assert detector.log_m < math.log(1e6)
    seconds = 0
    while detector.log_m < math.log(1e6):
        detector = update_detector(
            detector, 0.005, sum(draw.random() < 0.05 for _ in range(20)), 20
        )
        seconds += 1
    assert seconds < 60
    with pytest.raises(ValueError, match="no such window"):
        update_detector(detector, 0.5, 3, 2)
