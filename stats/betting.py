"""Tests on a shadow's pairs: each row was scored by both, so there is no assignment noise.

A rate (decisions that differ, bins that differ) is tested by likelihood ratios on a grid of
larger rates; a mean in [0, 1] (how far scores differ) by betting on it (Waudby-Smith and Ramdas).
Both may be looked at after every window.
"""

import math
from dataclasses import dataclass

from stats.tilt import log_sum

RATIOS = (1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0)
RATE_MAX = 0.999


def log_e_above(rate: float, hits: int, misses: int) -> float:
    """Return ln E against "each pair hits with probability at most *rate*"; 0 < rate < 1.

    Only the two counts matter. Raises ValueError for a rate or a count that cannot be.
    """
    if not 0.0 < rate < 1.0 or hits < 0 or misses < 0:
        raise ValueError(f"rate {rate}, {hits} hits, {misses} misses: a rate lies between 0 and 1")
    bets = {min(rate * ratio, max(RATE_MAX, (1 + rate) / 2)) for ratio in RATIOS}
    return log_sum(
        [
            hits * math.log(bet / rate) + misses * (math.log1p(-bet) - math.log1p(-rate))
            for bet in bets
        ]
    ) - math.log(len(bets))


@dataclass(frozen=True, slots=True)
class Wealth:
    """A bettor against "the mean is at most m", and all it knows of the past."""

    log_e: float = 0.0
    log_e_max: float = 0.0
    looks: int = 0
    total: float = 0.0
    squares: float = 0.0


def bet(wealth: Wealth, mean_max: float, outcome: float) -> Wealth:
    """Return the wealth after one more *outcome* in [0, 1], a block's mean or one value.

    The stake comes from the past alone; it never risks more than half. 0 < mean_max < 1.
    """
    if not 0.0 < mean_max < 1.0 or not 0.0 <= outcome <= 1.0:
        raise ValueError(f"mean {mean_max}, outcome {outcome}: both lie between 0 and 1")
    mean = (wealth.total + 0.5 * mean_max + mean_max / 2) / (wealth.looks + 1)
    variance = (wealth.squares + 0.25) / (wealth.looks + 1)
    above = mean - mean_max
    stake = min(max(above / (variance + above * above), 0.0), 0.5 / mean_max)
    log_e = wealth.log_e + math.log1p(stake * (outcome - mean_max))
    return Wealth(
        log_e=log_e,
        log_e_max=max(wealth.log_e_max, log_e),
        looks=wealth.looks + 1,
        total=wealth.total + outcome,
        squares=wealth.squares + (outcome - mean) ** 2,
    )
