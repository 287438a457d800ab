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
from stats.accuracy.area import curve_area
from stats.accuracy.decisions import decisions_at
from stats.accuracy.harm import (
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


@dataclass(frozen=True, slots=True)
class ApprovedQuality:
    """What the version was approved with, on rows that it was not fitted on.

    brier  0 to 1. cost  mean cost of a row, in the currency of the settings; None: not stated.
    """

    auc: float
    brier: float
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
    bins: LabelledBins, settings: QualitySettings, approved: ApprovedQuality
) -> Mapping[str, HarmStream]:
    """Return the streams of a final cohort by name.

    bins  all rows of the cohort by bin of the score, J of them, empty bins too, so that each look
          has the same bins.

    "calibration above" and "calibration below": more, or fewer, outcomes than scores say. "brier":
    the Brier score is above the approved one by more than is allowed. "cost": so is the mean cost,
    where the settings state costs.
    """
    # Calibration on both sides, and the Brier score, are of the same counts.
    counts = np.concatenate([bins.positives, bins.negatives])
    margins = logits(bins.scores)
    streams = {
        "calibration above": HarmStream(counts, calibration_gains(margins, above=True)),
        "calibration below": HarmStream(counts, calibration_gains(margins, above=False)),
        "brier": HarmStream(
            counts, risk_gains(brier_losses(bins.scores), risk_allowed(approved.brier))
        ),
    }
    costs = settings.false_positive, settings.false_negative
    if approved.cost is not None and costs[0] is not None and costs[1] is not None:
        # Costs are scaled to 0 to 1, where the largest is 1.
        largest = max(costs[0], costs[1])
        losses = np.array([costs[0], costs[1], 0.0]) / largest
        decided = decisions_at(bins, settings.threshold)
        right = decided.true_positives + decided.true_negatives
        rows = np.array([decided.false_positives, decided.false_negatives, right])
        allowed = risk_allowed(approved.cost / largest)
        streams["cost"] = HarmStream(rows, risk_gains(losses, allowed))
    return streams


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
    return AreaLook(bound, area_fell(bound, approved.auc))
