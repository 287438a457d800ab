"""The mean loss of a cohort of which few rows have labels, from the scores of all its rows.

The mean loss of the labelled rows is corrected by how the expected losses of all rows differ from
those of the labelled ones: R = mean loss + k (mean expected of all - mean expected of labelled). An
expected loss follows from the score. However wrong it is, R is right on average, if labelled rows
are drawn at random and k is fixed before; the better it is, the more exact is R.

Prediction-powered inference: Angelopoulos et al., Science 382, 2023. As a sequence over weeks, with
k from earlier weeks: prediction-powered risk monitoring, arXiv 2602.02229.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stats.accuracy.harm import WEEKS_NEEDED, sequence_width
from stats.accuracy.labelled_bins import LabelledBins
from stats.figure import Figure, no_figure, normal_figure, not_enough

Floats = NDArray[np.float64]

FEW_LABELS = 0.2
"""Below this share of labelled rows, expected losses of the others make the risk more exact."""
LABELS_NEEDED = 30
"""Labelled rows below which a mean has no useful interval."""


@dataclass(frozen=True, slots=True)
class LabelledLosses:
    """The losses of one cohort in which few rows have labels.

    mean, variance            of the losses of labelled rows.
    expected, expected_variance  of the losses of the same rows that their scores let expect.
    covariance                between both.
    all_expected              mean expected loss of all rows.
    labelled, rows            numbers of rows.
    """

    mean: float
    variance: float
    expected: float
    expected_variance: float
    covariance: float
    all_expected: float
    labelled: int
    rows: int


def sum_losses(
    bins: LabelledBins, scored: Floats, losses: Floats, shares: Floats
) -> LabelledLosses:
    """Return the losses of a cohort. J is the number of bins.

    bins    its labelled rows.
    scored  (J,) all its rows. A bin with fewer than are labelled has the labelled ones.
    losses  (2J,) loss of a positive row of each bin, then of a negative one.
    shares  (J,) share of positive rows that scores let expect.

    The variance is at least the one that scores let expect, because some thirty labels of a rare
    outcome may all be equal. Raises ValueError for fewer than two labels and for NaN.
    """
    positive, negative = np.split(losses, 2)
    labelled, rows = bins.rows, np.maximum(scored, bins.rows)
    n, all_rows = float(labelled.sum()), float(rows.sum())
    if n < 2 or not np.isfinite([*losses, *shares]).all():
        raise ValueError(f"{n:g} labelled losses: two at least, and all are finite")
    # Means of the losses, and of the expected ones of the same and of all rows.
    by_bin = shares * positive + (1.0 - shares) * negative
    mean = float((bins.positives @ positive + bins.negatives @ negative) / n)
    expected = float(labelled @ by_bin / n)
    # How both vary over the labelled rows.
    squares = bins.positives @ (positive - mean) ** 2 + bins.negatives @ (negative - mean) ** 2
    within = float(labelled @ (shares * (1.0 - shares) * (positive - negative) ** 2) / n)
    products = bins.positives * (positive - mean) + bins.negatives * (negative - mean)
    return LabelledLosses(
        mean=mean,
        variance=max(float(squares) / (n - 1), within),
        expected=expected,
        expected_variance=float(labelled @ (by_bin - expected) ** 2) / (n - 1),
        covariance=float(products @ (by_bin - expected)) / (n - 1),
        all_expected=float(rows @ by_bin / all_rows),
        labelled=int(n),
        rows=int(all_rows),
    )


def powered_weight(earlier: Sequence[LabelledLosses]) -> float:
    """Return the weight k of a cohort, from cohorts before it.

    It is the slope of losses on expected losses. Without earlier cohorts it is 1, the slope where
    scores are calibrated.
    """
    spread = sum(losses.expected_variance for losses in earlier)
    if spread <= 0.0:
        return 1.0
    return sum(losses.covariance for losses in earlier) / spread


def powered_mean(losses: LabelledLosses, weight: float) -> tuple[float, float]:
    """Return the mean loss R of all rows of a cohort, and the variance of R."""
    unlabelled = 1.0 - losses.labelled / losses.rows
    value = losses.mean + weight * (losses.all_expected - losses.expected)
    explained = weight * weight * losses.expected_variance - 2.0 * weight * losses.covariance
    return value, max(losses.variance + unlabelled * explained, 0.0) / losses.labelled


def powered_figure(losses: LabelledLosses, weight: float, highest: float = math.inf) -> Figure:
    """Return the mean loss of all rows of one cohort, 0 to *highest*, with its interval.

    n is the number of labelled rows. The interval holds for one cohort that is looked at once.
    """
    if lacking := not_enough(losses.labelled, LABELS_NEEDED, "labelled rows"):
        return no_figure(losses.labelled, lacking)
    value, variance = powered_mean(losses, weight)
    value = min(max(value, 0.0), highest)
    return normal_figure(value, math.sqrt(variance), losses.labelled, lowest=0.0, highest=highest)


def powered_risk(
    weeks: Sequence[LabelledLosses], alpha: float, highest: float = math.inf
) -> Figure:
    """Return the mean risk of all weeks so far, 0 to *highest*, with ends that hold at every week.

    alpha  probability with which the low end is ever above the mean of the weeks' true risks; the
           same for the high end.

    n is the number of labelled rows. The weight of each week comes from the weeks before it.
    """
    if lacking := not_enough(len(weeks), WEEKS_NEEDED, "weeks"):
        return no_figure(sum(week.labelled for week in weeks), lacking)
    found = [powered_mean(week, powered_weight(weeks[:at])) for at, week in enumerate(weeks)]
    mean = sum(value for value, _ in found) / len(found)
    variances = [variance for _, variance in found]
    # The width is chosen by the first week, so that no later week moves earlier ends.
    half = sequence_width(sum(variances), len(weeks), alpha, variances[0])
    rows = sum(week.labelled for week in weeks)
    # The true risks are in this range, so a cut moves no end past them.
    value, low, high = np.clip([mean, mean - half, mean + half], 0.0, highest).tolist()
    return Figure(value, low, high, rows)
