"""Two questions about two arms: whether the split is the promised one, and how large a ratio is.

Sample-ratio mismatch (Lindon and Malek): E against "each new key fell to the canary with the
split's share", a mixture of all other shares. Valid at every look while the share stands still.

Interval of a rate ratio: each candidate ratio is a null that stats.tilt's e-value may reject;
those not rejected are the interval. It holds at every look at once, for changing base rates.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from stats.tilt import log_sum

CONCENTRATION = 100.0
BET_STEPS = tuple(step for step in (0.1, 0.25, 0.5, 1.0, 2.0))
"""How far beyond a null's ratio the bets against it lie, as logarithms."""
LOG_RATIO_MAX = math.log(1_000.0)
"""Ratios beyond one to a thousand are not told apart."""
LOG_RATIO_RESOLUTION = 0.005


def log_e_mismatch(canary: int, baseline: int, share: float) -> float:
    """Return ln E against "keys fall to the canary with probability *share*"; 0 < share < 1."""
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
    """Rate ratios, canary over baseline, that the counts do not reject; 0 and inf: unbounded."""

    low: float
    high: float


def rate_ratio_interval(
    by_share: Mapping[int, tuple[float, float]], level: float = 0.95
) -> RateRatioInterval:
    """Return the anytime-valid interval of the rate ratio.

    by_share  the canary's share in basis points -> (canary events, baseline events) under it.
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
    """Bisect: the largest log ratio rejected from below (sign 1), or smallest from above (-1)."""
    rejected, kept = -sign * LOG_RATIO_MAX, sign * LOG_RATIO_MAX
    if _log_e(events, rejected, sign) < log_threshold:
        return rejected
    while abs(kept - rejected) > LOG_RATIO_RESOLUTION:
        middle = (kept + rejected) / 2
        if _log_e(events, middle, sign) >= log_threshold:
            rejected = middle
        else:
            kept = middle
    return rejected


def _log_e(events: Iterable[tuple[float, float, float]], null: float, sign: float) -> float:
    """Ln E against "log ratio <= null" (sign 1) or ">= null" (sign -1)."""
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
