"""The parity certificate compares a library and its ONNX graph on held-out rows and edge rows."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from registry.golden import ScoreTolerance

PROBABILITIES = ScoreTolerance(1e-5, 0.0)
"""How far probabilities may differ."""


@dataclass(frozen=True, slots=True)
class ParityCertificate:
    """The result of a comparison of scores, (N, K) on each side.

    difference_allowed  absolute part of the allowed difference.
    relative_allowed    share of the library's score that the difference may have beside it.
    difference_max      largest difference; infinite if one side is NaN and the other is not.
    rows_over_limit     number of rows with more than the allowed difference in a score.
    decisions_changed   number of rows with another decision: at the threshold, or, of several
                        outputs, another largest one. Scores very near to the threshold may change
                        it within the allowed difference.
    worst_row           index of the row with the largest difference; held-out rows come first.
    without_truth       whether the learner has no scores but those of the graph, so that nothing
                        was compared.
    """

    held_out_rows: int
    edge_rows: int
    difference_allowed: float
    difference_max: float
    rows_over_limit: int
    decisions_changed: int
    worst_row: int
    relative_allowed: float = 0.0
    without_truth: bool = False

    @property
    def passed(self) -> bool:
        """True if every row is within the allowed difference."""
        return self.rows_over_limit == 0

    def definition(self) -> dict[str, Any]:
        """Return the certificate as JSON values for the card. An infinite difference is null."""
        return {
            "held_out_rows": self.held_out_rows,
            "edge_rows": self.edge_rows,
            "difference_allowed": self.difference_allowed,
            "difference_max": self.difference_max if np.isfinite(self.difference_max) else None,
            # The keys are part of every card that was written, so they keep their names.
            "rows_apart": self.rows_over_limit,
            "decisions_apart": self.decisions_changed,
            "passed": self.passed and not self.without_truth,
            **({"without_truth": True} if self.without_truth else {}),
            **({"relative_allowed": self.relative_allowed} if self.relative_allowed else {}),
        }


def certify_parity(
    fitted: NDArray[np.float64],
    converted: NDArray[np.float32],
    *,
    held_out_rows: int,
    threshold: float,
    tolerance: ScoreTolerance = PROBABILITIES,
    truth_by: str = "scikit-learn",
) -> ParityCertificate:
    """Compare the scores of the same rows by the library and by ONNX Runtime.

    fitted         (N, K) by the library.
    converted      (N, K) by ONNX Runtime.
    held_out_rows  number of held-out rows, which come first. The others are edge rows.
    threshold      decision threshold of a single output.
    truth_by       the library; "" if *fitted* is of the graph itself.
    """
    # NaN on both sides is equal, and NaN on one side is an infinite difference.
    differences = np.abs(fitted - converted)
    differences[np.isnan(fitted) & np.isnan(converted)] = 0.0
    differences[np.isnan(differences)] = np.inf
    # A decision may change within the allowed difference.
    allowed = tolerance.absolute + tolerance.relative * np.abs(np.nan_to_num(fitted))
    worst = int(np.argmax(differences.max(axis=1)))
    changed = _decisions(fitted, threshold) != _decisions(converted, threshold)
    return ParityCertificate(
        held_out_rows=held_out_rows,
        edge_rows=len(fitted) - held_out_rows,
        difference_allowed=tolerance.absolute,
        difference_max=float(differences[worst].max()),
        rows_over_limit=int((differences > allowed).any(axis=1).sum()),
        decisions_changed=int(changed.sum()),
        worst_row=worst,
        relative_allowed=tolerance.relative,
        without_truth=not truth_by,
    )


def _decisions(scores: NDArray[Any], threshold: float) -> NDArray[Any]:
    """Return (N,) decisions of (N, K) scores: above the threshold, or which one is the largest."""
    decisions: NDArray[Any] = (
        scores[:, 0] >= threshold if scores.shape[1] == 1 else scores.argmax(axis=1)
    )
    return decisions
