"""How good decisions are: at the threshold, among the k highest scores, and in money.

Rows are decided at the threshold of their version when they are scored, so the counts of decisions
come with the rows; a threshold inside a bin would split it.
"""

import math
from dataclasses import dataclass

import numpy as np

from stats.accuracy.labelled_bins import LabelledBins
from stats.accuracy.probabilities import ROWS_NEEDED
from stats.figure import Figure, no_figure, normal_figure, not_enough, wilson_figure


@dataclass(frozen=True, slots=True)
class DecisionCounts:
    """Rows by decision and outcome. Raises ValueError for a count that is negative or NaN."""

    true_positives: float
    false_positives: float
    false_negatives: float
    true_negatives: float

    def __post_init__(self) -> None:
        counts = (
            self.true_positives,
            self.false_positives,
            self.false_negatives,
            self.true_negatives,
        )
        if not all(math.isfinite(count) and count >= 0 for count in counts):
            raise ValueError(f"{self}: counts of rows are finite and not negative")

    @property
    def n(self) -> float:
        """All rows, decided either way."""
        return self.selected + self.false_negatives + self.true_negatives

    @property
    def selected(self) -> float:
        """Rows at or above the threshold."""
        return self.true_positives + self.false_positives

    @property
    def positives(self) -> float:
        """Rows with the outcome."""
        return self.true_positives + self.false_negatives


def decisions_at(bins: LabelledBins, threshold: float) -> DecisionCounts:
    """Return the decisions of bins whose score is at or above *threshold*.

    It is exact for rows. A bin that contains the threshold goes to one side as a block.
    """
    above = bins.scores >= threshold
    return DecisionCounts(
        float(bins.positives[above].sum()),
        float(bins.negatives[above].sum()),
        float(bins.positives[~above].sum()),
        float(bins.negatives[~above].sum()),
    )


def top_decisions(bins: LabelledBins, k: int) -> DecisionCounts:
    """Return the decisions if the *k* rows with the highest scores are selected.

    Of a bin that does not fit, a part of each class is selected: the mean over random orders of its
    rows. Raises ValueError unless 1 <= k.
    """
    if k < 1:
        raise ValueError(f"k = {k}: at least one row is selected")
    rows = bins.rows[::-1]
    before = np.cumsum(rows) - rows
    with np.errstate(invalid="ignore", divide="ignore"):
        part = np.where(rows > 0, np.clip((k - before) / rows, 0.0, 1.0), 0.0)[::-1]
    hits, alarms = float(part @ bins.positives), float(part @ bins.negatives)
    return DecisionCounts(
        hits,
        alarms,
        max(bins.positive_rows - hits, 0.0),
        max(bins.negative_rows - alarms, 0.0),
    )


def decision_figures(counts: DecisionCounts) -> dict[str, Figure]:
    """Return precision, recall, accuracy and selection rate with Wilson's intervals."""
    right = counts.true_positives + counts.true_negatives
    return {
        "precision": wilson_figure(
            counts.true_positives, counts.selected, needed=ROWS_NEEDED, of="selected rows"
        ),
        "recall": wilson_figure(
            counts.true_positives, counts.positives, needed=ROWS_NEEDED, of="positive rows"
        ),
        "accuracy": wilson_figure(right, counts.n, needed=ROWS_NEEDED),
        "selection_rate": wilson_figure(counts.selected, counts.n, needed=ROWS_NEEDED),
    }


def top_figures(bins: LabelledBins, k: int) -> dict[str, Figure]:
    """Return precision and recall among the *k* rows with the highest scores."""
    if lacking := not_enough(bins.n, max(k, ROWS_NEEDED)):
        missing = no_figure(bins.n, lacking)
        return {"precision": missing, "recall": missing}
    figures = decision_figures(top_decisions(bins, k))
    return {name: figures[name] for name in ("precision", "recall")}


def cost_figure(counts: DecisionCounts, *, false_positive: float, false_negative: float) -> Figure:
    """Return the mean cost of a row, with a normal interval.

    false_positive, false_negative  cost of each wrong decision, in one currency, at least 0.
    """
    if not (false_positive >= 0 and false_negative >= 0):
        raise ValueError(f"costs {false_positive} and {false_negative}: a cost is not negative")
    n = counts.n
    if lacking := not_enough(n, ROWS_NEEDED):
        return no_figure(int(n), lacking)
    total = counts.false_positives * false_positive + counts.false_negatives * false_negative
    squares = counts.false_positives * false_positive**2
    squares += counts.false_negatives * false_negative**2
    mean = total / n
    error = math.sqrt(max(squares / n - mean * mean, 0.0) / (n - 1))
    return normal_figure(mean, error, int(n), lowest=0.0)
