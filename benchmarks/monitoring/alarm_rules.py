"""The rules that turn the person-looks of a model into alarms: Turnout's, and those of others.

Each rule gets the counts of one model and returns its alarms in the quarter after the first 14
days. The others' rules are fixed-sample rules that are looked at again every day:

    PSI > .1           Evidently and others; an empty bin has a share of .0001
    p < .05            chi^2 of two samples, for each column
    mean +- 3 sd       of the daily means of 10 reference days (NannyML)
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from benchmarks.monitoring.quiet_world import BINS, SETTLING_DAYS, STREAMS, ModelCounts
from stats.alarms.budget import (
    FEATURES,
    QUALITY,
    SCORE,
    AlarmBudget,
    Cadence,
    DetectorSettings,
    plan_budget,
)
from stats.alarms.change_test import DAILY, WEEKLY, Tolerance, histogram_gains, location_scores
from stats.alarms.shiryaev_roberts import advance, mean_evidence
from stats.alarms.weekdays import WEEKDAYS, settle_reference

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]

REFERENCE_CHUNKS = 10
EMPTY_SHARE = 0.0001
ALTERNATIVE_WEIGHTS = np.concatenate(
    [np.full(4 * BINS, 1 / (12 * BINS)), np.full(4, 1 / 12), np.full(4, 1 / 12)]
)
"""As stats.alarms.change_test.histogram_test has them, for references that are not constant."""


def version_budget(features: int, quality: tuple[str, ...]) -> AlarmBudget:
    """Return the budget of a version: score and features daily and weekly, quality by 5 minutes."""
    named = [("score", SCORE), *((f"feature {index}", FEATURES) for index in range(features))]
    return plan_budget(
        [
            DetectorSettings(name, group, cadence)
            for name, group in named
            for cadence in (Cadence.DAILY, Cadence.WEEKLY)
        ]
        + [DetectorSettings(name, QUALITY, Cadence.FIVE_MINUTES) for name in quality]
    )


@dataclass(eq=False, slots=True)
class DetectorArray:
    """The detectors of all streams of a model, looking in step."""

    log_gains: Floats
    """(STREAMS, W, G, J): the tests, by weekday or one for all."""
    log_thresholds: Floats
    """(STREAMS,) ln A."""
    log_m: Floats
    """(STREAMS, G) ln M."""

    @classmethod
    def start(
        cls, references: Counts, tolerance: Tolerance, log_thresholds: Floats
    ) -> "DetectorArray":
        """Return detectors before their first look, for (STREAMS, W, J) *references*."""
        # Weekdays that do not differ have one reference between them.
        streams, weekdays, bins = references.shape
        distinct, index = np.unique(references.reshape(-1, bins), axis=0, return_inverse=True)
        gains = histogram_gains(distinct, tolerance)[index.reshape(streams, weekdays)]
        return cls(gains, log_thresholds, np.full((streams, gains.shape[2]), -np.inf))

    def look(self, counts: Counts, weekday: int) -> NDArray[np.bool_]:
        """Look at (STREAMS, J) counts; return (STREAMS,) alarms, after which detectors restart."""
        gains = self.log_gains[:, weekday % self.log_gains.shape[1]]
        log_e = np.einsum("sgj,sj->sg", gains, counts.astype(np.float64))
        seen = counts.any(axis=1, keepdims=True)
        self.log_m = np.where(seen, advance(self.log_m, log_e), self.log_m)
        alarmed = mean_evidence(self.log_m, np.log(ALTERNATIVE_WEIGHTS)) >= self.log_thresholds
        self.log_m[alarmed] = -np.inf
        return np.asarray(alarmed)


def thresholds(budget: AlarmBudget, cadence: Cadence) -> Floats:
    """Return (STREAMS,) ln A of the features and, at the end, of the score."""
    names = [*(f"feature {index}" for index in range(STREAMS - 1)), "score"]
    return np.array([budget.detectors[name, cadence].log_threshold for name in names])


def turnout_alarms(counts: ModelCounts, budget: AlarmBudget) -> Counts:
    """Return (STREAMS,) alarms of the e-detectors in the quarter."""
    # The reference of each stream: the first 14 days, by weekday where weekdays differ.
    settling = counts.daily[:SETTLING_DAYS]
    weekdays = [day % WEEKDAYS for day in range(SETTLING_DAYS)]
    settled = [settle_reference(settling[:, stream], weekdays) for stream in range(STREAMS)]
    references = np.array(
        [[reference.of(weekday) for weekday in range(WEEKDAYS)] for reference in settled]
    )
    daily = DetectorArray.start(references, DAILY, thresholds(budget, Cadence.DAILY))
    # Weeks are compared with weeks: a customer counts once in each.
    weekly = DetectorArray.start(
        counts.weekly[: SETTLING_DAYS // WEEKDAYS].sum(axis=0)[:, None],
        WEEKLY,
        thresholds(budget, Cadence.WEEKLY),
    )
    alarms = np.zeros(STREAMS, dtype=np.int64)
    for day in range(SETTLING_DAYS, len(counts.daily)):
        alarms += daily.look(counts.daily[day], day % WEEKDAYS)
        if day % WEEKDAYS == WEEKDAYS - 1:
            alarms += weekly.look(counts.weekly[day // WEEKDAYS], 0)
    return alarms


def other_alarms(counts: ModelCounts, *, by_weekday: bool) -> dict[str, int]:
    """Return rule -> alarms in the quarter over all streams and days.

    by_weekday  each weekday is compared with its own reference days, which the rules as they are
                published do not do.
    """
    settling = counts.daily[:SETTLING_DAYS]
    watched = counts.daily[SETTLING_DAYS:]
    alarms = dict.fromkeys(("PSI > .1", "p < .05", "mean +- 3 sd"), 0)
    for weekday in range(WEEKDAYS) if by_weekday else (None,):
        chosen = slice(None) if weekday is None else slice(weekday, None, WEEKDAYS)
        reference = settling[chosen].sum(axis=0)
        live = watched[chosen]
        alarms["PSI > .1"] += int((_plain_psi(reference, live) > 0.1).sum())
        alarms["p < .05"] += int((_chi_square_p(reference, live) < 0.05).sum())
    # Two days of a weekday make no standard deviation, so this rule has one reference.
    scores = np.array([location_scores(stream) for stream in settling.sum(axis=0)])
    means = (counts.daily * scores).sum(axis=2) / np.maximum(counts.daily.sum(axis=2), 1)
    chunks = means[:REFERENCE_CHUNKS]
    middle, spread = chunks.mean(axis=0), chunks.std(axis=0, ddof=1)
    alarms["mean +- 3 sd"] = int((np.abs(means[SETTLING_DAYS:] - middle) > 3 * spread).sum())
    return alarms


def _plain_psi(reference: Counts, live: Counts) -> Floats:
    """Return the (D, STREAMS) PSI of (D, STREAMS, J) counts, without any correction."""
    # Bins that the reference does not have, such as those of a two-valued feature, are left out.
    used = reference > 0
    p = np.maximum(reference / reference.sum(axis=1, keepdims=True), EMPTY_SHARE)
    q = np.maximum(live / np.maximum(live.sum(axis=2, keepdims=True), 1), EMPTY_SHARE)
    return np.asarray((np.where(used, (q - p) * np.log(q / p), 0.0)).sum(axis=2))


def _chi_square_p(reference: Counts, live: Counts) -> Floats:
    """Return the (D, STREAMS) p-values of the two-sample chi^2 test."""
    n = reference.sum(axis=1)[None, :, None]
    m = np.maximum(live.sum(axis=2), 1)[:, :, None]
    both = reference[None] + live
    expected_live = both * m / (n + m)
    expected_reference = both * n / (n + m)
    safe = np.maximum(both, 1)
    statistic = np.where(
        both > 0,
        (live - expected_live) ** 2 / np.where(both > 0, expected_live, 1)
        + (reference[None] - expected_reference) ** 2 / np.where(both > 0, expected_reference, 1),
        0.0 * safe,
    ).sum(axis=2)
    degrees = np.maximum((both > 0).sum(axis=2) - 1, 1)
    return np.asarray(chi2.sf(statistic, degrees))
