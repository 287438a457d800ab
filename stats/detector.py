"""Has a rate left its bound just now? A detector that starts over at every moment.

Shiryaev-Roberts over e-values (Shin, Ramdas and Rinaldo): M <- (M + 1) e, and M >= 1/a raises
its first false alarm after 1/a windows on average at the earliest, whatever came before.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

from stats.tilt import log_add, log_sum

RATIOS = (1.5, 2.5, 5.0, 15.0, 50.0)


@dataclass(frozen=True, slots=True)
class Detector:
    """Ln M; -inf: nothing seen, or an alarm was just raised."""

    log_m: float = -math.inf


def update_detector(detector: Detector, rate_max: float, hits: int, total: int) -> Detector:
    """Return the detector after a window in which *hits* of *total* keys failed.

    Null: each fails with probability at most *rate_max*, 0 < rate_max < 1.
    """
    if not 0.0 < rate_max < 1.0 or not 0 <= hits <= total:
        raise ValueError(f"rate {rate_max}, {hits} of {total}: no such window")
    return Detector(log_add(detector.log_m, 0.0) + _log_gain(rate_max, hits, total))


@lru_cache(maxsize=4_096)
def _log_gain(rate_max: float, hits: int, total: int) -> float:
    """Ln e of one window; seconds of steady traffic have few different ones."""
    hit_gains, clean_gains, log_bets = _stakes(rate_max)
    clean = total - hits
    gains = [
        hits * hit + clean * missed for hit, missed in zip(hit_gains, clean_gains, strict=True)
    ]
    return log_sum(gains) - log_bets


@lru_cache(maxsize=1_024)
def _stakes(rate_max: float) -> tuple[tuple[float, ...], tuple[float, ...], float]:
    """What a failed key and a clean one win on each rate that is bet on; ln of how many."""
    bets = {min(rate_max * ratio, (1.0 + rate_max) / 2) for ratio in RATIOS}
    return (
        tuple(math.log(bet / rate_max) for bet in bets),
        tuple(math.log1p(-bet) - math.log1p(-rate_max) for bet in bets),
        math.log(len(bets)),
    )
