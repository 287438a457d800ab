"""The area under the ROC curve, with its standard error, from counts by bin or from rows.

Ties count half. The standard error is that of DeLong, DeLong and Clarke-Pearson (Biometrics 44,
1988). The interval is one of the log-odds of the area, so that it stays between 0 and 1.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stats.accuracy.labelled_bins import LabelledBins, sum_by
from stats.figure import Figure, Z, no_figure, not_enough, wilson_figure

Floats = NDArray[np.float64]

CLASS_ROWS_NEEDED = 10
"""Rows of either class below which an area is a matter of chance."""


@dataclass(frozen=True, slots=True)
class CurveArea:
    """The area under the ROC curve. NaN stands for what is not defined.

    value          P(a positive row has a higher score than a negative one), ties half.
    error          standard error.
    binning_error  the most by which the area of the rows themselves may differ, because rows of
                   one bin are compared as ties.
    """

    value: float
    error: float
    binning_error: float


def placements(positive: NDArray[np.bool_], scores: Floats) -> Floats:
    """Return the placement of each row among the rows of the other class, (N,) from 0 to 1.

    That of a positive row is the share of negative rows with a lower score, and that of a negative
    row the share of positive rows with a higher score. Ties count half. The mean of either class is
    the area under the ROC curve.
    """
    _, ranks, sizes = np.unique(scores, return_inverse=True, return_counts=True)
    positives = sum_by(ranks, positive.astype(np.float64), len(sizes))
    negatives = np.asarray(sizes - positives)
    of_positive, of_negative = bin_placements(positives, negatives)
    return np.asarray(np.where(positive, of_positive[ranks], of_negative[ranks]))


def bin_placements(positives: Floats, negatives: Floats) -> tuple[Floats, Floats]:
    """Return the placements of positive and of negative rows by bin, (J,) each.

    positives, negatives  (J,) rows of each bin, in the order of the scores.
    """
    below = np.cumsum(negatives) - negatives
    above = positives.sum() - np.cumsum(positives)
    of_positive = (below + 0.5 * negatives) / negatives.sum()
    of_negative = (above + 0.5 * positives) / positives.sum()
    return np.asarray(of_positive), np.asarray(of_negative)


def curve_area(bins: LabelledBins) -> CurveArea:
    """Return the area with DeLong's standard error; NaN unless both classes have two rows."""
    p, n = bins.positive_rows, bins.negative_rows
    if min(p, n) < 2:
        return CurveArea(math.nan, math.nan, math.nan)
    of_positive, of_negative = bin_placements(bins.positives, bins.negatives)
    area = float(bins.positives @ of_positive / p)
    # The variance of the placements of each class.
    spread = bins.positives @ (of_positive - area) ** 2 / (p - 1)
    spread_n = bins.negatives @ (of_negative - area) ** 2 / (n - 1)
    variance = float(spread / p + spread_n / n)
    if area in {0.0, 1.0}:
        # Classes without an overlap show no spread, but the next row may still overlap. The error
        # is that of a share at half a row of overlap.
        near = 1.0 - 0.5 / min(p, n)
        variance = near * (1 - near) / min(p, n)
    ties = float(0.5 * (bins.positives @ bins.negatives) / (p * n))
    return CurveArea(area, math.sqrt(max(variance, 0.0)), ties)


def area_figure(bins: LabelledBins, *, binning: bool = False) -> Figure:
    """Return the area under the ROC curve with its interval.

    binning  the bins are coarser than the scores, so the interval is widened by the binning error.
    """
    for count, name in ((bins.positive_rows, "positive"), (bins.negative_rows, "negative")):
        if lacking := not_enough(count, CLASS_ROWS_NEEDED, f"{name} rows"):
            return no_figure(bins.n, lacking)
    area = curve_area(bins)
    fewer = min(bins.positive_rows, bins.negative_rows)
    low, high = _logit_interval(area.value, area.error, fewer)
    extra = area.binning_error if binning else 0.0
    return Figure(area.value, max(low - extra, 0.0), min(high + extra, 1.0), bins.n)


def _logit_interval(area: float, error: float, rows: float) -> tuple[float, float]:
    """Return the interval of an area, computed on its log-odds.

    rows  of the rarer class. Without an overlap the interval is Wilson's for that many rows.
    """
    if area in {0.0, 1.0}:
        _, low, high = wilson_figure(area * rows, rows).bounds()
        return low, high
    half = Z * error / (area * (1.0 - area))
    middle = math.log(area / (1.0 - area))
    low, high = (1.0 / (1.0 + math.exp(-(middle + sign * half))) for sign in (-1.0, 1.0))
    return low, high


def macro_area_figure(classes: list[LabelledBins], *, binning: bool = False) -> Figure:
    """Return the mean area of each class against the rest.

    classes  the bins of each class's own probability; positives are the rows of that class.

    The areas share their rows. Half the mean width of their intervals is then no less than the half
    width of the mean's, so the interval is on the safe side.
    """
    figures = [area_figure(bins, binning=binning) for bins in classes]
    if not figures:
        return no_figure(0, "not enough data: a mean over classes needs a class")
    rows = min(figure.n for figure in figures)
    if lacking := next((figure.lacking for figure in figures if not figure.known), ""):
        return no_figure(rows, lacking)
    value, low, high = np.mean([figure.bounds() for figure in figures], axis=0).tolist()
    return Figure(value, low, high, rows)
