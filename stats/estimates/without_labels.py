"""Accuracy that is expected of rows whose outcomes are not known yet.

A calibrated score says how many rows of a bin will have the outcome, so every metric follows from
expected counts (confidence-based performance estimation, CBPE, as NannyML calls it). The weighted
version calibrates on reference rows that are weighted to look like today's rows (the idea of PAPE
and M-CBPE: arXiv 2401.08348), which also holds where the score alone does not tell what changed.

Both assume that customers of one kind behave as before.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stats.accuracy.area import bin_placements
from stats.accuracy.decisions import DecisionCounts, decisions_at
from stats.accuracy.labelled_bins import (
    LabelledBins,
    bins_of_rows,
    check_probabilities,
    merge_bins,
    sum_by,
)
from stats.accuracy.probabilities import binary_losses
from stats.estimates.calibrator import Calibrator, choose_calibrator, deal_rows, fit_calibrator
from stats.estimates.shift_weights import shift_weights
from stats.figure import LEVEL, Figure, no_figure, not_enough

Floats = NDArray[np.float64]

BLIND_SPOT = (
    "It assumes that the same customers behave as before: it is blind to a changed P(y|x), so it "
    "cannot see that the outcome itself has changed."
)
ROWS_NEEDED = 300
EFFECTIVE_ROWS_NEEDED = 500
RESAMPLES = 200
DRAWN_BINS = 200
"""Bins to which the reference is merged before it is resampled."""
COHORTS_NEEDED = 8
TRACK_QUANTILE = 0.9
HALF = 0.5
METRICS = ("auc", "log_loss", "brier", "precision", "recall", "accuracy")


@dataclass(frozen=True, eq=False, slots=True)
class LiveRows:
    """Rows of today by bin of the score. Raises ValueError as LabelledBins does.

    scores  (J,) float64, rising, probabilities. rows  (J,) float64.
    """

    scores: Floats
    rows: Floats

    def __post_init__(self) -> None:
        LabelledBins(self.scores, self.rows, np.zeros(len(self.rows)))
        check_probabilities(self.scores)


@dataclass(frozen=True, eq=False, slots=True)
class ReferenceRows:
    """Labelled rows on which the version was not fitted, M of them.

    features  (M, F) float64, NaN where missing. positive  (M,) bool. scores  (M,) float64.
    """

    features: Floats
    positive: NDArray[np.bool_]
    scores: Floats


@dataclass(frozen=True, slots=True)
class ExpectedAccuracy:
    """What is expected of a version while outcomes are missing.

    figures         metric -> its estimate.
    method          "calibrated" or "weighted". calibrator  "none", "sigmoid" or "isotonic".
    effective_rows  weighted: how many reference rows of equal weight say as much; else their
                    number.
    track_record    a sentence on what the intervals rest on.
    blind_spot      a sentence that is always printed with the figures.
    """

    figures: Mapping[str, Figure]
    method: str
    calibrator: str
    effective_rows: float
    track_record: str
    blind_spot: str = BLIND_SPOT

    def definition(self) -> dict[str, Any]:
        """Return the estimate as JSON values."""
        return {
            "figures": {name: figure.definition() for name, figure in self.figures.items()},
            "method": self.method,
            "calibrator": self.calibrator,
            "effective_rows": self.effective_rows,
            "track_record": self.track_record,
            "blind_spot": self.blind_spot,
        }


PastErrors = Mapping[str, Sequence[float]]
"""Metric -> |estimate - realised| of past cohorts that are final now."""


def expect_by_calibration(
    reference: LabelledBins,
    live: LiveRows,
    *,
    threshold: float,
    seed: int,
    past: PastErrors | None = None,
) -> ExpectedAccuracy:
    """Return CBPE: the accuracy that calibrated scores expect of *live*.

    reference  labelled rows by bin, on which the version was not fitted.
    """
    if lacking := _lacking(reference.n, live):
        return _without_figures("calibrated", reference.n, lacking)
    chosen = choose_calibrator(reference, *deal_rows(reference, seed=seed))
    merged = merge_bins(reference, DRAWN_BINS)

    def draw(generator: np.random.Generator) -> LabelledBins:
        positives = generator.poisson(merged.positives).astype(np.float64)
        negatives = generator.poisson(merged.negatives).astype(np.float64)
        return LabelledBins(merged.scores, positives, negatives)

    figures = _figures(chosen, draw, live, threshold, seed, past)
    return ExpectedAccuracy(
        figures, "calibrated", chosen.kind, float(reference.n), _track_record(past)
    )


def expect_by_weights(
    reference: ReferenceRows,
    live: LiveRows,
    live_features: Floats,
    *,
    threshold: float,
    seed: int,
    past: PastErrors | None = None,
) -> ExpectedAccuracy:
    """Return the accuracy that scores calibrated for today's rows expect of *live*.

    live_features  (N, F) float64, a sample of the features of today's rows.
    """
    if lacking := _lacking(len(reference.positive), live):
        return _without_figures("weighted", len(reference.positive), lacking)
    # Weight reference rows to look like today's, and stop where none of them do.
    shift = shift_weights(reference.features, live_features)
    if lacking := not_enough(shift.effective_rows, EFFECTIVE_ROWS_NEEDED, "effective rows"):
        reason = f"not enough overlap of today's rows with the reference: {lacking}"
        return _without_figures("weighted", shift.effective_rows, reason)
    # Weighted counts are scaled to the effective rows, so that their noise is what it seems.
    weights = shift.weights * shift.effective_rows / len(shift.weights)
    knots = merge_bins(bins_of_rows(reference.positive, reference.scores, weights), DRAWN_BINS)
    edges = (knots.scores[1:] + knots.scores[:-1]) / 2
    nearest = np.searchsorted(edges, reference.scores)

    def counted(row_weights: Floats) -> LabelledBins:
        hits = sum_by(nearest, row_weights * reference.positive, len(knots.scores))
        misses = sum_by(nearest, row_weights * ~reference.positive, len(knots.scores))
        return LabelledBins(knots.scores, hits, misses)

    half = np.random.default_rng(seed).random(len(weights)) < HALF
    chosen = choose_calibrator(counted(weights), counted(weights * half), counted(weights * ~half))

    def draw(generator: np.random.Generator) -> LabelledBins:
        return counted(weights * generator.poisson(1.0, len(weights)))

    figures = _figures(chosen, draw, live, threshold, seed, past)
    return ExpectedAccuracy(
        figures, "weighted", chosen.kind, shift.effective_rows, _track_record(past)
    )


def expected_bins(live: LiveRows, calibrator: Calibrator) -> LabelledBins:
    """Return the labels that are expected of *live*: counts that need not be whole."""
    positives = live.rows * calibrator.shares_at(live.scores)
    return LabelledBins(live.scores, positives, live.rows - positives)


def metric_values(bins: LabelledBins, threshold: float) -> dict[str, float]:
    """Return METRICS of labels or expected labels; NaN where one is not defined."""
    p, n = bins.positive_rows, bins.negative_rows
    rows = p + n
    decided = decisions_at(bins, threshold)
    positive, negative = binary_losses(bins.scores)
    area = math.nan
    if p > 0 and n > 0:
        area = float(bins.positives @ bin_placements(bins.positives, bins.negatives)[0] / p)
    losses = bins.positives @ positive + bins.negatives @ negative
    squares = bins.positives @ (1 - bins.scores) ** 2 + bins.negatives @ bins.scores**2
    return {
        "auc": area,
        "log_loss": float(losses / rows) if rows else math.nan,
        "brier": float(squares / rows) if rows else math.nan,
        **_rates(decided),
    }


def _rates(decided: DecisionCounts) -> dict[str, float]:
    hits = decided.true_positives
    right = hits + decided.true_negatives
    return {
        "precision": hits / decided.selected if decided.selected else math.nan,
        "recall": hits / decided.positives if decided.positives else math.nan,
        "accuracy": right / decided.n if decided.n else math.nan,
    }


def _figures(
    chosen: Calibrator,
    draw: Callable[[np.random.Generator], LabelledBins],
    live: LiveRows,
    threshold: float,
    seed: int,
    past: PastErrors | None,
) -> dict[str, Figure]:
    """Return each metric with the interval of what the realised one will be.

    draw  returns a resample of the reference, on which the calibrator is fitted again.
    """
    values = metric_values(expected_bins(live, chosen), threshold)
    generator = np.random.default_rng((seed, 7))
    drawn: dict[str, list[float]] = {name: [] for name in METRICS}
    for _ in range(RESAMPLES):
        # The calibrator, today's rows and their labels all vary by chance.
        calibrator = fit_calibrator(chosen.kind, draw(generator))
        rows = generator.poisson(live.rows)
        hits = generator.binomial(rows, np.clip(calibrator.shares_at(live.scores), 0.0, 1.0))
        labelled = LabelledBins(
            live.scores, hits.astype(np.float64), (rows - hits).astype(np.float64)
        )
        for name, value in metric_values(labelled, threshold).items():
            drawn[name].append(value)
    n = int(live.rows.sum())
    return {name: _figure(values[name], drawn[name], n, (past or {}).get(name)) for name in METRICS}


def _figure(value: float, drawn: list[float], n: int, errors: Sequence[float] | None) -> Figure:
    """Return the estimate with the drawn interval, widened to the errors of past cohorts."""
    defined = np.array(drawn)[np.isfinite(drawn)]
    if not math.isfinite(value) or not len(defined):
        return no_figure(n, "no row is expected on one side, so the metric is not defined")
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    if errors is not None and len(errors) >= COHORTS_NEEDED:
        usual = float(np.quantile(np.abs(errors), TRACK_QUANTILE))
        low, high = min(low, value - usual), max(high, value + usual)
    return Figure(value, min(low, value), max(high, value), n)


def _track_record(past: PastErrors | None) -> str:
    cohorts = min((len(errors) for errors in (past or {}).values()), default=0)
    if lacking := not_enough(cohorts, COHORTS_NEEDED, "final cohorts"):
        return f"The interval is of chance alone; of its own past errors there is {lacking}."
    return (
        f"The interval is as wide as 90 % of its own errors on {cohorts} final cohorts, or wider."
    )


def _lacking(reference_rows: float, live: LiveRows) -> str:
    """Return what is missing of reference rows or of today's rows, or ""."""
    return not_enough(reference_rows, ROWS_NEEDED, "labelled reference rows") or not_enough(
        live.rows.sum(), ROWS_NEEDED, "rows of today"
    )


def _without_figures(method: str, effective_rows: float, reason: str) -> ExpectedAccuracy:
    figures = {name: no_figure(0, reason) for name in METRICS}
    return ExpectedAccuracy(figures, method, "none", float(effective_rows), reason)
