"""The look at accuracy without outcomes: what calibrated scores let expect of a day and of a week.

The labels of the version's held-out rows say how many rows of each score have the outcome. On
Sundays a second estimate weights labelled rows of production, the newest week that is final, to
look like the week's rows. Both assume that customers behave as before, and say so. The interval is
at least as wide as the errors of earlier estimates were, which are known once cohorts are final.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monitoring.cohorts.labelled_rows import (
    NO_DECISIONS,
    DayRowSource,
    read_labelled,
    sample_vectors,
)
from monitoring.cohorts.outcome_cells import (
    DAYS_A_WEEK,
    EVERYBODY,
    HOLDOUT,
    SHADOW,
    CohortCells,
    maturity_of,
    read_cohort,
)
from monitoring.cohorts.segment_weeks import SUNDAY
from monitoring.jobs.quality import cohort_labels
from monitoring.looks.day_looks import DayOfVersion
from monitoring.looks.harm_look import (
    has_probabilities,
    held_out_bins,
    is_learned,
    watched_outcomes,
)
from monitoring.store.cohort_store import CohortStore
from monitoring.store.look_store import LookOutcome, StoredFigure
from registry.watching.policy import OutcomePolicy
from stats.estimates.without_labels import (
    BLIND_SPOT,
    METRICS,
    ExpectedAccuracy,
    LiveRows,
    ReferenceRows,
    expect_by_calibration,
    expect_by_weights,
    metric_values,
)
from stats.figure import no_figure

ERRORS_REMEMBERED = 52
"""Errors of past cohorts that count for the interval."""
LABELS_NEEDED = 30
"""Rows of either class that a realised metric must rest on to be an error of an estimate."""
ROWS_MAX = 20_000
"""Labelled rows of production that are weighted, and four times as many as today's rows."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Estimated:
    """What is estimated: the outcome, and the days from the first to the last."""

    day: DayOfVersion
    name: str
    first: int

    @property
    def outcome(self) -> OutcomePolicy:
        """The policy of the outcome."""
        return self.day.policy.outcomes[self.name]

    def figures(self, expected: ExpectedAccuracy, suffix: str = "") -> list[StoredFigure]:
        """Return the figures of an estimate with what a reader must know of them."""
        details = expected.definition()
        details.pop("figures")
        return [
            StoredFigure(
                model=self.day.facts.model,
                version=self.day.facts.version,
                kind="estimate",
                name=f"{metric} {self.name}{suffix}",
                last_day=self.day.day,
                days=self.day.day - self.first + 1,
                figure=figure,
                details={"outcome": self.name, **details},
            )
            for metric, figure in expected.figures.items()
        ]


class EstimateLook:
    """Estimates the accuracy of a version on days whose outcomes are not known (DayLook).

    decisions  scored rows, for the weighted estimate; None: none are kept.
    """

    name = "estimate"
    after_service = True

    def __init__(self, store: CohortStore, decisions: DayRowSource | None = None) -> None:
        self._store = store
        self._decisions = decisions

    def look(self, day: DayOfVersion, state: Mapping[str, Any]) -> LookOutcome:
        """Return the estimates of the day, and of its week on a Sunday (see DayLook)."""
        states: dict[str, Any] = {}
        figures: list[StoredFigure] = []
        for name in watched_outcomes(day.policy):
            if is_learned(day.facts, day.policy, name):
                after = self._with_realised(day, name, state.get(name, {}))
                found, states[name] = self._estimate(day, name, after)
                figures += found
        return LookOutcome(figures=tuple(figures), state=states)

    def _estimate(
        self, day: DayOfVersion, name: str, state: Mapping[str, Any]
    ) -> tuple[list[StoredFigure], dict[str, Any]]:
        """Return the figures of the day and of its week, and the state with the day's estimate."""
        wanted = _Estimated(day, name, day.day)
        reference, past = held_out_bins(day.facts), state.get("errors", {})
        if reference is None:
            return wanted.figures(_nothing(day)), dict(state)
        # The day, by its counts. What was expected waits for the cohort to be final.
        rows = self._live_rows(wanted)
        if not rows.rows.any():
            return [], dict(state)
        expect = partial(
            expect_by_calibration,
            reference.filled(),
            threshold=day.facts.threshold,
            seed=day.day,
            past=past,
        )
        expected = expect(rows)
        figures = wanted.figures(expected)
        waiting = {**state.get("waiting", {})}
        if not day.shadow:
            values = {key: item.value for key, item in expected.figures.items() if item.known}
            waiting[str(day.day)] = values
        # The week on its Sunday, by its counts and by weighted rows.
        if day.day % DAYS_A_WEEK == SUNDAY:
            week = _Estimated(day, name, day.day - DAYS_A_WEEK + 1)
            rows = self._live_rows(week)
            figures += week.figures(expect(rows))
            figures += week.figures(self._weighted(week, rows), ", weighted")
        return figures, {**state, "waiting": waiting}

    def _live_rows(self, wanted: _Estimated) -> LiveRows:
        scope = SHADOW if wanted.day.shadow else EVERYBODY
        cohort = self._read(wanted, wanted.first, wanted.day.day).cohort(scope, 0)
        return LiveRows(cohort.scores, cohort.scored.astype(np.float64))

    def _read(self, wanted: _Estimated, first: int, last: int) -> CohortCells:
        facts = wanted.day.facts
        return read_cohort(
            self._store,
            facts.model,
            facts.version,
            (first, last),
            wanted.name,
            wanted.outcome,
            facts.bins.outputs[0],
        )

    def _weighted(self, week: _Estimated, rows: LiveRows) -> ExpectedAccuracy:
        """Return the estimate by labelled rows of production that look like those of the week."""
        day, facts = week.day, week.day.facts
        # The newest week that is final.
        final = day.day - maturity_of(week.outcome).days
        labelled = read_labelled(
            self._decisions,
            self._store,
            facts.model,
            facts.version,
            (final - DAYS_A_WEEK + 1, final),
            week.name,
            shadow=day.shadow,
        )
        if labelled is None or self._decisions is None:
            return _missing("weighted", NO_DECISIONS)
        # Rows whose outcome is known; of a holdout only, because acting changes outcomes.
        known = np.isfinite(labelled.scores[:, 0])
        known &= labelled.holdout if labelled.holdout.any() else True
        known &= True if week.outcome.absent == "negative" else labelled.reported
        rng = np.random.default_rng(day.day)
        chosen = rng.permutation(np.flatnonzero(known))[:ROWS_MAX]
        reference = ReferenceRows(
            labelled.vectors[chosen].astype(np.float64),
            labelled.positive(week.outcome)[chosen],
            labelled.scores[chosen, 0].astype(np.float64),
        )
        live = sample_vectors(
            self._decisions,
            facts.model,
            facts.version,
            (week.first, day.day),
            ROWS_MAX // 4,
            rng,
            shadow=day.shadow,
        )
        if not len(live) or not len(chosen):
            return _missing("weighted", NO_DECISIONS)
        return expect_by_weights(reference, rows, live, threshold=facts.threshold, seed=day.day)

    def _with_realised(
        self, day: DayOfVersion, name: str, state: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return the state with the errors of the estimate whose cohort is final on this day."""
        final = day.day - maturity_of(day.policy.outcomes[name]).days
        waiting = {key: item for key, item in state.get("waiting", {}).items() if int(key) > final}
        after = {**state, "waiting": waiting}
        expected = state.get("waiting", {}).get(str(final))
        if not expected or not has_probabilities(day.facts):
            return after
        # Realised is what the holdout shows, where there is one.
        wanted = _Estimated(day, name, final)
        cells = self._read(wanted, final, final)
        scope = HOLDOUT if cells.has_rows(HOLDOUT) else EVERYBODY
        bins = cohort_labels(cells.cohort(scope, day.day - final), maturity_of(wanted.outcome))
        if min(bins.positive_rows, bins.negative_rows) < LABELS_NEEDED:
            return after
        realised = metric_values(bins.filled(), day.facts.threshold)
        errors = {key: list(item) for key, item in state.get("errors", {}).items()}
        for metric, value in expected.items():
            if np.isfinite(realised[metric]):
                error = round(abs(value - realised[metric]), 6)
                errors[metric] = [*errors.get(metric, []), error][-ERRORS_REMEMBERED:]
        return {**after, "errors": errors}


def _nothing(day: DayOfVersion) -> ExpectedAccuracy:
    """Return that a version has no reference for an estimate, and why."""
    if not has_probabilities(day.facts):
        return _missing("calibrated", f"no estimate is known for the task {day.facts.task}")
    return _missing(
        "calibrated",
        f"not enough data: version {day.facts.version} has no held-out labels by score; versions "
        "that are trained from this release on have them",
    )


def _missing(method: str, reason: str) -> ExpectedAccuracy:
    figures = {metric: no_figure(0, reason) for metric in METRICS}
    return ExpectedAccuracy(figures, method, "none", 0.0, reason, BLIND_SPOT)
