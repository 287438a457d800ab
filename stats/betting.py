"""Tests on the pairs of a shadow. Both versions scored each row, so there is no assignment noise.

- A rate, such as that of decisions that differ, is tested by likelihood ratios of larger rates.
- A mean in [0, 1], such as that of score differences, is tested by betting (Waudby-Smith and
  Ramdas, Estimating means of bounded random variables by betting).

Both tests are valid at every look.
"""

import math
from dataclasses import dataclass

from stats.tilt import log_sum

RATIOS = (1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0)
RATE_MAX = 0.999


def log_e_above(rate: float, hits: int, misses: int) -> float:
    """Return ln E against "each pair hits with probability at most *rate*"; 0 < rate < 1.

    Only the two counts matter, not their order. Raises ValueError for an impossible rate or count.
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
    """The state of a bet against "the mean is at most m"."""

    log_e: float = 0.0
    log_e_max: float = 0.0
    looks: int = 0
    total: float = 0.0
    squares: float = 0.0


def bet(wealth: Wealth, mean_max: float, outcome: float) -> Wealth:
    """Return the wealth after one more *outcome* in [0, 1]: a value, or the mean of a block.

    mean_max  m of the null hypothesis, 0 < m < 1.

    The stake depends on earlier outcomes only and never risks more than half of the wealth. Raises
    ValueError for a number outside its range.
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
