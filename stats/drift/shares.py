"""Shares of rows with exact intervals, such as missing values and unknown categories.

The interval is Clopper and Pearson's (1934): its ends are the shares at which the count seen, or a
more extreme one, has a probability of half the error. They are quantiles of beta distributions:

    low  = beta quantile of (1 - level)/2 with (k, n - k + 1)        0 for k = 0
    high = beta quantile of (1 + level)/2 with (k + 1, n - k)        1 for k = n

They are found by Newton's method on the regularised incomplete beta function, which is taken by its
continued fraction (Press et al., Numerical Recipes, 6.4), so that a control host needs no SciPy.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

FRACTION_TERMS_MAX = 20_000
"""Terms of the continued fraction. About sqrt(max(a, b)) are needed: this is enough for 10^8."""
FRACTION_TOLERANCE = 1e-12
TINY = 1e-300
STEPS_MAX = 60
SHARE_TOLERANCE = 1e-9
LOG_DENSITY_MIN = -600.0
"""Newton's step has no use where the density is smaller than its exponential."""


@dataclass(frozen=True, slots=True)
class ShareFigure:
    """A share of rows with its interval, all between 0 and 1. NaN without rows."""

    hits: int
    rows: int
    share: float
    low: float
    high: float

    def __str__(self) -> str:
        """Return the share and its interval in percent, or what is missing."""
        if not self.rows:
            return "not enough data: 0 of 1 rows"
        return f"{self.share:.2%} ({self.low:.2%} to {self.high:.2%})"


def share_figure(hits: int, rows: int, level: float = 0.95) -> ShareFigure:
    """Return the share *hits* / *rows* with its exact interval at *level*.

    Raises ValueError for impossible counts and for a level that is not from .5 to below 1.
    """
    if not 0 <= hits <= rows or not 0.5 <= level < 1.0:
        raise ValueError(
            f"{hits} of {rows} rows at level {level}: hits lie between 0 and the rows, and the "
            "level from .5 to below 1"
        )
    if not rows:
        return ShareFigure(0, 0, math.nan, math.nan, math.nan)
    error = (1.0 - level) / 2
    low = 1.0 - float(upper_share(np.array([rows - hits]), rows, error)[0])
    high = float(upper_share(np.array([hits]), rows, error)[0])
    return ShareFigure(hits, rows, hits / rows, low, high)


def upper_share(hits: Counts, rows: Counts | int, error: float) -> Floats:
    """Return the one-sided upper ends of the shares of (J,) *hits* among (J,) or single *rows*.

    Each is above its true share with probability 1 - *error* or more. Raises ValueError for
    impossible counts, no rows, or an error that is not above 0 and at most .25.
    """
    total = np.broadcast_to(np.asarray(rows), hits.shape)
    if not 0.0 < error <= 0.25 or (total < 1).any() or (hits < 0).any() or (hits > total).any():
        raise ValueError(
            f"hits of {hits.tolist()[:5]} among {total.tolist()[:5]} rows at error {error}: hits "
            "lie between 0 and the rows, of which there is one at least, and the error between 0 "
            "and .25"
        )
    pairs = zip(hits.tolist(), total.tolist(), strict=True)
    return np.array([_upper_end(count, of, error) for count, of in pairs])


@lru_cache(maxsize=16_384)
def _upper_end(hits: int, rows: int, error: float) -> float:
    """Return one upper end. Counts repeat, above all 0, so results are cached."""
    if hits == rows:
        return 1.0
    a, b = hits + 1.0, float(rows - hits)
    log_gammas = _log_gammas(a, b)
    # Newton's steps from the normal approximation, between two ends that close in.
    low, high = hits / rows, 1.0
    sds = NormalDist().inv_cdf(1.0 - error)
    share = low + sds * math.sqrt(a * b / rows) / rows + (sds**2 + 2.0) / (3.0 * rows)
    share = min(max(share, low), 1.0 - 1e-9)
    for _ in range(STEPS_MAX):
        excess = regularised_beta(share, a, b) - (1.0 - error)
        low, high = (share, high) if excess < 0.0 else (low, share)
        log_density = log_gammas + (a - 1.0) * math.log(share) + (b - 1.0) * math.log1p(-share)
        step = share - excess / math.exp(log_density) if log_density > LOG_DENSITY_MIN else low
        moved = step if low < step < high else (low + high) / 2
        if abs(moved - share) <= SHARE_TOLERANCE * moved:
            return moved
        share = moved
    return share


def regularised_beta(x: float, a: float, b: float) -> float:
    """Return the regularised incomplete beta function I_x(a, b), for 0 <= x <= 1 and a, b > 0."""
    if x <= 0.0 or x >= 1.0:
        return float(x >= 1.0)
    # The fraction converges fast below the mean; above it the mirrored one does.
    mirrored = x > (a + 1.0) / (a + b + 2.0)
    if mirrored:
        x, a, b = 1.0 - x, b, a
    front = math.exp(_log_gammas(a, b) + a * math.log(x) + b * math.log1p(-x)) / a
    value = front * _continued_fraction(x, a, b)
    return 1.0 - value if mirrored else value


def _continued_fraction(x: float, a: float, b: float) -> float:
    """Return the continued fraction of I_x(a, b) by Lentz's method."""
    c = 1.0
    d = 1.0 / _away_from_zero(1.0 - (a + b) * x / (a + 1.0))
    fraction = d
    for m in range(1, FRACTION_TERMS_MAX):
        # The even term, then the odd one.
        even = m * (b - m) * x / ((a + 2 * m - 1.0) * (a + 2 * m))
        d = 1.0 / _away_from_zero(1.0 + even * d)
        c = _away_from_zero(1.0 + even / c)
        fraction *= c * d
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1.0))
        d = 1.0 / _away_from_zero(1.0 + odd * d)
        c = _away_from_zero(1.0 + odd / c)
        fraction *= c * d
        if abs(c * d - 1.0) < FRACTION_TOLERANCE:
            break
    return fraction


def _log_gammas(a: float, b: float) -> float:
    """Return ln of gamma(a + b) / (gamma(a) gamma(b))."""
    return math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)


def _away_from_zero(value: float) -> float:
    return value if abs(value) > TINY else TINY
