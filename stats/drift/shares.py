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
    # Counts repeat, above all 0, and each costs some hundred microseconds.
    pairs, index = np.unique(np.stack([hits, total]), axis=1, return_inverse=True)
    k, n = pairs.astype(np.float64)
    a, b = k + 1.0, np.maximum(n - k, 1.0)
    # Newton's steps from the normal approximation, kept between two ends that close in.
    low, high = k / n, np.ones(len(k))
    sds = NormalDist().inv_cdf(1.0 - error)
    share = np.clip(k / n + sds * np.sqrt((k + 1.0) * b / n) / n + sds**2 / n, low, 1.0 - 1e-9)
    log_gammas = _log_gammas(a, b)
    for _ in range(STEPS_MAX):
        excess = regularised_beta(share, a, b) - (1.0 - error)
        low, high = np.where(excess < 0.0, share, low), np.where(excess < 0.0, high, share)
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            log_density = log_gammas + (a - 1.0) * np.log(share) + (b - 1.0) * np.log1p(-share)
            step = share - excess / np.exp(log_density)
        inside = (step > low) & (step < high)
        moved = np.where(inside, step, (low + high) / 2)
        settled = bool(np.all(np.abs(moved - share) <= SHARE_TOLERANCE * moved))
        share = moved
        if settled:
            break
    return np.where(k == n, 1.0, share)[index.reshape(-1)].reshape(hits.shape)


def regularised_beta(x: Floats, a: Floats, b: Floats) -> Floats:
    """Return the (J,) regularised incomplete beta function I_x(a, b), for a, b > 0.

    x  (J,) between 0 and 1.
    """
    # The fraction converges fast below the mean; above it the mirrored one does.
    mirrored = x > (a + 1.0) / (a + b + 2.0)
    u = np.where(mirrored, 1.0 - x, x)
    p, q = np.where(mirrored, b, a), np.where(mirrored, a, b)
    inside = (u > 0.0) & (u < 1.0)
    safe = np.where(inside, u, 0.5)
    front = np.exp(_log_gammas(p, q) + p * np.log(safe) + q * np.log1p(-safe)) / p
    value = np.where(inside, front * _continued_fraction(safe, p, q), np.where(u >= 1.0, 1.0, 0.0))
    return np.asarray(np.where(mirrored, 1.0 - value, value))


def _continued_fraction(x: Floats, a: Floats, b: Floats) -> Floats:
    """Return the (J,) continued fraction of I_x(a, b) by Lentz's method."""
    c = np.ones_like(x)
    d = 1.0 / _away_from_zero(1.0 - (a + b) * x / (a + 1.0))
    fraction = d.copy()
    for m in range(1, FRACTION_TERMS_MAX):
        # The even term, then the odd one.
        even = m * (b - m) * x / ((a + 2 * m - 1.0) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1.0))
        for term in (even, odd):
            d = 1.0 / _away_from_zero(1.0 + term * d)
            c = _away_from_zero(1.0 + term / c)
            fraction *= c * d
        if np.all(np.abs(c * d - 1.0) < FRACTION_TOLERANCE):
            break
    return fraction


def _log_gammas(a: Floats, b: Floats) -> Floats:
    """Return ln of gamma(a + b) / (gamma(a) gamma(b)), by element."""
    return np.array(
        [
            math.lgamma(first + second) - math.lgamma(first) - math.lgamma(second)
            for first, second in zip(a.tolist(), b.tolist(), strict=True)
        ]
    )


def _away_from_zero(values: Floats) -> Floats:
    return np.where(np.abs(values) < TINY, TINY, values)
