"""The outcomes of a cohort as cells have them: by score bin, by role and in the holdout.

Cells call a value above 0 positive, since they are counted before anybody reads a policy. Where all
values are 0 or 1, the policy's rule follows from that. Where they are not, and the rule is another
one, the reported values are counted again.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from host.clock import DAY_S
from monitoring.cells.cell import ROWS, CellCounts, score_column
from monitoring.cells.outcome_columns import DELAY_DAYS, OutcomeKind, outcome_column
from monitoring.cells.version_bins import OutputBins
from monitoring.decisions.parquet import SHADOW_ROLE
from monitoring.jobs.quality import OutcomeCohort, cohort_of_columns
from monitoring.store.cell_rows import StoredCell, sum_of_cells
from monitoring.store.cohort_store import CohortStore, ReportedOutcome
from monitoring.store.tables import WEEK
from protos.predict_pb2 import CANARY, FALLBACK, PINNED, PRODUCTION
from registry.watching.policy import OutcomePolicy
from stats.accuracy.maturity import MaturityPolicy
from stats.accuracy.values import ErrorSums
from stats.score_grid import bins_by_edges, score_grid_values

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

DAYS_A_WEEK = 7
ABOVE_ZERO = "> 0"
"""The rule by which cells are counted."""


class CohortScope(NamedTuple):
    """Which predictions of a cohort are meant."""

    name: str
    """Is added to the names of its figures; empty: those of everybody."""
    roles: Collection[int]
    holdout: bool | None = None
    """None: in and out of the holdout."""


EVERYBODY = CohortScope("", (PRODUCTION, CANARY, FALLBACK))
"""The predictions that the split gave to the version. A pinned call chose it by itself."""
HOLDOUT = CohortScope("holdout", EVERYBODY.roles, holdout=True)
OTHERS = CohortScope("acted on", EVERYBODY.roles, holdout=False)
"""Those out of the holdout, on whom somebody may act."""
SHADOW = CohortScope("", (SHADOW_ROLE,))
"""What a version scored as a shadow."""
BY_ROLE = (
    CohortScope("production", (PRODUCTION, FALLBACK)),
    CohortScope("canary", (CANARY,)),
    CohortScope("pinned", (PINNED,)),
)


def maturity_of(outcome: OutcomePolicy) -> MaturityPolicy:
    """Return when a cohort of an outcome is final. Times are rounded up to whole days."""
    horizon = -(-outcome.horizon_s // DAY_S)
    return MaturityPolicy(
        horizon, -(-outcome.final_s // DAY_S) - horizon, outcome.absent == "negative"
    )


@dataclass(frozen=True, eq=False, slots=True)
class CohortCells:
    """What cells have of one outcome of one version and cohort.

    cells     of the cohort's days. reports  the values themselves, where cells do not tell.
    rolled_up  a cell is of a whole week, of which the cohort is a part only.
    """

    outcome: str
    policy: OutcomePolicy
    output: OutputBins
    cells: Sequence[StoredCell]
    reports: Sequence[ReportedOutcome] | None
    days: int = 1
    """Length of the cohort."""
    rolled_up: bool = False

    def cohort(self, scope: CohortScope, age_days: int) -> OutcomeCohort:
        """Return the predictions and outcomes of *scope* by score bin.

        Scores that are no probabilities are represented by the number of their bin.
        """
        bins = len(self.output.edges) + 1
        values = score_grid_values() if self.output.probability else np.arange(bins, dtype=float)
        counts = self.counts(scope)
        positives, negatives = self._labels(scope, counts)
        scored = counts.counts(score_column(self.output.name), self.output.size)
        return cohort_of_columns(values, scored, positives, negatives, age_days)

    def counts(self, scope: CohortScope) -> CellCounts:
        """Return the added-up columns of *scope*."""
        return sum_of_cells(cell for cell in self.cells if _is_in(scope, cell))

    def has_rows(self, scope: CohortScope) -> bool:
        """Whether anything of *scope* was scored."""
        return any(_is_in(scope, cell) and cell.counts.columns for cell in self.cells)

    def delays(self) -> Counts:
        """Return the (DELAY_DAYS,) outcomes by whole days from prediction to report."""
        total = sum_of_cells(self.cells)
        return total.counts(outcome_column(self.outcome, "delay_days"), DELAY_DAYS)

    def events(self) -> dict[OutcomeKind, int]:
        """Return how many reports became each kind."""
        counts = sum_of_cells(self.cells).counts(self._column("events"), len(OutcomeKind))
        return {kind: int(counts[kind]) for kind in OutcomeKind}

    def errors(self, scope: CohortScope) -> ErrorSums:
        """Return the sums of the errors of predicted values. Fourth powers are not counted."""
        sums = self.counts(scope).columns.get(self._column("error"))
        entries = np.zeros(4)
        if sums is not None:
            entries[: len(sums)] = sums
        rows, errors, absolute, squares = entries.tolist()
        return ErrorSums(round(rows), errors, max(absolute, 0.0), max(squares, 0.0))

    def _column(self, part: str) -> str:
        return outcome_column(self.outcome, part)

    def _labels(self, scope: CohortScope, counts: CellCounts) -> tuple[Counts, Counts]:
        """Return reported predictions by score bin, by whether they are positive to the policy."""
        entries = self.output.size + 1
        if self.reports is not None:
            reports = [item for item in self.reports if _is_reported_in(scope, item)]
            return label_counts(reports, self.policy, self.output)
        # All values are 0 or 1, or the rule is that of the cells.
        above = counts.counts(self._column("positive"), entries)
        others = counts.counts(self._column("negative"), entries)
        if self.policy.positive_when == ABOVE_ZERO:
            return above, others
        one, zero = self.policy.is_positive(1.0), self.policy.is_positive(0.0)
        positives = above * one + others * zero
        return positives, above + others - positives


def read_cohort(
    store: CohortStore,
    model: str,
    version: str,
    days: tuple[int, int],
    outcome: str,
    policy: OutcomePolicy,
    output: OutputBins,
) -> CohortCells:
    """Return the cells of predictions of *days*, the first and the last Unix day."""
    prefixes = (f"outcome:{outcome}:", score_column(output.name), ROWS)
    cells = store.day_cells(model, version, *days, prefixes)
    reports = None
    if policy.positive_when != ABOVE_ZERO and _has_other_values(outcome, cells):
        reports = store.reported(model, *days, [outcome], version=version)
    length = days[1] - days[0] + 1
    rolled_up = any(cell.grain == WEEK for cell in cells) and length % DAYS_A_WEEK > 0
    return CohortCells(outcome, policy, output, cells, reports, length, rolled_up)


def label_counts(
    reports: Iterable[ReportedOutcome], policy: OutcomePolicy, output: OutputBins
) -> tuple[Counts, Counts]:
    """Return positive and negative reports by score bin; the last entry has those without one."""
    found = list(reports)
    scores = np.array(
        [np.nan if item.score is None else item.score for item in found], dtype=np.float32
    )
    bins = bins_by_edges(scores, output.edges)
    bins[[item.score is None for item in found]] = output.size
    positive = np.array([policy.is_positive(item.value) for item in found], dtype=np.bool_)
    entries = output.size + 1
    return (
        np.bincount(bins[positive], minlength=entries),
        np.bincount(bins[~positive], minlength=entries),
    )


def _has_other_values(outcome: str, cells: Iterable[StoredCell]) -> bool:
    """Whether a reported value is neither 0 nor 1."""
    return any(outcome_column(outcome, "value") in cell.counts.columns for cell in cells)


def _is_in(scope: CohortScope, cell: StoredCell) -> bool:
    return cell.key.role in scope.roles and scope.holdout in (None, cell.key.holdout)


def _is_reported_in(scope: CohortScope, report: ReportedOutcome) -> bool:
    return report.role in scope.roles and scope.holdout in (None, report.holdout)
