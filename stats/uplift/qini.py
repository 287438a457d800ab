"""The Qini curve: the effect on the customers with the highest scores, and the area under it.

A score that tells whom acting changes has most of the effect among its highest scores. The area is
that between the curve and the straight line of acting on customers at random (Radcliffe, 2007), so
0 stands for a score that does not tell.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stats.figure import LEVEL, Figure, no_figure, normal_figure
from stats.uplift.effect import HoldoutBins, lacking_customers, strata, stratum_effects

Floats = NDArray[np.float64]

RESAMPLES = 1_000
CONTROLS_NEEDED_FOR_A_CURVE = 300


@dataclass(frozen=True, slots=True)
class QiniCurve:
    """The effect by share of customers, the highest scores first.

    shares   shares of customers, rising to 1; one for each stratum.
    gained   outcomes gained by acting on them, for each customer of all.
    area     between the curve and the straight line, in the same unit.
    lacking  "" or why there is no curve.
    """

    shares: tuple[float, ...]
    gained: tuple[Figure, ...]
    area: Figure
    lacking: str = ""


def qini_curve(bins: HoldoutBins, *, seed: int, resamples: int = RESAMPLES) -> QiniCurve:
    """Return the curve over at most ten strata of the score.

    Each point has the interval of its own. The area's interval is of *resamples* draws of the
    strata's effects.
    """
    n = int(bins.controls.sum() + bins.treated.sum())
    lacking = lacking_customers(bins, CONTROLS_NEEDED_FOR_A_CURVE)
    if not lacking:
        grouped = strata(bins)
        if len(grouped.scores) < 2:
            lacking = "all scores are about equal, so there is no curve over them"
    if lacking:
        return QiniCurve((), (), no_figure(n, lacking), lacking)
    # Effects of the strata, the highest scores first; they are independent of each other.
    rows = (grouped.treated + grouped.controls)[::-1]
    weights = rows / rows.sum()
    gains, variances = (column[::-1] for column in stratum_effects(grouped))
    shares = np.cumsum(weights)
    points = tuple(
        normal_figure(value, error, n)
        for value, error in zip(
            np.cumsum(gains).tolist(), np.sqrt(np.cumsum(variances)).tolist(), strict=True
        )
    )
    # Draw the effects again for the interval of the area, which is linear in them.
    draws = np.random.default_rng(seed).normal(gains, np.sqrt(variances), (resamples, len(gains)))
    areas = _areas(draws, shares)
    value = float(_areas(gains[np.newaxis], shares)[0])
    low, high = np.quantile(areas, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    area = Figure(value, min(low, value), max(high, value), n)
    return QiniCurve(tuple(shares.tolist()), points, area)


def _areas(gains: Floats, shares: Floats) -> Floats:
    """Return the areas between curves and straight lines, (R,), of gains (R, J) by stratum."""
    curve = np.concatenate([np.zeros((len(gains), 1)), np.cumsum(gains, axis=1)], axis=1)
    at = np.concatenate([[0.0], shares])
    under = ((curve[:, 1:] + curve[:, :-1]) / 2) @ np.diff(at)
    return np.asarray(under - curve[:, -1] / 2)
