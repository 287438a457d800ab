"""E-values against "no relevant change" of a histogram or a share, one for each look.

The null hypothesis is that shares and mean differ from the reference by no more than a tolerance.
J is the number of bins, N_j the person-looks of a look in bin j, m the rows of the reference.

    bins      share of bin j <= b_j = c U_j, U_j the upper end of the reference's share (Clopper and
              Pearson) at error .001 / J.   e = (a/b)^N_j ((1 - a)/(1 - b))^(n - N_j), a > b
    location  mean of s <= b = max(tau, 2 x 3.09 / sqrt(m)), s_j the normal score of bin j,
              standardised, clipped to +-2.5, centred.  e = prod (1 + l (s_j - b))^N_j; mirrored

Given the looks before, each person-look has a share <= b_j, or a mean <= b. Then each factor has
a mean of at most 1, and so have e and the weighted mean of all alternatives. For shares up to their
bounds e < 1 in every single look, whatever the rows have in common. U_j and 3.09 / sqrt(m) are
there because the reference is a sample. With probability .998 it is off by less, so that a true
shift of half of b is tolerated however small the reference is.

Person-looks with a common cause, such as a household or a batch, may move together. A *cluster* of
size k takes each to the power 1/k: a product of k e-values to that power is no larger than their
mean, so e stays an e-value whatever k members have in common (Hoelder's inequality).
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stats.departure import normal_scores, standardised
from stats.drift.bins import check_bins
from stats.drift.shares import upper_share

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

SHARE_BETS = (1.12, 1.36, 2.0, 3.2)
"""a / b. Each stays below (1 + b) / 2."""
RARE_BETS = (5.0, 8.0, 15.0, 50.0)
"""Further a / b of a share, which may be rare at first and then most of the rows."""
SHARE_MAX = 0.95
"""A bin whose bound is above it cannot become too frequent, so nothing is bet on it."""
STAKES = (0.05, 0.1, 0.2, 0.35)
"""l of the bets on the location."""
STAKE_LEFT_MIN = 0.05
"""No bet may lose more than all but this part in one person-look."""
SCORE_MAX = 2.5
REFERENCE_ERROR = 0.001
REFERENCE_ERROR_SDS = 3.09
"""The normal quantile of 1 - REFERENCE_ERROR."""
REFERENCE_ROWS_MIN = 100


QUALITY_CLUSTER = 3
"""Rows of five minutes that may lack a value for one cause, as rows of one customer do."""


class ReferenceTooSmallError(ValueError):
    """A reference has too few rows for a test: not enough data."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Changes up to it are irrelevant."""

    share_ratio: float
    """c: a bin may hold c times the share that it has in the reference, c > 1."""
    shift_sd: float
    """tau: the mean may move by this many standard deviations, 0 or more."""


DAILY = Tolerance(1.5, 0.2)
WEEKLY = Tolerance(1.25, 0.1)
FIRST_DAYS = Tolerance(2.0, 0.3)
"""Against the reference of training, until production has one of its own."""
SHARE_RATIO = 2.0
"""c of missing values, unknown categories and silence."""


@dataclass(frozen=True, eq=False, slots=True)
class ChangeTest:
    """The alternatives that bet against "no relevant change"."""

    log_gains: Floats
    """(G, J) float64: what a person-look in bin j adds to ln e of alternative g."""
    log_weights: Floats
    """(G,) float64: logarithms of weights that add up to 1."""

    def gains(self, counts: Counts) -> Floats:
        """Return (..., G) ln e of each alternative for (..., J) counts of a look."""
        return np.asarray(counts.astype(np.float64) @ self.log_gains.T)


def histogram_test(reference: Counts, tolerance: Tolerance, cluster: int = 1) -> ChangeTest:
    """Return the test of a histogram against a (J,) *reference*.

    A third of the weight is on bins, a third on a higher and a third on a lower location. Where all
    rows of the reference are in one bin, there is no location, and all is on bins.

    Raises ReferenceTooSmallError below REFERENCE_ROWS_MIN rows. Raises ValueError for bad counts
    or a bad tolerance.
    """
    check_bins(reference)
    check_settings(tolerance.share_ratio, tolerance.shift_sd, cluster)
    log_gains = histogram_gains(reference[None], tolerance)[0] / cluster
    by_bins = len(reference) * len(SHARE_BETS)
    located = bool(location_scores(reference).any())
    # Alternatives on the location of a constant reference win and lose nothing, so they weigh 0.
    parts = [(by_bins, 1 / 3 if located else 1.0), (2 * len(STAKES), 2 / 3 if located else 0.0)]
    weights = np.concatenate([np.full(size, part / size) for size, part in parts])
    with np.errstate(divide="ignore"):
        return ChangeTest(log_gains, np.log(weights))


def histogram_gains(references: Counts, tolerance: Tolerance) -> Floats:
    """Return the (R, G, J) log gains of the alternatives against each of (R, J) *references*.

    The alternatives are SHARE_BETS of the first bin, of the second and so on, then STAKES upwards,
    then STAKES downwards. Raises ReferenceTooSmallError below REFERENCE_ROWS_MIN rows.
    """
    bins = references.shape[1]
    rows = np.array([_enough_rows(count) for count in references.sum(axis=1).tolist()])
    errors = REFERENCE_ERROR / bins
    upper = upper_share(references.reshape(-1), rows.repeat(bins), errors).reshape(-1, bins)
    log_gains = np.zeros((len(references), bins * len(SHARE_BETS) + 2 * len(STAKES), bins))
    for index, (reference, bounds) in enumerate(
        zip(references, tolerance.share_ratio * upper, strict=True)
    ):
        # The bins: each alternative bets on one of them.
        bets = [
            _bet_on_share(bound, ratio, np.arange(bins) == bin_)
            for bin_, bound in enumerate(bounds.tolist())
            for ratio in SHARE_BETS
        ]
        # The location, upwards and downwards.
        scores = location_scores(reference)
        bound = shift_bound(tolerance, int(rows[index]))
        for direction in (scores, -scores) if scores.any() else ():
            bets += [_bet_on_mean(direction - bound, stake) for stake in STAKES]
        log_gains[index, : len(bets)] = bets
    return log_gains


def share_test(
    reference_hits: int, reference_rows: int, ratio: float = SHARE_RATIO, cluster: int = 1
) -> ChangeTest:
    """Return the test of "the share is at most *ratio* times the reference's".

    The counts of a look are (..., 2): rows without and with a hit, such as a missing value, an
    unknown category, or a minute without a call.

    Raises ReferenceTooSmallError below REFERENCE_ROWS_MIN rows. Raises ValueError for impossible
    counts or a bad ratio.
    """
    hits, rows = np.array([reference_hits]), np.array([reference_rows])
    log_gains = share_gains(hits, rows, ratio, cluster)[0]
    return ChangeTest(log_gains, np.full(len(log_gains), -math.log(len(log_gains))))


def share_gains(hits: Counts, rows: Counts, ratio: float = SHARE_RATIO, cluster: int = 1) -> Floats:
    """Return the (R, G, 2) log gains of the alternatives against each of R references.

    hits, rows  (R,) the counts of the references.

    The alternatives are SHARE_BETS and RARE_BETS. Errors are those of `share_test`.
    """
    check_settings(ratio, 0.0, cluster)
    if (hits < 0).any() or (hits > rows).any():
        raise ValueError(f"{hits.tolist()[:5]} hits of {rows.tolist()[:5]} rows: no such reference")
    _enough_rows(int(rows.min()))
    bounds = ratio * upper_share(hits, rows, REFERENCE_ERROR)
    hit = np.array([False, True])
    bets = SHARE_BETS + RARE_BETS
    log_gains = [[_bet_on_share(bound, bet, hit) for bet in bets] for bound in bounds.tolist()]
    return np.array(log_gains) / cluster


def location_scores(reference: Counts) -> Floats:
    """Return the (J,) scores s of a reference with rows: their mean there is 0.

    All are 0 if all rows are in one bin.
    """
    shares = reference / reference.sum()
    scores = np.clip(standardised(normal_scores(shares), shares), -SCORE_MAX, SCORE_MAX)
    return np.asarray(scores - scores @ shares) if np.count_nonzero(reference) > 1 else scores * 0


def shift_bound(tolerance: Tolerance, rows: int) -> float:
    """Return the tolerated mean of the scores, given the *rows* of the reference."""
    return max(tolerance.shift_sd, 2 * REFERENCE_ERROR_SDS / math.sqrt(rows))


def check_settings(share_ratio: float, shift_sd: float, cluster: int) -> None:
    """Raise ValueError for a tolerance or a cluster that no test can have."""
    if not 1.0 < share_ratio < math.inf or not 0.0 <= shift_sd < SCORE_MAX or cluster < 1:
        raise ValueError(
            f"share ratio {share_ratio}, shift {shift_sd} and cluster {cluster}: the ratio is "
            f"above 1, the shift from 0 to {SCORE_MAX}, and a cluster has one member or more"
        )


def _enough_rows(rows: int) -> int:
    if rows < REFERENCE_ROWS_MIN:
        raise ReferenceTooSmallError(
            f"not enough data: {rows} of {REFERENCE_ROWS_MIN} rows in the reference; settle one "
            "on more days"
        )
    return rows


def _bet_on_share(bound: float, ratio: float, hit: NDArray[np.bool_]) -> Floats:
    """Return (J,) log gains of a bet that the bins *hit* hold *ratio* times their *bound*."""
    if bound >= SHARE_MAX:
        return np.zeros(len(hit))
    bet = min(ratio * bound, (1.0 + bound) / 2)
    return np.where(hit, math.log(bet / bound), math.log1p(-bet) - math.log1p(-bound))


def _bet_on_mean(margins: Floats, stake: float) -> Floats:
    """Return (J,) log gains of a bet that the mean of the (J,) *margins* is above 0."""
    lowest = -float(margins.min())
    stake = min(stake, (1.0 - STAKE_LEFT_MIN) / lowest) if lowest > 0 else stake
    return np.asarray(np.log1p(stake * margins))
