"""What became of the reports about a cohort: late ones, corrections, repetitions, and orphans.

Accuracy cannot be better than the reports that it rests on. Two shares are watched: reports that
were not counted as they came, and outcomes that are reported later than usual. Each is compared
with what it was in the first cohorts, and a growth to more than twice of it is an alarm.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from monitoring.cells.outcome_columns import OutcomeKind, outcome_column
from monitoring.cohorts.outcome_cells import DAYS_A_WEEK, EVERYBODY, CohortCells, maturity_of
from monitoring.jobs.detectors import look_at_own_share
from monitoring.store.cell_rows import sum_of_cells
from monitoring.store.cohort_store import CohortStore
from stats.accuracy.maturity import delays_of_elapsed
from stats.figure import Figure, wilson_figure

SHARES = {
    OutcomeKind.DUPLICATE: "duplicate",
    OutcomeKind.CORRECTED: "corrected",
    OutcomeKind.BEFORE_PREDICTION: "before prediction",
    OutcomeKind.FUTURE: "in the future",
    OutcomeKind.NO_NUMBER: "not a number",
}
"""What can become of a report whose prediction is known -> the first word of its figure."""
ODD = (OutcomeKind.CORRECTED, OutcomeKind.BEFORE_PREDICTION, OutcomeKind.FUTURE)
"""Reports that say that the reporter is wrong. A duplicate is harmless: callers send again."""
DELAY_MEMORY = 1.0 - 1.0 / 91
"""What a cohort's delays still weigh a day later: a quarter of a year counts."""
SILENT_EXPECTED = 50.0
"""Outcomes that scores expect of a cohort from which on none at all is no chance: e^-50."""


@dataclass(frozen=True, slots=True)
class ReportsFound:
    """What a look at the reports found.

    figures  name -> (figure, last day of its period).
    changes  stream -> the cohort's day since which it is not as it was.
    state    for the next look.
    """

    figures: Mapping[str, tuple[Figure, int]]
    changes: Mapping[str, int]
    state: Mapping[str, Any]


def look_at_reports(
    cells: CohortCells,
    store: CohortStore,
    model: str,
    version: str,
    today: int,
    cohort_day: int,
    state: Mapping[str, Any],
    limits: Mapping[str, float],
    cluster: int = 1,
) -> ReportsFound:
    """Return figures and alarms of the reports about a cohort that is final today.

    limits   "reports" and "delays" -> ln of the threshold of the detector.
    cluster  rows of one customer in a horizon, which are reported together.
    """
    # What became of the reports, as shares.
    name = cells.outcome
    events = cells.events()
    orphans = orphan_reports(store, model, name, today)
    known = sum(events.values())
    figures = {
        f"{word} {name}": (_share(events[kind], known), cohort_day) for kind, word in SHARES.items()
    }
    everything = known + sum(orphans.values())
    figures[f"orphan {name}"] = _share(orphans[OutcomeKind.ORPHAN], everything), today
    figures[f"by entity {name}"] = _share(orphans[OutcomeKind.BY_ENTITY], everything), today
    figures[f"late {name}"] = _late_figure(cells, store, model, version, cohort_day)
    # Reports that were not taken as they came, and delays, against what they were at first.
    odd = sum(events[kind] for kind in ODD) + events[OutcomeKind.NO_NUMBER]
    odd += orphans[OutcomeKind.ORPHAN]
    looked = {
        "reports": np.array([events[OutcomeKind.COUNTED], odd], dtype=np.int64),
        "delays": cells.delays()[: max(maturity_of(cells.policy).days + 2, 3)],
    }
    changes: dict[str, int] = {}
    after: dict[str, Any] = {}
    for stream, counts in looked.items():
        saved = state.get(stream)
        after[stream], since = look_at_own_share(saved, counts, cohort_day, limits[stream], cluster)
        if since is not None:
            changes[stream] = since
    # None at all, where scores expect many.
    after["silent"] = is_silent(cells)
    if after["silent"] and not state.get("silent", False):
        changes["missing"] = cohort_day
    return ReportsFound(figures, changes, after)


def faded_delays(before: Sequence[float], cells: CohortCells) -> list[float]:
    """Return the delays of earlier final cohorts, fading, and those of one more.

    Entry d has the outcomes that a cohort has at an age of d days. Reports that came when the
    cohort was final are left out, because no cohort waits for them.
    """
    days = maturity_of(cells.policy).days
    counts = delays_of_elapsed(cells.delays()[: days + 1]).counts
    known = np.array(before, dtype=np.float64)[: len(counts)]
    counts[: len(known)] += known * DELAY_MEMORY
    return [round(count, 4) for count in counts.tolist()]


def orphan_reports(store: CohortStore, model: str, name: str, day: int) -> dict[OutcomeKind, int]:
    """Return the reports of a day that belong to no prediction, by kind.

    Reports with a forged id say no model, so those of this outcome's name count for each model.
    """
    column = outcome_column(name, "events")
    found = [
        cell for owner in {model, ""} for cell in store.day_cells(owner, "", day, day, [column])
    ]
    counts = sum_of_cells(found).counts(column, len(OutcomeKind))
    return {kind: int(counts[kind]) for kind in (OutcomeKind.ORPHAN, OutcomeKind.BY_ENTITY)}


def is_silent(cells: CohortCells) -> bool:
    """Whether no outcome is reported where scores expect many and no report means "no"."""
    if cells.policy.absent != "negative" or not cells.output.probability:
        return False
    cohort = cells.cohort(EVERYBODY, 0)
    reported = int(cohort.positives.sum() + cohort.negatives.sum()) + cohort.unplaced
    return not reported and float(cohort.scores @ cohort.scored) >= SILENT_EXPECTED


def _late_figure(
    cells: CohortCells, store: CohortStore, model: str, version: str, cohort_day: int
) -> tuple[Figure, int]:
    """Return the share of outcomes that came after their cohort was final, and the cohort's day.

    The cohort is that of a week earlier, so that a week of late reports is known.
    """
    day = cohort_day - DAYS_A_WEEK
    column = outcome_column(cells.outcome, "delay_days")
    found = sum_of_cells(store.day_cells(model, version, day, day, [column])).counts(column)
    return _share(int(found[maturity_of(cells.policy).days + 1 :].sum()), int(found.sum())), day


def _share(hits: int, reports: int) -> Figure:
    return wilson_figure(hits, reports, of="reports")
