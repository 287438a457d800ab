"""Figures that need the rows of decisions: segments, shadows, classes, and the order of calls."""

from collections.abc import Mapping

import numpy as np

from monitoring.cells.version_bins import VersionBins
from monitoring.cohorts.labelled_rows import NO_DECISIONS, LabelledDecisions, segment_masks
from monitoring.jobs.quality import (
    ALL_OUTCOMES,
    REPORTED_OUTCOMES,
    CohortQuality,
    OutcomeCohort,
    QualitySettings,
    class_figures,
    cohort_quality,
)
from registry.watching.policy import OutcomePolicy, Segmentation
from stats.accuracy.area import area_figure
from stats.accuracy.labelled_bins import bins_of_rows
from stats.accuracy.maturity import Maturity
from stats.accuracy.ranking import order_calls, order_figures
from stats.accuracy.values import sum_errors, value_figures
from stats.figure import Figure, no_figure, wilson_figure

ROW_TASKS = ("multiclass", "ranking")
"""Tasks of which cells say nothing: they have outcomes by the first output only."""
METRICS = {
    "binary": ("auc", "log_loss", "brier"),
    "multiclass": ("accuracy", "auc", "log_loss"),
    "ranking": ("ndcg", "hit_rate"),
    "regression": ("mae", "rmse", "bias"),
    "anomaly": ("auc",),
}
SAMPLED = "of the keys whose scored rows are kept"


def has_row_figures(task: str) -> bool:
    """Whether the figures of a task need the rows, and not counts by score."""
    return task in ROW_TASKS


def figures_of_rows(
    rows: LabelledDecisions | None,
    outcome: OutcomePolicy,
    bins: VersionBins,
    task: str,
    settings: QualitySettings,
) -> CohortQuality:
    """Return the figures of the rows of a final cohort by the metrics of the *task*.

    The value of an outcome of several classes is the position of its class among the outputs.
    """
    if rows is None:
        missing = {metric: no_figure(0, NO_DECISIONS) for metric in METRICS[task]}
        return _final(missing, no_figure(0, NO_DECISIONS), REPORTED_OUTCOMES)
    # Two classes by the bins of the grid, as cells have them.
    if task == "binary" and bins.outputs[0].probability:
        everybody = np.ones(len(rows), dtype=np.bool_)
        age = settings.policy.days
        cohort = rows.cohort(everybody, outcome, bins.outputs[0], age)
        quality = cohort_quality(cohort, settings)
        return CohortQuality(
            quality.maturity,
            quality.figures,
            quality.coverage,
            quality.basis,
            (*quality.notes, SAMPLED),
        )
    # Other tasks by the rows themselves.
    coverage = wilson_figure(int(rows.reported.sum()), len(rows), of="rows")
    if task == "multiclass":
        return _final(_class_figures(rows), coverage, REPORTED_OUTCOMES)
    if task == "ranking":
        return _final(_order_figures(rows, outcome), coverage, ALL_OUTCOMES)
    known = rows.reported & np.isfinite(rows.scores[:, 0])
    if task == "regression":
        predicted = rows.scores[known, 0].astype(np.float64)
        figures = value_figures(sum_errors(rows.values[known], predicted))
        return _final(figures, coverage, REPORTED_OUTCOMES)
    scores = rows.scores[known, 0].astype(np.float64)
    area = area_figure(bins_of_rows(rows.positive(outcome)[known], scores))
    return _final({"auc": area}, coverage, REPORTED_OUTCOMES)


def segment_names(segments: Mapping[str, Segmentation]) -> list[str]:
    """Return "segmentation=part" of each part that the policy names."""
    return [f"{name}={part}" for name, item in segments.items() for part in item.parts]


def segment_cohorts(
    rows: LabelledDecisions,
    outcome: OutcomePolicy,
    bins: VersionBins,
    dictionaries: Mapping[str, tuple[str, ...]],
    segments: Mapping[str, Segmentation],
    age_days: int,
) -> dict[str, OutcomeCohort]:
    """Return "segmentation=part" -> the counts of its rows, of a version of two classes."""
    masks = segment_masks(segments, bins.names, dictionaries, rows.vectors)
    return {
        name: rows.cohort(mask, outcome, bins.outputs[0], age_days) for name, mask in masks.items()
    }


def figures_of_segments(
    cohorts: Mapping[str, OutcomeCohort], settings: QualitySettings
) -> dict[str, CohortQuality]:
    """Return segment -> the figures of its counts, of a version of two classes."""
    found = {}
    for name, cohort in cohorts.items():
        quality = cohort_quality(cohort, settings)
        found[name] = CohortQuality(
            quality.maturity, quality.figures, quality.coverage, quality.basis, (SAMPLED,)
        )
    return found


def segments_without_rows(segments: Mapping[str, Segmentation]) -> dict[str, CohortQuality]:
    """Return segment -> figures that say that no rows are kept."""
    missing = {metric: no_figure(0, NO_DECISIONS) for metric in METRICS["binary"]}
    quality = _final(missing, no_figure(0, NO_DECISIONS), REPORTED_OUTCOMES)
    return dict.fromkeys(segment_names(segments), quality)


def _final(figures: Mapping[str, Figure], coverage: Figure, basis: str) -> CohortQuality:
    return CohortQuality(Maturity.FINAL, figures, coverage, basis, (SAMPLED,))


def _class_figures(rows: LabelledDecisions) -> dict[str, Figure]:
    classes = rows.scores.shape[1]
    codes = np.where(rows.reported, rows.values, -1.0)
    usable = (codes >= 0) & (codes < classes) & (codes == np.floor(codes))
    usable &= np.isfinite(rows.scores).all(axis=1)
    return class_figures(codes[usable].astype(np.int64), rows.scores[usable].astype(np.float64))


def _order_figures(rows: LabelledDecisions, outcome: OutcomePolicy) -> dict[str, Figure]:
    """Return how well the offers of each call are ordered; one without a report was not taken."""
    usable = np.isfinite(rows.scores[:, 0])
    order = np.argsort(rows.calls[usable], kind="stable")
    calls = rows.calls[usable][order]
    if not len(calls):
        missing = no_figure(0, "not enough data: 0 of 30 calls needed")
        return dict.fromkeys(METRICS["ranking"], missing)
    offsets = np.append(np.flatnonzero(np.r_[True, calls[1:] != calls[:-1]]), len(calls))
    worth = rows.positive(outcome)[usable][order].astype(np.float64)
    scores = rows.scores[usable, 0][order].astype(np.float64)
    return order_figures(order_calls(offsets.astype(np.int64), worth, scores))
