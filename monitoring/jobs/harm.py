"""What a final cohort says about harm: streams for the detectors of calibration and risk.

A stream is a vector of counts and what each count adds to the evidence of each bet. Detectors of
change multiply it look by look, within the budget of false alarms. A cohort enters once, when it is
final.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monitoring.jobs.quality import QualitySettings
from registry.watching.policy import HarmThresholds
from stats.accuracy.area import curve_area
from stats.accuracy.decisions import decisions_at
from stats.accuracy.harm import (
    SHIFTS,
    TOLERANCE,
    area_bound,
    area_fell,
    brier_losses,
    calibration_gains,
    risk_allowed,
    risk_gains,
)
from stats.accuracy.labelled_bins import LabelledBins, logits
from stats.figure import Figure
from stats.tilt import log_sum

Floats = NDArray[np.float64]

LOSS_MEAN_MAX = 0.999
"""Above it no mean of losses from 0 to 1 is tested: every one is allowed."""


@dataclass(frozen=True, slots=True)
class ApprovedQuality:
    """What the version was approved with, on rows that it was not fitted on. None: it is not known.

    brier  0 to 1. cost  mean cost of a row, in the currency of the settings.
    """

    auc: float | None = None
    brier: float | None = None
    cost: float | None = None


@dataclass(frozen=True, eq=False, slots=True)
class HarmStream:
    """Counts of one look and ln of what each adds to the evidence of each bet.

    counts  (L,) float64. log_gains  (G, L) float64.
    """

    counts: Floats
    log_gains: Floats

    @property
    def log_e(self) -> float:
        """Ln E of this look alone: the mean over the bets."""
        return log_sum((self.log_gains @ self.counts).tolist()) - math.log(len(self.log_gains))


def harm_streams(
    bins: LabelledBins,
    settings: QualitySettings,
    approved: ApprovedQuality,
    harm: HarmThresholds | None = None,
) -> Mapping[str, HarmStream]:
    """Return the streams of a final cohort by name.

    bins  all rows of the cohort by bin of the score, J of them, empty bins too, so that each look
          has the same bins.
    harm  changes that are no harm, by the policy; None: the defaults.

    "calibration above" and "calibration below": more, or fewer, outcomes than scores say. "brier":
    the Brier score is above the approved one by more than is allowed. "cost": so is the mean cost,
    where the settings state costs. What was not approved with a number has no stream.
    """
    harm = harm or HarmThresholds()
    # Calibration on both sides, and the Brier score, are of the same counts.
    counts = np.concatenate([bins.positives, bins.negatives])
    margins = logits(bins.scores)
    streams = {
        f"calibration {side}": HarmStream(
            counts, _shift_gains(margins, harm.calibration_logit, above=side == "above")
        )
        for side in ("above", "below")
    }
    if approved.brier is not None:
        allowed = _allowed(approved.brier, harm)
        streams["brier"] = HarmStream(counts, risk_gains(brier_losses(bins.scores), allowed))
    costs = settings.false_positive, settings.false_negative
    if approved.cost is not None and costs[0] is not None and costs[1] is not None:
        # Costs are scaled to 0 to 1, where the largest is 1.
        largest = max(costs[0], costs[1])
        losses = np.array([costs[0], costs[1], 0.0]) / largest
        decided = decisions_at(bins, settings.threshold)
        right = decided.true_positives + decided.true_negatives
        rows = np.array([decided.false_positives, decided.false_negatives, right])
        streams["cost"] = HarmStream(
            rows, risk_gains(losses, _allowed(approved.cost / largest, harm))
        )
    return streams


def _shift_gains(margins: Floats, tolerance: float, *, above: bool) -> Floats:
    """Return the gains of bets that lie as far beyond the tolerance as by default."""
    shifts = [shift * tolerance / TOLERANCE for shift in SHIFTS]
    return calibration_gains(margins, above=above, tolerance=tolerance, shifts=shifts)


def _allowed(approved: float, harm: HarmThresholds) -> float:
    """Return the largest mean loss that is no harm, below 1."""
    return min(risk_allowed(approved, harm.risk_share, harm.risk_floor), LOSS_MEAN_MAX)


@dataclass(frozen=True, slots=True)
class AreaLook:
    """The mean area of the last final weeks, with an end that is valid at every week."""

    bound: Figure
    fell: bool


def look_at_area(
    weeks: Sequence[LabelledBins], approved: ApprovedQuality, alpha: float
) -> AreaLook:
    """Return whether the area under the ROC curve fell below the approved one, beyond doubt.

    weeks  the labelled rows of each final week, in order. Weeks without two rows of both classes
           are left out.
    alpha  the part of the budget that one quarter may spend on it.
    """
    areas = [curve_area(week) for week in weeks]
    known = [area for area in areas if not math.isnan(area.value)]
    bound = area_bound(
        np.array([area.value for area in known]), np.array([area.error for area in known]), alpha
    )
    return AreaLook(bound, approved.auc is not None and area_fell(bound, approved.auc))
