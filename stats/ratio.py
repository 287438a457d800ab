"""Compares the sizes and the event rates of two arms.

- Sample ratio mismatch (Lindon and Malek): E against "each new key falls to the canary with
  the configured share", a mixture of all other shares. It is valid at every look, as long as the
  share does not change.
- Interval of a rate ratio: each ratio is a null hypothesis that the e-value of stats.tilt may
  reject. The interval has those that are not rejected. It is valid at every look, also for base
  rates that change.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from stats.tilt import log_sum

CONCENTRATION = 100.0
BET_STEPS = tuple(step for step in (0.1, 0.25, 0.5, 1.0, 2.0))
"""Distances of the bets from the ratio of the null hypothesis, as logarithms."""
LOG_RATIO_MAX = math.log(1_000.0)
"""Ratios beyond 1000, or below 1/1000, are not distinguished."""
LOG_RATIO_RESOLUTION = 0.005


def log_e_mismatch(canary: int, baseline: int, share: float) -> float:
    """Return ln E against "each key falls to the canary with probability *share*".

    canary, baseline  new keys of the arms.
    share             0 < share < 1.
    """
    a, b = CONCENTRATION * share, CONCENTRATION * (1.0 - share)
    mixture = (
        math.lgamma(a + canary)
        + math.lgamma(b + baseline)
        - math.lgamma(CONCENTRATION + canary + baseline)
        - math.lgamma(a)
        - math.lgamma(b)
        + math.lgamma(CONCENTRATION)
    )
    return mixture - canary * math.log(share) - baseline * math.log1p(-share)


@dataclass(frozen=True, slots=True)
class RateRatioInterval:
    """Rate ratios, canary over baseline, that are not rejected. 0 and inf stand for no bound."""

    low: float
    high: float


def rate_ratio_interval(
    by_share: Mapping[int, tuple[float, float]], level: float = 0.95
) -> RateRatioInterval:
    """Return the interval of the rate ratio, valid at every look.

    by_share  the canary's share in basis points -> (canary events, baseline events) under it.
    level     probability with which the interval covers the ratio, at all looks together.
    """
    events = [(bp / 10_000, c, b) for bp, (c, b) in by_share.items() if c or b]
    log_threshold = math.log(2.0 / (1.0 - level))
    if not events:
        return RateRatioInterval(0.0, math.inf)
    low = _last_rejected(events, log_threshold, 1.0)
    high = _last_rejected(events, log_threshold, -1.0)
    return RateRatioInterval(
        0.0 if low <= -LOG_RATIO_MAX else math.exp(low),
        math.inf if high >= LOG_RATIO_MAX else math.exp(high),
    )


def _last_rejected(
    events: list[tuple[float, float, float]], log_threshold: float, sign: float
) -> float:
    """Return the largest log ratio rejected from below (sign 1), or the smallest from above."""
    rejected, accepted = -sign * LOG_RATIO_MAX, sign * LOG_RATIO_MAX
    if _log_e(events, rejected, sign) < log_threshold:
        return rejected
    while abs(accepted - rejected) > LOG_RATIO_RESOLUTION:
        middle = (accepted + rejected) / 2
        if _log_e(events, middle, sign) >= log_threshold:
            rejected = middle
        else:
            accepted = middle
    return rejected


def _log_e(events: Iterable[tuple[float, float, float]], null: float, sign: float) -> float:
    """Return ln E against "log ratio <= null" (sign 1) or ">= null" (sign -1)."""
    logs = [0.0] * len(BET_STEPS)
    for share, canary, baseline in events:
        under_null = _log_tilt(share, null)
        for index, size in enumerate(BET_STEPS):
            bet = null + sign * size
            logs[index] += canary * (bet - null) - (canary + baseline) * (
                _log_tilt(share, bet) - under_null
            )
    return log_sum(logs) - math.log(len(BET_STEPS))


def _log_tilt(share: float, delta: float) -> float:
    return math.log1p(share * math.expm1(delta))
