"""Evidence that a version does harm: calibration, risk, and the area under the ROC curve.

Each e-value here is of the rows of cohorts that are final, and each cohort enters once. Under its
null hypothesis an e-value is 1 on average or less, so the detectors of a look may multiply them.

    calibration   H0: P(y=1 | p) <= sigmoid(logit p + tolerance). A few larger shifts bet against
                  it: E = mean over shifts of prod (q/u)^y ((1-q)/(1-u))^(1-y). Mirrored below.
                  Sequential tests of calibration: Arnold, Henzi and Ziegel (JRSS B 85, 2023).
    risk          H0: the mean loss, in 0 to 1, is at most m. E = mean over stakes of
                  prod (1 + stake (loss - m)). Podkopaev and Ramdas (ICLR 2022).
    area          weekly values with standard errors: an asymptotic confidence sequence of their
                  mean (Waudby-Smith et al., Annals of Statistics 52, 2024).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stats.accuracy.labelled_bins import LabelledBins, check_probabilities, logits
from stats.figure import Figure, no_figure, not_enough
from stats.tilt import log_sum

Floats = NDArray[np.float64]

TOLERANCE = 0.2
"""A shift of the log-odds of outcomes that is no harm."""
SHIFTS = (0.4, 0.7, 1.2)
STAKES = (0.05, 0.1, 0.2, 0.35)
RISK_MARGIN = 0.005
RISK_PART = 0.1
"""The approved risk may be exceeded by this part of it, and by RISK_MARGIN at least."""
AREA_MARGIN = 0.02
WEEKS_MAX = 13
WEEKS_NEEDED = 2


@dataclass(frozen=True, slots=True)
class CalibrationEvidence:
    """ln E that more, and that fewer, rows have the outcome than scores say."""

    log_e_above: float
    log_e_below: float


def calibration_gains(
    margins: Floats, *, above: bool, tolerance: float = TOLERANCE, shifts: Sequence[float] = SHIFTS
) -> Floats:
    """Return what a row adds to ln E of each bet, (G, 2J): positive rows by bin, then negative.

    margins  (J,) log-odds of P(positive) of each bin, as approved.
    above    against "at most *tolerance* too many rows have the outcome"; else too few.
    shifts   the G bets, log-odds on the side that is tested; each beyond *tolerance*.

    A detector of change multiplies these for each bet, and takes the mean of the bets afterwards.
    """
    if above:
        return _shift_gains(margins, tolerance, shifts)
    # Fewer outcomes are more of the absent outcome, whose log-odds have the other sign.
    absent = _shift_gains(-margins, tolerance, shifts)
    return np.roll(absent, len(margins), axis=1)


def _shift_gains(margins: Floats, edge: float, shifts: Sequence[float]) -> Floats:
    """Return the (G, 2J) log likelihood ratios of *shifts* against "at most *edge*"."""
    bets = margins + np.array(shifts)[:, np.newaxis]
    hits = _log_sigmoid(bets) - _log_sigmoid(margins + edge)
    misses = _log_sigmoid(-bets) - _log_sigmoid(-margins - edge)
    return np.concatenate([hits, misses], axis=1)


def calibration_evidence(
    bins: LabelledBins, certified: Floats | None = None
) -> CalibrationEvidence:
    """Return the evidence of the rows of one or more final cohorts.

    certified  (J,) P(positive) of each bin as approved; None: the scores themselves.

    Bins must be fine: a score may differ from its bin's by far less than TOLERANCE in log-odds.
    """
    margins = logits(bins.scores if certified is None else certified)
    counts = np.concatenate([bins.positives, bins.negatives])
    return CalibrationEvidence(
        _mean_log_e(calibration_gains(margins, above=True), counts),
        _mean_log_e(calibration_gains(margins, above=False), counts),
    )


def calibration_holds(bins: LabelledBins) -> CalibrationEvidence:
    """Return the evidence that scores are calibrated up to TOLERANCE, on either side.

    `log_e_above` is against "at least TOLERANCE too many rows have the outcome", `log_e_below`
    against "too few"; the bet is on no shift at all.
    """
    margins = logits(bins.scores)
    counts = np.concatenate([bins.positives, bins.negatives])
    fewer = calibration_gains(margins, above=False, tolerance=-TOLERANCE, shifts=(0.0,))
    more = calibration_gains(margins, above=True, tolerance=-TOLERANCE, shifts=(0.0,))
    return CalibrationEvidence(_mean_log_e(fewer, counts), _mean_log_e(more, counts))


def _mean_log_e(gains: Floats, counts: Floats) -> float:
    """Return ln of the mean over the G bets of their products over rows."""
    return log_sum((gains @ counts).tolist()) - math.log(len(gains))


def _log_sigmoid(margins: Floats) -> Floats:
    return np.asarray(-np.logaddexp(0.0, -margins))


def risk_allowed(approved: float, part: float = RISK_PART, margin: float = RISK_MARGIN) -> float:
    """Return the largest mean loss that is no harm, from the approved one in 0 to 1.

    It is above the approved loss by *part* of it, and by *margin* at least.
    """
    return approved + max(margin, part * approved)


def risk_gains(losses: Floats, mean_max: float) -> Floats:
    """Return what a row with each loss adds to ln E of each stake, (4, L).

    losses  (L,) float64, in 0 to 1. Against "the mean loss is at most *mean_max*".

    Raises ValueError for a loss outside of 0 to 1 and for a mean that is not between.
    """
    if not ((losses >= 0.0) & (losses <= 1.0)).all() or not 0.0 < mean_max < 1.0:
        raise ValueError(f"losses and the allowed mean {mean_max} lie between 0 and 1")
    return np.log1p(np.array(STAKES)[:, np.newaxis] * (losses - mean_max))


def risk_evidence(losses: Floats, rows: Floats, mean_max: float) -> float:
    """Return ln E against "the mean loss is at most *mean_max*"; *rows* (L,) have each loss."""
    return _mean_log_e(risk_gains(losses, mean_max), rows)


def brier_losses(scores: Floats) -> Floats:
    """Return the (2J,) squared distances of scores and outcomes: positive rows, then negative."""
    check_probabilities(scores)
    clipped = np.clip(scores, 0.0, 1.0)
    return np.concatenate([(1.0 - clipped) ** 2, clipped**2])


def brier_evidence(bins: LabelledBins, mean_max: float) -> float:
    """Return ln E against "the Brier score is at most *mean_max*"."""
    rows = np.concatenate([bins.positives, bins.negatives])
    return risk_evidence(brier_losses(bins.scores), rows, mean_max)


def cost_evidence(
    wrong: Sequence[float], costs: Sequence[float], right: float, mean_max: float
) -> float:
    """Return ln E against "the mean cost of a row is at most *mean_max*".

    wrong  rows of each kind of wrong decision. costs  the cost of each. right  rows without cost.
    """
    highest = max(costs)
    losses = np.array([*costs, 0.0]) / highest
    return risk_evidence(losses, np.array([*wrong, right], dtype=np.float64), mean_max / highest)


def area_bound(areas: Floats, errors: Floats, alpha: float) -> Figure:
    """Return the mean area of the last 13 final weeks with its upper end, valid at every week.

    areas, errors  (W,) area and standard error of each week, in order.
    alpha          probability with which the bound is ever exceeded by the true mean.

    The lower end is not tested and is that of the other side. Raises ValueError for NaN.
    """
    _check_sequence(areas, errors, alpha)
    areas, errors = areas[-WEEKS_MAX:], errors[-WEEKS_MAX:]
    weeks = len(areas)
    if lacking := not_enough(weeks, WEEKS_NEEDED, "final weeks"):
        return no_figure(weeks, lacking)
    half = sequence_width(float((errors**2).sum()), weeks, alpha)
    mean = float(areas.mean())
    return Figure(mean, max(mean - half, 0.0), min(mean + half, 1.0), weeks)


def area_fell(bound: Figure, approved: float, margin: float = AREA_MARGIN) -> bool:
    """Tell whether the area is below the approved one by more than *margin*, beyond doubt."""
    return bound.high is not None and bound.high < approved - margin


def sequence_width(
    variances: float, looks: int, alpha: float, typical: float | None = None
) -> float:
    """Return the half width of a one-sided asymptotic confidence sequence of a mean.

    variances  sum of the variances of the looks' values.
    looks      t, the number of looks.
    typical    variance of a look, by which r is chosen; None: the mean of these.

    It is sqrt(2 (v r^2 + 1) / (t^2 r^2) ln(1 + sqrt(v r^2 + 1) / (2 alpha))), with r such that it
    is the narrowest at WEEKS_MAX looks like these.
    """
    if looks < 1:
        return math.inf
    mean = max(variances / looks if typical is None else typical, 1e-12)
    optimum = -2.0 * math.log(2 * alpha) + math.log(1.0 - 2.0 * math.log(2 * alpha))
    squared = optimum / (WEEKS_MAX * mean)
    spread = variances * squared + 1.0
    return math.sqrt(
        2.0 * spread / (looks**2 * squared) * math.log1p(math.sqrt(spread) / (2 * alpha))
    )


def _check_sequence(values: Floats, errors: Floats, alpha: float) -> None:
    if len(values) != len(errors) or not np.isfinite([*values, *errors]).all():
        raise ValueError(
            f"{len(values)} weeks with {len(errors)} errors: each week has a finite one"
        )
    if not 0.0 < alpha < 0.25:
        raise ValueError(f"an error probability of {alpha}: it lies between 0 and .25")
