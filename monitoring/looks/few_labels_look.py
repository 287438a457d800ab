"""The look at cohorts of which few rows have labels: their risk, from the scores of all rows.

It is about outcomes of which a missing report says nothing (`absent = "unknown"`), such as answers
to a survey. The figures of reported rows alone are in the look at outcomes. Here the scores of all
rows make them more exact. Final days and weeks have them by segment too, from the rows of
decisions. The look raises no alarm. An alarm could also mean that labels are not drawn at random.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monitoring.cohorts.labelled_rows import NO_DECISIONS, DayRowSource
from monitoring.cohorts.outcome_cells import (
    DAYS_A_WEEK,
    EVERYBODY,
    CohortCells,
    maturity_of,
    read_cohort,
)
from monitoring.cohorts.row_figures import SAMPLED, segment_names
from monitoring.cohorts.segment_weeks import SUNDAY
from monitoring.jobs.quality import OutcomeCohort, QualitySettings, cohort_labels
from monitoring.looks.day_looks import DayOfVersion
from monitoring.looks.harm_look import (
    has_probabilities,
    held_out_bins,
    is_learned,
    quality_settings,
    watched_outcomes,
)
from monitoring.looks.quality_look import DAILY_AGES, stored_figure
from monitoring.looks.segment_counts import count_segments
from monitoring.store.cohort_store import CohortStore
from monitoring.store.look_store import LookOutcome, StoredFigure
from stats.accuracy.few_labels import (
    FEW_LABELS,
    LABELS_NEEDED,
    LabelledLosses,
    powered_figure,
    powered_risk,
    powered_weight,
    sum_losses,
)
from stats.accuracy.harm import brier_losses
from stats.accuracy.labelled_bins import LabelledBins
from stats.estimates.calibrator import NO_CALIBRATOR, Calibrator, choose_calibrator, deal_rows
from stats.figure import Figure, no_figure, not_enough

Floats = NDArray[np.float64]
Weeks = dict[int, LabelledLosses]
"""Unix day of the Monday -> losses of a final week with few labels, oldest first."""

ALPHA = 0.025
"""Probability with which either end of a sequence of weeks is ever wrong."""
WEEKS_A_RUN = 52
"""Final weeks of one sequence. Then another one begins."""
SEGMENTS = "segments"
"""Beside the metrics in the state of an outcome: what is saved of segments."""
AT_RANDOM = "it assumes that labelled predictions are like all others, as if drawn at random"


class FewLabelsLook:
    """Estimates the risk of cohorts with few labels (DayLook)."""

    name = "few_labels"
    after_service = True

    def __init__(self, store: CohortStore, decisions: DayRowSource | None = None) -> None:
        self._store = store
        self._decisions = decisions

    def look(self, day: DayOfVersion, state: Mapping[str, Any]) -> LookOutcome:
        """Return the figures of young and final days, and of final weeks (see DayLook)."""
        states: dict[str, Any] = {}
        figures: list[StoredFigure] = []
        for name in watched_outcomes(day.policy):
            unknown = day.policy.outcomes[name].absent != "negative"
            if day.shadow or not unknown or not has_probabilities(day.facts):
                continue
            weeks = {
                metric: {monday: LabelledLosses(**week) for monday, week in saved}
                for metric, saved in state.get(name, {}).items()
                if metric != SEGMENTS
            }
            calibrator = _calibrator(day, name)
            # The weights of segments are those before this week.
            found = self._segments(day, name, calibrator, weeks, state.get(name, {}))
            figures += self._days(day, name, calibrator, weeks)
            figures += found.figures
            figures += self._final_week(day, name, calibrator, weeks)
            losses = {
                metric: [(monday, asdict(week)) for monday, week in saved.items()]
                for metric, saved in weeks.items()
            }
            states[name] = {**found.state, **losses}
        return LookOutcome(figures=tuple(figures), state=states)

    def _days(
        self,
        day: DayOfVersion,
        name: str,
        calibrator: Calibrator,
        weeks: Mapping[str, Weeks],
    ) -> Iterator[StoredFigure]:
        """Yield the figures of the day that is final now, and of younger ones."""
        final = maturity_of(day.policy.outcomes[name]).days
        ages = (age for age in range(final) if age < DAILY_AGES or not age % DAYS_A_WEEK)
        for age in (*ages, final):
            last = day.day - age
            for metric, losses in self._losses(day, name, last, last, calibrator).items():
                figure = powered_figure(losses, _weight(weeks, metric), _highest(metric))
                shown = f"{metric} {name}, estimated"
                yield _stored(day, name, shown, last, 1, figure, losses.rows, age == final)

    def _segments(
        self,
        day: DayOfVersion,
        name: str,
        calibrator: Calibrator,
        weeks: Mapping[str, Weeks],
        state: Mapping[str, Any],
    ) -> LookOutcome:
        """Return the figures of a final day and week by segment, and what is saved of the week.

        There are some if everybody has some. Their weight is everybody's, which earlier weeks have
        fixed.
        """
        # The counts of each segment; one without rows says so.
        if not day.policy.segments:
            return LookOutcome()
        counted = count_segments(self._store, self._decisions, day, name, state.get(SEGMENTS, {}))
        last = day.day - maturity_of(day.policy.outcomes[name]).days
        figures: list[StoredFigure] = []
        of_day: Mapping[str, OutcomeCohort | None] | None = counted.of_day
        if of_day is None:
            of_day = dict.fromkeys(segment_names(day.policy.segments))
        # A figure of each metric that everybody has, of the day and of the week.
        for length, cohorts in ((1, of_day), (counted.week_days, counted.of_week)):
            first = last - length + 1
            metrics = self._losses(day, name, first, last, calibrator) if cohorts else {}
            for metric in metrics:
                weight, shown = _weight(weeks, metric), f"{metric} {name}, estimated"
                for segment, cohort in cohorts.items():
                    figure, rows = no_figure(0, NO_DECISIONS), 0
                    if cohort is not None:
                        rows = int(cohort.scored.sum())
                        figure = _segment_figure(day, name, cohort, calibrator, metric, weight)
                    figures.append(
                        _stored(day, name, shown, last, length, figure, rows, True, segment)
                    )
        return LookOutcome(figures=tuple(figures), state={SEGMENTS: counted.saved})

    def _final_week(
        self,
        day: DayOfVersion,
        name: str,
        calibrator: Calibrator,
        weeks: dict[str, Weeks],
    ) -> Iterator[StoredFigure]:
        """Add the week whose last day is final now, and yield the risk of all weeks so far."""
        sunday = day.day - maturity_of(day.policy.outcomes[name]).days
        if sunday % DAYS_A_WEEK != SUNDAY:
            return
        monday = sunday - DAYS_A_WEEK + 1
        for metric, losses in self._losses(day, name, monday, sunday, calibrator).items():
            earlier = weeks.get(metric, {})
            run = (earlier if len(earlier) < WEEKS_A_RUN else {}) | {monday: losses}
            weeks[metric] = run
            figure = powered_risk([*run.values()], ALPHA, _highest(metric))
            rows = sum(week.rows for week in run.values())
            shown = f"{metric} {name}, estimated at every week"
            # Weeks with other numbers of labels may be between the first one and this.
            days = sunday - min(run) + 1
            yield _stored(day, name, shown, sunday, days, figure, rows, is_final=True)

    def _losses(
        self, day: DayOfVersion, name: str, first: int, last: int, calibrator: Calibrator
    ) -> dict[str, LabelledLosses]:
        """Return metric -> losses of a cohort with few labels; nothing of any other cohort."""
        # Its rows and labels by score bin.
        facts, outcome = day.facts, day.policy.outcomes[name]
        cells: CohortCells = read_cohort(
            self._store,
            facts.model,
            facts.version,
            (first, last),
            name,
            outcome,
            facts.bins.outputs[0],
        )
        cohort = cells.cohort(EVERYBODY, day.day - last)
        labelled = cohort_labels(cohort, maturity_of(outcome)).n
        if cells.rolled_up or labelled >= FEW_LABELS * cohort.scored.sum():
            return {}
        return _cohort_losses(day, name, cohort, calibrator) or {}


def _cohort_losses(
    day: DayOfVersion, name: str, cohort: OutcomeCohort, calibrator: Calibrator
) -> dict[str, LabelledLosses] | None:
    """Return metric -> losses of a cohort; None: it has too few labels."""
    outcome = day.policy.outcomes[name]
    scored = cohort.scored.astype(np.float64)
    labelled = cohort_labels(cohort, maturity_of(outcome))
    if labelled.n < LABELS_NEEDED:
        return None
    # Bins without a row say nothing.
    filled = (scored > 0) | (labelled.rows > 0)
    bins = LabelledBins(
        labelled.scores[filled], labelled.positives[filled], labelled.negatives[filled]
    )
    shares = calibrator.shares_at(bins.scores)
    losses = _row_losses(bins.scores, quality_settings(day.facts, outcome))
    return {
        metric: sum_losses(bins, scored[filled], each, shares) for metric, each in losses.items()
    }


def _segment_figure(
    day: DayOfVersion,
    name: str,
    cohort: OutcomeCohort,
    calibrator: Calibrator,
    metric: str,
    weight: float,
) -> Figure:
    found = _cohort_losses(day, name, cohort, calibrator)
    if found is None:
        labelled = int((cohort.positives + cohort.negatives).sum())
        return no_figure(labelled, not_enough(labelled, LABELS_NEEDED, "labelled rows"))
    return powered_figure(found[metric], weight, _highest(metric))


def _weight(weeks: Mapping[str, Weeks], metric: str) -> float:
    return powered_weight([*weeks.get(metric, {}).values()])


def _row_losses(scores: Floats, settings: QualitySettings) -> dict[str, Floats]:
    """Return metric -> (2J,) value of a positive row of each bin, then of a negative one."""
    acted = (scores >= settings.threshold).astype(np.float64)
    found = {
        "brier": brier_losses(scores),
        "accuracy": np.concatenate([acted, 1.0 - acted]),
    }
    if settings.false_positive is not None and settings.false_negative is not None:
        missed = (1.0 - acted) * settings.false_negative
        found["cost"] = np.concatenate([missed, acted * settings.false_positive])
    return found


def _highest(metric: str) -> float:
    return np.inf if metric == "cost" else 1.0


def _calibrator(day: DayOfVersion, name: str) -> Calibrator:
    """Return the map from scores to shares of the outcome that held-out rows show."""
    reference = held_out_bins(day.facts)
    if reference is None or not is_learned(day.facts, day.policy, name):
        return NO_CALIBRATOR
    # The same deal each day, so that losses of the same rows are the same.
    return choose_calibrator(reference.filled(), *deal_rows(reference.filled(), seed=0))


def _stored(
    day: DayOfVersion,
    name: str,
    shown: str,
    last: int,
    days: int,
    figure: Figure,
    rows: int,
    is_final: bool,
    segment: str = "",
) -> StoredFigure:
    basis = f"estimated from {figure.n:,} labelled of {rows:,} predictions"
    details = {
        "outcome": name,
        "maturity": "final" if is_final else "provisional",
        "basis": basis,
        "notes": [f"{basis}; {AT_RANDOM}", *([SAMPLED] if segment else [])],
    }
    return stored_figure(day, shown, last, days, figure, details, segment)
