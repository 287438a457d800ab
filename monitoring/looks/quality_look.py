"""The look at outcomes: how good a version's scores were, cohort by cohort, and whether it harms.

A cohort is the predictions of one day (UTC), or of a week from Monday. When its horizon and grace
are over it is final: its figures are stored for good, and it enters the detectors of harm once.
Before, its figures are provisional: they say what the outcomes that are usually reported by this
age let expect. Figures of the holdout stand beside those of everybody, because acting on scores
changes outcomes; where there is a holdout, the detectors look at it.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from monitoring.cohorts.customers import rows_a_customer
from monitoring.cohorts.labelled_rows import DayRowSource, read_labelled
from monitoring.cohorts.outcome_cells import (
    BY_ROLE,
    DAYS_A_WEEK,
    EVERYBODY,
    HOLDOUT,
    OTHERS,
    SHADOW,
    CohortCells,
    maturity_of,
    read_cohort,
)
from monitoring.cohorts.report_counts import faded_delays, look_at_reports
from monitoring.cohorts.row_figures import (
    figures_of_rows,
    figures_of_segments,
    has_row_figures,
    segments_without_rows,
)
from monitoring.cohorts.segment_weeks import SUNDAY
from monitoring.jobs.grouping import MonitoringAlarm
from monitoring.jobs.quality import (
    REPORTED_OUTCOMES,
    CohortQuality,
    cohort_labels,
    cohort_quality,
    quality_on_holdout,
)
from monitoring.looks.day_looks import DayOfVersion
from monitoring.looks.harm_look import (
    alarm_details,
    budget_of_harm,
    has_probabilities,
    is_learned,
    look_for_fallen_area,
    look_for_harm,
    outcome_alarm,
    quality_settings,
    watched_outcomes,
)
from monitoring.looks.segment_counts import count_segments
from monitoring.store.cohort_store import CohortStore
from monitoring.store.look_store import LookOutcome, StoredFigure
from stats.accuracy.area import area_figure
from stats.accuracy.maturity import Delays, Maturity
from stats.accuracy.values import value_figures
from stats.alarms.budget import Cadence
from stats.figure import Figure, no_figure, wilson_figure

Details = Mapping[str, Any]

COVERED_MIN = 0.98
"""Share of the rows that cells must have where a row without a report counts as negative."""
DAILY_AGES = 14
"""Up to this age the figures of a provisional cohort are made again each day, then each week."""


@dataclass(slots=True)
class _Found:
    """What was found of one outcome so far."""

    state: dict[str, Any]
    figures: list[StoredFigure] = field(default_factory=list)
    alarms: dict[MonitoringAlarm, Details] = field(default_factory=dict)


class QualityLook:
    """Looks at the outcomes of a version's cohorts (DayLook).

    decisions  scored rows, for segments, shadows, classes and calls; None: none are kept.
    """

    name = "quality"
    after_service = True

    def __init__(self, store: CohortStore, decisions: DayRowSource | None = None) -> None:
        self._store = store
        self._decisions = decisions

    def look(self, day: DayOfVersion, state: Mapping[str, Any]) -> LookOutcome:
        """Return figures, alarms and the state after the day (see DayLook)."""
        states: dict[str, Any] = {}
        figures: list[StoredFigure] = []
        alarms: dict[MonitoringAlarm, Details] = {}
        for name in watched_outcomes(day.policy):
            found = _Found(dict(state.get(name, {})))
            if day.facts.bins.outputs:
                self._look_at_outcome(day, name, found)
            else:
                missing = no_figure(0, day.facts.bins.problem or "the version has no outputs")
                found.figures.append(stored_figure(day, f"auc {name}", day.day, 1, missing, {}))
            states[name] = found.state
            figures += found.figures
            alarms |= found.alarms
        return LookOutcome(
            figures=tuple(figures), alarms=tuple(alarms), state=states, details=alarms
        )

    def _look_at_outcome(self, day: DayOfVersion, name: str, found: _Found) -> None:
        maturity = maturity_of(day.policy.outcomes[name])
        days, final = maturity.days, day.day - maturity.days
        cells = self._read(day, name, final, final)
        # What it was on the day of the cohort counts, for it may be retired since. Outcomes of
        # shadows, classes and calls need the rows.
        shadow = not cells.has_rows(EVERYBODY) and (day.shadow or cells.has_rows(SHADOW))
        by_rows = has_row_figures(day.facts.task)
        if shadow or by_rows:
            found.figures += self._row_figures(day, name, final, shadow=shadow)
        if by_rows:
            return
        self._count_repeats(day, maturity.horizon_days, found)
        if cells.cells and not shadow:
            delays = _delays(found.state)
            # Where cells have too few rows, the rows that are kept have outcomes of their own.
            if self._decisions is not None and self._lacking(day, cells, final):
                found.figures += self._row_figures(day, name, final, shadow=False)
            else:
                found.figures += self._final_figures(day, name, final, cells, delays)
            self._look_for_harm(day, name, final, cells, found)
            self._look_at_reports(day, name, final, cells, found)
            # Later cohorts are judged by the delays of this one too.
            found.state["delays"] = faded_delays(found.state.get("delays", ()), cells)
        if not shadow:
            found.figures += self._segment_figures(day, name, cells, final, found.state)
        found.figures += self._provisional_figures(day, name, days, _delays(found.state))
        if final % DAYS_A_WEEK == SUNDAY:
            self._look_at_week(day, name, final, found)

    def _count_repeats(self, day: DayOfVersion, horizon_days: int, found: _Found) -> None:
        """Count once a week how many rows of a horizon one customer has.

        Without decisions each customer is taken to come every day.
        """
        found.state.setdefault("cluster", float(horizon_days))
        if self._decisions is None or day.day % DAYS_A_WEEK != SUNDAY:
            return
        of = day.facts.model, day.facts.version, day.day, horizon_days
        if (repeats := rows_a_customer(self._decisions, *of)) is not None:
            found.state["cluster"] = repeats

    def _read(self, day: DayOfVersion, name: str, first: int, last: int) -> CohortCells:
        facts, policy = day.facts, day.policy.outcomes[name]
        output, days = facts.bins.outputs[0], (first, last)
        return read_cohort(self._store, facts.model, facts.version, days, name, policy, output)

    def _final_figures(
        self, day: DayOfVersion, name: str, last: int, cells: CohortCells, delays: Delays
    ) -> list[StoredFigure]:
        """Return the figures of a final cohort: of everybody, by role, and of the holdout."""
        length, age = cells.days, day.day - last
        whole = self._quality(day, name, cells, age, delays)
        figures = list(_stored(day, name, last, length, whole))
        if not has_probabilities(day.facts) or self._lacking(day, cells, last):
            return figures
        # Canary and pinned calls beside production.
        settings = quality_settings(day.facts, day.policy.outcomes[name])
        roles = [scope for scope in BY_ROLE if cells.has_rows(scope)]
        for scope in roles if len(roles) > 1 else []:
            quality = cohort_quality(cells.cohort(scope, age), settings, delays)
            figures += _stored(day, name, last, length, quality, scope.name)
        # The holdout, and what acting changes.
        if cells.has_rows(HOLDOUT):
            compared = quality_on_holdout(
                cells.cohort(HOLDOUT, age), cells.cohort(OTHERS, age), settings, delays
            )
            figures += _stored(day, name, last, length, compared.holdout, HOLDOUT.name)
            note = {"outcome": name, "explanation": compared.explanation}
            for metric, figure in compared.by_acting.items():
                figures.append(
                    stored_figure(day, f"{metric} {name}, by acting", last, length, figure, note)
                )
        return figures

    def _quality(
        self, day: DayOfVersion, name: str, cells: CohortCells, age: int, delays: Delays
    ) -> CohortQuality:
        """Return the quality of everybody's predictions, by what the task allows."""
        settings = quality_settings(day.facts, day.policy.outcomes[name])
        cohort = cells.cohort(EVERYBODY, age)
        scored = int(cohort.scored.sum())
        maturity = settings.policy.maturity(age)
        lacking = self._lacking(day, cells, day.day - age)
        if has_probabilities(day.facts):
            quality = cohort_quality(cohort, settings, delays)
            missing = dict.fromkeys(quality.figures, no_figure(scored, lacking))
            none = CohortQuality(maturity, missing, no_figure(scored, lacking), quality.basis)
            return none if lacking else quality
        # Predicted values by their errors; other scores by how they order the rows.
        reported = int(cohort.positives.sum() + cohort.negatives.sum())
        coverage = wilson_figure(min(reported, scored), scored)
        if day.facts.task == "regression":
            errors = value_figures(cells.errors(EVERYBODY))
            return CohortQuality(maturity, errors, coverage, REPORTED_OUTCOMES)
        if maturity is Maturity.PROVISIONAL:
            lacking = lacking or "the outcomes are not final, and none is expected of such scores"
        bins = cohort_labels(cohort, settings.policy).filled()
        area = no_figure(scored, lacking) if lacking else area_figure(bins, binning=True)
        return CohortQuality(maturity, {"auc": area}, coverage, REPORTED_OUTCOMES)

    def _lacking(self, day: DayOfVersion, cells: CohortCells, last: int) -> str:
        """Return why no figure of these cells would be true, or ""."""
        if cells.rolled_up:
            return "the counts of these days were rolled up to weeks, which have other days too"
        if cells.policy.absent != "negative":
            return ""
        first = last - cells.days + 1
        share = self._store.counted_share(day.facts.model, day.facts.version, first, last)
        if share is not None and share < COVERED_MIN:
            return (
                f"{share:.0%} of the rows were counted, and outcomes of all of them are reported, "
                "so nothing follows from rows without a report; journal all keys (journal_sampled)"
            )
        return ""

    def _look_for_harm(
        self, day: DayOfVersion, name: str, final: int, cells: CohortCells, found: _Found
    ) -> None:
        """Let a final cohort enter the detectors: the holdout's part where there is a holdout."""
        outcome = day.policy.outcomes[name]
        if not has_probabilities(day.facts) or not is_learned(day.facts, day.policy, name):
            return
        if self._lacking(day, cells, final):
            return
        found.state["holdout"] = found.state.get("holdout", False) or cells.has_rows(HOLDOUT)
        scope = HOLDOUT if found.state["holdout"] else EVERYBODY
        # Without any report the reporter is broken, and the look at reports says so.
        everybody = cells.cohort(EVERYBODY, day.day - final)
        if not int(everybody.positives.sum() + everybody.negatives.sum()):
            return
        bins = cohort_labels(cells.cohort(scope, day.day - final), maturity_of(outcome))
        saved = found.state.get("harm", {})
        cluster = found.state["cluster"]
        harm = look_for_harm(day, name, final, bins, saved, found.figures, cluster)
        found.alarms |= harm.alarms
        found.state["harm"] = harm.state

    def _look_at_reports(
        self, day: DayOfVersion, name: str, final: int, cells: CohortCells, found: _Found
    ) -> None:
        """Add the figures of the reports about a final cohort, and their alarms."""
        facts, budget = day.facts, budget_of_harm(day.facts, day.policy)
        limits = {
            stream: budget[f"{stream} {name}", Cadence.DAILY].log_threshold
            for stream in ("reports", "delays")
        }
        saved = found.state.get("reports", {})
        reports = look_at_reports(
            cells,
            self._store,
            facts.model,
            facts.version,
            day.day,
            final,
            saved,
            limits,
            math.ceil(found.state["cluster"]),
        )
        found.state["reports"] = reports.state
        figures = [
            stored_figure(day, shown, last, 1, figure, {"outcome": name})
            for shown, (figure, last) in reports.figures.items()
        ]
        found.figures += figures
        for stream, since in reports.changes.items():
            alarm = outcome_alarm(day, f"{stream} {name}", since)
            found.alarms[alarm] = alarm_details(name, final, figures)

    def _look_at_week(self, day: DayOfVersion, name: str, sunday: int, found: _Found) -> None:
        """Return the figures of the final week that ends on *sunday*, and look at its area."""
        cells = self._read(day, name, sunday - DAYS_A_WEEK + 1, sunday)
        if not cells.has_rows(EVERYBODY):
            return
        figures = self._final_figures(day, name, sunday, cells, _delays(found.state))
        found.figures += figures
        usable = has_probabilities(day.facts) and is_learned(day.facts, day.policy, name)
        if not usable or self._lacking(day, cells, sunday):
            return
        scope = HOLDOUT if found.state.get("holdout") else EVERYBODY
        policy = maturity_of(day.policy.outcomes[name])
        bins = cohort_labels(cells.cohort(scope, policy.days), policy).filled()
        saved = found.state.get("area", {})
        cluster = found.state["cluster"]
        area = look_for_fallen_area(day, name, sunday, bins, saved, figures, cluster)
        found.alarms |= area.alarms
        found.state["area"] = area.state

    def _provisional_figures(
        self, day: DayOfVersion, name: str, days: int, delays: Delays
    ) -> list[StoredFigure]:
        """Return the figures of the cohorts that are not final yet."""
        figures: list[StoredFigure] = []
        for age in range(days):
            if age >= DAILY_AGES and age % DAYS_A_WEEK:
                continue
            cells = self._read(day, name, day.day - age, day.day - age)
            if cells.has_rows(EVERYBODY):
                quality = self._quality(day, name, cells, age, delays)
                figures += _stored(day, name, day.day - age, 1, quality)
        return figures

    def _segment_figures(
        self, day: DayOfVersion, name: str, cells: CohortCells, final: int, state: dict[str, Any]
    ) -> Iterator[StoredFigure]:
        """Yield the figures of a final day and week by segment, of the rows of decisions."""
        if not day.policy.segments or not has_probabilities(day.facts):
            return
        source = self._decisions if cells.cells else None
        counted = count_segments(self._store, source, day, name, state.get("segments", {}))
        state["segments"] = counted.saved
        settings = quality_settings(day.facts, day.policy.outcomes[name])
        found = figures_of_segments(counted.of_day or {}, settings)
        if cells.cells and counted.of_day is None:
            found = segments_without_rows(day.policy.segments)
        weekly = figures_of_segments(counted.of_week, settings)
        for days, figures in ((1, found), (counted.week_days, weekly)):
            for segment, quality in figures.items():
                yield from _stored(day, name, final, days, quality, segment=segment)

    def _row_figures(
        self, day: DayOfVersion, name: str, final: int, *, shadow: bool
    ) -> list[StoredFigure]:
        """Return the figures of a final day that need the rows of decisions."""
        facts, outcome = day.facts, day.policy.outcomes[name]
        of = facts.model, facts.version, (final, final), name
        rows = read_labelled(self._decisions, self._store, *of, shadow=shadow)
        settings = quality_settings(facts, outcome)
        quality = figures_of_rows(rows, outcome, facts.bins, facts.task, settings)
        return list(_stored(day, name, final, 1, quality))


def _delays(state: Mapping[str, Any]) -> Delays:
    return Delays(np.array(state.get("delays", ()), dtype=np.float64))


def _stored(
    day: DayOfVersion,
    name: str,
    last: int,
    days: int,
    quality: CohortQuality,
    scope: str = "",
    segment: str = "",
) -> Iterator[StoredFigure]:
    """Yield the figures of a cohort with what a reader must know of them."""
    details = {
        "outcome": name,
        "maturity": str(quality.maturity),
        "basis": quality.basis,
        "coverage": quality.coverage.definition(),
        "notes": list(quality.notes),
    }
    for metric, figure in quality.figures.items():
        shown = f"{metric} {name}{', ' if scope else ''}{scope}"
        yield stored_figure(day, shown, last, days, figure, details, segment)


def stored_figure(
    day: DayOfVersion,
    shown: str,
    last: int,
    days: int,
    figure: Figure,
    details: Details,
    segment: str = "",
) -> StoredFigure:
    """Return a figure of quality as the store keeps it, under the name that is *shown*."""
    return StoredFigure(
        model=day.facts.model,
        version=day.facts.version,
        kind="quality",
        name=shown,
        last_day=last,
        days=days,
        figure=figure,
        segment=segment,
        details=details,
    )
