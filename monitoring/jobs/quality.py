"""From counts of outcomes to the accuracy of one version, week and segment. No input or output.

A cohort of predictions has its scored rows by bin, and the reported outcomes among them. Where an
outcome that is never reported has not happened (a churn, a purchase), rows without a report are
negative once the cohort is final. Where it is simply not known (a survey), only reported rows
count, and the figures are of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stats.accuracy.area import area_figure, macro_area_figure
from stats.accuracy.decisions import cost_figure, decision_figures, decisions_at, top_figures
from stats.accuracy.labelled_bins import LabelledBins, bins_of_rows
from stats.accuracy.maturity import Delays, Maturity, MaturityPolicy, provisional_bins
from stats.accuracy.probabilities import (
    brier_figure,
    calibration_error_figure,
    calibration_line,
    class_loss_figure,
    log_loss_figure,
)
from stats.figure import Figure, figure_difference, no_figure, not_enough, wilson_figure

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

ALL_OUTCOMES = "of all predictions"
REPORTED_OUTCOMES = "among predictions with a reported outcome"
UNBOUNDED = {"log_loss", "calibration_slope", "calibration_intercept", "cost"}
"""Metrics that may be above 1."""
EFFECT_OF_ACTING = (
    "The difference is what acting on scores changes, and is no decay: whoever is acted on has "
    "another outcome than the score said. The holdout shows how good the version is."
)


@dataclass(frozen=True, eq=False, slots=True)
class OutcomeCohort:
    """Counts of one version, cohort and segment by bin of the score. J is the number of bins.

    scores     (J,) float64, rising probabilities that stand for the bins.
    scored     (J,) int64, all predictions.
    positives, negatives  (J,) int64, predictions with a reported outcome, by its value.
    unplaced   reported outcomes whose prediction has no bin: an id without a score, or a NaN.
    age_days   days since the end of the cohort's last day.
    """

    scores: Floats
    scored: Counts
    positives: Counts
    negatives: Counts
    age_days: int
    unplaced: int = 0


def cohort_of_columns(
    values: Floats, scored: Counts, positives: Counts, negatives: Counts, age_days: int
) -> OutcomeCohort:
    """Return the cohort of added-up cells.

    values  (J,) float64, rising: the probability that stands for each bin.
    scored, positives, negatives  columns of cells, whose first J entries are these bins. Shorter
            ones have zeros at their end. Further entries are scores that are NaN or infinite, and
            outcomes whose prediction has no score.
    """
    bins = len(values)
    counts = []
    for column in (scored, positives, negatives):
        counted = np.zeros(bins, dtype=np.int64)
        inside = column[:bins]
        counted[: len(inside)] = inside
        counts.append(counted)
    unplaced = int(positives[bins:].sum() + negatives[bins:].sum())
    return OutcomeCohort(values, counts[0], counts[1], counts[2], age_days, unplaced)


@dataclass(frozen=True, slots=True, kw_only=True)
class QualitySettings:
    """What is asked of the figures of one outcome.

    threshold  of decisions. top  numbers of rows with the highest scores; precision and recall are
    of them. false_positive, false_negative  costs of wrong decisions; None: no cost is stated.
    """

    policy: MaturityPolicy
    threshold: float = 0.5
    top: tuple[int, ...] = ()
    false_positive: float | None = None
    false_negative: float | None = None


@dataclass(frozen=True, slots=True)
class CohortQuality:
    """The figures of one cohort, and how much they can be relied on.

    figures   metric -> figure.
    coverage  the share of predictions whose outcome the figures rest on.
    basis     ALL_OUTCOMES or REPORTED_OUTCOMES.
    notes     sentences that are shown with the figures.
    """

    maturity: Maturity
    figures: Mapping[str, Figure]
    coverage: Figure
    basis: str
    notes: tuple[str, ...] = ()

    def definition(self) -> dict[str, Any]:
        """Return the figures as JSON values."""
        return {
            "maturity": str(self.maturity),
            "figures": {name: figure.definition() for name, figure in self.figures.items()},
            "coverage": self.coverage.definition(),
            "basis": self.basis,
            "notes": list(self.notes),
        }


def cohort_quality(
    cohort: OutcomeCohort, settings: QualitySettings, delays: Delays | None = None
) -> CohortQuality:
    """Return the figures of a cohort. It is provisional until horizon and grace are over.

    delays  of outcomes of earlier cohorts that are final. Without them, and with few of them, a
            provisional cohort of an outcome whose absence means "no" has no figures.
    """
    maturity = settings.policy.maturity(cohort.age_days)
    scored = int(cohort.scored.sum())
    reported = int(cohort.positives.sum() + cohort.negatives.sum())
    notes = _notes(cohort)
    if not settings.policy.absent_is_negative:
        # Only what was reported is known.
        bins = cohort_labels(cohort, settings.policy).filled()
        coverage = wilson_figure(min(reported, scored), scored, of="predictions")
        figures = binary_figures(bins, settings)
        return CohortQuality(maturity, figures, coverage, REPORTED_OUTCOMES, notes)
    bins = cohort_labels(cohort, settings.policy).filled()
    if maturity is Maturity.FINAL:
        coverage = wilson_figure(scored, scored, of="predictions")
        return CohortQuality(
            maturity, binary_figures(bins, settings), coverage, ALL_OUTCOMES, notes
        )
    # The part of the positive outcomes that is reported by now.
    part = (delays or Delays(np.zeros(0))).part_seen(cohort.age_days)
    if part.value is None or part.value <= 0.0:
        lacking = part.lacking or not_enough(0, 1, "outcomes that are due by this age")
        return CohortQuality(maturity, _no_figures(settings, scored, lacking), part, ALL_OUTCOMES)
    note = f"provisional: {part.value:.0%} of the outcomes are usually reported by this age"
    figures = _provisional_figures(bins, settings, part)
    return CohortQuality(maturity, figures, part, ALL_OUTCOMES, (note, *notes))


def cohort_labels(cohort: OutcomeCohort, policy: MaturityPolicy) -> LabelledBins:
    """Return the labels of a cohort on all its bins.

    If no report means "no", predictions without the outcome are negative. They are final when the
    cohort is. Else only reported predictions count.
    """
    negatives = cohort.negatives
    if policy.absent_is_negative:
        negatives = np.asarray(np.maximum(cohort.scored - cohort.positives, 0))
    return LabelledBins(
        cohort.scores, cohort.positives.astype(np.float64), negatives.astype(np.float64)
    )


def _notes(cohort: OutcomeCohort) -> tuple[str, ...]:
    """Return what the reader of the figures must know of their counts."""
    reported = cohort.positives + cohort.negatives
    excess = int(np.maximum(reported - cohort.scored, 0).sum())
    notes = []
    if cohort.unplaced:
        notes.append(f"{cohort.unplaced} outcomes are left out: their predictions have no score")
    if excess:
        notes.append(
            f"{excess} outcomes are of predictions that monitoring did not see: coverage of the "
            "scores is not complete"
        )
    return tuple(notes)


def _provisional_figures(
    bins: LabelledBins, settings: QualitySettings, part: Figure
) -> dict[str, Figure]:
    """Return figures of expected labels, with intervals that cover both causes of error.

    part  the share of positive outcomes that is reported by now; its ends give figures too. Each
          interval grows as if only the outcomes that are reported had been counted.
    """
    middle, low, high = part.bounds()
    found = [
        binary_figures(provisional_bins(bins, min(max(end, 1e-6), 1.0)), settings)
        for end in (middle, low, high)
    ]
    return {
        name: _hull(name, [figures[name] for figures in found], middle**-0.5) for name in found[0]
    }


def _hull(name: str, figures: list[Figure], factor: float) -> Figure:
    """Return the first figure with an interval around all intervals, each *factor* times wider."""
    first = figures[0]
    if not first.known:
        return first
    ends = [figure.bounds() for figure in figures if figure.known]
    low = min(value - (value - low) * factor for value, low, _ in ends)
    high = max(value + (high - value) * factor for value, _, high in ends)
    if name not in UNBOUNDED:
        low, high = max(low, 0.0), min(high, 1.0)
    value, _, _ = first.bounds()
    return Figure(value, min(low, value), max(high, value), first.n)


def binary_figures(bins: LabelledBins, settings: QualitySettings) -> dict[str, Figure]:
    """Return every metric of two classes; each lacks a number by its own sentence."""
    line = calibration_line(bins)
    decided = decisions_at(bins, settings.threshold)
    figures = {
        "auc": area_figure(bins, binning=True),
        "log_loss": log_loss_figure(bins),
        "brier": brier_figure(bins),
        "calibration_error": calibration_error_figure(bins),
        "calibration_slope": line.slope,
        "calibration_intercept": line.intercept,
        **decision_figures(decided),
    }
    for k in settings.top:
        for name, figure in top_figures(bins, k).items():
            figures[f"{name}_at_{k}"] = figure
    if settings.false_positive is not None and settings.false_negative is not None:
        figures["cost"] = cost_figure(
            decided,
            false_positive=settings.false_positive,
            false_negative=settings.false_negative,
        )
    return figures


def _no_figures(settings: QualitySettings, rows: int, lacking: str) -> dict[str, Figure]:
    """Return all metrics without a number."""
    empty = LabelledBins(np.zeros(0), np.zeros(0), np.zeros(0))
    return {name: no_figure(rows, lacking) for name in binary_figures(empty, settings)}


def class_figures(codes: Counts, probabilities: Floats) -> dict[str, Figure]:
    """Return accuracy, macro AUC and log loss of several classes, from rows with outcomes.

    codes  (N,) the index of each row's class. probabilities  (N, K), of which the largest decides.

    Raises ValueError for a code that is no class, and for NaN.
    """
    classes = probabilities.shape[1]
    if codes.size and not 0 <= codes.min() <= codes.max() < classes:
        raise ValueError(f"a code is the index of one of {classes} classes")
    bins = [bins_of_rows(codes == code, probabilities[:, code]) for code in range(classes)]
    right = float((probabilities.argmax(axis=1) == codes).sum()) if codes.size else 0.0
    return {
        "accuracy": wilson_figure(right, len(codes), needed=30),
        "auc": macro_area_figure(bins),
        "log_loss": class_loss_figure(bins),
    }


def compare_quality(
    quality: Mapping[str, Figure], other: Mapping[str, Figure]
) -> dict[str, Figure]:
    """Return *quality* - *other* for the metrics of both, of versions with rows of their own."""
    return {
        name: figure_difference(figure, other[name])
        for name, figure in quality.items()
        if name in other
    }


@dataclass(frozen=True, slots=True)
class HoldoutQuality:
    """Accuracy on the holdout, which nobody acts on, beside that on everybody.

    by_acting  that of the customers out of the holdout, less that of the holdout.
    explanation  a sentence that is shown with it.
    """

    holdout: CohortQuality
    everybody: CohortQuality
    by_acting: Mapping[str, Figure]
    explanation: str = EFFECT_OF_ACTING


def quality_on_holdout(
    holdout: OutcomeCohort,
    others: OutcomeCohort,
    settings: QualitySettings,
    delays: Delays | None = None,
) -> HoldoutQuality:
    """Return both accuracies.

    holdout, others  cohorts of the same days and bins, of customers in and out of the holdout.

    The difference is of the customers out of the holdout, who are independent of those in it.
    Raises ValueError if the bins differ.
    """
    if not np.array_equal(holdout.scores, others.scores):
        raise ValueError("the holdout and the others have other bins, so their counts do not add")
    everybody = OutcomeCohort(
        holdout.scores,
        holdout.scored + others.scored,
        holdout.positives + others.positives,
        holdout.negatives + others.negatives,
        min(holdout.age_days, others.age_days),
        holdout.unplaced + others.unplaced,
    )
    inside = cohort_quality(holdout, settings, delays)
    outside = cohort_quality(others, settings, delays)
    return HoldoutQuality(
        inside,
        cohort_quality(everybody, settings, delays),
        compare_quality(outside.figures, inside.figures),
    )
