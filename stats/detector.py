"""Detects that a rate has just exceeded its bound.

It is the Shiryaev-Roberts detector over e-values (Shin, Ramdas and Rinaldo, E-detectors):
M <- (M + 1) e in each window, and an alarm at M >= 1/a. The first false alarm comes after 1/a
windows on average or later, for any sequence of earlier windows.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

from stats.tilt import log_add, log_sum

RATIOS = (1.5, 2.5, 5.0, 15.0, 50.0)


@dataclass(frozen=True, slots=True)
class Detector:
    """The state of the detector: ln M. It is -inf at the start and after an alarm."""

    log_m: float = -math.inf


def update_detector(detector: Detector, rate_max: float, hits: int, total: int) -> Detector:
    """Return the detector after a window in which *hits* of *total* keys failed.

    The null hypothesis is that each key fails with probability at most *rate_max*,
    0 < rate_max < 1. Raises ValueError for impossible numbers.
    """
    if not 0.0 < rate_max < 1.0 or not 0 <= hits <= total:
        raise ValueError(f"rate {rate_max}, {hits} of {total}: no such window")
    return Detector(log_add(detector.log_m, 0.0) + _log_gain(rate_max, hits, total))


@lru_cache(maxsize=4_096)
def _log_gain(rate_max: float, hits: int, total: int) -> float:
    """Return ln e of one window. Steady traffic has few different windows, so they are cached."""
    hit_gains, clean_gains, log_bets = _stakes(rate_max)
    clean = total - hits
    gains = [
        hits * hit_gain + clean * clean_gain
        for hit_gain, clean_gain in zip(hit_gains, clean_gains, strict=True)
    ]
    return log_sum(gains) - log_bets


@lru_cache(maxsize=1_024)
def _stakes(rate_max: float) -> tuple[tuple[float, ...], tuple[float, ...], float]:
    """Return the log gains of a failed and of a clean key on each bet, and ln(number of bets)."""
    bets = {min(rate_max * ratio, (1.0 + rate_max) / 2) for ratio in RATIOS}
    return (
        tuple(math.log(bet / rate_max) for bet in bets),
        tuple(math.log1p(-bet) - math.log1p(-rate_max) for bet in bets),
        math.log(len(bets)),
    )
