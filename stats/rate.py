"""Tests whether a failure rate is below a bar. The test is valid after every key.

The null hypothesis is that each key fails with probability >= p0, given the keys before it.
A few lower rates q bet against it. E multiplies by (1-q)/(1-p0) for a clean key, and by q/p0 for a
failed one. Almost all of the stake is on q = 0, which wins only with clean keys: at p0 = .5 %, 600
clean keys reach E = 20. One failure ends that stake and leaves the others, so a candidate with a
small failure rate needs more keys.
"""

import math
from functools import lru_cache

from stats.tilt import log_sum

STAKES: tuple[tuple[float, float], ...] = ((0.0, 0.985), (0.1, 0.005), (0.25, 0.005), (0.5, 0.005))
"""(q / p0, stake); the stakes add up to 1."""


def log_e_below(p0: float, clean: int, failed: int) -> float:
    """Return ln E against "the rate is at least *p0*", after *clean* and *failed* keys.

    Order does not matter, so the two counts are the whole state. A clean key that fails later stays
    counted as clean and is counted as failed too. The second factor, q/p0 < 1, lowers E.

    Raises ValueError unless 0 < p0 < 1 and both counts are at least 0.
    """
    if not 0.0 < p0 < 1.0 or clean < 0 or failed < 0:
        raise ValueError(
            f"bar {p0}, {clean} clean and {failed} failed keys: the bar lies between 0 and 1, and "
            "counts are not negative"
        )
    return log_sum(
        [
            math.log(stake)
            + clean * (math.log1p(-ratio * p0) - math.log1p(-p0))
            + _times_log(failed, ratio)
            for ratio, stake in STAKES
        ]
    )


@lru_cache(maxsize=64)
def clean_keys_needed(p0: float, log_threshold: float) -> int:
    """Return the smallest number of keys, all clean, that reaches *log_threshold*."""
    low, high = 0, 1
    while log_e_below(p0, high, 0) < log_threshold:
        high *= 2
    while low < high:
        middle = (low + high) // 2
        if log_e_below(p0, middle, 0) < log_threshold:
            low = middle + 1
        else:
            high = middle
    return low


def _times_log(count: int, ratio: float) -> float:
    if count == 0:
        return 0.0
    return count * math.log(ratio) if ratio > 0.0 else -math.inf
